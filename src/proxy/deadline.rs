//! How long a guest may take to begin its answer: from the last movement of the request's body on,
//! since it may well want all of that first.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

/// When a request's body has moved last.
#[derive(Clone, Debug)]
pub struct Movement {
    began: Instant,
    /// Milliseconds after `began`.
    last_ms: Arc<AtomicU64>,
}

impl Movement {
    /// Watches `body` from now on.
    pub fn of(body: Body) -> (Movement, Body) {
        let movement = Movement { began: Instant::now(), last_ms: Arc::default() };
        if body.is_end_stream() {
            return (movement, body);
        }
        let watched = Watched { body, movement: movement.clone() };
        (movement, Body::new(watched))
    }

    fn note(&self) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        // ORDER: a moment to compare with, which nothing else depends on.
        self.last_ms.store(now_ms, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        // ORDER: as above.
        self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }

    /// What `answer` gives, unless nothing has moved for `limit` before it does.
    pub async fn or_still<T>(&self, answer: impl Future<Output = T>, limit: Duration) -> Option<T> {
        tokio::pin!(answer);
        loop {
            let deadline = self.last() + limit;
            tokio::select! {
                answer = &mut answer => return Some(answer),
                () = sleep_until(deadline) => {
                    if self.last() + limit <= deadline {
                        return None;
                    }
                }
            }
        }
    }
}

struct Watched {
    body: Body,
    movement: Movement,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.movement.note();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use futures_util::StreamExt;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A guest that reads the whole body and answers `after` its end.
    async fn answers(body: Body, after: Duration) -> (bool, Duration) {
        let began = Instant::now();
        let (movement, body) = Movement::of(body);
        let guest = async {
            to_bytes(body, usize::MAX).await.unwrap();
            tokio::time::sleep(after).await;
        };
        let is_answered = movement.or_still(guest, LIMIT).await.is_some();
        (is_answered, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_starts_again_as_long_as_the_body_moves() {
        let pieces = futures_util::stream::iter(0..5).then(async |_| {
            tokio::time::sleep(LIMIT * 2 / 3).await;
            Ok::<_, std::io::Error>("piece")
        });
        let slow = Body::from_stream(pieces);
        assert!(answers(slow, LIMIT / 2).await.0, "a long upload");
        assert_eq!(answers(Body::empty(), LIMIT * 2).await, (false, LIMIT), "no answer");
        let stuck = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        assert_eq!(answers(Body::from_stream(stuck), LIMIT).await, (false, LIMIT), "a body stuck");
    }

    #[test]
    fn a_watched_body_has_its_length() {
        let (_, body) = Movement::of(Body::from("four"));
        assert_eq!(body.size_hint().exact(), Some(4));
        assert!(Movement::of(Body::empty()).1.is_end_stream());
    }
}
