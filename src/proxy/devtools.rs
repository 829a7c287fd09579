//! A session with a browser in a guest: its DevTools WebSocket is found and passed through.

use axum::body::{Body, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::Response;
use serde::Deserialize;

use crate::model::VmName;
use crate::proxy::HOST;
use crate::proxy::forward::{Proxy, Target, forward, problem, vm_name};
use crate::proxy::guests::Place;
use crate::proxy::headers::Origin;

/// Where Chromium listens when it is told `--remote-debugging-port=9222`, as everybody does.
const PORT_DEFAULT: u16 = 9222;
/// Where a browser tells its own WebSocket's address.
const VERSION: &str = "/json/version";
/// Bytes of what it tells.
const VERSION_LEN_MAX: usize = 64 * 1024;
/// How long a browser may take to begin an answer.
const HEAD_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Query of devtools.
#[derive(Debug, Deserialize)]
pub struct Devtools {
    /// TCP port of the browser's DevTools in the guest.
    port: Option<u16>,
}

/// What `/json/version` tells, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Version {
    #[serde(rename = "webSocketDebuggerUrl")]
    web_socket_debugger_url: String,
}

/// `…/devtools`: the browser's own target. `…/devtools/{path}`: that path of its server, be it a
/// page's WebSocket (`devtools/page/…`) or its list of pages (`json/list`).
pub async fn to_browser(
    State(proxy): State<Proxy>,
    Path(path): Path<Vec<(String, String)>>,
    query: Result<Query<Devtools>, QueryRejection>,
    mut request: Request,
) -> Response {
    let part = |wanted: &str| path.iter().find(|(key, _)| key == wanted).map(|(_, value)| value);
    let name = match vm_name(part("name").map_or("", String::as_str)) {
        Ok(name) => name,
        Err(refusal) => return *refusal,
    };
    let port = match query {
        Ok(Query(Devtools { port })) => port.unwrap_or(PORT_DEFAULT),
        Err(error) => {
            return problem(StatusCode::BAD_REQUEST, "invalid_query", error.body_text(), None);
        }
    };
    let path = match part("path") {
        Some(path) if !path.is_empty() => format!("/{path}"),
        _ => match own_target(&proxy, &name, port).await {
            Ok(path) => path,
            Err(refusal) => return *refusal,
        },
    };
    // A browser refuses sessions that a page of another origin asks for; who asks here has shown
    // what opens this VM.
    request.headers_mut().remove(header::ORIGIN);
    let target = target(name, port, path);
    forward(&proxy, target, request).await.unwrap_or_else(|refusal| refusal)
}

fn target(name: VmName, port: u16, path: String) -> Target {
    let origin = Origin { host: HOST.to_owned(), ..Origin::default() };
    Target { place: Place::Port(name, port), path, origin, head_timeout: HEAD_TIMEOUT }
}

/// Path of the WebSocket of the browser itself.
async fn own_target(proxy: &Proxy, name: &VmName, port: u16) -> Result<String, Box<Response>> {
    let target = target(name.clone(), port, VERSION.to_owned());
    let answer = forward(proxy, target, Request::new(Body::empty())).await?;
    let nonsense = || {
        let text = format!("{VERSION} on port {port} is not a browser's");
        Box::new(problem(StatusCode::BAD_GATEWAY, "devtools_unavailable", text, None))
    };
    if !answer.status().is_success() {
        return Err(nonsense());
    }
    let told = to_bytes(answer.into_body(), VERSION_LEN_MAX).await.map_err(|_| nonsense())?;
    let told: Version = serde_json::from_slice(&told).map_err(|_| nonsense())?;
    let uri: Uri = told.web_socket_debugger_url.parse().map_err(|_| nonsense())?;
    Ok(uri.path().to_owned())
}
