//! Actions of plugins: a request to a name becomes the request that the manifest says, to a VM that is
//! named or chosen.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt;

use crate::orchestrator::ActionCall;
use crate::proxy::HOST;
use crate::proxy::forward::{Proxy, Target, forward, problem, refused, vm_name};
use crate::proxy::guests::Place;
use crate::proxy::headers::Origin;

/// Tells the client which VM has answered.
const VM_HEADER: HeaderName = HeaderName::from_static("x-volant-vm");

/// `/api/v1/vms/{name}/actions/{plugin}/{action}`.
pub async fn of_vm(
    State(proxy): State<Proxy>,
    Path((name, plugin, action)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    let vm = match vm_name(&name) {
        Ok(vm) => vm,
        Err(problem) => return *problem,
    };
    match proxy.orchestrator.action(&vm, &plugin, &action).await {
        Ok(call) => perform(&proxy, call, request).await,
        Err(error) => refused(&error),
    }
}

/// `/api/v1/plugins/{plugin}/actions/{action}`.
pub async fn of_any(
    State(proxy): State<Proxy>,
    Path((plugin, action)): Path<(String, String)>,
    request: Request,
) -> Response {
    match proxy.orchestrator.action_of_any(&plugin, &action) {
        Ok(call) => perform(&proxy, call, request).await,
        Err(error) => refused(&error),
    }
}

/// Sends the request, and streams the answer; the VM counts as busy until its end.
async fn perform(proxy: &Proxy, call: ActionCall, mut request: Request) -> Response {
    let Ok(method) = call.method.parse::<Method>() else {
        let text = format!("{:?} is no method", call.method);
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", text, None);
    };
    if request.method() != Method::POST && *request.method() != method {
        let text = format!("the action is called by POST or {method}");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let mut response = problem(status, "method_not_allowed", text, None);
        let allowed = HeaderValue::try_from(format!("POST, {method}"));
        response.headers_mut().extend(allowed.ok().map(|allowed| (header::ALLOW, allowed)));
        return response;
    }
    *request.method_mut() = method;
    let target = Target {
        place: Place::Port(call.vm.clone(), call.port),
        path: with_query(&call.path, request.uri().query()),
        origin: Origin { host: HOST.to_owned(), ..Origin::default() },
        head_timeout: call.timeout,
    };
    let mut response = match forward(proxy, target, request).await {
        Ok(response) => response,
        Err(problem) => return problem,
    };
    let vm = HeaderValue::try_from(call.vm.as_str());
    response.headers_mut().extend(vm.ok().map(|vm| (VM_HEADER, vm)));
    let busy = call.busy;
    response.map(|body| {
        axum::body::Body::new(body.map_frame(move |frame| {
            let _until_the_end = &busy;
            frame
        }))
    })
}

/// The manifest's path with the client's query, after the manifest's own.
fn with_query(path: &str, query: Option<&str>) -> String {
    match query {
        None | Some("") => path.to_owned(),
        Some(query) if path.contains('?') => format!("{path}&{query}"),
        Some(query) => format!("{path}?{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_joined() {
        let table = [
            ("/a", None, "/a"),
            ("/a", Some(""), "/a"),
            ("/a", Some("b=1"), "/a?b=1"),
            ("/a?c=2", Some("b=1"), "/a?c=2&b=1"),
            ("/a?c=2", None, "/a?c=2"),
        ];
        for (path, query, expected) in table {
            assert_eq!(with_query(path, query), expected);
        }
    }
}
