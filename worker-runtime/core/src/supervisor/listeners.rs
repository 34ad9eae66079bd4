//! Listening sockets belong to the supervisor and are lent to workers, so that a reload never refuses a connection
//! (R8).

use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::worker::Listener;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, lookup_host};

/// The open sockets of a process, by the address asked for.
#[derive(Default)]
pub struct Listeners {
    open: Mutex<HashMap<(String, u16), Arc<TcpListener>>>,
}

impl Listeners {
    /// The socket on `host:port`; opened if it is not open yet.
    pub async fn lend(&self, host: &str, port: u16) -> Result<Listener, WorkError> {
        let key = (host.to_owned(), port);
        if port != 0
            && let Some(socket) = self.lock().get(&key)
        {
            return Ok(Listener::new(Arc::clone(socket)));
        }
        let failed = |e: &dyn std::fmt::Display| {
            WorkError::new(
                ErrorClass::Connect,
                codes::LISTEN_FAILED,
                format!("cannot listen on {host}:{port}: {e}"),
            )
        };
        let addresses: Vec<SocketAddr> = lookup_host((host, port))
            .await
            .map_err(|e| failed(&e))?
            .collect();
        let socket = TcpListener::bind(&addresses[..])
            .await
            .map_err(|e| failed(&e))?;
        let socket = Arc::new(socket);
        self.lock().insert(key, Arc::clone(&socket));
        Ok(Listener::new(socket))
    }

    /// Closes every socket that is not in `wanted`. Called after the workers that used them have stopped.
    pub fn keep_only(&self, wanted: &[(String, u16)]) {
        self.lock().retain(|key, _| wanted.contains(key));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, u16), Arc<TcpListener>>> {
        self.open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
