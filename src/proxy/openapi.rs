//! What one VM can be asked, as an OpenAPI document: its plugin's actions, and what its workload
//! says of itself, with paths that lead there through this daemon.

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::model::VmName;
use crate::orchestrator::{Interface, Orchestrator, parse_document};
use crate::proxy::HOST;
use crate::proxy::forward::{Proxy, Target, forward, problem, refused, vm_name};
use crate::proxy::guests::Place;
use crate::proxy::headers::Origin;

/// Bytes of a workload's document.
const DOCUMENT_LEN_MAX: usize = 1024 * 1024;
/// Paths of it that are taken over.
const PATHS_MAX: usize = 2000;
/// How long the workload may take to begin its answer.
const HEAD_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// Members of a path item that are operations (OpenAPI 3.1, 4.8.9).
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// `GET /api/v1/vms/{name}/openapi`.
pub async fn of_vm(State(proxy): State<Proxy>, Path(name): Path<String>) -> Response {
    let name = match vm_name(&name) {
        Ok(name) => name,
        Err(refusal) => return *refusal,
    };
    let interface = match proxy.orchestrator.interface(&name) {
        Ok(interface) => interface,
        Err(error) => return refused(&error),
    };
    let own = match workload(&proxy, &name, &interface).await {
        Ok(own) => own,
        Err(refusal) => return *refusal,
    };
    axum::Json(merged(&name, &interface, own)).into_response()
}

/// What the workload says of itself, if its plugin says where.
async fn workload(
    proxy: &Proxy,
    name: &VmName,
    interface: &Interface,
) -> Result<Option<Value>, Box<Response>> {
    // A URL is the reader's to follow: the daemon fetches nothing from where a manifest points.
    let Some(path) = interface.document.as_deref().filter(|path| path.starts_with('/')) else {
        return Ok(None);
    };
    let bytes = match file(&proxy.orchestrator, name, path).await {
        Some(bytes) => bytes,
        None => match interface.port {
            Some(port) => served(proxy, name, port, path).await?,
            None => return Err(no_document(path, "there is no such file in the guest")),
        },
    };
    match parse_document(&bytes) {
        Some(document @ Value::Object(_)) => Ok(Some(document)),
        _ => Err(no_document(path, "neither JSON nor YAML")),
    }
}

fn no_document(path: &str, reason: &str) -> Box<Response> {
    let text = format!("the workload's OpenAPI document at {path}: {reason}");
    Box::new(problem(StatusCode::BAD_GATEWAY, "guest_document_invalid", text, None))
}

/// The document as a file of the guest.
async fn file(orchestrator: &Orchestrator, name: &VmName, path: &str) -> Option<Vec<u8>> {
    let mut download = orchestrator.file_read(name, path, None).await.ok()?;
    let mut bytes = Vec::new();
    while let Some(part) = download.next().await.ok()? {
        bytes.extend_from_slice(&part);
        if DOCUMENT_LEN_MAX < bytes.len() {
            return None;
        }
    }
    Some(bytes)
}

/// The document as the workload serves it.
async fn served(
    proxy: &Proxy,
    name: &VmName,
    port: u16,
    path: &str,
) -> Result<Vec<u8>, Box<Response>> {
    let target = Target {
        place: Place::Port(name.clone(), port),
        path: path.to_owned(),
        origin: Origin { host: HOST.to_owned(), ..Origin::default() },
        head_timeout: HEAD_TIMEOUT,
    };
    let answer = forward(proxy, target, Request::new(Body::empty())).await?;
    let status = answer.status();
    if !status.is_success() {
        return Err(no_document(path, &format!("the workload answers {status}")));
    }
    let bytes = to_bytes(answer.into_body(), DOCUMENT_LEN_MAX).await;
    bytes.map(Into::into).map_err(|error| no_document(path, &error.to_string()))
}

/// Both in one document.
fn merged(name: &VmName, interface: &Interface, own: Option<Value>) -> Value {
    let mut paths = Map::new();
    for (action, about) in &interface.actions {
        let path = format!("/api/v1/vms/{name}/actions/{}/{action}", interface.plugin);
        let content = match &about.input {
            Some(input) => json!({ "application/json": { "schema": input } }),
            None => json!({ "*/*": {} }),
        };
        paths.insert(
            path,
            json!({ "post": {
            "operationId": action,
            "tags": ["actions"],
            "summary": about.description,
            "requestBody": { "content": content },
            "responses": { "default": { "description": "The workload's answer." } },
        } }),
        );
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": { "title": format!("VM {name}"), "version": interface.version },
        "servers": [{ "url": "/" }],
    });
    if let (Some(Value::Object(mut own)), Some(port)) = (own, interface.port) {
        take_paths(&mut paths, &own, &format!("/api/v1/vms/{name}/proxy/{port}"), interface);
        for member in ["openapi", "components", "tags", "security"] {
            if let Some(value) = own.remove(member) {
                document[member] = value;
            }
        }
    }
    if let Some(url) = interface.document.as_deref().filter(|url| !url.starts_with('/')) {
        document["externalDocs"] = json!({ "url": url });
    }
    document["paths"] = Value::Object(paths);
    document
}

/// The workload's paths below the proxy's. Names that an action has are changed, not lost.
fn take_paths(
    paths: &mut Map<String, Value>,
    own: &Map<String, Value>,
    prefix: &str,
    interface: &Interface,
) {
    let base = own.get("servers").and_then(|servers| servers.get(0)?.get("url")?.as_str());
    let base = base.and_then(|url| url.parse::<Uri>().ok()).map(|uri| uri.path().to_owned());
    let base = base.unwrap_or_default();
    let base = base.trim_end_matches('/');
    let Some(Value::Object(theirs)) = own.get("paths") else { return };
    for (path, item) in theirs.iter().filter(|(path, _)| path.starts_with('/')).take(PATHS_MAX) {
        let mut item = item.clone();
        let Value::Object(members) = &mut item else { continue };
        members.remove("servers");
        for method in METHODS {
            let Some(Value::Object(operation)) = members.get_mut(method) else { continue };
            operation.remove("servers");
            if let Some(Value::String(id)) = operation.get_mut("operationId")
                && interface.actions.iter().any(|(action, _)| action == id)
            {
                *id = format!("workload.{id}");
            }
        }
        paths.insert(format!("{prefix}{base}{path}"), item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orchestrator::ActionView;

    #[test]
    fn actions_and_the_workloads_own_are_one_document() {
        let name = VmName::try_from("one").unwrap();
        let interface = Interface {
            plugin: "web".to_owned(),
            version: "2".to_owned(),
            actions: vec![(
                "hello".to_owned(),
                ActionView {
                    description: "Says it.".to_owned(),
                    input: json!({ "type": "object" }).as_object().cloned(),
                },
            )],
            document: Some("/openapi.json".to_owned()),
            port: Some(8080),
        };
        let own = json!({
            "openapi": "3.0.3",
            "servers": [{ "url": "http://localhost:8080/v1/" }],
            "paths": {
                "/items/{id}": { "servers": [], "get": { "operationId": "getItem" } },
                "/hello": { "post": { "operationId": "hello" } },
                "not-a-path": {},
                "/odd": 7,
            },
            "components": { "schemas": { "Item": {} } },
        });
        let whole = merged(&name, &interface, Some(own));
        let paths = whole["paths"].as_object().unwrap();
        let all: Vec<&str> = paths.keys().map(String::as_str).collect();
        assert_eq!(
            all,
            [
                "/api/v1/vms/one/actions/web/hello",
                "/api/v1/vms/one/proxy/8080/v1/hello",
                "/api/v1/vms/one/proxy/8080/v1/items/{id}",
            ]
        );
        let action = &whole["paths"][all[0]]["post"];
        assert_eq!(action["operationId"], "hello");
        let taken = &action["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(taken["type"], "object");
        assert_eq!(whole["paths"][all[1]]["post"]["operationId"], "workload.hello");
        assert_eq!(whole["paths"][all[2]], json!({ "get": { "operationId": "getItem" } }));
        assert_eq!(whole["components"]["schemas"]["Item"], json!({}));
        assert_eq!(whole["openapi"], "3.0.3");

        let linked = Interface { document: Some("https://example.com/x".to_owned()), ..interface };
        let alone = merged(&name, &linked, None);
        assert_eq!(alone["externalDocs"]["url"], "https://example.com/x");
        assert_eq!(alone["paths"].as_object().unwrap().len(), 1);
    }
}
