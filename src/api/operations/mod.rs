//! The one list of what can be done. A REST route, its entry in OpenAPI, its MCP tool, its AG-UI
//! operation and the scope it needs are one [`Operation`] here; `ctl` names its verb.
//!
//! To add an endpoint: write the handler, add its line to a router, and describe it in a table of
//! this folder. A route that is in no table is refused when called (`access`), and
//! `tests/operations.rs` fails.

mod access;
mod agui;
mod call;
mod e2b;
mod exposures;
mod files;
mod guest;
mod images;
mod jobs;
mod plugins;
mod processes;
mod schema;
mod system;
mod vm_access;
mod vms;
mod volumes;

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::model::Scope;

pub use crate::api::openapi::openapi;
pub use call::{Call, Caller, call, encoded, open, pass, reach};
pub use schema::{
    answer_schema, argument_schema, component, component_schemas, path_parameters, query_properties,
};

/// Adds a type to a generator and says how to refer to it.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One thing that can be done.
#[derive(Clone, Debug)]
pub struct Operation {
    /// `operationId`; that of the original where it has one.
    pub id: &'static str,
    /// A few words.
    pub title: &'static str,
    /// What it does, for people and models.
    pub description: &'static str,
    /// Of the route.
    pub method: Method,
    /// Of the route, as the router has it.
    pub path: &'static str,
    /// Other paths of the same route, kept for clients of the original.
    pub aliases: &'static [&'static str],
    /// Who may.
    pub access: Access,
    /// What calling it means.
    pub hints: Hints,
    /// An object whose properties are the query's parameters.
    pub query: Option<SchemaOf>,
    /// What the request brings.
    pub body: Option<Body>,
    /// The answer when it went well.
    pub answer: Answer,
    /// Name of the MCP tool and of the AG-UI operation.
    pub tool: Skin,
    /// Words after `volantd ctl`.
    pub verb: Skin,
}

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone who reaches the listener.
    Open,
    /// Whoever has this scope, or a wider one.
    Scope(Scope),
}

/// What calling an operation means; MCP's four hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hints {
    /// Changes nothing.
    pub read_only: bool,
    /// May take something away that cannot be got back.
    pub destructive: bool,
    /// A second call with the same arguments changes nothing more.
    pub idempotent: bool,
    /// Reaches what this daemon does not own.
    pub open_world: bool,
}

impl Hints {
    /// Looks only.
    pub const READS: Hints =
        Hints { read_only: true, destructive: false, idempotent: true, open_world: false };
    /// Makes something new.
    pub const ADDS: Hints =
        Hints { read_only: false, destructive: false, idempotent: false, open_world: false };
    /// Brings something to a state.
    pub const SETS: Hints =
        Hints { read_only: false, destructive: false, idempotent: true, open_world: false };
    /// Takes something away, or interrupts it.
    pub const DESTROYS: Hints =
        Hints { read_only: false, destructive: true, idempotent: true, open_world: false };
    /// Runs what the caller gives.
    pub const RUNS: Hints =
        Hints { read_only: false, destructive: true, idempotent: false, open_world: true };
}

/// The form of a request's body.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// One JSON object.
    Json(SchemaOf),
    /// Bytes as they are. In other skins the argument `content`, a text, or `content_base64`.
    Bytes,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// One JSON document.
    Json(u16, SchemaOf),
    /// One JSON document when work that takes long has ended; `progress` as server-sent events to who takes
    /// them; 202 and the operation's place to who asks for that (`Prefer: respond-async`).
    Long(SchemaOf),
    /// Nothing.
    Empty(u16),
    /// Text of this media type.
    Text(&'static str),
    /// Bytes of this media type.
    Bytes(&'static str),
    /// Server-sent events.
    Events,
    /// A WebSocket.
    Socket,
    /// Whatever a guest answers.
    Guest,
}

impl Answer {
    /// The document's schema, if the answer is one.
    pub fn json(self) -> Option<SchemaOf> {
        match self {
            Answer::Json(_, schema_of) | Answer::Long(schema_of) => Some(schema_of),
            _ => None,
        }
    }
}

/// Whether an operation shows in a skin, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skin {
    /// By this name.
    As(&'static str),
    /// It does not, for this reason.
    Absent(&'static str),
}

impl Skin {
    /// The name, if it shows.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Skin::As(name) => Some(name),
            Skin::Absent(_) => None,
        }
    }
}

/// For the tables.
fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// All operations, in the order in which they are shown.
pub fn all() -> impl Iterator<Item = &'static Operation> {
    let tables = [
        system::OPERATIONS,
        vms::OPERATIONS,
        processes::OPERATIONS,
        files::OPERATIONS,
        guest::OPERATIONS,
        vm_access::OPERATIONS,
        exposures::OPERATIONS,
        images::OPERATIONS,
        jobs::OPERATIONS,
        volumes::OPERATIONS,
        plugins::OPERATIONS,
        agui::OPERATIONS,
        e2b::OPERATIONS,
        access::OPERATIONS,
    ];
    #[cfg(feature = "mcp-fixtures")]
    let tables = tables.into_iter().chain([crate::api::mcp::fixtures::OPERATIONS]);
    tables.into_iter().flatten()
}

/// The operation behind a route.
pub fn find(method: &Method, path: &str) -> Option<&'static Operation> {
    // The router answers HEAD by GET.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let takes = |operation: &Operation| {
        operation.method == *method || matches!(operation.answer, Answer::Guest)
    };
    of_route(path).iter().find(|operation| takes(operation)).copied()
}

/// The operations of a route, whatever their methods. Every request asks for them.
pub fn of_route(path: &str) -> &'static [&'static Operation] {
    type Routes = HashMap<&'static str, Vec<&'static Operation>>;
    static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
        let mut routes = Routes::new();
        for operation in all() {
            for path in operation.aliases.iter().chain([&operation.path]) {
                routes.entry(path).or_default().push(operation);
            }
        }
        routes
    });
    ROUTES.get(path).map_or(&[], Vec::as_slice)
}

/// The operation of a tool's name or an operation's id.
pub fn named(name: &str) -> Option<&'static Operation> {
    all().find(|operation| operation.tool.name() == Some(name) || operation.id == name)
}
