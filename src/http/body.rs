//! Bodies: read up to a limit, and given on.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

/// The body of a response that went through a [`ResponseCache`](crate::ResponseCache).
pub struct CachedBody<B: Body>(Inner<B>);

enum Inner<B: Body> {
    /// From the cache, or on its way there.
    Whole(Bytes),
    /// What was read of the handler's, and the rest of it.
    Given {
        read: VecDeque<Result<Frame<Bytes>, B::Error>>,
        rest: Option<Pin<Box<B>>>,
    },
}

/// A body that was read.
pub(super) enum Read<B: Body> {
    Whole(Bytes),
    /// It is too long, takes too long, has trailers, or failed.
    Other(CachedBody<B>),
}

impl<B: Body> CachedBody<B> {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self(Inner::Whole(bytes))
    }

    /// The handler's, untouched.
    pub(super) fn given(body: B) -> Self {
        Self::after(VecDeque::new(), Some(Box::pin(body)))
    }

    fn after(read: VecDeque<Result<Frame<Bytes>, B::Error>>, rest: Option<Pin<Box<B>>>) -> Self {
        Self(Inner::Given { read, rest })
    }
}

/// For how long a body is read before it is given on: its client waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads a body of at most so many bytes that comes to its end soon.
pub(super) async fn read<B: Body>(body: B, most: usize) -> Read<B> {
    let too_long = |hint: SizeHint| hint.lower() > u64::try_from(most).unwrap_or(u64::MAX);
    if too_long(body.size_hint()) {
        return Read::Other(CachedBody::given(body));
    }
    let mut body = Box::pin(body);
    let (mut chunks, mut length) = (Vec::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A frame that does not come in time is not lost: the body is asked for it later.
        let last = match timeout_at(deadline, body.frame()).await {
            Err(_) => None,
            Ok(None) => return Read::Whole(joined(chunks, length)),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    let data = whole(data);
                    length += data.len();
                    chunks.push(data);
                    if length <= most {
                        continue;
                    }
                    None
                }
                Err(other) => Some(Ok(other.map_data(whole))),
            },
            Ok(Some(Err(error))) => Some(Err(error)),
        };
        let read = chunks.into_iter().map(|data| Ok(Frame::data(data)));
        return Read::Other(CachedBody::after(read.chain(last).collect(), Some(body)));
    }
}

fn whole(mut data: impl Buf) -> Bytes {
    data.copy_to_bytes(data.remaining())
}

fn joined(mut chunks: Vec<Bytes>, length: usize) -> Bytes {
    if chunks.len() == 1 {
        return chunks.swap_remove(0);
    }
    let mut all = BytesMut::with_capacity(length);
    chunks.iter().for_each(|chunk| all.extend_from_slice(chunk));
    all.freeze()
}

impl<B: Body> Body for CachedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.get_mut().0 {
            Inner::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Inner::Given { read, rest } => {
                if let Some(frame) = read.pop_front() {
                    return Poll::Ready(Some(frame));
                }
                let Some(body) = rest else {
                    return Poll::Ready(None);
                };
                let polled = body.as_mut().poll_frame(cx);
                polled.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(whole))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Whole(bytes) => bytes.is_empty(),
            Inner::Given { read, rest } => {
                read.is_empty() && rest.as_ref().is_none_or(|rest| rest.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Given { read, rest } if read.is_empty() => {
                let rest = rest.as_ref();
                rest.map_or_else(|| SizeHint::with_exact(0), |rest| rest.size_hint())
            }
            Inner::Given { .. } => SizeHint::default(),
        }
    }
}

// What it holds is never moved by being pinned: the handler's body is in a box.
impl<B: Body> Unpin for CachedBody<B> {}

impl<B: Body> Default for CachedBody<B> {
    fn default() -> Self {
        Self::whole(Bytes::new())
    }
}

impl<B: Body> fmt::Debug for CachedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Inner::Whole(bytes) => format!("{} bytes", bytes.len()),
            Inner::Given { .. } => "the handler's".to_owned(),
        };
        f.debug_tuple("CachedBody").field(&kind).finish()
    }
}
