//! `vms exec`: the command's bytes as they come, and its exit code as ours.

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use hyper::Method;

use crate::cli::ExecArgs;
use crate::ctl::client::{Client, Failure};
use crate::wire::{ChunkView, ExecBody, ExitView};

/// Exit code when the daemon or the guest failed, not the command.
const ENGINE_FAILED: u8 = 125;
/// Exit code when the deadline killed the command, as timeout(1) has it.
const TIMED_OUT: u8 = 124;

/// Runs it.
///
/// # Errors
/// [`Failure`]; the command's own failure is its exit code.
pub async fn run(client: &Client, args: ExecArgs) -> Result<u8, Failure> {
    let engine = |failure: Failure| Failure {
        exit_code: if failure.exit_code == 1 { ENGINE_FAILED } else { failure.exit_code },
        ..failure
    };
    let mut body = ExecBody {
        argv: args.argv,
        env: args.env.into_iter().collect(),
        cwd: args.cwd,
        user: args.user,
        timeout_ms: args.timeout.map(|seconds| seconds.saturating_mul(1000)),
        ..ExecBody::default()
    };
    if args.interactive {
        let mut stdin = Vec::new();
        std::io::stdin()
            .read_to_end(&mut stdin)
            .map_err(|error| Failure::local(error.to_string()))?;
        body.stdin_base64 = Some(STANDARD.encode(stdin));
    }
    let body = serde_json::to_vec(&body).map_err(|error| Failure::local(error.to_string()))?;
    let path = format!("/api/v1/vms/{}/exec", args.name);
    let answer =
        client.send(Method::POST, &path, Some(body), "text/event-stream").await.map_err(engine)?;
    let mut parser = SseParser::default();
    let mut stream = answer.into_body();
    while let Some(frame) = stream.frame().await {
        let frame = frame.map_err(|error| engine(Failure::local(error.to_string())))?;
        for (kind, data) in parser.push(frame.data_ref().map_or(&[][..], |bytes| bytes)) {
            if let Some(code) = event(&kind, &data).map_err(engine)? {
                return Ok(code);
            }
        }
    }
    Err(engine(Failure::local("the daemon hung up before the command had ended")))
}

#[expect(clippy::print_stderr, reason = "why a command never ran")]
fn event(kind: &str, data: &str) -> Result<Option<u8>, Failure> {
    let odd = |error: &dyn std::fmt::Display| Failure::local(format!("the stream is odd: {error}"));
    if kind == "exit" {
        let exit: ExitView = serde_json::from_str(data).map_err(|error| odd(&error))?;
        if let Some(error) = &exit.error {
            eprintln!("error: {error}");
        }
        return Ok(Some(exit_code(&exit)));
    }
    let chunk: ChunkView = serde_json::from_str(data).map_err(|error| odd(&error))?;
    let bytes = STANDARD.decode(chunk.data).map_err(|error| odd(&error))?;
    let written = match kind {
        "stdout" => write_all(&mut std::io::stdout().lock(), &bytes),
        "stderr" => write_all(&mut std::io::stderr().lock(), &bytes),
        _ => Ok(()),
    };
    written.map_err(|error| Failure::local(error.to_string()))?;
    Ok(None)
}

fn write_all(to: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

fn exit_code(exit: &ExitView) -> u8 {
    match (exit.timed_out, exit.exit_code, exit.signal) {
        (true, ..) => TIMED_OUT,
        (_, Some(code), _) => u8::try_from(code & 0xff).unwrap_or(ENGINE_FAILED),
        (_, None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(ENGINE_FAILED),
        _ => ENGINE_FAILED,
    }
}

/// Cuts a byte stream into server-sent events (kind, data).
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    kind: String,
    data: String,
}

impl SseParser {
    /// Takes bytes, cut anywhere, and gives the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<(String, String)> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            if let Some(kind) = line.strip_prefix("event: ") {
                kind.clone_into(&mut self.kind);
            } else if let Some(data) = line.strip_prefix("data: ") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data);
            } else if line.is_empty() && !self.data.is_empty() {
                events.push((std::mem::take(&mut self.kind), std::mem::take(&mut self.data)));
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_wherever_the_stream_is_cut() {
        let text = b":\n\nevent: stdout\ndata: {\"data\":\"aGk=\"}\n\nevent: exit\ndata: {\"exit_code\":3}\n\n";
        for cut in 0..text.len() {
            let mut parser = SseParser::default();
            let mut events = parser.push(&text[..cut]);
            events.extend(parser.push(&text[cut..]));
            let kinds: Vec<_> = events.iter().map(|(kind, _)| kind.as_str()).collect();
            assert_eq!(kinds, ["stdout", "exit"], "cut at {cut}");
        }
    }

    #[test]
    fn exit_codes_are_the_guests() {
        let exit =
            |code, signal, timed_out| ExitView { exit_code: code, signal, timed_out, error: None };
        assert_eq!(exit_code(&exit(Some(3), None, false)), 3);
        assert_eq!(exit_code(&exit(None, Some(9), false)), 137);
        assert_eq!(exit_code(&exit(None, Some(9), true)), 124);
        assert_eq!(exit_code(&exit(None, None, false)), 125);
    }
}
