//! One connection's socket and bodies: knows when an answer was flushed, and closes without cutting off last words.

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
use tokio::io::{AsyncRead, AsyncWrite};
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
}

impl Shared {
    /// A request is whole, or answered.
    pub(crate) fn is_between(&self) {
        self.reading.store(false, Ordering::Relaxed);
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

/// A stream that notes when something was read from it.
struct Watched {
    stream: TcpStream,
    shared: Arc<Shared>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.shared.reading.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }
}

/// The socket of a connection.
pub(crate) struct Socket {
    stream: TokioIo<Watched>,
    shared: Arc<Shared>,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, shared: Arc<Shared>) -> Self {
        let watched = Watched {
            stream,
            shared: Arc::clone(&shared),
        };
        Self {
            stream: TokioIo::new(watched),
            shared,
            lingering: None,
        }
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
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            for written in self.shared.take() {
                let _ = written.send(());
            }
        }
        flushed
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
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
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
