//! `--watch`: a list, and again whenever it has changed.

use std::time::Duration;

use tokio::time::sleep;

use crate::ctl::client::Failure;
use crate::ctl::output::{Listed, Printer};

/// How often the daemon is asked.
const EVERY: Duration = Duration::from_secs(1);

/// Prints what `read` gives; with `watch`, for as long as somebody looks.
///
/// # Errors
/// What `read` fails with, or nobody looks any more.
pub async fn list<T: Listed>(
    watch: bool,
    out: &Printer,
    read: impl AsyncFn() -> Result<Vec<T>, Failure>,
) -> Result<(), Failure> {
    let mut last = None;
    loop {
        let items = read().await?;
        let now = serde_json::to_string(&items);
        let now = now.map_err(|error| Failure::local(error.to_string()))?;
        if last.as_ref() != Some(&now) {
            if watch {
                out.redraw()?;
            }
            out.list(&items)?;
            last = Some(now);
        }
        if !watch {
            return Ok(());
        }
        sleep(EVERY).await;
    }
}
