//! The side of whoever asks a process through its control socket.

use super::{Answer, IDLE, Request, line, trouble};
use crate::codes::{self, Code};
use crate::error::{ErrorClass, WorkError};
use crate::operate::Ask;
use serde_json::Value;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

/// Longest answer line a client reads.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// Longest wait of a client for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same for what goes through everything that is kept, or waits for the broker.
const LONG_PATIENCE: Duration = Duration::from_secs(15 * 60);

fn patience(request: &Request) -> Duration {
    match request {
        Request::Publish { .. }
        | Request::Kept(
            Ask::Erase { .. }
            | Ask::JournalDrop { .. }
            | Ask::LedgerResend { .. }
            | Ask::LedgerClose { .. },
        ) => LONG_PATIENCE,
        _ => PATIENCE,
    }
}

/// Asks the process behind the socket at `path`.
///
/// # Errors
/// [`codes::CONTROL_SOCKET`] if nobody answers; otherwise what the process said.
pub async fn ask(path: &Path, request: &Request) -> Result<Value, WorkError> {
    Conversation::open(path).await?.ask(request).await
}

/// An open conversation, for whoever asks more than once or wants to be told as things happen.
pub struct Conversation {
    path: PathBuf,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// When it was opened, or the last answer came.
    heard: Instant,
}

impl Conversation {
    /// Opens one with the process behind the socket at `path`.
    ///
    /// # Errors
    /// [`codes::CONTROL_SOCKET`] if nobody serves it.
    pub async fn open(path: &Path) -> Result<Self, WorkError> {
        let stream = UnixStream::connect(path).await.map_err(|error| {
            let text = match error.kind() {
                ErrorKind::NotFound => "it does not exist; is `vumi run` running?".to_owned(),
                ErrorKind::ConnectionRefused if is_something_else(path) => {
                    "it is no socket; that of a process is called NAME.sock".to_owned()
                }
                // A file of a killed process stays behind.
                ErrorKind::ConnectionRefused => {
                    "the file is there and nobody listens: the process that made it was killed; is `vumi run` running?".to_owned()
                }
                _ => error.to_string(),
            };
            trouble(path, &text)
        })?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(reader),
            writer,
            heard: Instant::now(),
        })
    }

    /// Asks, and waits for the answer. After a silence, for which the process lets clients go, it begins anew.
    ///
    /// # Errors
    /// [`codes::CONTROL_SOCKET`] if none comes within a minute (of long work, 15); otherwise what the process said.
    pub async fn ask(&mut self, request: &Request) -> Result<Value, WorkError> {
        if self.heard.elapsed() >= IDLE / 2 {
            *self = Self::open(&self.path).await?;
        }
        let conversation = async {
            self.say(request).await?;
            self.hear().await
        };
        let patience = patience(request);
        let answer = tokio::time::timeout(patience, conversation).await;
        self.heard = Instant::now();
        match answer {
            Ok(answer) => answer,
            Err(_) => {
                let text = format!("no answer within {} s", patience.as_secs());
                Err(trouble(&self.path, &text))
            }
        }
    }

    /// Says what is wanted.
    ///
    /// # Errors
    /// [`codes::CONTROL_SOCKET`] if the process is gone.
    pub async fn say(&mut self, request: &Request) -> Result<(), WorkError> {
        let mut text = serde_json::to_string(request).unwrap_or_default();
        text.push('\n');
        let said = self.writer.write_all(text.as_bytes()).await;
        said.map_err(|_| self.gone())
    }

    /// The next answer; waits for it as long as it takes.
    ///
    /// # Errors
    /// [`codes::CONTROL_SOCKET`] if the process is gone; otherwise what it said.
    pub async fn hear(&mut self) -> Result<Value, WorkError> {
        let answer = match line(&mut self.reader, MAX_ANSWER).await {
            Ok(Some(line)) => serde_json::from_slice::<Answer>(&line)
                .map_err(|error| trouble(&self.path, &format!("unreadable answer: {error}")))?,
            _ => return Err(self.gone()),
        };
        match answer {
            Answer::Ok(value) => Ok(value),
            Answer::Error { code, text, class } => {
                let code = Code::named(&code).unwrap_or(codes::CONTROL_SOCKET);
                // The exit code is the one that the same error has without a process in between.
                let class = ErrorClass::labelled(&class).unwrap_or(match code {
                    codes::CONTROL_REQUEST => ErrorClass::BadInput,
                    _ => ErrorClass::RemotePermanent,
                });
                Err(WorkError::new(class, code, text))
            }
        }
    }

    fn gone(&self) -> WorkError {
        trouble(&self.path, "the process ended the conversation")
    }
}

fn is_something_else(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| !about.file_type().is_socket())
}
