//! The side of whoever asks a process through its control socket.

use super::{Answer, Request, line, trouble};
use crate::codes::{self, Code};
use crate::error::{ErrorClass, WorkError};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Longest answer line a client reads.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// Longest wait of a client for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks the process behind the socket at `path`.
///
/// # Errors
/// [`codes::CONTROL_SOCKET`] if nobody answers; otherwise what the process said.
pub async fn ask(path: &Path, request: &Request) -> Result<Value, WorkError> {
    let conversation = async {
        let stream = UnixStream::connect(path).await.map_err(|error| {
            let text = match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                    "no process serves it; is `vumi run` running?".to_owned()
                }
                _ => error.to_string(),
            };
            trouble(path, &text)
        })?;
        let (reader, mut writer) = stream.into_split();
        let mut text = serde_json::to_string(request).unwrap_or_default();
        text.push('\n');
        let gone = || trouble(path, "the process ended the conversation");
        writer
            .write_all(text.as_bytes())
            .await
            .map_err(|_| gone())?;
        let answer = line(&mut BufReader::new(reader), MAX_ANSWER).await;
        match answer {
            Ok(Some(line)) => serde_json::from_slice::<Answer>(&line)
                .map_err(|error| trouble(path, &format!("unreadable answer: {error}"))),
            _ => Err(gone()),
        }
    };
    match tokio::time::timeout(PATIENCE, conversation).await {
        Ok(answer) => match answer? {
            Answer::Ok(value) => Ok(value),
            Answer::Error { code, text } => {
                let code = Code::named(&code).unwrap_or(codes::CONTROL_SOCKET);
                let class = match code == codes::CONTROL_REQUEST {
                    true => ErrorClass::BadInput,
                    false => ErrorClass::RemotePermanent,
                };
                Err(WorkError::new(class, code, text))
            }
        },
        Err(_) => Err(trouble(path, "no answer within 60 s")),
    }
}
