//! Events of runs, kept for clients that come back: the latest runs, each up to a size.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::response::sse::Event;
use futures_util::Stream;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::access::Principal;

/// Runs kept; the oldest that has ended makes room.
const RUNS_MAX: usize = 256;
/// Bytes of events of one run; a run that reaches it is ended.
const EVENTS_LEN_MAX: usize = 16 * 1024 * 1024;

/// All runs that are kept.
#[derive(Debug, Default)]
pub struct Records(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    order: VecDeque<String>,
    runs: BTreeMap<String, Arc<Record>>,
}

/// One run's events.
#[derive(Debug)]
pub struct Record {
    owner: Arc<str>,
    events: Mutex<Vec<Arc<str>>>,
    len: Mutex<usize>,
    /// How many events there are, and whether there will be no more.
    grown: watch::Sender<(usize, bool)>,
    cancelled: CancellationToken,
}

impl Records {
    /// A record for a new run.
    ///
    /// # Errors
    /// One sentence: the id is taken, or too many runs are under way.
    pub fn begin(&self, run_id: &str, principal: &Principal) -> Result<Arc<Record>, String> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.runs.contains_key(run_id) {
            return Err(format!("there is a run {run_id:?} already; each has an id of its own"));
        }
        if RUNS_MAX <= kept.order.len() {
            let ended = kept
                .order
                .iter()
                .position(|id| kept.runs.get(id).is_none_or(|record| record.grown.borrow().1));
            let ended = ended.and_then(|index| kept.order.remove(index));
            let ended = ended.ok_or_else(|| format!("{RUNS_MAX} runs are under way already"))?;
            kept.runs.remove(&ended);
        }
        let record = Arc::new(Record {
            owner: Arc::clone(&principal.name),
            events: Mutex::default(),
            len: Mutex::default(),
            grown: watch::channel((0, false)).0,
            cancelled: CancellationToken::new(),
        });
        kept.order.push_back(run_id.to_owned());
        kept.runs.insert(run_id.to_owned(), Arc::clone(&record));
        Ok(record)
    }

    /// A run's record, if it is kept.
    pub fn find(&self, run_id: &str) -> Option<Arc<Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).runs.get(run_id).cloned()
    }
}

impl Record {
    /// Whose run it is.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Asks the run to end.
    pub fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// When it was asked to end.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Appends an event. One that is too much ends the run.
    pub fn push(&self, event: &Value) {
        let text: Arc<str> = event.to_string().into();
        let mut len = self.len.lock().unwrap_or_else(PoisonError::into_inner);
        *len += text.len();
        if EVENTS_LEN_MAX < *len {
            self.cancel();
        }
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(text);
        let count = events.len();
        self.grown.send_modify(|(known, _)| *known = count);
    }

    /// There will be no more.
    pub fn end(&self) {
        self.grown.send_modify(|(_, ended)| *ended = true);
    }

    fn get(&self, index: usize) -> Option<Arc<str>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).get(index).cloned()
    }
}

/// Events after the first `from`, as they come; ends with the run. If `cancels`, the reader's
/// hang-up ends the run.
pub fn read(
    record: Arc<Record>,
    from: usize,
    cancels: bool,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let guard: Option<DropGuard> = cancels.then(|| record.cancelled.clone().drop_guard());
    let grown = record.grown.subscribe();
    let begin = (record, grown, from, guard);
    futures_util::stream::unfold(begin, |(record, mut grown, index, guard)| async move {
        let more = grown.wait_for(|(count, ended)| index < *count || *ended).await;
        more.ok()?;
        match record.get(index) {
            Some(text) => {
                let event = Event::default().id((index + 1).to_string()).data(&*text);
                Some((Ok(event), (record, grown, index + 1, guard)))
            }
            None => None,
        }
    })
}
