//! `volantd ctl operations ...`: work that takes long.

use hyper::Method;
use indicatif::HumanBytes;

use crate::cli::{OperationsCommand, Output};
use crate::ctl::client::{Client, Failure};
use crate::ctl::output;
use crate::wire::{ImageProgress, JobStateWord, JobView};

const NO_BODY: Option<&()> = None;

/// Runs a verb. A failed operation that was waited for is a failure.
///
/// # Errors
/// [`Failure`].
pub async fn run(client: &Client, command: OperationsCommand, form: Output) -> Result<u8, Failure> {
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
    if form == Output::Table {
        let header = ["ID", "KIND", "SUBJECT", "STATE", "PROGRESS", "STARTED"];
        output::print_table(header, all.iter().map(row));
    } else {
        output::value(form, &all)?;
    }
    Ok(0)
}

fn row(job: &JobView) -> [String; 6] {
    let state = match job.state {
        JobStateWord::Running => "running",
        JobStateWord::Succeeded => "succeeded",
        JobStateWord::Failed => "failed",
        JobStateWord::Cancelled => "cancelled",
    };
    let ImageProgress { phase, bytes_done, bytes_total, .. } = &job.progress;
    let progress = match (&job.reason, bytes_total) {
        (Some(reason), _) => reason.clone(),
        (None, 0) => phase.clone(),
        (None, total) => format!("{phase} {} of {}", HumanBytes(*bytes_done), HumanBytes(*total)),
    };
    let (kind, subject) = (job.kind.clone(), job.subject.clone());
    [job.id.to_string(), kind, subject, state.to_owned(), progress, job.started_at.clone()]
}
