//! One connection's socket and bodies: knows when an answer was flushed, and closes without cutting off last words.

use crate::watched::Watched;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Sleep;

/// A caller that still sends what nobody reads gets so long to notice our answer.
const LINGER: Duration = Duration::from_secs(1);

/// What socket and bodies of a connection tell each other.
#[derive(Default)]
pub(crate) struct Shared {
    /// Answers encoded but perhaps not flushed; none once the socket is gone.
    unflushed: Mutex<Vec<oneshot::Sender<()>>>,
    closed: AtomicBool,
    /// A request body was left unread: closing at once would reset the connection, and the answer with it.
    linger: AtomicBool,
    /// Bytes came that belong to no request yet, or to a body.
    reading: AtomicBool,
    /// A request's head is whole, and it is not answered.
    serving: AtomicBool,
    /// A request is whole, its body included, and it is not answered.
    waiting: AtomicBool,
    /// The caller was gone before its answer was there.
    left: AtomicBool,
    /// A head did not end in time.
    slow: AtomicBool,
    /// The caller did not take its answer in time.
    not_read: AtomicBool,
    /// What went wrong with this request was told.
    told: AtomicBool,
}

impl Shared {
    /// The head of a request is whole.
    pub(crate) fn begins(&self) {
        self.reading.store(false, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
        self.serving.store(true, Ordering::Relaxed);
    }

    /// Its body is whole too, and its answer may take its time.
    pub(crate) fn waits(&self) {
        self.waiting.store(true, Ordering::Relaxed);
    }

    /// Something was read from it.
    pub(crate) fn reads(&self) {
        self.reading.store(true, Ordering::Relaxed);
    }

    /// The caller is gone while its request waits for the answer.
    pub(crate) fn leaves(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Whether the caller was gone while its request waited for the answer.
    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// It has its answer.
    pub(crate) fn ends(&self) {
        self.waiting.store(false, Ordering::Relaxed);
        self.reading.store(false, Ordering::Relaxed);
        self.serving.store(false, Ordering::Relaxed);
    }

    /// Whether a head has begun and is not whole.
    fn is_in_head(&self) -> bool {
        self.was_reading() && !self.is_serving()
    }

    /// Whether a request has its head and no answer.
    pub(crate) fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    /// Whether a head did not end in time.
    pub(crate) fn was_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Whether the caller did not take its answer in time.
    pub(crate) fn was_not_read(&self) -> bool {
        self.not_read.load(Ordering::Relaxed)
    }

    /// True the first time: what went wrong with a request is told once.
    pub(crate) fn tells(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }

    /// Whether something was being read that is no whole request.
    pub(crate) fn was_reading(&self) -> bool {
        self.reading.load(Ordering::Relaxed)
    }

    pub(crate) fn leave_unread(&self) {
        self.linger.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> Vec<oneshot::Sender<()>> {
        let mut held = self
            .unflushed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *held)
    }
}

/// The socket of a connection.
pub(crate) struct Socket {
    stream: TokioIo<Watched>,
    shared: Arc<Shared>,
    lingering: Option<Pin<Box<Sleep>>>,
    /// Ends the wait for a head, from its first byte.
    head: Patience,
    /// Ends the wait for a caller that is slower to read than we are to write.
    write: Patience,
}

/// How long something may take once it has begun.
struct Patience {
    limit: Duration,
    left: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, left: None }
    }

    /// It goes on; whether it took too long. Wakes the task when it does.
    fn ends(&mut self, cx: &mut Context<'_>) -> bool {
        let limit = self.limit;
        let left = self
            .left
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        left.as_mut().poll(cx).is_ready()
    }

    /// It is over.
    fn reset(&mut self) {
        self.left = None;
    }
}

impl Socket {
    pub(crate) fn new(
        stream: TcpStream,
        shared: Arc<Shared>,
        head_timeout: Duration,
        write_timeout: Duration,
    ) -> Self {
        let watched = Watched::new(stream, Arc::clone(&shared));
        Self {
            stream: TokioIo::new(watched),
            shared,
            lingering: None,
            head: Patience::new(head_timeout),
            write: Patience::new(write_timeout),
        }
    }

    /// What a write came to, unless the caller has not read for too long.
    fn wrote<T>(
        &mut self,
        wrote: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_pending() && self.write.ends(cx) {
            self.shared.not_read.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        wrote
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        drop(self.shared.take());
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.shared.is_in_head() {
            self.head.reset();
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if self.shared.is_in_head() && self.head.ends(cx) {
            self.shared.slow.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(wrote, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            // Only what is whole is flushed: a caller that takes its answer drop by drop gets no more time for it.
            self.write.reset();
            for written in self.shared.take() {
                let _ = written.send(());
            }
            // Hyper comes by here each time it is woken, with nothing to write as well.
            if self.shared.waiting.load(Ordering::Relaxed) {
                self.stream.inner_mut().look_ahead(cx)?;
            }
        }
        self.wrote(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            match Pin::new(&mut self.stream).poll_shutdown(cx) {
                Poll::Ready(Ok(())) if self.shared.linger.load(Ordering::Relaxed) => {
                    self.lingering = Some(Box::pin(tokio::time::sleep(LINGER)));
                }
                other => return other,
            }
        }
        let this = &mut *self;
        loop {
            if let Some(limit) = &mut this.lingering
                && limit.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Ok(()));
            }
            let mut scratch = [0; 8192];
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.stream).poll_read(cx, buffer.unfilled()) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.wrote(wrote, cx)
    }
}

/// The body of an answer; when the server has taken it all, the next flush is the word that it was written.
pub(crate) struct AnswerBody {
    data: Option<Bytes>,
    written: Option<oneshot::Sender<()>>,
    shared: Arc<Shared>,
}

impl AnswerBody {
    pub(crate) fn new(
        data: Bytes,
        written: Option<oneshot::Sender<()>>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            data: Some(data).filter(|d| !d.is_empty()),
            written,
            shared,
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // Not taken, although there is something to take: the connection ended first.
        if self.data.is_some() || self.shared.closed.load(Ordering::SeqCst) {
            return;
        }
        if let Some(written) = self.written.take() {
            let mut held = self
                .shared
                .unflushed
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            held.push(written);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |d| d.len() as u64))
    }
}
