//! The control socket of a running process (S14): a Unix socket that only its user may open, one JSON request per line,
//! one JSON answer per line. `vumi status` and `vumi parked` speak to it.

use super::Supervisor;
use super::status::ProcessStatus;
use crate::broker::Broker;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::parking::{self, Selection};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Longest request line.
const MAX_REQUEST: u64 = 64 * 1024;
/// Longest answer line a client reads.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// Most messages in one listing.
const MAX_LISTED: usize = 1000;
/// Conversations at one time.
const MAX_CLIENTS: usize = 16;
/// A client that asks nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(60);
/// Longest wait of a client for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// A [`ProcessStatus`].
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
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    Ok(Value),
    Error { code: String, text: String },
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

/// An open control socket; its file goes with it.
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

impl ControlSocket {
    /// Opens the socket at `path` with mode 0600. A file that a dead process left behind is replaced.
    ///
    /// # Errors
    /// [`codes::CONTROL_SOCKET`] if a live process serves it, or its folder cannot be used or belongs to someone else.
    pub async fn open(path: &Path) -> Result<Self, WorkError> {
        let failed = |error: std::io::Error| trouble(path, &error.to_string());
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        if UnixStream::connect(path).await.is_ok() {
            let text = "another process with this name is running; stop it, or use another --name";
            return Err(trouble(path, text));
        }
        // Under a name of its own until only the owner may use it, then renamed over whatever stands there.
        let draft = path.with_extension(format!("sock-{}", std::process::id()));
        let _ = std::fs::remove_file(&draft);
        let listener = UnixListener::bind(&draft).map_err(failed)?;
        let ready = std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| std::fs::metadata(&draft))
            .and_then(|about| {
                let owner = about.uid();
                let around = std::fs::metadata(folder)?;
                let shared_place = folder == runtime_folder();
                if around.uid() != owner && (owner != 0 || shared_place) {
                    let text = format!("the folder belongs to another user ({})", around.uid());
                    return Err(std::io::Error::other(text));
                }
                std::fs::rename(&draft, path)?;
                Ok(owner)
            });
        match ready {
            Ok(owner) => Ok(Self {
                listener,
                path: path.to_owned(),
                owner,
            }),
            Err(error) => {
                let _ = std::fs::remove_file(&draft);
                Err(failed(error))
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until the future is dropped.
    pub async fn serve(&self, supervisor: Arc<Supervisor>, name: String, version: &'static str) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the control socket could not take a connection");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let uid = stream.peer_cred().map(|peer| peer.uid());
            if !uid.is_ok_and(|uid| uid == self.owner || uid == 0) {
                continue;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            let (supervisor, name) = (Arc::clone(&supervisor), name.clone());
            tokio::spawn(async move {
                converse(stream, &supervisor, &name, version).await;
                drop(place);
            });
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn converse(stream: UnixStream, supervisor: &Supervisor, name: &str, version: &str) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let line = tokio::time::timeout(IDLE, line(&mut reader, MAX_REQUEST)).await;
        let answer = match line {
            Ok(Ok(Some(line))) => match serde_json::from_slice(&line) {
                Ok(request) => perform(supervisor, name, version, request).await,
                Err(error) => Err(bad(format!("not a request: {error}"))),
            },
            Ok(Err(Line::TooLong)) => Err(bad(format!("longer than {MAX_REQUEST} bytes"))),
            Ok(Ok(None) | Err(Line::Broken)) | Err(_) => return,
        };
        let fatal = answer
            .as_ref()
            .is_err_and(|error| error.class == ErrorClass::BadInput);
        let answer = match answer {
            Ok(value) => Answer::Ok(value),
            Err(error) => Answer::Error {
                code: error.code.name.to_owned(),
                text: error.text,
            },
        };
        let mut text = serde_json::to_string(&answer).unwrap_or_default();
        text.push('\n');
        if writer.write_all(text.as_bytes()).await.is_err() || fatal {
            return;
        }
    }
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

async fn perform(
    supervisor: &Supervisor,
    name: &str,
    version: &str,
    request: Request,
) -> Result<Value, WorkError> {
    match request {
        Request::Status => {
            let status = ProcessStatus::of(supervisor, name, version).await;
            Ok(value(&status))
        }
        Request::ParkedList { queue, limit } => {
            let limit = limit.clamp(1, MAX_LISTED);
            let queues = match queue {
                Some(queue) => vec![broker_of(supervisor, &queue).await.map(|b| (queue, b))?],
                None => consumed(supervisor).await?.into_iter().collect(),
            };
            let mut listed = Vec::new();
            for (queue, broker) in queues {
                listed.extend(parking::list(&*broker, &queue, limit).await?);
            }
            Ok(value(&listed))
        }
        Request::ParkedShow { queue, id } => {
            let broker = broker_of(supervisor, &queue).await?;
            let parked = parking::show(&*broker, &queue, &id).await?;
            let parked = parked.ok_or_else(|| {
                bad(format!(
                    "no message {id:?} is parked of {queue}; `vumi parked list` shows the ids"
                ))
            })?;
            Ok(shown(&parked))
        }
        Request::ParkedRequeue { queue, selection } => {
            let broker = broker_of(supervisor, &queue).await?;
            let handled = parking::requeue(&*broker, &queue, &selection).await?;
            Ok(value(&handled))
        }
        Request::ParkedDrop { queue, selection } => {
            let broker = broker_of(supervisor, &queue).await?;
            let handled = parking::drop(&*broker, &queue, &selection).await?;
            Ok(value(&handled))
        }
        Request::ParkedResume { worker } => {
            let key = worker_key(supervisor, &worker)?;
            match supervisor.resume_parked(&key).await {
                true => Ok(json!({ "worker": key })),
                false => Err(bad(format!("{key} does not answer"))),
            }
        }
    }
}

/// A parked message with its content, as JSON: `encoding` says whether `body` is `text` or `base64`.
pub fn shown(parked: &parking::Parked) -> Value {
    let (encoding, body) = parked.envelope.written_body();
    json!({"summary": value(&parked.summary), "encoding": encoding, "body": body})
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

async fn broker_of(supervisor: &Supervisor, queue: &str) -> Result<Arc<dyn Broker>, WorkError> {
    let mut queues = consumed(supervisor).await?;
    queues.remove(queue).ok_or_else(|| {
        let known: Vec<&str> = queues.keys().map(String::as_str).collect();
        bad(format!(
            "no worker here consumes the queue {queue:?}; consumed are: {}",
            known.join(", ")
        ))
    })
}

fn worker_key(supervisor: &Supervisor, name: &str) -> Result<String, WorkError> {
    let keys: Vec<String> = supervisor.resources().iter().map(|r| r.key()).collect();
    let fits = |key: &&String| *key == name || key.split('/').nth(1) == Some(name);
    match keys.iter().filter(fits).collect::<Vec<_>>()[..] {
        [key] => Ok(key.clone()),
        [] => Err(bad(format!(
            "no worker {name:?} here; there are: {}",
            keys.join(", ")
        ))),
        _ => Err(bad(format!(
            "{name:?} is the name of several workers; write the kind too, as in transport/{name}"
        ))),
    }
}

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
                let code = codes::ALL.iter().find(|known| known.name == code);
                let code = code.copied().unwrap_or(codes::CONTROL_SOCKET);
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
