//! The operations as MCP, over Streamable HTTP at `/mcp`. `rmcp` speaks both eras of the protocol
//! on one endpoint; here is what is offered: tools, resources, prompts, completions.
//!
//! A call goes the way of [`operations::call`], under the scope of whoever sent it. The end of a
//! call's stream (2026-07-28) or `notifications/cancelled` (before) ends what it runs.

mod actions;
#[cfg(feature = "mcp-fixtures")]
pub mod fixtures;
mod prompts;
mod resources;
mod tools;

use std::sync::Arc;

use axum::Router;
use axum::http::request::Parts;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, CompletionInfo,
    GetPromptRequestParams, GetPromptResponse, Implementation, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use tokio_util::sync::CancellationToken;

use crate::api::access::{Principal, RequestId, authorize};
use crate::api::operations::Caller;
use crate::model::Scope;
use crate::orchestrator::Orchestrator;

/// Bytes of a request.
const REQUEST_LEN_MAX: usize = 4 * 1024 * 1024;
/// What a client's model is told at the beginning.
const INSTRUCTIONS: &str = "volantd runs microVMs. vm_create with wait=true gives a running guest in about a second; \
     vm_exec runs a command in it and returns exit code and output; vm_logs reads what its \
     workload or its console wrote; vm_delete removes it. A VM is named by its name. Errors carry \
     a stable code and often a hint.";

/// `/mcp`, which offers the operations behind `routes`.
pub fn mount(routes: Router, orchestrator: Orchestrator, shutdown: CancellationToken) -> Router {
    let config = StreamableHttpServerConfig::default()
        // Host and Origin are checked before the request comes here (`access::foreign`).
        .disable_allowed_hosts()
        .with_max_request_body_bytes(REQUEST_LEN_MAX)
        .with_cancellation_token(shutdown);
    let sessions = Arc::new(LocalSessionManager::default());
    let server = Server::new(routes, orchestrator.clone());
    #[cfg(feature = "mcp-fixtures")]
    let fixtures = fixtures::service(config.clone());
    let service = StreamableHttpService::new(move || Ok(server.clone()), sessions, config);
    let own = Router::new().route_service("/mcp", service);
    #[cfg(feature = "mcp-fixtures")]
    let own = own.route_service(fixtures::PATH, fixtures);
    authorize(own, orchestrator)
}

/// What is offered. Cheap to clone; every request has its own.
#[derive(Clone, Debug)]
struct Server {
    routes: Router,
    orchestrator: Orchestrator,
    tools: Arc<[Tool]>,
}

impl Server {
    fn new(routes: Router, orchestrator: Orchestrator) -> Server {
        Server { routes, orchestrator, tools: tools::all().into() }
    }
}

/// Who has sent the HTTP request that a message came in.
fn caller(context: &RequestContext<RoleServer>) -> Result<Caller, ErrorData> {
    let parts = context.extensions.get::<Parts>();
    let principal = parts.and_then(|parts| parts.extensions.get::<Principal>()).cloned();
    let request_id = parts.and_then(|parts| parts.extensions.get::<RequestId>()).cloned();
    match (principal, request_id) {
        (Some(principal), Some(request_id)) => Ok(Caller { principal, request_id }),
        _ => Err(ErrorData::internal_error("the caller is not known", None)),
    }
}

/// Every list fits one page, so that no cursor is ever given out.
fn first_page(request: Option<PaginatedRequestParams>) -> Result<(), ErrorData> {
    match request.and_then(|request| request.cursor) {
        Some(cursor) if !cursor.is_empty() => {
            Err(ErrorData::invalid_params("this cursor was not given out here", None))
        }
        _ => Ok(()),
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_prompts()
            .enable_completions()
            .build();
        let own = Implementation::new("volantd", env!("CARGO_PKG_VERSION"));
        ServerConfig::new(capabilities).with_server_info(own).with_instructions(INSTRUCTIONS)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let own = self.tools.iter().find(|tool| tool.name == name).cloned();
        own.or_else(|| actions::all(&self.orchestrator).into_iter().find(|tool| tool.name == name))
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        first_page(request)?;
        let scope = caller(&context)?.principal.scope;
        let tools = self.tools.iter().filter(|tool| tools::is_within(tool, scope)).cloned();
        let actions =
            if scope < Scope::Operate { Vec::new() } else { actions::all(&self.orchestrator) };
        Ok(ListToolsResult::with_all_items(tools.chain(actions).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let caller = caller(&context)?;
        tools::call(self, request, caller, context).await
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        first_page(request)?;
        Ok(ListResourcesResult::with_all_items(resources::all(&self.orchestrator)))
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        first_page(request)?;
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let caller = caller(&context)?;
        resources::read(&self.routes, &request.uri, caller).await.map(Into::into)
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        first_page(request)?;
        Ok(ListPromptsResult::with_all_items(prompts::all()))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        prompts::get(&request.name, &request.arguments.unwrap_or_default()).map(Into::into)
    }

    /// Names of VMs, wherever a `name` is asked for.
    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        if request.argument.name != "name" {
            return Ok(CompleteResult::default());
        }
        let begun = request.argument.value;
        let vms = self.orchestrator.list();
        let names =
            vms.iter().map(|vm| vm.name.to_string()).filter(|name| name.starts_with(&begun));
        let names: Vec<String> = names.take(CompletionInfo::MAX_VALUES).collect();
        let info = CompletionInfo::with_all_values(names);
        info.map(CompleteResult::new).map_err(|error| ErrorData::internal_error(error, None))
    }
}
