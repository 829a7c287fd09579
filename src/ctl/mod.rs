//! `volantd ctl`: an HTTP client. Knows nothing of the server but its wire format.

mod access;
mod actions;
mod apply;
mod artifacts;
mod build;
mod client;
mod complete;
mod console;
mod context;
mod copy;
mod exec;
mod expose;
mod files;
mod forward;
mod guest;
mod images;
mod jobs;
mod logs;
mod mcp;
mod operations;
mod output;
mod plugins;
mod processes;
mod request;
mod shell;
mod socket;
mod source;
mod sse;
mod suggest;
mod terminal;
mod tls;
mod top;
mod tui;
mod vm_access;
mod vms;
mod volumes;
mod watch;

use std::process::ExitCode;

use crate::cli::{CtlArgs, CtlCommand, McpArgs};
use client::{Client, Failure};
use output::Printer;

pub use shell::{complete, completions, expanded, man};

/// Runs one command and ends with its exit code.
pub fn main(args: CtlArgs) -> ExitCode {
    finish(run(args))
}

/// Speaks MCP on stdin and stdout until stdin ends.
pub fn serve_mcp(args: &McpArgs) -> ExitCode {
    finish(mcp::run(args))
}

#[expect(clippy::print_stderr, reason = "errors and hints are for the person at the terminal")]
fn finish(work: impl Future<Output = Result<u8, Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(work);
            // A read of stdin that nobody waits for any more cannot be interrupted.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::local(error.to_string())),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            // Where nobody reads any more, nothing is said.
            if !failure.message.is_empty() {
                eprintln!("error: {}", failure.message);
            }
            if let Some(hint) = &failure.hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(failure.exit_code)
        }
    }
}

async fn run(args: CtlArgs) -> Result<u8, Failure> {
    let out = Printer::new(&args);
    // A context is changed without the one in use.
    if let Some(CtlCommand::Context(command)) = args.command {
        return context::run(command, args.host, args.token_file, &out);
    }
    let client = context::client(&args)?;
    match args.command {
        None | Some(CtlCommand::Tui) => tui::run(client).await,
        Some(command) => match dispatch(&client, command, &out).await {
            Ok(code) => Ok(code),
            Err(failure) => Err(suggest::hint(&client, failure).await),
        },
    }
}

/// Runs a command.
async fn dispatch(client: &Client, command: CtlCommand, out: &Printer) -> Result<u8, Failure> {
    match command {
        CtlCommand::Tui | CtlCommand::Context(_) => {
            Err(Failure::local("that is for a shell: this is one daemon's"))
        }
        CtlCommand::Images(command) => images::run(client, command, out).await,
        CtlCommand::Build(build) => build::run(client, &build, out).await,
        CtlCommand::Artifacts(command) => artifacts::run(client, command, out).await,
        CtlCommand::Operations(command) => jobs::run(client, command, out).await,
        CtlCommand::Volumes(command) => volumes::run(client, command, out).await,
        CtlCommand::Vms(command) => vms::run(client, command, out).await,
        CtlCommand::Plugins(command) => plugins::run(client, command, out).await,
        CtlCommand::Apply(args) => apply::run(client, &args, out).await,
        CtlCommand::Top(args) => top::run(client, args, out).await,
        CtlCommand::PortForward(args) => forward::run(client, &args, out).await,
        CtlCommand::Api(args) => request::run(client, &args, out).await,
        CtlCommand::Info => access::info(client, out).await,
        CtlCommand::Tokens(command) => access::tokens(client, command, out).await,
        CtlCommand::Audit(audit) => access::audit(client, &audit, out).await,
        CtlCommand::Events { follow: _, since } => {
            let query = since.map_or(String::new(), |since| format!("?since={since}"));
            let path = format!("/api/v1/events{query}");
            client.events(&path, |_, data| out.event(data)).await
        }
    }
}
