//! `volantd ctl artifacts ...`, and what plugins' VMs are made of.

use hyper::Method;

use crate::cli::ArtifactsCommand;
use crate::ctl::client::{Client, Failure, whole};
use crate::ctl::output::Printer;
use crate::ctl::{images, vms};
use crate::wire::{BroughtView, FetchPlugin, StoredView};

const NO_BODY: Option<&()> = None;

/// Runs a verb.
///
/// # Errors
/// [`Failure`].
pub async fn run(client: &Client, command: ArtifactsCommand, out: &Printer) -> Result<u8, Failure> {
    match command {
        ArtifactsCommand::Ls => {
            let all: Vec<StoredView> =
                client.json(Method::GET, "/api/v1/artifacts", NO_BODY).await?;
            out.list(&all)?;
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
    out: &Printer,
) -> Result<Vec<BroughtView>, Failure> {
    let body = serde_json::to_vec(request).map_err(|error| Failure::local(error.to_string()))?;
    let path = format!("/api/v1/plugins/{}/fetch", vms::encoded(plugin));
    images::follow(client, &path, whole(body), "application/json", out).await
}
