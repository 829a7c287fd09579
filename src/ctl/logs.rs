//! `volantd ctl vms logs`: the daemon's text, as it comes.

use std::io::Write;

use http_body_util::BodyExt;
use hyper::Method;

use crate::cli::{LogSource, LogsArgs};
use crate::ctl::client::{Client, Failure};
use crate::ctl::vms::{encoded, path};

/// Prints until the end.
///
/// # Errors
/// [`Failure`].
pub async fn run(client: &Client, args: &LogsArgs) -> Result<(), Failure> {
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
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::local(error.to_string()))?;
        let mut stdout = std::io::stdout().lock();
        let bytes = frame.data_ref().map_or(&[][..], |bytes| bytes);
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        written.map_err(|error| Failure::local(error.to_string()))?;
    }
    Ok(())
}
