//! VMs, their logs and consoles, and the API's description as resources.

use axum::Router;
use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::{Map, Value, json};

use crate::api::openapi;
use crate::api::operations::{self, Call, Caller, call};
use crate::orchestrator::Orchestrator;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
/// VMs listed one by one; the templates reach the rest.
const VMS_MAX: usize = 200;

/// What there is now.
pub fn all(orchestrator: &Orchestrator) -> Vec<Resource> {
    let fleet = Resource::new("volant://vms", "vms")
        .with_title("All VMs")
        .with_description("All VMs as JSON.")
        .with_mime_type(JSON);
    let api = Resource::new("volant://openapi.json", "openapi")
        .with_title("The REST API")
        .with_description("The REST API as OpenAPI 3.1.")
        .with_mime_type(JSON);
    let vms = orchestrator.list();
    let vms = vms.iter().take(VMS_MAX).map(|vm| {
        Resource::new(format!("volant://vms/{}", vm.name), vm.name.to_string())
            .with_title(format!("VM {}", vm.name))
            .with_description("State, addresses, sizes and the latest start of the VM.")
            .with_mime_type(JSON)
    });
    [fleet, api].into_iter().chain(vms).collect()
}

/// What can be asked for.
pub fn templates() -> Vec<ResourceTemplate> {
    let template = |uri: &str, name: &str, title: &str, kind: &str| {
        let template = ResourceTemplate::new(uri, name).with_title(title).with_description(title);
        template.with_mime_type(kind)
    };
    vec![
        template("volant://vms/{name}", "vm", "A VM", JSON),
        template("volant://vms/{name}/logs{?tail}", "vm-logs", "What a VM's workload wrote", TEXT),
        template("volant://vms/{name}/console{?tail}", "vm-console", "A VM's serial console", TEXT),
    ]
}

/// `resources/read`.
///
/// # Errors
/// There is no such resource, or it cannot be read now.
pub async fn read(
    routes: &Router,
    uri: &str,
    caller: Caller,
) -> Result<ReadResourceResult, ErrorData> {
    let unknown =
        || ErrorData::resource_not_found(format!("there is no {uri}"), Some(json!({ "uri": uri })));
    if uri == "volant://openapi.json" {
        return Ok(contents(uri, JSON, openapi::openapi().to_string()));
    }
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut parts = path.strip_prefix("volant://vms").ok_or_else(unknown)?.split('/').skip(1);
    let mut arguments = Map::new();
    if let Some(tail) = query.strip_prefix("tail=") {
        let tail: u64 = tail.parse().map_err(|_| unknown())?;
        arguments.insert("tail".to_owned(), json!(tail));
    } else if !query.is_empty() {
        return Err(unknown());
    }
    let parts = (parts.next(), parts.next(), parts.next());
    let id = match parts {
        (None, None, None) => "listVMs",
        (Some(name), rest, None) => {
            arguments.insert("name".to_owned(), json!(name));
            match rest {
                None => "getVMByName",
                Some("logs") => "getVMLogs",
                Some("console") => {
                    arguments.insert("source".to_owned(), json!("console"));
                    "getVMLogs"
                }
                Some(_) => return Err(unknown()),
            }
        }
        _ => return Err(unknown()),
    };
    let operation = operations::named(id).ok_or_else(unknown)?;
    let read = call(Call { routes: routes.clone(), operation, arguments, caller }).await;
    let mut object = read.map_err(|problem| match problem.status {
        404 | 422 => unknown(),
        _ => ErrorData::internal_error(problem.detail.clone(), serde_json::to_value(&problem).ok()),
    })?;
    Ok(match object.remove("text") {
        Some(Value::String(text)) => contents(uri, TEXT, text),
        _ => contents(uri, JSON, Value::Object(object).to_string()),
    })
}

fn contents(uri: &str, kind: &str, text: String) -> ReadResourceResult {
    ReadResourceResult::new(vec![ResourceContents::text(text, uri).with_mime_type(kind)])
}
