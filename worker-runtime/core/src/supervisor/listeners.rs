//! Listening sockets belong to the supervisor and are lent to workers, so that a reload never refuses a connection
//! (R8): while no worker accepts, callers wait in the socket's backlog.

use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::worker::Listener;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpListener, lookup_host};
use tokio::sync::Mutex;

/// Callers that may wait while a worker is being replaced. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The open sockets of a process, by the address asked for.
#[derive(Default)]
pub struct Listeners {
    /// Held while a socket is opened, so that two workers that ask at once do not open it twice.
    open: Mutex<HashMap<(String, u16), Arc<TcpListener>>>,
}

impl Listeners {
    /// The socket on `host:port`; opened if it is not open yet. Port 0 is a new free port each time, and that socket
    /// lives as long as whoever asked for it.
    ///
    /// # Errors
    /// [`codes::LISTEN_FAILED`] if the name has no address, the port is taken, or the address is not of this machine.
    pub async fn lend(&self, host: &str, port: u16) -> Result<Listener, WorkError> {
        let mut open = self.open.lock().await;
        let key = (host.to_owned(), port);
        if let Some(socket) = open.get(&key) {
            return Ok(Listener::new(Arc::clone(socket)));
        }
        let failed = |text: String| {
            WorkError::new(
                ErrorClass::Connect,
                codes::LISTEN_FAILED,
                format!("cannot listen on {host}:{port}: {text}"),
            )
        };
        // An IPv6 address may be written as in a URL.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let mut addresses: Vec<SocketAddr> = lookup_host((bare, port))
            .await
            .map_err(|e| failed(e.to_string()))?
            .collect();
        // A name such as `localhost` may stand for both families; callers of the older one cannot be turned away.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let mut last = "the name has no address".to_owned();
        for address in addresses {
            match bind(address) {
                Ok(socket) => {
                    let socket = Arc::new(socket);
                    if port != 0 {
                        open.insert(key, Arc::clone(&socket));
                    }
                    return Ok(Listener::new(socket));
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(failed(last))
    }

    /// Opens `host:port` before its worker needs it, to know whether that works. A port that this process holds on
    /// another address is left for later: it is free once its present user is gone.
    ///
    /// # Errors
    /// As [`Listeners::lend`].
    pub async fn open_early(&self, host: &str, port: u16) -> Result<(), WorkError> {
        if port == 0 || self.open.lock().await.keys().any(|(_, held)| *held == port) {
            return Ok(());
        }
        self.lend(host, port).await.map(drop)
    }

    /// Closes every socket that is not in `wanted`, as soon as the worker that borrowed it is gone too. Called after
    /// the workers that used them have stopped.
    pub async fn keep_only(&self, wanted: &[(String, u16)]) {
        let mut open = self.open.lock().await;
        open.retain(|key, _| wanted.contains(key));
    }

    /// Closes these sockets, as soon as the worker that borrowed them has let go of them too.
    pub async fn close(&self, unwanted: &[(String, u16)]) {
        let mut open = self.open.lock().await;
        open.retain(|key, _| !unwanted.contains(key));
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Connections of an earlier process that are still winding down do not keep the port. Another listener does: with
    // SO_REUSEPORT two processes would share it without a word.
    socket.set_reuse_address(true)?;
    if address.ip() == IpAddr::from([0u16; 8]) {
        // `::` takes IPv4 callers too, whatever the machine's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    async fn free_port() -> u16 {
        let probe = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        probe.local_addr().expect("its address").port()
    }

    #[tokio::test]
    async fn an_address_is_opened_once_and_lent_again() {
        let listeners = Listeners::default();
        let port = free_port().await;
        let (first, second) = tokio::join!(
            listeners.lend("127.0.0.1", port),
            listeners.lend("127.0.0.1", port)
        );
        let (first, second) = (first.expect("opened"), second.expect("lent again"));
        drop(first);
        let waiting = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("accepted by the kernel");
        let (_taken, peer) = second.accept().await.expect("taken by the second borrower");
        assert_eq!(peer, waiting.local_addr().expect("its own address"));
    }

    #[tokio::test]
    async fn an_unwanted_socket_is_closed() {
        let listeners = Listeners::default();
        let port = free_port().await;
        let lent = listeners.lend("127.0.0.1", port).await.expect("opened");
        listeners.keep_only(&[("127.0.0.1".into(), port)]).await;
        drop(lent);
        TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("still open");
        listeners.keep_only(&[]).await;
        TcpStream::connect(("127.0.0.1", port))
            .await
            .expect_err("closed");
        listeners
            .lend("127.0.0.1", port)
            .await
            .expect("opened again at once");
    }

    #[tokio::test]
    async fn a_port_of_another_program_is_refused_with_the_address() {
        let other = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = other.local_addr().expect("its address").port();
        let error = Listeners::default()
            .lend("127.0.0.1", port)
            .await
            .err()
            .expect("taken");
        assert_eq!(error.code, codes::LISTEN_FAILED);
        assert!(
            error.text.contains(&format!("127.0.0.1:{port}")),
            "{}",
            error.text
        );
    }

    #[tokio::test]
    async fn the_unspecified_ipv6_address_takes_both_families() {
        let listeners = Listeners::default();
        let port = free_port().await;
        let lent = match listeners.lend("::", port).await {
            Ok(lent) => lent,
            // A machine without IPv6 cannot run this test.
            Err(error) if error.text.contains("not supported") => return,
            Err(error) => panic!("{error}"),
        };
        for host in ["127.0.0.1", "::1"] {
            TcpStream::connect((host, port)).await.expect(host);
            lent.accept().await.expect(host);
        }
    }

    #[tokio::test]
    async fn port_zero_is_a_new_port_each_time() {
        let listeners = Listeners::default();
        let first = listeners.lend("127.0.0.1", 0).await.expect("opened");
        let second = listeners.lend("127.0.0.1", 0).await.expect("opened");
        assert_ne!(
            first.local_addr().expect("address"),
            second.local_addr().expect("address")
        );
    }
}
