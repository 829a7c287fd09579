//! Who may do what.

use std::collections::BTreeMap;
use std::fmt;

/// What a caller may do; each scope holds the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look.
    Read,
    /// Change VMs and run things in them.
    Operate,
    /// Everything, tokens too.
    Admin,
}

impl Scope {
    /// All of them, narrowest first.
    pub const ALL: [Scope; 3] = [Scope::Read, Scope::Operate, Scope::Admin];

    /// The word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Operate => "operate",
            Scope::Admin => "admin",
        }
    }

    /// The scope of that word.
    pub fn from_word(word: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == word)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is kept of a bearer token: everything but the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Number, never used again.
    pub id: i64,
    /// What people call it; unique.
    pub name: String,
    /// What it opens.
    pub scope: Scope,
    /// Labels that a VM must have to be opened by it; none means all VMs, and what is no VM.
    pub labels: BTreeMap<String, String>,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// Milliseconds since the Unix epoch; `None` never ends.
    pub expires_at_ms: Option<i64>,
}

impl Token {
    /// Bytes of a token's name.
    pub const NAME_LEN_MAX: usize = 63;
    /// Labels of a token.
    pub const LABELS_MAX: usize = 16;
    /// Tokens at once: each is looked at by every request's authentication.
    pub const COUNT_MAX: usize = 1000;

    /// Whether its time is over.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_at_ms.is_some_and(|expires_at_ms| expires_at_ms <= now_ms)
    }
}

/// One line of the audit log: a change that was asked for, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Grows by one.
    pub id: i64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Who: `root`, `uid 1000`, `token ci`.
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

/// What is known of a change that was sent with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Nothing: it begins now.
    First,
    /// It is under way.
    Running,
    /// The key was sent with something else.
    Different,
    /// It was done, and answered so.
    Done {
        /// HTTP status.
        status: u16,
        /// Media type, or empty.
        kind: String,
        /// The answer.
        body: Vec<u8>,
    },
}
