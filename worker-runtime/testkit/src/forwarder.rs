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
        let (cut, cuts) = watch::channel(());
        let targets: Arc<[u16]> = ports.into();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (targets, state, mut cuts) =
                    (Arc::clone(&targets), state.clone(), cuts.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        () = serve(client, targets, state) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Ok(Self { port, frozen, cut })
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
}

async fn serve(client: TcpStream, targets: Arc<[u16]>, frozen: watch::Receiver<bool>) {
    for port in targets.iter() {
        if let Ok(server) = TcpStream::connect(("127.0.0.1", *port)).await {
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::join!(
                pump(from_client, to_server, frozen.clone()),
                pump(from_server, to_client, frozen)
            );
            return;
        }
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut frozen: watch::Receiver<bool>) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let _ = frozen.wait_for(|frozen| !frozen).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    // Nobody hears of an end either.
    let _ = frozen.wait_for(|frozen| !frozen).await;
}
