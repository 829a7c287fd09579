//! `vms operations` and `vms call`: what a VM can be asked, by the document that it gives of itself.

use hyper::Method;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::cli::CallArgs;
use crate::ctl::actions;
use crate::ctl::client::{Client, Failure, print, whole};
use crate::ctl::output::{Listed, Printer};
use crate::ctl::vms::{encoded, path};
use crate::wire::OpenApiDocument;

const NO_BODY: Option<&()> = None;
/// Members of a path item that are operations.
const METHODS: [Method; 8] = [
    Method::GET,
    Method::PUT,
    Method::POST,
    Method::DELETE,
    Method::OPTIONS,
    Method::HEAD,
    Method::PATCH,
    Method::TRACE,
];

/// One of them.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Found {
    #[serde(rename = "operation")]
    id: String,
    #[serde(serialize_with = "word")]
    method: Method,
    path: String,
    summary: String,
}

fn word<S: Serializer>(method: &Method, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(method.as_str())
}

impl Listed for Found {
    const HEADER: &'static [&'static str] = &["OPERATION", "METHOD", "PATH", "SUMMARY"];

    fn name(&self) -> String {
        self.id.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.id.clone(), self.method.to_string(), self.path.clone(), self.summary.clone()]
    }
}

async fn all(client: &Client, name: &str) -> Result<Vec<Found>, Failure> {
    let document: OpenApiDocument =
        client.json(Method::GET, &path(name, "/openapi"), NO_BODY).await?;
    Ok(operations(&document))
}

fn operations(document: &OpenApiDocument) -> Vec<Found> {
    let mut found = Vec::new();
    let none = serde_json::Map::new();
    let paths = document.0.get("paths").and_then(Value::as_object).unwrap_or(&none);
    for (path, item) in paths {
        for method in METHODS {
            let Some(operation) = item.get(method.as_str().to_ascii_lowercase()) else { continue };
            let text = |member: &str| operation.get(member).and_then(Value::as_str);
            found.push(Found {
                id: text("operationId").unwrap_or_default().to_owned(),
                method,
                path: path.clone(),
                summary: text("summary").unwrap_or_default().to_owned(),
            });
        }
    }
    found
}

/// Lists them.
///
/// # Errors
/// [`Failure`].
pub async fn list(client: &Client, name: &str, out: &Printer) -> Result<(), Failure> {
    out.list(&all(client, name).await?)
}

/// Calls one; the answer's body goes to stdout as it comes.
///
/// # Errors
/// [`Failure`].
pub async fn call(client: &Client, args: CallArgs, out: &Printer) -> Result<u8, Failure> {
    let all = all(client, &args.name).await?;
    let wrong = |text: String| Failure { exit_code: 2, ..Failure::local(text) };
    let named = |one: &&Found| {
        args.operation == one.id || args.operation == format!("{}:{}", one.method, one.path)
    };
    let Some(found) = all.iter().find(named) else {
        let text = format!("VM {:?} has no operation {:?}", args.name, args.operation);
        let hint = Some(format!("`volantd ctl vms operations {}` lists them", args.name));
        return Err(Failure { exit_code: 3, hint, ..Failure::local(text) });
    };
    let target = target(&found.path, &args.params, &args.query).map_err(wrong)?;
    let (body, kind) = actions::body(args.payload)?;
    let answer =
        client.exchange(found.method.clone(), &target, whole(body), kind.as_deref(), "*/*").await?;
    let status = answer.status();
    print(answer.into_body(), out).await?;
    if status.is_success() {
        return Ok(0);
    }
    Err(Failure::local(format!("the answer is {status}")))
}

/// A path with its parameters in place, and the query.
fn target(
    path: &str,
    params: &[(String, String)],
    query: &[(String, String)],
) -> Result<String, String> {
    let mut target = path.to_owned();
    for (key, value) in params {
        let place = format!("{{{key}}}");
        if !path.contains(&place) {
            return Err(format!("--param {key}: {path} has no such parameter"));
        }
        target = target.replace(&place, &encoded(value));
    }
    if let Some((_, rest)) = target.split_once('{') {
        let missing = rest.split('}').next().unwrap_or_default();
        return Err(format!("--param {missing}=VALUE is needed for {path}"));
    }
    for (index, (key, value)) in query.iter().enumerate() {
        let separator = if index == 0 { '?' } else { '&' };
        target.push_str(&format!("{separator}{}={}", encoded(key), encoded(value)));
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_are_found_and_their_paths_filled_in() {
        let document = json!({ "paths": {
            "/a/{id}": { "get": { "operationId": "getA", "summary": "One." }, "x-odd": {} },
            "/b": { "post": {} },
        } });
        let Value::Object(document) = document else { unreachable!() };
        let found = operations(&OpenApiDocument(document));
        let ids: Vec<_> = found.iter().map(|one| (one.id.as_str(), one.method.as_str())).collect();
        assert_eq!(ids, [("getA", "GET"), ("", "POST")]);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let path = &found[0].path;
        let filled = target(path, &[pair("id", "x/y")], &[pair("q", "1"), pair("r", "&")]);
        assert_eq!(filled.unwrap(), "/a/x%2Fy?q=1&r=%26");
        assert!(target(path, &[], &[]).unwrap_err().contains("--param id"));
        assert!(target("/b", &[pair("id", "1")], &[]).is_err());
    }
}
