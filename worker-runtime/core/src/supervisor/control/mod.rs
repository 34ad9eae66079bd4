//! The control socket of a running process (S14): a Unix socket that only its user may open, one JSON request per line,
//! one JSON answer per line; a tap is answered by many. `vumi status`, `top`, `parked`, `journal`, `batch`, `ledger`, `why`,
//! `erase`, `inject` and `tap` speak to it.

mod client;
mod server;
mod traffic;

pub use client::{Conversation, ask};
pub use server::ControlSocket;

use super::Supervisor;
use crate::broker::Broker;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::operate::Ask;
use crate::parking::{self, Selection};
use crate::tap::Filter;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

/// A client that asks nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(60);

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// A [`super::status::ProcessStatus`].
    Status,
    /// Parked messages without content: a list of [`parking::Summary`].
    ParkedList {
        /// Consumed queue; without it, all consumed queues of the process.
        queue: Option<String>,
        /// How many at most, per queue.
        limit: usize,
    },
    /// One parked message with its content: `summary`, `encoding` and `body`.
    ParkedShow {
        /// Consumed queue.
        queue: String,
        /// Id as listed.
        id: String,
    },
    /// Sends parked messages back to where they came from: [`parking::Handled`].
    ParkedRequeue {
        /// Consumed queue.
        queue: String,
        /// Which ones.
        selection: Selection,
    },
    /// Removes parked messages for good: [`parking::Handled`].
    ParkedDrop {
        /// Consumed queue.
        queue: String,
        /// Which ones.
        selection: Selection,
    },
    /// Lets a worker go on that paused because too much was parked.
    ParkedResume {
        /// Kind and name, or the name alone where it is clear.
        worker: String,
    },
    /// About what is kept in state stores.
    Kept(Ask),
    /// Publishes messages into a queue that a worker consumes: `confirmed`, how many, once all are.
    Publish {
        /// Connector.
        connector: String,
        /// `inbound`, `outbound` or `event`.
        kind: String,
        /// Whole messages.
        messages: Vec<Value>,
    },
    /// Copies of what passes connectors, from now on until the conversation ends: one [`crate::tap::Told`] after the other.
    Tap {
        /// Connectors; without any, all of the process.
        connectors: Vec<String>,
        /// `inbound`, `outbound`, `event`; without any, all.
        kinds: Vec<String>,
        /// Which messages.
        filter: Filter,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    Ok(Value),
    Error {
        code: String,
        text: String,
        /// [`ErrorClass::label`]; processes of older versions say none.
        #[serde(default)]
        class: String,
    },
}

/// The folder for sockets of processes without a state folder: the user's runtime directory, else one in `/tmp` that
/// belongs to the user alone.
pub fn runtime_folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder).join("vumi"),
        _ => {
            let user = std::fs::metadata("/proc/self").map_or_else(
                |_| std::env::var("USER").unwrap_or_default(),
                |about| about.uid().to_string(),
            );
            PathBuf::from("/tmp").join(format!("vumi-{user}"))
        }
    }
}

/// The socket of the process `name` in `folder`. Letters that do not belong into a file name are replaced.
pub fn socket_path(folder: &Path, name: &str) -> PathBuf {
    let safe: String = name
        .chars()
        .map(
            |c| match c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                true => c,
                false => '-',
            },
        )
        .collect();
    folder.join(format!("{safe}.sock"))
}

enum Line {
    TooLong,
    Broken,
}

/// The next line; none at the end.
async fn line(
    reader: &mut BufReader<tokio::net::unix::OwnedReadHalf>,
    limit: u64,
) -> Result<Option<Vec<u8>>, Line> {
    let mut line = Vec::new();
    let read = (&mut *reader)
        .take(limit)
        .read_until(b'\n', &mut line)
        .await;
    match read {
        Err(_) => Err(Line::Broken),
        Ok(0) => Ok(None),
        Ok(_) if line.ends_with(b"\n") => Ok(Some(line)),
        Ok(read) if read as u64 >= limit => Err(Line::TooLong),
        Ok(_) => Err(Line::Broken),
    }
}

/// A parked message with its content, as JSON: `encoding` says whether `body` is `text` or `base64`.
pub fn shown(parked: &parking::Parked) -> Value {
    let (encoding, body) = parked.envelope.written_body();
    json!({"summary": value(&parked.summary), "encoding": encoding, "body": body})
}

fn trouble(path: &Path, text: &str) -> WorkError {
    WorkError::new(
        ErrorClass::Connect,
        codes::CONTROL_SOCKET,
        format!("control socket {}: {text}", path.display()),
    )
}

fn bad(text: String) -> WorkError {
    WorkError::new(ErrorClass::BadInput, codes::CONTROL_REQUEST, text)
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// Consumed queues of all workers, with the broker of each.
async fn consumed(supervisor: &Supervisor) -> Result<BTreeMap<String, Arc<dyn Broker>>, WorkError> {
    let mut queues = BTreeMap::new();
    for resource in supervisor.resources() {
        let topology = resource.topology();
        let broker = supervisor.broker_of(&resource).await?;
        for port in topology.intake.iter().chain(&topology.replies) {
            queues.insert(port.queue(), Arc::clone(&broker));
        }
    }
    Ok(queues)
}
