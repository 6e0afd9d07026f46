//! One connection to a server, shared by all who have something to ask.
//!
//! Who asks writes its request itself, if the socket takes it: no other task need run before it is on
//! its way. The connection's own task reads, hands answers out in the order of the requests, and writes
//! what the socket did not take at once.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::resp::{self, Answer, Frame, Request, Unread};
use crate::store::StoreError;

/// The least room for what comes next.
const ROOM: usize = 16 << 10;

/// Room for a long answer is made in steps of this many bytes, whatever its length is said to be.
const STEP: usize = 1 << 20;

/// What a server tells without being asked.
pub(super) enum News {
    /// A message.
    Told(Vec<Answer>),
    /// There will be no more.
    Lost,
}

type Tell = Box<dyn Fn(News) + Send>;

/// A connection, for all who have a clone of it. Ends with the last one.
#[derive(Clone)]
pub(super) struct Connection(Arc<Ends>);

struct Ends {
    wire: Arc<Wire>,
    reader: AbortHandle,
}

/// What those who ask and those who read share.
struct Wire {
    state: Mutex<State>,
    /// Of the connection's task.
    waker: AtomicWaker,
}

struct State {
    /// `None` after the end.
    writer: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// What the socket did not take yet.
    unwritten: BytesMut,
    /// What it took may stand in a buffer of ours.
    unflushed: bool,
    asked: VecDeque<Asked>,
}

/// A request that is not answered yet.
struct Asked {
    answers: Vec<Answer>,
    expected: usize,
    asker: oneshot::Sender<Vec<Answer>>,
}

impl Connection {
    /// Over a stream on which nothing was said yet. `tell` is told all news before any later answer is
    /// handed out, and must not block.
    pub(super) fn over<R, W>(reader: R, writer: W, tell: impl Fn(News) + Send + 'static) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let wire = Arc::new(Wire {
            state: Mutex::new(State {
                writer: Some(Box::new(writer)),
                unwritten: BytesMut::new(),
                unflushed: false,
                asked: VecDeque::new(),
            }),
            waker: AtomicWaker::new(),
        });
        let mut receiver = Receiver {
            wire: Arc::clone(&wire),
            reader,
            received: BytesMut::with_capacity(ROOM),
            wanted: 1,
            current: None,
            tell: Box::new(tell),
        };
        let task = tokio::spawn(std::future::poll_fn(move |context| receiver.poll(context)));
        let reader = task.abort_handle();
        Self(Arc::new(Ends { wire, reader }))
    }

    /// Exactly one answer for each command of the request, errors included.
    pub(super) async fn ask(&self, request: &Request) -> Result<Vec<Answer>, StoreError> {
        // What is no request is answered by nobody.
        if request.len() == 0 {
            return Ok(Vec::new());
        }
        let (asker, answers) = oneshot::channel();
        self.0.wire.send(request, asker)?;
        answers.await.map_err(|_| ended())
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Wire {
    fn send(
        &self,
        request: &Request,
        asker: oneshot::Sender<Vec<Answer>>,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.writer.is_none() {
            return Err(ended());
        }
        state.asked.push_back(Asked {
            answers: Vec::with_capacity(request.len()),
            expected: request.len(),
            asker,
        });
        let bytes = request.as_bytes();
        let mut written = 0;
        let mut context = Context::from_waker(Waker::noop());
        if state.unwritten.is_empty() {
            match state.write(bytes, &mut context) {
                Ok(taken) => written = taken,
                Err(error) => {
                    state.end();
                    return Err(StoreError::Unreachable(error.to_string()));
                }
            }
        }
        state.unwritten.extend_from_slice(&bytes[written..]);
        if !state.unwritten.is_empty() || state.unflushed {
            self.waker.wake();
        }
        Ok(())
    }

    /// Never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Writes as much as the socket takes. If that is not all, `context` is woken when it takes more.
    fn write(&mut self, bytes: &[u8], context: &mut Context<'_>) -> std::io::Result<usize> {
        let Some(writer) = &mut self.writer else {
            return Ok(bytes.len());
        };
        let (mut writer, mut written) = (pin!(writer), 0);
        while written < bytes.len() {
            match writer.as_mut().poll_write(context, &bytes[written..]) {
                Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(taken) => written += taken?,
                Poll::Pending => break,
            }
        }
        self.unflushed = match writer.poll_flush(context) {
            Poll::Ready(flushed) => flushed.map(|()| false)?,
            Poll::Pending => true,
        };
        Ok(written)
    }

    /// Writes what is left.
    fn write_on(&mut self, context: &mut Context<'_>) -> std::io::Result<()> {
        if self.unwritten.is_empty() && !self.unflushed {
            return Ok(());
        }
        let mut left = std::mem::take(&mut self.unwritten);
        let written = self.write(&left, context)?;
        let _ = left.split_to(written);
        self.unwritten = left;
        Ok(())
    }

    fn end(&mut self) {
        self.writer = None;
        self.unwritten = BytesMut::new();
        self.asked.clear();
    }
}

/// What the connection's task does.
struct Receiver<R> {
    wire: Arc<Wire>,
    reader: R,
    received: BytesMut,
    /// Without so many bytes there is no whole frame.
    wanted: usize,
    /// Who gets the next answer, if that is known.
    current: Option<Asked>,
    tell: Tell,
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    /// Ready when the connection has ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.wire.waker.register(context.waker());
        if self.wire.state().write_on(context).is_err() {
            return Poll::Ready(());
        }
        loop {
            while self.received.len() >= self.wanted {
                match resp::take(&mut self.received) {
                    Ok(frame) => {
                        self.wanted = 1;
                        if !self.receive(frame) {
                            return Poll::Ready(());
                        }
                    }
                    Err(Unread::Until(length)) => self.wanted = length,
                    Err(Unread::Garbage) => return Poll::Ready(()),
                }
            }
            let missing = self.wanted - self.received.len();
            if missing > 1 || self.received.capacity() == self.received.len() {
                self.received.reserve(missing.clamp(ROOM, STEP));
            }
            let read = pin!(self.reader.read_buf(&mut self.received));
            match ready!(read.poll(context)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    /// Whether the connection is in order.
    fn receive(&mut self, frame: Frame) -> bool {
        let answer = match frame {
            Frame::Answer(answer) => answer,
            Frame::News(news) => {
                (self.tell)(News::Told(news));
                return true;
            }
        };
        if self.current.is_none() {
            self.current = self.wire.state().asked.pop_front();
        }
        // An answer that nobody asked for leaves none to be trusted.
        let Some(asked) = &mut self.current else {
            return false;
        };
        asked.answers.push(answer);
        if asked.answers.len() == asked.expected
            && let Some(asked) = self.current.take()
        {
            // Who has gone away does not want it any more.
            let _ = asked.asker.send(asked.answers);
        }
        true
    }
}

impl<R> Drop for Receiver<R> {
    /// At the end, also when the runtime ends: who waits for an answer will get none.
    fn drop(&mut self) {
        self.wire.state().end();
        (self.tell)(News::Lost);
    }
}

fn ended() -> StoreError {
    StoreError::Unreachable("the connection has ended".to_owned())
}
