//! The connected clients of a telnet transport: who is reachable under which address, what was written to them, and
//! which of their lines wait for an answer.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A client that takes nothing for so long is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Ids remembered per client: of lines, of those that wait for an answer, and of messages written.
const REMEMBERED: usize = 64;

/// One connection.
pub(super) struct Client {
    address: String,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    /// Fires when the connection is to end.
    pub(super) gone: CancellationToken,
    ids: Mutex<Ids>,
    answered: Notify,
}

#[derive(Default)]
struct Ids {
    /// What the client said last.
    taken: VecDeque<String>,
    written: VecDeque<String>,
    unanswered: VecDeque<String>,
}

impl Client {
    pub(super) fn new(address: String, writer: OwnedWriteHalf) -> Arc<Self> {
        Arc::new(Self {
            address,
            writer: tokio::sync::Mutex::new(writer),
            gone: CancellationToken::new(),
            ids: Mutex::default(),
            answered: Notify::new(),
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Writes all bytes; a client that does not take them in time, or is away, is given up.
    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let write = async {
            let mut writer = self.writer.lock().await;
            writer.write_all(bytes).await?;
            writer.flush().await
        };
        let result = match tokio::time::timeout(WRITE_TIMEOUT, write).await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        if result.is_err() {
            self.gone.cancel();
        }
        result
    }

    /// Ends our side of the connection, after everything written.
    pub(super) async fn hang_up(&self) {
        if let Ok(mut writer) = self.writer.try_lock() {
            let _ = writer.shutdown().await;
        }
    }

    /// A line was accepted as message `id`: someone may answer it.
    pub(super) fn expect_answer(&self, id: String) {
        let mut ids = self.ids();
        remember(&mut ids.taken, id.clone());
        remember(&mut ids.unanswered, id);
    }

    /// Whether message `id` came from this client, as far as is remembered.
    pub(super) fn said(&self, id: &str) -> bool {
        self.ids().taken.iter().any(|taken| taken == id)
    }

    /// The line was not accepted after all.
    pub(super) fn forget(&self, id: &str) {
        self.ids().unanswered.retain(|waiting| waiting != id);
        self.answered.notify_waiters();
    }

    /// Message `id`, an answer to `in_reply_to`, was written. What came before that line waits no longer: nobody has to
    /// greet a new session, or to answer two lines one by one.
    pub(super) fn note_written(&self, id: &str, in_reply_to: Option<&str>) {
        let mut ids = self.ids();
        remember(&mut ids.written, id.to_owned());
        if let Some(at) = in_reply_to.and_then(|answered| {
            ids.unanswered
                .iter()
                .position(|waiting| waiting == answered)
        }) {
            ids.unanswered.drain(..=at);
        }
        drop(ids);
        self.answered.notify_waiters();
    }

    /// Whether message `id` was written before: the engine repeats a message whose ack it could not publish.
    pub(super) fn was_written(&self, id: &str) -> bool {
        self.ids().written.iter().any(|written| written == id)
    }

    /// Waits until every accepted line has its answer, or the client is gone.
    pub(super) async fn all_answered(&self) {
        loop {
            let change = self.answered.notified();
            tokio::pin!(change);
            change.as_mut().enable();
            if self.ids().unanswered.is_empty() {
                return;
            }
            tokio::select! {
                () = change => {}
                () = self.gone.cancelled() => return,
            }
        }
    }

    fn ids(&self) -> MutexGuard<'_, Ids> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember(ids: &mut VecDeque<String>, id: String) {
    if ids.len() == REMEMBERED {
        ids.pop_front();
    }
    ids.push_back(id);
}

/// All clients by address.
#[derive(Default)]
pub(super) struct Clients(Mutex<HashMap<String, Arc<Client>>>);

impl Clients {
    pub(super) fn add(&self, client: Arc<Client>) {
        self.lock().insert(client.address().to_owned(), client);
    }

    pub(super) fn get(&self, address: &str) -> Option<Arc<Client>> {
        self.lock().get(address).cloned()
    }

    /// Removes this connection, unless a newer one has taken over its address.
    pub(super) fn remove(&self, client: &Arc<Client>) {
        let mut all = self.lock();
        if all
            .get(client.address())
            .is_some_and(|held| Arc::ptr_eq(held, client))
        {
            all.remove(client.address());
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Client>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
