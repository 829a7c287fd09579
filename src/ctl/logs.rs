//! `volantd ctl vms logs`: the daemon's text, as it comes.

use hyper::Method;

use crate::cli::{LogSource, LogsArgs};
use crate::ctl::client::{Client, Failure, print};
use crate::ctl::output::Printer;
use crate::ctl::vms::{encoded, path};

/// Prints until the end.
///
/// # Errors
/// [`Failure`].
pub async fn run(client: &Client, args: &LogsArgs, out: &Printer) -> Result<(), Failure> {
    let mut query = format!("/logs?follow={}&timestamps={}", args.follow, args.timestamps);
    if let Some(tail) = args.tail {
        query.push_str(&format!("&tail={tail}"));
    }
    if let Some(since) = &args.since {
        query.push_str(&format!("&since={}", encoded(since)));
    }
    query.push_str(match args.source {
        None => "",
        Some(LogSource::Console) => "&source=console",
        Some(LogSource::Workload) => "&source=workload",
    });
    let answer = client.send(Method::GET, &path(&args.name, &query), None, "text/plain").await?;
    print(answer.into_body(), out).await
}
