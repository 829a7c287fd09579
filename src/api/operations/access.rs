//! Operations on who may call, and on what was done.

use axum::http::Method;

use crate::api::audit;
use crate::api::operations::{Access, Answer, Body, Hints, Operation, Skin, of};
use crate::model::Scope;
use crate::wire::{AuditView, CreateToken, CreatedToken, TokenView};

const SECRET: Skin = Skin::Absent("a model must not hold or hand out the keys");

/// See the folder's head.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "listTokens",
        title: "List tokens",
        description: "All tokens, without their secrets.",
        method: Method::GET,
        path: "/api/v1/tokens",
        aliases: &[],
        access: Access::Scope(Scope::Admin),
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<Vec<TokenView>>),
        tool: SECRET,
        verb: Skin::As("tokens list"),
    },
    Operation {
        id: "createToken",
        title: "Create a token",
        description: "Makes a bearer token with a scope and, if wanted, an end. Its secret is in \
                      the answer and nowhere else.",
        method: Method::POST,
        path: "/api/v1/tokens",
        aliases: &[],
        access: Access::Scope(Scope::Admin),
        hints: Hints::ADDS,
        query: None,
        body: Some(Body::Json(of::<CreateToken>)),
        answer: Answer::Json(201, of::<CreatedToken>),
        tool: SECRET,
        verb: Skin::As("tokens create"),
    },
    Operation {
        id: "revokeToken",
        title: "Revoke a token",
        description: "Ends a token: it opens nothing from now on.",
        method: Method::DELETE,
        path: "/api/v1/tokens/{name}",
        aliases: &[],
        access: Access::Scope(Scope::Admin),
        hints: Hints::DESTROYS,
        query: None,
        body: None,
        answer: Answer::Empty(204),
        tool: SECRET,
        verb: Skin::As("tokens revoke"),
    },
    Operation {
        id: "listAudit",
        title: "Read the audit log",
        description: "Changes that were asked for, newest first: who, from where, on what, and \
                      what came of it.",
        method: Method::GET,
        path: "/api/v1/audit",
        aliases: &[],
        access: Access::Scope(Scope::Admin),
        hints: Hints::READS,
        query: Some(of::<audit::Before>),
        body: None,
        answer: Answer::Json(200, of::<Vec<AuditView>>),
        tool: Skin::As("audit_list"),
        verb: Skin::As("audit"),
    },
];
