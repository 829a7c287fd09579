//! What comes in, and the events that go out. Fields that have no value are left out, never null.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Bytes of an id of a client's.
const ID_LEN_MAX: usize = 256;
/// Messages of one input; only the last one of the user is looked at.
const MESSAGES_MAX: usize = 10_000;

/// `RunAgentInput`. What is not needed here is taken and let be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunInput {
    /// The conversation.
    pub thread_id: String,
    /// This run; chosen by the client, new each time.
    pub run_id: String,
    /// What was said so far.
    pub messages: Vec<Value>,
    /// `volant`: `op`, `args`, `detach` (go on without the client), `confirm` (do not ask back).
    #[serde(default)]
    pub forwarded_props: Value,
    /// Answers to the questions of an earlier run.
    #[serde(default)]
    pub resume: Vec<Resume>,
}

/// The answer to a question.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    /// Which question.
    pub interrupt_id: String,
    /// `resolved` or `cancelled`.
    pub status: String,
    /// `approved`, and `editedArgs` in place of the arguments asked about.
    #[serde(default)]
    pub payload: Value,
}

/// `forwardedProps.volant`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Forwarded {
    /// The operation, by the name of its tool.
    pub op: Option<String>,
    /// Its arguments.
    pub args: Map<String, Value>,
    /// Whether the run goes on when the client hangs up.
    pub detach: bool,
    /// Whether what cannot be undone is done without asking back.
    pub confirm: bool,
}

impl RunInput {
    /// Checks the limits.
    ///
    /// # Errors
    /// One sentence.
    pub fn validate(&self) -> Result<(), String> {
        for (name, id) in [("threadId", &self.thread_id), ("runId", &self.run_id)] {
            if !(1..=ID_LEN_MAX).contains(&id.len()) || id.chars().any(char::is_control) {
                return Err(format!("{name}: 1 to {ID_LEN_MAX} printable characters"));
            }
        }
        if MESSAGES_MAX < self.messages.len() {
            return Err(format!("messages: at most {MESSAGES_MAX}"));
        }
        Ok(())
    }

    /// What is meant for this daemon; nothing if it is not understood.
    pub fn forwarded(&self) -> Forwarded {
        let own = self.forwarded_props.get("volant").cloned();
        own.and_then(|own| serde_json::from_value(own).ok()).unwrap_or_default()
    }

    /// Text of the user's last message.
    pub fn last_words(&self) -> Option<String> {
        let last = self.messages.iter().rev().find(|message| message["role"] == "user")?;
        match &last["content"] {
            Value::String(text) => Some(text.clone()),
            Value::Array(parts) => {
                let texts = parts.iter().filter_map(|part| part["text"].as_str());
                Some(texts.collect::<Vec<_>>().join("\n"))
            }
            _ => None,
        }
    }
}

/// Bytes of output that a result holds of each stream: the first and, after a gap, none.
const OUTPUT_LEN_MAX: usize = 128 * 1024;
/// Bytes of one event of a command's stream.
const FRAME_LEN_MAX: usize = 4 * 1024 * 1024;

/// A command's server-sent events, read as they come.
#[derive(Debug, Default)]
pub struct Output {
    pending: Vec<u8>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    len: usize,
    exit: Map<String, Value>,
}

impl Output {
    /// Bytes of output so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Takes bytes of the stream and returns the output in them, as stream and text.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<(&'static str, String)> {
        self.pending.extend_from_slice(bytes);
        let mut chunks = Vec::new();
        while let Some(end) = self.pending.windows(2).position(|pair| pair == b"\n\n") {
            let frame: Vec<u8> = self.pending.drain(..end + 2).collect();
            chunks.extend(self.frame(&String::from_utf8_lossy(&frame)));
        }
        if FRAME_LEN_MAX < self.pending.len() {
            self.pending.clear();
        }
        chunks
    }

    fn frame(&mut self, frame: &str) -> Option<(&'static str, String)> {
        let field = |name: &str| {
            let line = frame.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim_start)
        };
        let (kind, data) = (field("event:")?, field("data:")?);
        let data: Value = serde_json::from_str(data).ok()?;
        let (name, kept) = match kind {
            "stdout" => ("stdout", &mut self.stdout),
            "stderr" => ("stderr", &mut self.stderr),
            "exit" => {
                self.exit = data.as_object().cloned().unwrap_or_default();
                return None;
            }
            _ => return None,
        };
        let bytes = STANDARD.decode(data["data"].as_str()?).ok()?;
        self.len += bytes.len();
        let room = OUTPUT_LEN_MAX.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(&bytes[..room]);
        Some((name, String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// What a buffered answer would be; of long output only the beginning.
    pub fn end(self) -> Map<String, Value> {
        let mut result = self.exit;
        for (name, bytes) in [("stdout", self.stdout), ("stderr", self.stderr)] {
            let (text, encoding) = match String::from_utf8(bytes) {
                Ok(text) => (text, "utf-8"),
                Err(error) => (STANDARD.encode(error.as_bytes()), "base64"),
            };
            result.insert(name.to_owned(), Value::String(text));
            result.insert(format!("{name}_encoding"), Value::String(encoding.to_owned()));
        }
        result
    }
}
