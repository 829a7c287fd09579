//! Operations on ports of the host that lead to VMs.

use axum::http::Method;

use crate::api::exposures;
use crate::api::operations::{Access, Answer, Body, Hints, Operation, Skin, of};
use crate::model::Scope;
use crate::wire::ExposureView;

/// See the folder's head.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "listVmExposures",
        title: "List exposed ports",
        description: "Ports of the host that lead to the VM.",
        method: Method::GET,
        path: "/api/v1/vms/{name}/exposures",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<Vec<ExposureView>>),
        tool: Skin::As("vm_exposed"),
        verb: Skin::As("vms exposed"),
    },
    Operation {
        id: "exposeVmPort",
        title: "Expose a port",
        description: "Makes a TCP or UDP port of the host lead to one of the VM: this one, or any \
                      that is free. It is kept until it is removed or the VM is deleted.",
        method: Method::POST,
        path: "/api/v1/vms/{name}/exposures",
        aliases: &[],
        access: Access::Scope(Scope::Operate),
        hints: Hints::ADDS,
        query: None,
        body: Some(Body::Json(of::<ExposureView>)),
        answer: Answer::Json(201, of::<ExposureView>),
        tool: Skin::As("vm_expose"),
        verb: Skin::As("vms expose"),
    },
    Operation {
        id: "removeVmExposure",
        title: "Stop exposing a port",
        description: "The host's port leads to the VM no more. Where it does by several addresses, one is named.",
        method: Method::DELETE,
        path: "/api/v1/vms/{name}/exposures/{transport}/{host_port}",
        aliases: &[],
        access: Access::Scope(Scope::Operate),
        hints: Hints::DESTROYS,
        query: Some(of::<exposures::OfAddress>),
        body: None,
        answer: Answer::Empty(204),
        tool: Skin::As("vm_unexpose"),
        verb: Skin::As("vms unexpose"),
    },
];
