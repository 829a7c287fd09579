//! Processes in a VM.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::wire::ExitView;

/// `POST /api/v1/vms/{name}/processes`. Either `argv` or `command`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("oneOf" = [{ "required": ["argv"] }, { "required": ["command"] }]))]
pub struct StartProcess {
    /// Program and arguments.
    #[schemars(length(min = 1))]
    pub argv: Vec<String>,
    /// A line for `/bin/sh -c`.
    pub command: Option<String>,
    /// Added to the guest's environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// `name`, `uid` or `uid:gid`.
    pub user: Option<String>,
    /// The process tree is killed after this many milliseconds.
    pub timeout_ms: Option<u64>,
    /// The process tree is killed when nothing moved for this many milliseconds.
    pub idle_timeout_ms: Option<u64>,
    /// Whether stdin will be written.
    pub stdin: bool,
    /// Run it on a terminal of this size.
    pub terminal: Option<TerminalView>,
    /// A name of the caller's choice, at most 256 bytes.
    pub tag: Option<String>,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TerminalView {
    /// Characters in a line.
    pub cols: u16,
    /// Lines.
    pub rows: u16,
}

/// A process, as long as the guest remembers it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ProcessView {
    /// Never used again while the VM is up.
    pub id: u32,
    /// The guest kernel's number.
    pub pid: i32,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// Whom it runs as.
    pub user: String,
    /// As asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Whether it runs on a terminal.
    pub terminal: bool,
    /// RFC 3339, UTC, by the guest's clock.
    pub started_at: String,
    /// `running` or `exited`.
    pub status: String,
    /// Offset of the oldest byte of output that is kept.
    pub output_start: u64,
    /// Bytes of output so far.
    pub output_end: u64,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitView>,
}

/// `POST .../processes/{id}/signal`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalBody {
    /// Which.
    pub signal: Signal,
}

/// Names as they are usually written.
const SIGNAL_PATTERN: &str = "^(SIG)?(HUP|INT|QUIT|ILL|TRAP|ABRT|BUS|FPE|KILL|USR1|SEGV|USR2|PIPE\
    |ALRM|TERM|STKFLT|CHLD|CONT|STOP|TSTP|TTIN|TTOU|URG|XCPU|XFSZ|VTALRM|PROF|WINCH|IO|PWR|SYS)$";

/// A signal by number or by name (`TERM`, `SIGTERM`).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Signal {
    /// 1 to 64.
    Number(#[schemars(range(min = 1, max = 64))] u8),
    /// Case does not matter.
    Name(#[schemars(regex(pattern = SIGNAL_PATTERN))] String),
}

impl Signal {
    /// Its number; none for a name that is not known.
    pub fn number(&self) -> Option<u8> {
        match self {
            Signal::Number(number) => Some(*number),
            Signal::Name(name) => volant_protocol::signal_number(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        let number = |text: &str| {
            let body: SignalBody = serde_json::from_str(text).unwrap();
            body.signal.number()
        };
        assert_eq!(number(r#"{"signal":"SIGTERM"}"#), Some(15));
        assert_eq!(number(r#"{"signal":"usr1"}"#), Some(10));
        assert_eq!(number(r#"{"signal":"9"}"#), Some(9));
        assert_eq!(number(r#"{"signal":9}"#), Some(9));
        assert_eq!(number(r#"{"signal":"NONE"}"#), None);
    }
}
