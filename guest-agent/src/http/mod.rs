//! The agent's HTTP/1.1 server: one function for each route.

mod files;
mod process;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use volant_protocol::{
    AgentInfo, BODY_LEN_MAX, GuestConfig, PROTOCOL_VERSION, ShutdownRequest, TCP_UPGRADE,
    TerminalSize, WORKLOAD_UPGRADE, capability,
};

use crate::process::Processes;
use crate::reap::Reaper;
use crate::workload::Supervisor;
use crate::{console, init, network, root, volumes};

type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

fn whole(bytes: Bytes) -> UnsyncBoxBody<Bytes, std::io::Error> {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

const CAPABILITIES: [&str; 6] = [
    capability::PROCESSES,
    capability::FILES,
    capability::OBSERVE,
    capability::TCP,
    capability::SHUTDOWN,
    capability::WORKLOAD,
];

/// State of the agent.
#[derive(Debug)]
pub struct Agent {
    reaper: Reaper,
    processes: Processes,
    env: Mutex<BTreeMap<String, String>>,
    configured: Mutex<bool>,
    workload: OnceLock<Arc<Supervisor>>,
}

/// A refusal: status, code, sentence.
struct Refusal(StatusCode, &'static str, String);

impl Agent {
    /// An agent that has not been told anything.
    pub fn new(reaper: Reaper) -> Agent {
        let processes = Processes::new(reaper.clone());
        Agent {
            reaper,
            processes,
            env: Mutex::default(),
            configured: Mutex::new(false),
            workload: OnceLock::new(),
        }
    }

    /// Ends the guest: the workload first, by its own signal, in the same grace.
    pub async fn shut_down(&self, mut request: ShutdownRequest) {
        if let Some(workload) = self.workload.get() {
            let began = tokio::time::Instant::now();
            let grace = Duration::from_millis(request.grace_ms);
            let _ = tokio::time::timeout(grace, workload.stop()).await;
            let spent_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            request.grace_ms = request.grace_ms.saturating_sub(spent_ms);
        }
        self.reaper.close();
        init::shut_down(request).await;
    }

    fn env(&self) -> BTreeMap<String, String> {
        self.env.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves one connection until its peer closes it.
pub async fn serve<S>(stream: S, agent: Arc<Agent>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let agent = Arc::clone(&agent);
        async move { Ok::<_, std::convert::Infallible>(answer(request, agent).await) }
    });
    // A peer that breaks HTTP or goes away ends its own connection only.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn answer(request: Request<Incoming>, agent: Arc<Agent>) -> Answer {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let outcome = match (path.as_str(), &method) {
        ("/v1/health", &Method::GET) => Ok(json(StatusCode::OK, &info())),
        ("/v1/config", &Method::PUT) => configure(request, &agent).await,
        ("/v1/shutdown", &Method::POST) => shut_down(request, agent).await,
        ("/v1/console/resize", &Method::POST) => resize_console(request).await,
        ("/v1/workload", &Method::GET) => follow_workload(request, &agent),
        (tcp, &Method::GET) if tcp.starts_with("/v1/tcp/") => open_tcp(request).await,
        (path, _) if path.starts_with("/v1/processes") => process::answer(request, &agent).await,
        (path, _) if path.starts_with("/v1/files") => files::answer(request).await,
        ("/v1/metrics" | "/v1/ports" | "/v1/time", _) => files::observe(request).await,
        (
            "/v1/health" | "/v1/config" | "/v1/shutdown" | "/v1/workload" | "/v1/console/resize",
            _,
        ) => Err(wrong_method(&request)),
        _ => Err(unknown(&request)),
    };
    outcome.unwrap_or_else(|Refusal(status, code, message)| {
        json(status, &serde_json::json!({ "code": code, "message": message }))
    })
}

fn wrong_method(request: &Request<Incoming>) -> Refusal {
    let text = format!("{} is not for {}", request.method(), request.uri().path());
    Refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text)
}

fn unknown(request: &Request<Incoming>) -> Refusal {
    let text = format!("there is no {}", request.uri().path());
    Refusal(StatusCode::NOT_FOUND, "not_found", text)
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(whole(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn info() -> AgentInfo {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split([' ', '.']).next().and_then(|text| text.parse::<u64>().ok());
    AgentInfo {
        protocol_version: PROTOCOL_VERSION,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        uptime_ms: seconds.unwrap_or(0) * 1000,
    }
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refusal> {
    let refuse = |text: String| Refusal(StatusCode::BAD_REQUEST, "invalid_body", text);
    let limited = Limited::new(request.into_body(), BODY_LEN_MAX);
    let bytes = limited.collect().await.map_err(|error| refuse(error.to_string()))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))
}

async fn configure(request: Request<Incoming>, agent: &Agent) -> Result<Answer, Refusal> {
    let config: GuestConfig = body(request).await?;
    let failed = |error: std::io::Error| {
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, "config_failed", error.to_string())
    };
    let entered = *agent.configured.lock().unwrap_or_else(PoisonError::into_inner);
    // First of all: everything else is about files of the guest's root.
    if let Some(root) = config.root.as_ref().filter(|_| !entered) {
        root::enter(root).map_err(failed)?;
        network::write_names(&config).map_err(failed)?;
    }
    if !entered {
        volumes::mount_all(&config.mounts).map_err(failed)?;
    }
    network::apply(&config).map_err(failed)?;
    *agent.env.lock().unwrap_or_else(PoisonError::into_inner) = config.env.clone();
    let mut configured = agent.configured.lock().unwrap_or_else(PoisonError::into_inner);
    if config.console_shell && !*configured && init::is_init() {
        let env = crate::process::environment(&config.env, "/root").into_iter().collect();
        tokio::spawn(console::run(agent.reaper.clone(), env));
    }
    if let Some(workload) = config.workload {
        // A second configuration does not start a second one.
        let start = || Supervisor::start(workload, config.env, agent.reaper.clone());
        agent.workload.get_or_init(|| Arc::new(start()));
    }
    *configured = true;
    Ok(json(StatusCode::OK, &info()))
}

async fn resize_console(request: Request<Incoming>) -> Result<Answer, Refusal> {
    let size: TerminalSize = body(request).await?;
    console::resize(size)
        .map_err(|error| Refusal(StatusCode::CONFLICT, "no_console", error.to_string()))?;
    Ok(json(StatusCode::OK, &serde_json::json!({})))
}

async fn shut_down(request: Request<Incoming>, agent: Arc<Agent>) -> Result<Answer, Refusal> {
    let request: ShutdownRequest = body(request).await?;
    tokio::spawn(async move {
        // Lets the answer leave first: the end of the machine would cut it off.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        agent.shut_down(request).await;
    });
    Ok(json(StatusCode::ACCEPTED, &serde_json::json!({})))
}

fn wants(request: &Request<Incoming>, token: &str) -> Result<(), Refusal> {
    let asked = request.headers().get(UPGRADE).and_then(|value| value.to_str().ok());
    if asked.is_some_and(|asked| asked.eq_ignore_ascii_case(token)) {
        return Ok(());
    }
    let text = format!("this needs `Upgrade: {token}`");
    Err(Refusal(StatusCode::UPGRADE_REQUIRED, "upgrade_required", text))
}

fn switching(token: &'static str) -> Answer {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let value = hyper::header::HeaderValue::from_static;
    response.headers_mut().insert(CONNECTION, value("upgrade"));
    response.headers_mut().insert(UPGRADE, value(token));
    response
}

fn follow_workload(mut request: Request<Incoming>, agent: &Agent) -> Result<Answer, Refusal> {
    wants(&request, WORKLOAD_UPGRADE)?;
    let Some(workload) = agent.workload.get().map(Arc::clone) else {
        let text = "this guest has no workload".to_owned();
        return Err(Refusal(StatusCode::NOT_FOUND, "no_workload", text));
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            workload.attend(TokioIo::new(stream)).await;
        }
    });
    Ok(switching(WORKLOAD_UPGRADE))
}

async fn open_tcp(mut request: Request<Incoming>) -> Result<Answer, Refusal> {
    wants(&request, TCP_UPGRADE)?;
    let port = request.uri().path().strip_prefix("/v1/tcp/").and_then(|port| port.parse().ok());
    let Some(port @ 1..=u16::MAX) = port else {
        let text = "a port is a number from 1 to 65535".to_owned();
        return Err(Refusal(StatusCode::BAD_REQUEST, "invalid_port", text));
    };
    let mut target = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| {
        Refusal(StatusCode::BAD_GATEWAY, "port_closed", format!("port {port}: {error}"))
    })?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(stream), &mut target).await;
        }
    });
    Ok(switching(TCP_UPGRADE))
}
