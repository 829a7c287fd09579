//! Operations on what a guest tells of itself.

use axum::http::Method;

use crate::api::operations::{Access, Answer, Hints, Operation, Skin, of};
use crate::model::Scope;
use crate::wire::{GuestMetricsView, GuestView, PortView, TimeSyncView};

/// See the folder's head.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "getGuest",
        title: "Look at the guest",
        description: "Versions of the guest kernel and its agent, and what the agent can do.",
        method: Method::GET,
        path: "/api/v1/vms/{name}/guest",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<GuestView>),
        tool: Skin::As("guest_info"),
        verb: Skin::As("vms guest"),
    },
    Operation {
        id: "getGuestMetrics",
        title: "Measure the guest",
        description: "Counters of the guest's processors, memory, disk and network since its \
                      boot.",
        method: Method::GET,
        path: "/api/v1/vms/{name}/guest/metrics",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<GuestMetricsView>),
        tool: Skin::As("guest_metrics"),
        verb: Skin::As("vms metrics"),
    },
    Operation {
        id: "listGuestPorts",
        title: "List listening ports",
        description: "What listens in the guest, for which address, by which program.",
        method: Method::GET,
        path: "/api/v1/vms/{name}/guest/ports",
        aliases: &[],
        access: Access::Scope(Scope::Read),
        hints: Hints::READS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<Vec<PortView>>),
        tool: Skin::As("guest_ports"),
        verb: Skin::As("vms ports"),
    },
    Operation {
        id: "syncGuestTime",
        title: "Set the guest's clock",
        description: "Sets the guest's clock to the host's.",
        method: Method::POST,
        path: "/api/v1/vms/{name}/guest/time",
        aliases: &[],
        access: Access::Scope(Scope::Operate),
        hints: Hints::SETS,
        query: None,
        body: None,
        answer: Answer::Json(200, of::<TimeSyncView>),
        tool: Skin::As("guest_sync_time"),
        verb: Skin::As("vms sync-time"),
    },
];
