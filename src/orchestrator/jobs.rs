//! Work that takes long, as somebody may want to look at it and end it. Kept in memory: a daemon that
//! ends takes its work with it, and what has come is found again by the next one that asks for it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::artifact::oci::ImageError;
use crate::artifact::progress::{Progress, ProgressSender};
use crate::orchestrator::{Error, Orchestrator, chain, now_ms};

/// Jobs under way: nobody need wait for what they start, so that nothing else bounds them.
const RUNNING_MAX: usize = 64;
/// Jobs that have ended and can be looked at still.
const ENDED_MAX: usize = 200;
/// Letters of what a job is about.
const SUBJECT_LEN_MAX: usize = 300;

/// How a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum JobState {
    /// Under way.
    #[default]
    Running,
    /// It has done what it was asked to.
    Succeeded,
    /// It has not.
    Failed {
        /// Stable word.
        code: &'static str,
        /// One sentence.
        reason: String,
    },
    /// Somebody has ended it.
    Cancelled,
}

/// A job as it is at a moment.
#[derive(Clone, Debug)]
pub struct JobView {
    /// Number, as long as this daemon runs.
    pub id: u64,
    /// `image.pull`, `image.import`, `plugin.fetch` or `build`.
    pub kind: &'static str,
    /// What it is about: a reference, a plugin.
    pub subject: String,
    /// How it is.
    pub state: JobState,
    /// How far it is.
    pub progress: Progress,
    /// Milliseconds since the Unix epoch.
    pub began_at_ms: i64,
    /// Milliseconds since the Unix epoch, once it has ended.
    pub ended_at_ms: Option<i64>,
}

#[derive(Debug)]
struct Entry {
    kind: &'static str,
    subject: String,
    progress: ProgressSender,
    began_at_ms: i64,
    end: watch::Sender<(JobState, Option<i64>)>,
}

impl Entry {
    fn view(&self, id: u64) -> JobView {
        let (state, ended_at_ms) = self.end.borrow().clone();
        JobView {
            id,
            kind: self.kind,
            subject: self.subject.clone(),
            state,
            progress: *self.progress.subscribe().borrow(),
            began_at_ms: self.began_at_ms,
            ended_at_ms,
        }
    }

    fn finish(&self, state: JobState) {
        self.end.send_if_modified(|end| {
            let first = end.1.is_none();
            if first {
                *end = (state, Some(now_ms()));
            }
            first
        });
    }
}

/// All jobs.
#[derive(Debug, Default)]
pub struct Jobs(Mutex<(u64, BTreeMap<u64, Arc<Entry>>)>);

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Arc<Entry>>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, entry: Arc<Entry>) -> Result<u64, Error> {
        let mut jobs = self.lock();
        let (last, all) = &mut *jobs;
        let ended = |(id, entry): (&u64, &Arc<Entry>)| entry.end.borrow().1.map(|_| *id);
        let ended: Vec<u64> = all.iter().filter_map(ended).collect();
        if RUNNING_MAX <= all.len() - ended.len() {
            return Err(Error::TooManyJobs);
        }
        for id in ended.iter().take((ended.len() + 1).saturating_sub(ENDED_MAX)) {
            all.remove(id);
        }
        *last += 1;
        all.insert(*last, entry);
        Ok(*last)
    }

    fn find(&self, id: u64) -> Result<Arc<Entry>, Error> {
        self.lock().1.get(&id).cloned().ok_or_else(|| Error::JobNotFound(id.to_string()))
    }
}

/// A job whose work has not begun. Dropped before it ends, it has failed.
#[derive(Debug)]
pub struct Job {
    id: u64,
    entry: Arc<Entry>,
}

impl Job {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// For who does it.
    pub fn progress(&self) -> ProgressSender {
        self.entry.progress.clone()
    }

    /// Does it, and keeps how it ends.
    ///
    /// # Errors
    /// The work's.
    pub async fn run<T>(self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let outcome = work.await;
        self.entry.finish(match &outcome {
            Ok(_) => JobState::Succeeded,
            Err(Error::Images(ImageError::Cancelled)) => JobState::Cancelled,
            Err(error) => JobState::Failed { code: error.code(), reason: chain(error) },
        });
        outcome
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let reason = "it was given up".to_owned();
        self.entry.finish(JobState::Failed { code: "internal", reason });
    }
}

impl Orchestrator {
    /// Takes up a job.
    ///
    /// # Errors
    /// [`Error::TooManyJobs`].
    pub fn begin_job(&self, kind: &'static str, subject: &str) -> Result<Job, Error> {
        let entry = Arc::new(Entry {
            kind,
            subject: subject.chars().take(SUBJECT_LEN_MAX).collect(),
            progress: ProgressSender::default(),
            began_at_ms: now_ms(),
            end: watch::Sender::default(),
        });
        Ok(Job { id: self.shared.jobs.add(Arc::clone(&entry))?, entry })
    }

    /// All jobs, the oldest first.
    pub fn jobs(&self) -> Vec<JobView> {
        self.shared.jobs.lock().1.iter().map(|(id, entry)| entry.view(*id)).collect()
    }

    /// A job; waits at most `limit` for its end, if there is one.
    ///
    /// # Errors
    /// [`Error::JobNotFound`].
    pub async fn job(&self, id: u64, limit: Option<Duration>) -> Result<JobView, Error> {
        let entry = self.shared.jobs.find(id)?;
        if let Some(limit) = limit {
            let mut end = entry.end.subscribe();
            // What it is by then is the answer.
            let _ = tokio::time::timeout(limit, end.wait_for(|end| end.1.is_some())).await;
        }
        Ok(entry.view(id))
    }

    /// Asks a job to end. One that has ended stays as it is.
    ///
    /// # Errors
    /// [`Error::JobNotFound`].
    pub fn cancel_job(&self, id: u64) -> Result<JobView, Error> {
        let entry = self.shared.jobs.find(id)?;
        entry.progress.cancel();
        Ok(entry.view(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Arc<Entry> {
        Arc::new(Entry {
            kind: "build",
            subject: String::new(),
            progress: ProgressSender::default(),
            began_at_ms: 0,
            end: watch::Sender::default(),
        })
    }

    #[test]
    fn the_oldest_that_have_ended_are_forgotten() {
        let jobs = Jobs::default();
        let first = entry();
        assert_eq!(jobs.add(Arc::clone(&first)).unwrap(), 1);
        for _ in 0..ENDED_MAX + 10 {
            let one = entry();
            jobs.add(Arc::clone(&one)).unwrap();
            one.finish(JobState::Succeeded);
        }
        assert_eq!(jobs.lock().1.len(), ENDED_MAX + 1);
        assert!(jobs.find(1).is_ok(), "it runs still");
        for _ in 1..RUNNING_MAX {
            jobs.add(entry()).unwrap();
        }
        assert!(matches!(jobs.add(entry()), Err(Error::TooManyJobs)));
        first.finish(JobState::Cancelled);
        jobs.add(entry()).unwrap();
        assert!(matches!(jobs.find(2), Err(Error::JobNotFound(_))));
    }

    #[tokio::test]
    async fn a_job_ends_once_and_as_its_work_does() {
        let one = entry();
        let run = async |work: Result<(), Error>| {
            let entry = entry();
            let job = Job { id: 1, entry: Arc::clone(&entry) };
            let _ = job.run(async { work }).await;
            entry.view(1).state
        };
        assert_eq!(run(Ok(())).await, JobState::Succeeded);
        let cancelled = Err(Error::Images(ImageError::Cancelled));
        assert_eq!(run(cancelled).await, JobState::Cancelled);
        let failed = run(Err(Error::Images(ImageError::DiskFull))).await;
        assert!(matches!(failed, JobState::Failed { code: "disk_full", .. }), "{failed:?}");
        drop(Job { id: 1, entry: Arc::clone(&one) });
        assert!(matches!(one.view(1).state, JobState::Failed { .. }), "dropped");
        one.finish(JobState::Succeeded);
        assert!(matches!(one.view(1).state, JobState::Failed { .. }), "it has ended before");
    }
}
