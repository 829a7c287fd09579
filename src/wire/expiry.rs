//! The end of a VM's time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What follows the end of a VM's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiryWord {
    /// It is deleted.
    #[default]
    Delete,
    /// It is stopped.
    Stop,
}

/// `PUT /api/v1/vms/{name}/ttl`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTtl {
    /// How long it may live, in milliseconds from now; null or absent: without an end.
    #[serde(default)]
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    pub ttl_ms: Option<u64>,
    /// What follows the end of that time.
    #[serde(default)]
    pub on_expiry: OnExpiryWord,
}
