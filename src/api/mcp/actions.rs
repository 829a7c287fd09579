//! Actions of enabled plugins as tools of their own, called `PLUGIN__ACTION`.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Map, Value, json};

use crate::api::mcp::Server;
use crate::api::operations::{Caller, encoded, reach};
use crate::orchestrator::Orchestrator;
use crate::wire::Problem;

/// Between the names of plugin and action; no tool of the daemon's own has it.
const SEPARATOR: &str = "__";
/// Characters of a tool's name; hosts take no longer ones.
const NAME_LEN_MAX: usize = 64;
/// Tools of actions that are listed; a model can choose from no more, and REST has them all.
const COUNT_MAX: usize = 256;

/// An action of a plugin.
#[derive(Debug)]
pub struct Named {
    plugin: String,
    action: String,
}

fn object(value: Value) -> Arc<JsonObject> {
    Arc::new(if let Value::Object(object) = value { object } else { Map::new() })
}

/// Hosts take letters, digits, `-` and `_`.
fn name_of(plugin: &str, action: &str) -> Option<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = format!("{plugin}{SEPARATOR}{action}").chars().map(plain).collect();
    (name.len() <= NAME_LEN_MAX).then_some(name)
}

/// All of them, as the plugins are now.
pub fn all(orchestrator: &Orchestrator) -> Vec<Tool> {
    let mut tools: Vec<Tool> = Vec::new();
    for plugin in orchestrator.list_plugins().iter().filter(|plugin| plugin.enabled) {
        let current = plugin.versions.iter().find(|known| known.version == plugin.current);
        for (action, described) in current.iter().flat_map(|known| &known.manifest.actions) {
            let name = name_of(plugin.name.as_str(), action);
            let name = name.filter(|name| tools.iter().all(|tool| tool.name != *name));
            tools.extend(name.map(|name| {
                let title = format!("{action} of {}", plugin.name);
                tool(name, &title, &described.description, described.input.as_ref())
            }));
        }
    }
    tools.truncate(COUNT_MAX);
    tools
}

fn tool(name: String, title: &str, description: &str, input: Option<&JsonObject>) -> Tool {
    let mut payload = input.cloned().unwrap_or_default();
    payload.entry("description").or_insert_with(|| json!("JSON for the action."));
    let input = json!({
        "type": "object",
        "properties": {
            "vm": { "type": "string", "description": "Name of the VM; the least busy one of the plugin if absent." },
            "payload": payload,
        },
        "additionalProperties": false,
    });
    let output = json!({
        "type": "object",
        "properties": {
            "vm": { "type": "string", "description": "The VM that has answered." },
            "status": { "type": "integer", "description": "HTTP status of its answer." },
            "content": { "type": "string", "description": "The answer." },
            "encoding": { "enum": ["utf-8", "base64"] },
            "truncated": { "type": "boolean", "description": "Only the beginning is here." },
        },
        "required": ["vm", "status", "content", "encoding", "truncated"],
    });
    // What a plugin does is its own: the careful hints.
    let annotations = ToolAnnotations::with_title(title)
        .read_only(false)
        .destructive(true)
        .idempotent(false)
        .open_world(true);
    let description = if description.is_empty() { title } else { description };
    Tool::new(name, description.to_owned(), object(input))
        .with_title(title)
        .with_raw_output_schema(object(output))
        .with_annotations(annotations)
}

fn invalid(detail: String) -> Box<Problem> {
    Box::new(Problem::new(422, "Unprocessable Entity", "invalid_arguments", detail, None))
}

/// The action of a tool's name.
pub fn find(orchestrator: &Orchestrator, name: &str) -> Option<Named> {
    let plugins = orchestrator.list_plugins();
    plugins.iter().filter(|plugin| plugin.enabled).find_map(|plugin| {
        let current = plugin.versions.iter().find(|known| known.version == plugin.current)?;
        let mut actions = current.manifest.actions.keys();
        let action = actions.find(|action| {
            name_of(plugin.name.as_str(), action).is_some_and(|known| known == name)
        })?;
        Some(Named { plugin: plugin.name.to_string(), action: action.clone() })
    })
}

/// Calls it, as the caller may.
///
/// # Errors
/// The daemon's problem; what the guest answers is none, whatever its status.
pub async fn call(
    server: &Server,
    action: &Named,
    arguments: &Map<String, Value>,
    caller: Caller,
) -> Result<Map<String, Value>, Box<Problem>> {
    let (plugin, action) = (encoded(&action.plugin), encoded(&action.action));
    if let Some(name) = arguments.keys().find(|name| !["vm", "payload"].contains(&name.as_str())) {
        return Err(invalid(format!("{name}: there is no such argument")));
    }
    let path = match arguments.get("vm") {
        None | Some(Value::Null) => format!("/api/v1/plugins/{plugin}/actions/{action}"),
        Some(Value::String(vm)) => {
            format!("/api/v1/vms/{}/actions/{plugin}/{action}", encoded(vm))
        }
        Some(_) => return Err(invalid("vm: a string is needed".to_owned())),
    };
    reach(server.routes.clone(), path, arguments.get("payload"), caller).await
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn names_are_such_as_hosts_take() {
        assert_eq!(name_of("web", "render").as_deref(), Some("web__render"));
        assert_eq!(name_of("a.b", "c d").as_deref(), Some("a_b__c_d"));
        assert_eq!(name_of(&"a".repeat(60), "render"), None);
    }
}
