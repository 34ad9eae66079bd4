//! A TCP forwarder that stands for what is between two programs: a Service in front of several servers, a network that
//! loses everything without a word.

use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards connections to the first of several ports of this machine that accepts them. Existing connections stay where
/// they are and end with their server.
pub struct Forwarder {
    port: u16,
    frozen: watch::Sender<bool>,
    mute: watch::Sender<bool>,
    cut: watch::Sender<()>,
}

impl Forwarder {
    /// Listens on a port of its own. It ends with the runtime.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn to(ports: &[u16]) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (frozen, state) = watch::channel(false);
        let (mute, muted) = watch::channel(false);
        let (cut, cuts) = watch::channel(());
        let targets: Arc<[u16]> = ports.into();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (targets, mut cuts) = (Arc::clone(&targets), cuts.clone());
                let (state, muted) = (state.clone(), muted.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        () = serve(client, targets, state, muted) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Ok(Self {
            port,
            frozen,
            mute,
            cut,
        })
    }

    /// The URL of a broker behind it, through it.
    ///
    /// # Panics
    /// If the URL is not of a port of 127.0.0.1.
    pub fn through(&self, url: &str) -> String {
        let (head, tail) = url
            .split_once("127.0.0.1:")
            .expect("an address of this machine");
        let (_, path) = tail.split_once('/').expect("a path");
        format!("{head}127.0.0.1:{}/{path}", self.port)
    }

    /// Ends every connection of now, as the death of the clients would.
    pub fn cut(&self) {
        self.cut.send_replace(());
    }

    /// Stops moving bytes without closing anything, or goes on: what a frozen process or a dead network looks like from
    /// the other end.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// Stops moving the answers of the servers, or goes on: what is sent to them arrives.
    pub fn mute(&self, mute: bool) {
        self.mute.send_replace(mute);
    }
}

async fn serve(
    client: TcpStream,
    targets: Arc<[u16]>,
    frozen: watch::Receiver<bool>,
    mute: watch::Receiver<bool>,
) {
    for port in targets.iter() {
        if let Ok(server) = TcpStream::connect(("127.0.0.1", *port)).await {
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::join!(
                pump(from_client, to_server, [frozen.clone(), frozen.clone()]),
                pump(from_server, to_client, [frozen, mute])
            );
            return;
        }
    }
}

/// Moves bytes while none of `held` holds.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut held: [watch::Receiver<bool>; 2],
) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let_go(&mut held).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    // Nobody hears of an end either.
    let_go(&mut held).await;
}

async fn let_go(held: &mut [watch::Receiver<bool>; 2]) {
    for one in held {
        let _ = one.wait_for(|held| !held).await;
    }
}
