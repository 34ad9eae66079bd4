//! The side of whoever asks a process through its control socket.

use super::{Answer, Request, line, trouble};
use crate::codes::{self, Code};
use crate::error::{ErrorClass, WorkError};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Longest answer line a client reads.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// Longest wait of a client for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

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
}

impl Conversation {
    /// Opens one with the process behind the socket at `path`.
    ///
    /// # Errors
    /// [`codes::CONTROL_SOCKET`] if nobody serves it.
    pub async fn open(path: &Path) -> Result<Self, WorkError> {
        let stream = UnixStream::connect(path).await.map_err(|error| {
            let text = match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                    "no process serves it; is `vumi run` running?".to_owned()
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
        })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`codes::CONTROL_SOCKET`] if none comes within a minute; otherwise what the process said.
    pub async fn ask(&mut self, request: &Request) -> Result<Value, WorkError> {
        let conversation = async {
            self.say(request).await?;
            self.hear().await
        };
        match tokio::time::timeout(PATIENCE, conversation).await {
            Ok(answer) => answer,
            Err(_) => Err(trouble(&self.path, "no answer within 60 s")),
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
            Answer::Error { code, text } => {
                let code = Code::named(&code).unwrap_or(codes::CONTROL_SOCKET);
                let class = match code == codes::CONTROL_REQUEST {
                    true => ErrorClass::BadInput,
                    false => ErrorClass::RemotePermanent,
                };
                Err(WorkError::new(class, code, text))
            }
        }
    }

    fn gone(&self) -> WorkError {
        trouble(&self.path, "the process ended the conversation")
    }
}
