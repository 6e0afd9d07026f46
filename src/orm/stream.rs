//! Streams of rows.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use sea_orm::DbErr;

use super::fenced::Fenced;
use crate::cache::{is_answer, is_over};

/// A stream of rows through a [`CachedConnection`](crate::CachedConnection) or a
/// [`CachedTransaction`](crate::CachedTransaction).
///
/// # Consistency
/// A statement that both writes and streams (`UPDATE .. RETURNING`) is fenced from before it is sent
/// until the stream has ended. A stream dropped before its end leaves the fence to expire by itself,
/// because the statement may still be running: read such streams to the end.
pub struct CachedStream<S> {
    inner: S,
    at_end: Option<AtEnd>,
}

/// Called with whether the database has done with the statement.
type AtEnd = Box<dyn FnOnce(bool) + Send>;

impl<S> CachedStream<S> {
    /// The stream that was opened, and what to settle at its end; at once if it was not opened.
    pub(crate) async fn open(
        opened: Result<S, DbErr>,
        fenced: Option<Fenced>,
    ) -> Result<Self, DbErr> {
        match (opened, fenced) {
            (Ok(inner), fenced) => Ok(Self {
                inner,
                at_end: fenced.map(settle_later),
            }),
            (Err(error), None) => Err(error),
            (Err(error), Some(fenced)) => {
                fenced.end(is_answer(&error)).await;
                Err(error)
            }
        }
    }
}

fn settle_later(fenced: Fenced) -> AtEnd {
    Box::new(|over| {
        tokio::spawn(fenced.end(over));
    })
}

impl<T, S: Stream<Item = Result<T, DbErr>> + Unpin> Stream for CachedStream<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(Pin::new(&mut self.inner).poll_next(cx));
        let over = item.as_ref().is_none_or(is_over);
        if (item.is_none() || !over)
            && let Some(at_end) = self.at_end.take()
        {
            at_end(over);
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}

impl<S> fmt::Debug for CachedStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStream")
            .field("writes", &self.at_end.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::{StreamExt, stream};

    use super::*;

    fn counting(
        count: &Arc<AtomicUsize>,
    ) -> CachedStream<impl Stream<Item = Result<i32, DbErr>> + Unpin> {
        let count = Arc::clone(count);
        CachedStream {
            inner: stream::iter([1, 2, 3]).map(Ok),
            at_end: Some(Box::new(move |over| {
                assert!(over);
                count.fetch_add(1, Ordering::Relaxed);
            })),
        }
    }

    #[tokio::test]
    async fn the_end_is_acted_on_once_and_not_before() {
        let ends = Arc::new(AtomicUsize::new(0));
        let mut rows = counting(&ends);
        for expected in 1..=3 {
            assert_eq!(rows.next().await, Some(Ok(expected)));
            assert_eq!(ends.load(Ordering::Relaxed), 0);
        }
        assert_eq!(rows.next().await, None);
        assert_eq!(rows.next().await, None);
        assert_eq!(ends.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_stream_dropped_before_its_end_does_not_act() {
        let ends = Arc::new(AtomicUsize::new(0));
        let mut rows = counting(&ends);
        assert_eq!(rows.next().await, Some(Ok(1)));
        drop(rows);
        assert_eq!(ends.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_no_answer() {
        let (said, heard) = std::sync::mpsc::channel();
        let broken = DbErr::Custom("broken pipe".to_owned());
        let mut rows = CachedStream {
            inner: stream::iter([Ok(1), Err(broken.clone())]),
            at_end: Some(Box::new(move |over| said.send(over).unwrap())),
        };
        assert_eq!(rows.next().await, Some(Ok(1)));
        assert_eq!(rows.next().await, Some(Err(broken)));
        assert_eq!(rows.next().await, None);
        assert_eq!(heard.into_iter().collect::<Vec<_>>(), [false]);
    }
}
