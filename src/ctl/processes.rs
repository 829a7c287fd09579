//! `vms ps`, `attach`, `kill`, `wait`.
#![expect(clippy::print_stdout, reason = "the output of commands")]

use comfy_table::Table;
use hyper::Method;

use crate::cli::{AttachArgs, KillArgs, Output, WaitArgs};
use crate::ctl::client::{Client, Failure};
use crate::ctl::exec::{self, Session};
use crate::ctl::vms::path;
use crate::ctl::{output, terminal};
use crate::wire::{ProcessView, Signal, SignalBody};

/// One wait asks again after this long.
const WAIT_ROUND_MS: u64 = 600_000;

const NO_BODY: Option<&()> = None;

/// Lists the processes of a VM.
///
/// # Errors
/// [`Failure`].
pub async fn list(client: &Client, name: &str, form: Output) -> Result<(), Failure> {
    let path = path(name, "/processes");
    let processes: Vec<ProcessView> = client.json(Method::GET, &path, NO_BODY).await?;
    if form != Output::Table {
        return output::value(form, &processes);
    }
    let mut table = Table::new();
    table.set_header(["ID", "PID", "STATUS", "USER", "TAG", "STARTED", "COMMAND"]);
    for process in processes {
        let status = match &process.exit {
            Some(exit) => format!("exited {}", exec::exit_code(exit)),
            None => process.status,
        };
        table.add_row([
            process.id.to_string(),
            process.pid.to_string(),
            status,
            process.user,
            process.tag.unwrap_or_default(),
            process.started_at,
            process.argv.join(" "),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// Attaches to a process; exits as it does.
///
/// # Errors
/// [`Failure`].
pub async fn attach(client: &Client, args: AttachArgs) -> Result<u8, Failure> {
    let AttachArgs { name, id, no_stdin, from, detach_keys } = args;
    let process: ProcessView =
        client.json(Method::GET, &path(&name, &format!("/processes/{id}")), NO_BODY).await?;
    let keys =
        terminal::DetachKeys::parse(&detach_keys).ok_or_else(|| exec::no_keys(&detach_keys))?;
    let stdin = !no_stdin;
    let query = format!("/processes/{id}/attach?from={from}&stdin={stdin}");
    let session = Session { stdin, terminal: process.terminal, keys };
    exec::attend(client, &name, &path(&name, &query), session).await
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
