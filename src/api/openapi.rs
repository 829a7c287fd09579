//! The operations as an OpenAPI 3.1 document, and as a page to read.

use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::api::operations::{
    self, Access, Answer, Body, Operation, SchemaOf, component, component_schemas, path_parameters,
    query_properties,
};

// Neither changes while the daemon runs, and whoever asks for them shows no token: they are made once.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| openapi().to_string().into());
static PAGE: LazyLock<Bytes> = LazyLock::new(|| html().into());

/// `GET /openapi.json`.
pub async fn document() -> impl IntoResponse {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], DOCUMENT.clone())
}

/// `GET /docs`.
pub async fn page() -> impl IntoResponse {
    // Nothing on the page runs or is fetched from elsewhere.
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    ];
    (headers, Html(PAGE.clone()))
}

/// The whole document.
pub fn openapi() -> Value {
    let mut paths = Map::new();
    for operation in operations::all() {
        // Wildcards are the router's; OpenAPI has none.
        for path in [operation.path].into_iter().chain(operation.aliases.iter().copied()) {
            let is_alias = path != operation.path;
            let entry = paths.entry(path.replace("{*", "{")).or_insert_with(|| json!({}));
            let method = operation.method.as_str().to_ascii_lowercase();
            entry[method] = described(operation, path, is_alias);
        }
    }
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "volantd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "microVMs: create them, run work in them, watch them.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": component_schemas(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "responses": {
                "Problem": {
                    "description": "A problem as in RFC 9457, with a stable `code`.",
                    "content": {
                        "application/problem+json": {
                            "schema": { "$ref": "#/components/schemas/Problem" },
                        },
                    },
                },
            },
        },
    })
}

fn described(operation: &Operation, path: &str, is_alias: bool) -> Value {
    let mut entry = json!({
        "operationId": if is_alias { alias_id(operation, path) } else { operation.id.to_owned() },
        "summary": operation.title,
        "description": operation.description,
        "responses": {
            operation.answer.status(): answer(operation.answer),
            "default": { "$ref": "#/components/responses/Problem" },
        },
    });
    if matches!(operation.answer, Answer::Long(_)) {
        entry["responses"]["202"] = under_way();
    }
    if is_alias {
        entry["deprecated"] = json!(true);
    }
    match operation.access {
        Access::Open => entry["security"] = json!([]),
        Access::Scope(scope) => entry["x-volant-scope"] = json!(scope.as_str()),
    }
    if let Some(tool) = operation.tool.name() {
        entry["x-mcp-tool"] = json!(tool);
    }
    let parameters = parameters(operation, path);
    if !parameters.is_empty() {
        entry["parameters"] = Value::Array(parameters);
    }
    if let Some(body) = operation.body {
        entry["requestBody"] = match body {
            Body::Json(schema_of) => {
                let content = json!({ "application/json": { "schema": component(schema_of) } });
                json!({ "required": true, "content": content })
            }
            // No bytes are bytes too.
            Body::Bytes => json!({ "content": { "application/octet-stream": {} } }),
        };
    }
    entry
}

fn alias_id(operation: &Operation, path: &str) -> String {
    let index = operation.aliases.iter().position(|alias| *alias == path).unwrap_or(0);
    format!("{}Alias{}", operation.id, index + 1)
}

fn parameters(operation: &Operation, path: &str) -> Vec<Value> {
    let in_path = path_parameters(path).map(|name| {
        let schema = match name {
            "name" if path.contains("/vms/") => {
                json!({ "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" })
            }
            "port" => json!({ "type": "integer", "minimum": 1, "maximum": 65535 }),
            _ => json!({ "type": "string" }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let (properties, required) = query_properties(operation);
    let in_query = properties.into_iter().map(|(name, mut schema)| {
        let text = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let mut parameter = json!({ "name": name, "in": "query", "schema": schema });
        parameter["required"] = json!(required.contains(&name));
        if let Some(text) = text {
            parameter["description"] = text;
        }
        parameter
    });
    in_path.chain(in_query).collect()
}

fn answer(answer: Answer) -> Value {
    let of_kind = |kind: &str, schema: Value| json!({ "description": "Done.", "content": { kind: { "schema": schema } } });
    match answer {
        Answer::Json(_, schema_of) => of_kind("application/json", component(schema_of)),
        Answer::Long(schema_of) => {
            let mut done = of_kind("application/json", component(schema_of));
            done["content"]["text/event-stream"] = json!({ "schema": { "type": "string" } });
            done
        }
        Answer::Bytes(kind) => json!({ "description": "Done.", "content": { kind: {} } }),
        Answer::Text(kind) => of_kind(kind, json!({ "type": "string" })),
        Answer::Events => of_kind("text/event-stream", json!({ "type": "string" })),
        Answer::Empty(_) => json!({ "description": "Done." }),
        Answer::Socket => json!({ "description": "The connection becomes a WebSocket." }),
        Answer::Guest => json!({ "description": "Whatever comes back." }),
    }
}

/// The answer to `Prefer: respond-async` (RFC 7240, 4.1).
fn under_way() -> Value {
    let place = json!({ "description": "The operation.", "schema": { "type": "string" } });
    json!({
        "description": "It is under way, as the client has asked by `Prefer: respond-async`.",
        "headers": { "Location": place },
    })
}

impl Answer {
    /// Key of the answer among `responses`.
    fn status(self) -> String {
        match self {
            Answer::Json(status, _) | Answer::Empty(status) => status.to_string(),
            Answer::Long(_) | Answer::Text(_) | Answer::Bytes(_) | Answer::Events => {
                "200".to_owned()
            }
            Answer::Socket => "101".to_owned(),
            Answer::Guest => "2XX".to_owned(),
        }
    }
}

fn html() -> String {
    let mut page = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><title>volantd API</title><style>\
         body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
         code,pre{font:14px ui-monospace,monospace;background:#8881;padding:.1rem .3rem}\
         pre{padding:.6rem;overflow:auto}h2{margin-top:2.5rem}td,th{text-align:left;padding:.1rem \
         1rem .1rem 0;vertical-align:top}</style><h1>volantd API</h1><p>Machine-readable: <a \
         href=/openapi.json>OpenAPI 3.1</a>. Errors are problems as in RFC 9457 with a stable \
         <code>code</code>.<ul>",
    );
    for operation in operations::all() {
        let (id, title) = (operation.id, escaped(operation.title));
        page.push_str(&format!("<li><a href=\"#{id}\">{title}</a>"));
    }
    page.push_str("</ul>");
    let schemas = component_schemas();
    operations::all().for_each(|operation| page.push_str(&section(operation, &schemas)));
    page.push_str("</html>\n");
    page
}

fn section(operation: &Operation, schemas: &Map<String, Value>) -> String {
    let scope = match operation.access {
        Access::Open => "none",
        Access::Scope(scope) => scope.as_str(),
    };
    let row = |name: &str, value: &str| format!("<tr><th>{name}<td><code>{value}</code>");
    let mut text = format!(
        "<h2 id=\"{}\">{}</h2><p>{}<table>{}{}",
        operation.id,
        escaped(operation.title),
        escaped(operation.description),
        row("Route", &format!("{} {}", operation.method, escaped(operation.path))),
        row("Scope", scope),
    );
    if let Some(tool) = operation.tool.name() {
        text.push_str(&row("MCP tool", tool));
    }
    if let Some(verb) = operation.verb.name() {
        text.push_str(&row("Command", &format!("volantd ctl {verb}")));
    }
    text.push_str("</table>");
    let (properties, _) = query_properties(operation);
    if !properties.is_empty() {
        text.push_str("<h3>Query</h3>");
        text.push_str(&preformatted(&Value::Object(properties)));
    }
    for (title, schema_of) in
        [("Body", operation.body.and_then(Body::json)), ("Answer", operation.answer.json())]
    {
        if let Some(schema_of) = schema_of {
            text.push_str(&format!("<h3>{title}</h3>"));
            text.push_str(&preformatted(&whole(schema_of, schemas)));
        }
    }
    text
}

impl Body {
    fn json(self) -> Option<SchemaOf> {
        match self {
            Body::Json(schema_of) => Some(schema_of),
            Body::Bytes => None,
        }
    }
}

/// A named type's definition rather than the reference to it.
fn whole(schema_of: SchemaOf, schemas: &Map<String, Value>) -> Value {
    let schema = component(schema_of);
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    name.and_then(|name| schemas.get(name).cloned()).unwrap_or(schema)
}

fn preformatted(value: &Value) -> String {
    format!("<pre>{}</pre>", escaped(&format!("{value:#}")))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
