//! Operations as tools.

use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock,
    ProgressNotificationParam, ProgressToken, Tool, ToolAnnotations,
};
use rmcp::service::{Peer, RequestContext};
use rmcp::{ErrorData, RoleServer};
use serde_json::{Map, Value};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::api::mcp::{Server, actions};
use crate::api::operations::{
    self, Access, Call, Caller, Operation, answer_schema, argument_schema, call as run,
};
use crate::model::{Event, Scope};
use crate::wire::Problem;

/// All tools, in the registry's order.
pub fn all() -> Vec<Tool> {
    operations::all()
        .filter_map(|operation| Some(tool(operation, operation.tool.name()?)))
        .collect()
}

fn tool(operation: &'static Operation, name: &'static str) -> Tool {
    let hints = operation.hints;
    let annotations = ToolAnnotations::with_title(operation.title)
        .read_only(hints.read_only)
        .destructive(hints.destructive)
        .idempotent(hints.idempotent)
        .open_world(hints.open_world);
    Tool::new(name, operation.description, argument_schema(operation))
        .with_title(operation.title)
        .with_raw_output_schema(Arc::new(answer_schema(operation)))
        .with_annotations(annotations)
}

/// Whether whoever has `scope` may call the tool at all.
pub fn is_within(tool: &Tool, scope: Scope) -> bool {
    let operation = operations::named(&tool.name);
    operation.is_some_and(|operation| match operation.access {
        Access::Open => true,
        Access::Scope(needed) => needed <= scope,
    })
}

/// `tools/call`.
///
/// # Errors
/// Only for a tool that there is not; what goes wrong in one is its result.
pub async fn call(
    server: &Server,
    request: CallToolRequestParams,
    caller: Caller,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let arguments = request.arguments.unwrap_or_default();
    let operation = operations::all().find(|op| op.tool.name() == Some(&*request.name));
    let Some(operation) = operation else {
        let Some(action) = actions::find(&server.orchestrator, &request.name) else {
            let text = format!("there is no tool {}", request.name);
            return Err(ErrorData::invalid_params(text, None));
        };
        let result = tokio::select! {
            result = actions::call(server, &action, &arguments, caller) => result,
            () = context.ct.cancelled() => return Err(cancelled()),
        };
        return Ok(answer(result).into());
    };
    let progress = context.meta.get_progress_token().map(|token| Progress {
        token,
        events: server.orchestrator.subscribe(),
        vm: arguments.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        told: 0,
    });
    let routes = server.routes.clone();
    let result = tokio::select! {
        result = run(Call { routes, operation, arguments, caller }) => result,
        never = tell(progress, &context.peer) => match never {},
        () = context.ct.cancelled() => return Err(cancelled()),
    };
    Ok(answer(result).into())
}

fn cancelled() -> ErrorData {
    ErrorData::internal_error("the call was cancelled", None)
}

fn answer(result: Result<Map<String, Value>, Box<Problem>>) -> CallToolResult {
    match result {
        Ok(object) => CallToolResult::structured(Value::Object(object)),
        Err(problem) => CallToolResult::error(vec![ContentBlock::text(text(&problem))]),
    }
}

fn text(problem: &Problem) -> String {
    let hint = problem.hint.as_ref().map(|hint| format!(" Hint: {hint}."));
    format!("{}: {}.{}", problem.code, problem.detail, hint.unwrap_or_default())
}

/// What is told of a call while it runs: what happens to the VM it is about.
struct Progress {
    token: ProgressToken,
    events: Receiver<Arc<Event>>,
    vm: String,
    told: u32,
}

/// Never returns; ends by being dropped.
async fn tell(progress: Option<Progress>, peer: &Peer<RoleServer>) -> std::convert::Infallible {
    let Some(mut progress) = progress else { return std::future::pending().await };
    loop {
        let event = match progress.events.recv().await {
            Ok(event) => event,
            // What was missed is told by no one; the result does not depend on it.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return std::future::pending().await,
        };
        if event.name.as_str() != progress.vm {
            continue;
        }
        progress.told += 1;
        let text = format!("{} {}: {}", event.kind.as_str(), event.name, event.message);
        let told = ProgressNotificationParam::new(progress.token.clone(), f64::from(progress.told));
        // The client may be gone; then the call ends as well.
        let _ = peer.notify_progress(told.with_message(text)).await;
    }
}
