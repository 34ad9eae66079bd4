//! One connection from hello to goodbye: lines become messages one at a time and in order, and the session's start and
//! end are messages too.

use super::clients::Client;
use super::codec::{Decoder, Read};
use super::{Shared, notice};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio_util::task::task_tracker::TaskTrackerToken;
use vumi_core::backoff::Backoff;
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::{SessionEvent, UserMessage};
use vumi_core::worker::Traffic;

/// How long one message may wait for the broker before the user is told to try again.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between offers of the end of a session to the broker.
const OFFER: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// How long the end of a session is offered to the broker.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);
/// A client that ends its side (as `nc -N` does) still gets the answers that arrive within this.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// After our goodbye the client has so long to close its side.
const LINGER: Duration = Duration::from_millis(500);

pub(super) struct Session {
    shared: Arc<Shared>,
    client: Arc<Client>,
    /// Whether the broker has the start of this session.
    started: bool,
}

/// Reads and forgets what the client still sends: a socket closed with unread input resets the connection, and the
/// client would lose our last words.
async fn linger(mut reader: OwnedReadHalf) {
    let mut rest = [0; 1024];
    let ended = async { while matches!(reader.read(&mut rest).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(LINGER, ended).await;
}

/// Whether to go on reading.
#[derive(PartialEq, Eq)]
enum Next {
    Read,
    End,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, client: Arc<Client>) -> Self {
        Self {
            shared,
            client,
            started: false,
        }
    }

    /// Runs to the end. `intake` is held while lines may still be accepted.
    pub(super) async fn run(mut self, mut reader: OwnedReadHalf, intake: TaskTrackerToken) {
        if let Err(error) = self.start().await {
            self.refuse(&error).await;
        }
        let still_open = self.read_lines(&mut reader).await;
        drop(intake);
        if still_open {
            self.client.gone.cancelled().await;
        }
        self.shared.clients.remove(&self.client);
        self.client.gone.cancel();
        self.client.hang_up().await;
        tokio::join!(linger(reader), self.end());
    }

    /// Reads until the connection ends (false) or the intake closes (true).
    async fn read_lines(&mut self, reader: &mut OwnedReadHalf) -> bool {
        let shared = Arc::clone(&self.shared);
        let client = Arc::clone(&self.client);
        let mut decoder = Decoder::new(shared.max_line);
        let mut buffer = vec![0; 4096];
        loop {
            let read = tokio::select! {
                biased;
                () = client.gone.cancelled() => return false,
                () = shared.cx.closing().cancelled() => return true,
                read = tokio::time::timeout(shared.idle_timeout, reader.read(&mut buffer)) => read,
            };
            let count = match read {
                Ok(Ok(0)) => {
                    let _ = tokio::time::timeout(LAST_ANSWERS, client.all_answered()).await;
                    return false;
                }
                Ok(Ok(count)) => count,
                Ok(Err(_)) => return false,
                Err(_) => {
                    let _ = client.write(notice::IDLE).await;
                    return false;
                }
            };
            for byte in &buffer[..count] {
                if let Some(read) = decoder.push(*byte)
                    && self.react(read).await == Next::End
                {
                    return false;
                }
            }
        }
    }

    async fn react(&mut self, read: Read) -> Next {
        let sent = match read {
            Read::Line(line) if line.trim().eq_ignore_ascii_case("/quit") => return Next::End,
            Read::Line(line) => {
                self.shared.cx.traffic(Traffic::Inbound);
                if let Err(error) = self.line(line).await {
                    self.refuse(&error).await;
                }
                Ok(())
            }
            Read::TooLong => self.client.write(notice::TOO_LONG).await,
            Read::NotText => self.client.write(notice::NOT_TEXT).await,
            Read::Refuse(bytes) => self.client.write(&bytes).await,
        };
        if sent.is_err() || self.client.gone.is_cancelled() {
            return Next::End;
        }
        Next::Read
    }

    async fn line(&mut self, line: String) -> Result<(), WorkError> {
        if !self.started {
            self.start().await?;
        }
        self.accept(SessionEvent::Resume, Some(line)).await
    }

    async fn start(&mut self) -> Result<(), WorkError> {
        self.accept(SessionEvent::New, None).await?;
        self.started = true;
        Ok(())
    }

    async fn accept(&self, event: SessionEvent, content: Option<String>) -> Result<(), WorkError> {
        let shared = &self.shared;
        let mut message = UserMessage::new(
            &shared.transport_type,
            Some(&shared.to_addr),
            Some(self.client.address()),
        );
        message.set_content(content.as_deref());
        message.set_session_event(Some(event));
        // Whoever answers finds the connection by this.
        shared.cx.hold(&mut message);
        let id = message.message_id().to_owned();
        if event != SessionEvent::Close {
            self.client.expect_answer(id.clone());
        }
        let result = shared.cx.accept_within(message, ACCEPT_TIMEOUT).await;
        if result.is_err() {
            self.client.forget(&id);
        }
        result
    }

    /// Tells the user that their input was not taken.
    async fn refuse(&self, error: &WorkError) {
        tracing::warn!(worker = self.shared.cx.worker_name(), code = %error.code, reason = %error, "input refused");
        let text = match error.class {
            _ if error.code == codes::MESSAGE_TOO_LARGE => notice::TOO_LONG,
            ErrorClass::BadInput => notice::REFUSED,
            _ => notice::BUSY,
        };
        let _ = self.client.write(text).await;
    }

    /// Tells the broker that the session has ended, if it knows of it.
    async fn end(&self) {
        if !self.started {
            return;
        }
        let mut refusals = 0u32;
        let offer = async {
            while let Err(error) = self.accept(SessionEvent::Close, None).await {
                tracing::debug!(worker = self.shared.cx.worker_name(), code = %error.code, "end of session not accepted yet");
                refusals = refusals.saturating_add(1);
                tokio::time::sleep(OFFER.after(refusals)).await;
            }
        };
        if tokio::time::timeout(CLOSE_PATIENCE, offer).await.is_err() {
            tracing::warn!(
                worker = self.shared.cx.worker_name(),
                "the end of a session could not be published; the application keeps it open"
            );
        }
    }
}
