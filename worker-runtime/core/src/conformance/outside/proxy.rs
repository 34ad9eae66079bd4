//! Stands between a worker and its broker: passes on what both say, counts it, and does to it what a case wants.

use super::book::Book;
use super::channels::{Channels, Step};
use super::frames::Frame;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Listens until it is dropped; its connections end with it.
pub(super) struct Proxy {
    pub(super) port: u16,
    _end: DropGuard,
}

impl Proxy {
    /// Stands before the broker at `broker`, `host:port`.
    pub(super) async fn open(broker: String, book: Arc<Book>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let end = CancellationToken::new();
        let accepting = accept(listener, broker, book, end.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(accepting));
        Ok(Self {
            port,
            _end: end.drop_guard(),
        })
    }
}

async fn accept(listener: TcpListener, broker: String, book: Arc<Book>, end: CancellationToken) {
    while let Ok((worker, _)) = listener.accept().await {
        if *book.away.borrow() {
            continue;
        }
        let connection = serve(worker, broker.clone(), Arc::clone(&book));
        tokio::spawn(end.clone().run_until_cancelled_owned(connection));
    }
}

/// One connection, until either side ends it or a case does.
async fn serve(worker: TcpStream, broker: String, book: Arc<Book>) {
    let Ok(broker) = TcpStream::connect(broker).await else {
        return;
    };
    let _ = worker.set_nodelay(true);
    let _ = broker.set_nodelay(true);
    let channels = Mutex::new(Channels::new(Arc::clone(&book)));
    let mut away = book.away.subscribe();
    let (from_worker, to_worker) = worker.into_split();
    let (from_broker, to_broker) = broker.into_split();
    tokio::select! {
        _ = up(&channels, from_worker, to_broker) => {}
        _ = down(&channels, &book, from_broker, to_worker) => {}
        _ = away.wait_for(|away| *away) => {}
    }
}

/// What the worker says.
async fn up(
    channels: &Mutex<Channels>,
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut greeting = [0; 8];
    from.read_exact(&mut greeting).await?;
    to.write_all(&greeting).await?;
    loop {
        let frame = Frame::next(&mut from).await?;
        let step = {
            let mut channels = channels.lock().unwrap_or_else(PoisonError::into_inner);
            channels.worker_says(frame)
        };
        match step {
            Step::Pass(bytes) | Step::Confirmation(bytes) => to.write_all(&bytes).await?,
            Step::Cut => return Ok(()),
        }
    }
}

/// What the broker says.
async fn down(
    channels: &Mutex<Channels>,
    book: &Book,
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut held = book.held.subscribe();
    let mut waiting = Vec::new();
    let (frames, mut arrived) = tokio::sync::mpsc::channel(1);
    // A frame that is half read must not be dropped when confirmations pass again.
    let reading = async {
        loop {
            let frame = Frame::next(&mut from).await?;
            if frames.send(frame).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async {
        loop {
            let frame = tokio::select! {
                Ok(()) = held.changed() => None,
                frame = arrived.recv() => match frame {
                    Some(frame) => Some(frame),
                    None => return Ok(()),
                },
            };
            if !*held.borrow_and_update() && !waiting.is_empty() {
                to.write_all(&waiting).await?;
                waiting.clear();
            }
            let Some(frame) = frame else { continue };
            let step = {
                let mut channels = channels.lock().unwrap_or_else(PoisonError::into_inner);
                channels.broker_says(frame)
            };
            match step {
                Step::Confirmation(bytes) if *held.borrow() => waiting.extend(bytes),
                Step::Pass(bytes) | Step::Confirmation(bytes) => to.write_all(&bytes).await?,
                Step::Cut => return Ok(()),
            }
        }
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}
