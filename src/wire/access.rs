//! Shapes of tokens and of the audit log.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /api/v1/tokens`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What people call it, 1 to 63 of `a-z`, `0-9`, `-`.
    #[schemars(regex(pattern = "^[a-z0-9-]{1,63}$"))]
    pub name: String,
    /// `read`, `operate` or `admin`; each holds the ones before it.
    #[schemars(extend("enum" = ["read", "operate", "admin"]))]
    pub scope: String,
    /// Labels that a VM must have to be opened by it, at most 16; none: every VM, and all the rest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub labels: BTreeMap<String, String>,
    /// Seconds after which it opens nothing any more; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u32>,
}

/// A token, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TokenView {
    /// Number.
    pub id: i64,
    /// Name.
    pub name: String,
    /// `read`, `operate` or `admin`.
    pub scope: String,
    /// Labels that a VM must have to be opened by it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Its time is over.
    pub expired: bool,
}

/// The answer to a token's creation.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CreatedToken {
    /// The token.
    #[serde(flatten)]
    pub token: TokenView,
    /// The bearer token itself. Shown this once; only its hash is kept.
    pub secret: String,
}

/// One line of the audit log.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AuditView {
    /// Grows by one.
    pub id: i64,
    /// RFC 3339, UTC.
    pub timestamp: String,
    /// Who: `root token`, `uid 1000`, `token ci`.
    pub principal: String,
    /// From where: an address, or `unix`.
    pub peer: String,
    /// What: an operation's id.
    pub operation: String,
    /// On what: the request's path.
    pub target: String,
    /// The answer's HTTP status.
    pub status: u16,
    /// The request's id.
    pub request_id: String,
}
