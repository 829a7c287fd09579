//! `volantd ctl artifacts ...`, and what plugins' VMs are made of.

use hyper::Method;
use indicatif::HumanBytes;

use crate::cli::{ArtifactsCommand, Output};
use crate::ctl::client::{Client, Failure, whole};
use crate::ctl::{images, output, vms};
use crate::wire::{BroughtView, FetchPlugin, StoredView};

const NO_BODY: Option<&()> = None;

/// Runs a verb.
///
/// # Errors
/// [`Failure`].
pub async fn run(client: &Client, command: ArtifactsCommand, form: Output) -> Result<u8, Failure> {
    match command {
        ArtifactsCommand::Ls => {
            let all: Vec<StoredView> =
                client.json(Method::GET, "/api/v1/artifacts", NO_BODY).await?;
            if form != Output::Table {
                output::value(form, &all)?;
                return Ok(0);
            }
            let row = |one: StoredView| [one.kind, one.digest, HumanBytes(one.bytes).to_string()];
            output::print_table(["KIND", "DIGEST", "SIZE"], all.into_iter().map(row));
        }
    }
    Ok(0)
}

/// Brings what a plugin's VMs are made of, and shows on a terminal how far it is.
///
/// # Errors
/// [`Failure`].
pub async fn fetch(
    client: &Client,
    plugin: &str,
    request: &FetchPlugin,
) -> Result<Vec<BroughtView>, Failure> {
    let body = serde_json::to_vec(request).map_err(|error| Failure::local(error.to_string()))?;
    let path = format!("/api/v1/plugins/{}/fetch", vms::encoded(plugin));
    images::follow(client, &path, whole(body), "application/json").await
}

/// Prints what was brought.
///
/// # Errors
/// It cannot be encoded.
pub fn print(form: Output, brought: &[BroughtView]) -> Result<(), Failure> {
    if form != Output::Table {
        return output::value(form, &brought);
    }
    let row = |one: &BroughtView| {
        [one.source.clone(), one.digest.clone(), HumanBytes(one.bytes).to_string()]
    };
    output::print_table(["SOURCE", "DIGEST", "SIZE"], brought.iter().map(row));
    Ok(())
}
