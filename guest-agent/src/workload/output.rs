//! What the workload has written and nobody has taken yet: a bounded queue with one follower.
//!
//! While somebody follows, a full queue makes the workload wait. While nobody does, the oldest
//! output is dropped and counted: a workload never stands still for want of a reader.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use volant_protocol::Frame;

/// Bytes that wait for a follower.
const LEN_MAX: usize = 256 * 1024;

/// The queue.
#[derive(Debug, Default)]
pub struct Output {
    state: Mutex<State>,
    /// A frame has come, or a new follower.
    came: Notify,
    /// Room has been made, or the follower has left.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frame>,
    len: usize,
    dropped_bytes: u64,
    /// Number of the present follower.
    follower: Option<u64>,
    followers: u64,
}

impl Output {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame, at the price told above.
    pub async fn push(&self, frame: Frame) {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.state();
                let len = frame.payload.len();
                if state.follower.is_none() {
                    while LEN_MAX < state.len + len
                        && let Some(oldest) = state.frames.pop_front()
                    {
                        state.len -= oldest.payload.len();
                        state.dropped_bytes += oldest.payload.len() as u64;
                    }
                }
                if state.frames.is_empty() || state.len + len <= LEN_MAX {
                    state.len += len;
                    state.frames.push_back(frame);
                    drop(state);
                    self.came.notify_waiters();
                    return;
                }
            }
            room.await;
        }
    }

    /// Bytes dropped so far.
    pub fn dropped_bytes(&self) -> u64 {
        self.state().dropped_bytes
    }

    /// Follows from now on, in the place of whoever did.
    pub fn follow(&self) -> Follower<'_> {
        let mut state = self.state();
        state.followers += 1;
        let number = state.followers;
        state.follower = Some(number);
        drop(state);
        self.came.notify_waiters();
        Follower { output: self, number }
    }
}

/// Takes frames in order.
#[derive(Debug)]
pub struct Follower<'a> {
    output: &'a Output,
    number: u64,
}

impl Follower<'_> {
    /// The next frame; `None` when another one follows. Cancel-safe.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let came = self.output.came.notified();
            {
                let mut state = self.output.state();
                if state.follower != Some(self.number) {
                    return None;
                }
                if let Some(frame) = state.frames.pop_front() {
                    state.len -= frame.payload.len();
                    drop(state);
                    self.output.room.notify_waiters();
                    return Some(frame);
                }
            }
            came.await;
        }
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        let mut state = self.output.state();
        if state.follower == Some(self.number) {
            state.follower = None;
        }
        drop(state);
        self.output.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use volant_protocol::FrameKind;

    use super::*;

    fn frame(first: u8) -> Frame {
        Frame { kind: FrameKind::Stdout, payload: Bytes::from(vec![first; LEN_MAX / 4]) }
    }

    #[tokio::test]
    async fn without_a_follower_the_oldest_go() {
        let output = Output::default();
        for first in 0..6 {
            output.push(frame(first)).await;
        }
        assert_eq!(output.dropped_bytes(), 2 * (LEN_MAX as u64) / 4);
        let mut follower = output.follow();
        assert_eq!(follower.next().await.unwrap().payload[0], 2);
    }

    #[tokio::test]
    async fn with_a_follower_nothing_is_lost() {
        let output = Arc::new(Output::default());
        let mut follower = output.follow();
        let writer = Arc::clone(&output);
        let pushed = tokio::spawn(async move {
            for first in 0..20 {
                writer.push(frame(first)).await;
            }
        });
        for first in 0..20 {
            assert_eq!(follower.next().await.unwrap().payload[0], first);
        }
        pushed.await.unwrap();
        assert_eq!(output.dropped_bytes(), 0);
    }

    #[tokio::test]
    async fn a_later_follower_displaces_the_earlier() {
        let output = Output::default();
        let mut first = output.follow();
        let mut second = output.follow();
        output.push(frame(7)).await;
        assert_eq!(first.next().await, None);
        drop(first);
        assert_eq!(second.next().await.unwrap().payload[0], 7);
    }

    #[tokio::test]
    async fn a_writer_goes_on_when_its_follower_leaves() {
        let output = Arc::new(Output::default());
        let follower = output.follow();
        let writer = Arc::clone(&output);
        let pushed = tokio::spawn(async move {
            for first in 0..9 {
                writer.push(frame(first)).await;
            }
        });
        tokio::task::yield_now().await;
        assert!(!pushed.is_finished(), "a full queue did not make its writer wait");
        drop(follower);
        pushed.await.unwrap();
        assert_eq!(output.dropped_bytes(), 5 * (LEN_MAX as u64) / 4);
    }
}
