//! `vms ps`, `attach`, `kill`, `wait`.

use hyper::Method;

use crate::cli::{AttachArgs, KillArgs, WaitArgs};
use crate::ctl::client::{Client, Failure};
use crate::ctl::exec::{self, Session};
use crate::ctl::output::Printer;
use crate::ctl::vms::path;
use crate::ctl::{terminal, watch};
use crate::wire::{ProcessView, Signal, SignalBody};

/// One wait asks again after this long.
const WAIT_ROUND_MS: u64 = 600_000;

const NO_BODY: Option<&()> = None;

/// Lists the processes of a VM.
///
/// # Errors
/// [`Failure`].
pub async fn list(
    client: &Client,
    name: &str,
    watched: bool,
    out: &Printer,
) -> Result<(), Failure> {
    let path = path(name, "/processes");
    let read = async || client.json::<Vec<ProcessView>>(Method::GET, &path, NO_BODY).await;
    watch::list(watched, out, read).await
}

/// Attaches to a process; exits as it does.
///
/// # Errors
/// [`Failure`].
pub async fn attach(client: &Client, args: AttachArgs, out: &Printer) -> Result<u8, Failure> {
    let AttachArgs { name, id, no_stdin, from, detach_keys } = args;
    let process: ProcessView =
        client.json(Method::GET, &path(&name, &format!("/processes/{id}")), NO_BODY).await?;
    let keys =
        terminal::DetachKeys::parse(&detach_keys).ok_or_else(|| exec::no_keys(&detach_keys))?;
    let stdin = !no_stdin;
    let query = format!("/processes/{id}/attach?from={from}&stdin={stdin}");
    let session = Session { stdin, terminal: process.terminal, keys };
    exec::attend(client, &name, &path(&name, &query), session, out).await
}

/// Sends a signal.
///
/// # Errors
/// [`Failure`].
pub async fn kill(client: &Client, args: KillArgs) -> Result<(), Failure> {
    let body = SignalBody { signal: Signal::Name(args.signal) };
    let body = serde_json::to_vec(&body).map_err(|error| Failure::local(error.to_string()))?;
    let path = path(&args.name, &format!("/processes/{}/signal", args.id));
    client.send(Method::POST, &path, Some(body), "*/*").await.map(drop)
}

/// Waits for the end of a process; exits as it did.
///
/// # Errors
/// [`Failure`], also when the time is over.
pub async fn wait(client: &Client, args: WaitArgs) -> Result<u8, Failure> {
    let mut left_ms = args.timeout.map(|seconds| seconds.saturating_mul(1000));
    loop {
        let round_ms = left_ms.unwrap_or(WAIT_ROUND_MS).min(WAIT_ROUND_MS);
        let query = format!("/processes/{}/wait?timeout_ms={round_ms}", args.id);
        let process: ProcessView =
            client.json(Method::GET, &path(&args.name, &query), NO_BODY).await?;
        if let Some(exit) = process.exit {
            return Ok(exec::exit_code(&exit));
        }
        left_ms = left_ms.map(|left| left - round_ms);
        if left_ms == Some(0) {
            let text = format!("process {} still runs", args.id);
            return Err(Failure { exit_code: 7, ..Failure::local(text) });
        }
    }
}
