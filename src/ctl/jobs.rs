//! `volantd ctl operations ...`: work that takes long.

use hyper::Method;
use indicatif::HumanBytes;

use crate::cli::OperationsCommand;
use crate::ctl::client::{Client, Failure};
use crate::ctl::output::{Listed, Printer};
use crate::wire::{ImageProgress, JobStateWord, JobView};

const NO_BODY: Option<&()> = None;

/// Runs a verb. A failed operation that was waited for is a failure.
///
/// # Errors
/// [`Failure`].
pub async fn run(
    client: &Client,
    command: OperationsCommand,
    out: &Printer,
) -> Result<u8, Failure> {
    let all: Vec<JobView> = match command {
        OperationsCommand::List => client.json(Method::GET, "/api/v1/operations", NO_BODY).await?,
        OperationsCommand::Get { id, wait } => {
            let wait_ms = wait.unwrap_or(0).saturating_mul(1000).min(600_000);
            let path = format!("/api/v1/operations/{id}?wait_ms={wait_ms}");
            vec![client.json(Method::GET, &path, NO_BODY).await?]
        }
        OperationsCommand::Cancel { id } => {
            let path = format!("/api/v1/operations/{id}/cancel");
            vec![client.json(Method::POST, &path, NO_BODY).await?]
        }
    };
    out.list(&all)?;
    Ok(0)
}

impl Listed for JobView {
    const HEADER: &'static [&'static str] =
        &["ID", "KIND", "SUBJECT", "STATE", "PROGRESS", "STARTED"];

    fn name(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let state = match self.state {
            JobStateWord::Running => "running",
            JobStateWord::Succeeded => "succeeded",
            JobStateWord::Failed => "failed",
            JobStateWord::Cancelled => "cancelled",
        };
        let ImageProgress { phase, bytes_done, bytes_total, .. } = &self.progress;
        let progress = match (&self.reason, bytes_total) {
            (Some(reason), _) => reason.clone(),
            (None, 0) => phase.clone(),
            (None, total) => {
                format!("{phase} {} of {}", HumanBytes(*bytes_done), HumanBytes(*total))
            }
        };
        vec![
            self.id.to_string(),
            self.kind.clone(),
            self.subject.clone(),
            state.to_owned(),
            progress,
            self.started_at.clone(),
        ]
    }
}
