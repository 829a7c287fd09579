//! Questions that a run has ended with, and their answers in a later run of the same thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api::agui::command::Command;

/// How long a question stands.
pub const OPEN_FOR: Duration = Duration::from_secs(15 * 60);
/// Threads with a question at once.
const THREADS_MAX: usize = 1024;

/// What was asked about.
#[derive(Clone, Debug)]
pub struct Question {
    /// Names it to the client.
    pub id: String,
    /// Who was asked.
    pub owner: Arc<str>,
    /// What is done on a yes.
    pub command: Command,
    /// The tool call that waits.
    pub tool_call_id: String,
    /// When it was asked.
    pub asked_at: Instant,
    /// What came of it, once answered: the same answer again gets the same result.
    pub outcome: Option<Value>,
}

/// The latest question of each thread.
#[derive(Debug, Default)]
pub struct Interrupts(Mutex<BTreeMap<(Arc<str>, String), Question>>);

impl Interrupts {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<(Arc<str>, String), Question>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers a question.
    ///
    /// # Errors
    /// One sentence: there are too many.
    pub fn ask(&self, thread_id: &str, question: Question) -> Result<(), String> {
        self.with(|open| {
            open.retain(|_, question| question.asked_at.elapsed() < OPEN_FOR);
            if THREADS_MAX <= open.len() {
                return Err("too many questions are open".to_owned());
            }
            open.insert((Arc::clone(&question.owner), thread_id.to_owned()), question);
            Ok(())
        })
    }

    /// The thread's question, answered or not.
    pub fn of(&self, owner: &Arc<str>, thread_id: &str) -> Option<Question> {
        let key = (Arc::clone(owner), thread_id.to_owned());
        self.with(|open| open.get(&key).cloned())
    }

    /// Takes the right to act on the thread's question: false if another run has it.
    pub fn settle(&self, owner: &Arc<str>, thread_id: &str, outcome: Value) -> bool {
        let key = (Arc::clone(owner), thread_id.to_owned());
        self.with(|open| match open.get_mut(&key) {
            Some(question) => {
                let is_first = question.outcome.is_none();
                question.outcome = Some(outcome);
                is_first
            }
            None => false,
        })
    }
}
