//! Ports of the host that lead to a VM.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /api/v1/vms/{name}/exposures`, one of `expose` of a new VM, and the answer to both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExposureView {
    /// Port in the guest.
    pub guest_port: u16,
    /// Port of the host; any that is free if absent or 0.
    #[serde(default)]
    pub host_port: u16,
    /// Address of the host; all of them if absent.
    #[serde(default = "all")]
    pub host_ip: String,
    /// `tcp` or `udp`.
    #[serde(default = "tcp")]
    pub transport: String,
}

fn all() -> String {
    "0.0.0.0".to_owned()
}

fn tcp() -> String {
    "tcp".to_owned()
}
