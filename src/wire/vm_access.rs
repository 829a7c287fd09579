//! Who may reach a VM's ports.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET` and `POST /api/v1/vms/{name}/access`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AccessView {
    /// Opens the VM's ports, and nothing else; absent if it was given none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// `POST /api/v1/vms/{name}/access/url`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignBody {
    /// Port in the guest.
    pub port: u16,
    /// Path and query of the address.
    #[serde(default)]
    pub path: String,
    /// How long it opens the port, in seconds; at most 30 days.
    #[serde(default = "hour")]
    pub expires_in_s: u64,
}

fn hour() -> u64 {
    3600
}

/// A signed address.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SignedView {
    /// Opens the port without a token.
    pub url: String,
    /// RFC 3339, UTC.
    pub expires_at: String,
}
