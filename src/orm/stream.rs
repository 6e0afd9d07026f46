//! Streams of rows.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use sea_orm::DbErr;

use super::fenced::Fenced;

/// A stream of rows through a [`CachedConnection`](crate::CachedConnection) or a
/// [`CachedTransaction`](crate::CachedTransaction).
///
/// # Consistency
/// A statement that both writes and streams (`UPDATE .. RETURNING`) is fenced from before it is sent
/// until the stream has ended. A stream dropped before its end leaves the fence to expire by itself,
/// because the statement may still be running: read such streams to the end.
pub struct CachedStream<S> {
    inner: S,
    at_end: Option<Box<dyn FnOnce() + Send>>,
}

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
                fenced.settle().await;
                Err(error)
            }
        }
    }
}

fn settle_later(fenced: Fenced) -> Box<dyn FnOnce() + Send> {
    Box::new(|| {
        tokio::spawn(fenced.settle());
    })
}

impl<S: Stream + Unpin> Stream for CachedStream<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(Pin::new(&mut self.inner).poll_next(cx));
        if item.is_none()
            && let Some(at_end) = self.at_end.take()
        {
            at_end();
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

    fn counting(count: &Arc<AtomicUsize>) -> CachedStream<impl Stream<Item = i32> + Unpin> {
        let count = Arc::clone(count);
        CachedStream {
            inner: stream::iter([1, 2]).chain(stream::once(std::future::ready(3))),
            at_end: Some(Box::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            })),
        }
    }

    #[tokio::test]
    async fn the_end_is_acted_on_once_and_not_before() {
        let ends = Arc::new(AtomicUsize::new(0));
        let mut rows = counting(&ends);
        for expected in 1..=3 {
            assert_eq!(rows.next().await, Some(expected));
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
        assert_eq!(rows.next().await, Some(1));
        drop(rows);
        assert_eq!(ends.load(Ordering::Relaxed), 0);
    }
}
