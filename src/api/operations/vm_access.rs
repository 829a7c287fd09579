//! Operations on who may reach a VM's ports.

use axum::http::Method;

use crate::api::operations::{Access, Answer, Body, Hints, Operation, Skin, of};
use crate::model::Scope;
use crate::wire::{AccessView, SignBody, SignedView};

const SECRET: Skin = Skin::Absent("a model must not hold or hand out the keys");

/// See the folder's head.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "getVmAccess",
        title: "Show a VM's access token",
        description: "The token that opens the VM's ports and nothing else, if it was given one.",
        method: Method::GET,
        path: "/api/v1/vms/{name}/access",
        aliases: &[],
        access: Access::Scope(Scope::Operate),
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<AccessView>),
        tool: SECRET,
        verb: Skin::As("vms access"),
    },
    Operation {
        id: "renewVmAccess",
        title: "Renew a VM's access token",
        description: "Gives the VM a new token; earlier ones and signed addresses open nothing \
                      any more.",
        method: Method::POST,
        path: "/api/v1/vms/{name}/access",
        aliases: &[],
        access: Access::Scope(Scope::Operate),
        hints: Hints::DESTROYS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<AccessView>),
        tool: SECRET,
        verb: Skin::As("vms access"),
    },
    Operation {
        id: "revokeVmAccess",
        title: "Revoke a VM's access token",
        description: "Takes the VM's token, and with it its signed addresses, away.",
        method: Method::DELETE,
        path: "/api/v1/vms/{name}/access",
        aliases: &[],
        access: Access::Scope(Scope::Operate),
        hints: Hints::DESTROYS,
        query: None,
        body: None,
        answer: Answer::Empty(204),
        tool: SECRET,
        verb: Skin::As("vms access"),
    },
    Operation {
        id: "signVmUrl",
        title: "Sign an address of a VM's port",
        description: "Makes an address on the proxy's listener that opens one port of the VM \
                      without a token, for a time.",
        method: Method::POST,
        path: "/api/v1/vms/{name}/access/url",
        aliases: &[],
        access: Access::Scope(Scope::Operate),
        hints: Hints::ADDS,
        query: None,
        body: Some(Body::Json(of::<SignBody>)),
        answer: Answer::Json(200, of::<SignedView>),
        tool: SECRET,
        verb: Skin::As("vms url"),
    },
];
