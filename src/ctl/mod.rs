//! `volantd ctl`: an HTTP client. Knows nothing of the server but its wire format.

mod access;
mod actions;
mod artifacts;
mod build;
mod client;
mod console;
mod copy;
mod exec;
mod expose;
mod files;
mod images;
mod jobs;
mod logs;
mod mcp;
mod operations;
mod output;
mod plugins;
mod processes;
mod socket;
mod source;
mod sse;
mod terminal;
mod tls;
mod vm_access;
mod vms;
mod volumes;

use std::process::ExitCode;

use crate::cli::{CtlArgs, CtlCommand, McpArgs};
use client::{Client, Failure};

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
            eprintln!("error: {}", failure.message);
            if let Some(hint) = &failure.hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(failure.exit_code)
        }
    }
}

async fn run(args: CtlArgs) -> Result<u8, Failure> {
    let client = Client::new(args.host.as_deref(), args.token_file.as_deref())?;
    match args.command {
        CtlCommand::Images(command) => images::run(&client, command, args.output).await,
        CtlCommand::Build(build) => build::run(&client, &build, args.output).await,
        CtlCommand::Artifacts(command) => artifacts::run(&client, command, args.output).await,
        CtlCommand::Operations(command) => jobs::run(&client, command, args.output).await,
        CtlCommand::Volumes(command) => volumes::run(&client, command, args.output).await,
        CtlCommand::Vms(command) => vms::run(&client, command, args.output).await,
        CtlCommand::Plugins(command) => plugins::run(&client, command, args.output).await,
        CtlCommand::Info => access::info(&client, args.output).await,
        CtlCommand::Tokens(command) => access::tokens(&client, command, args.output).await,
        CtlCommand::Audit(audit) => access::audit(&client, &audit, args.output).await,
        CtlCommand::Events { since } => {
            let query = since.map_or(String::new(), |since| format!("?since={since}"));
            let path = format!("/api/v1/events{query}");
            client.events(&path, output::event(args.output)).await
        }
    }
}
