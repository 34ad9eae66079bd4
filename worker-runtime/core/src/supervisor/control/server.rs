//! The process's side of its control socket: who may speak, and what each request does.

use super::super::Supervisor;
use super::super::status::ProcessStatus;
use super::{
    Answer, IDLE, Line, Request, bad, consumed, line, runtime_folder, shown, traffic, trouble,
    value,
};
use crate::broker::Broker;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::folder;
use crate::operate;
use crate::parking;
use crate::tap::{self, Tap, Told};
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use vumi_api::Port;

/// Longest request line: a message of the largest size, and what is around it.
const MAX_REQUEST: u64 = 2 << 20;
/// Most messages in one listing.
const MAX_LISTED: usize = 1000;
/// Conversations at one time.
const MAX_CLIENTS: usize = 16;

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
        let folder = path.parent().unwrap_or(Path::new("."));
        let failed = |error: std::io::Error| {
            let place = folder.display();
            let text = format!(
                "cannot be made in the folder {place}: {error}; let this user write there, free space on its disk, or name another folder with --state"
            );
            trouble(path, &text)
        };
        folder::create(folder, false).map_err(failed)?;
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
                // Whoever has the folder can put another socket there. Root can do so anyway, and a volume of a pod is root's.
                let named = !shared_place && (owner == 0 || around.uid() == 0);
                if around.uid() != owner && !named {
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
            Ok(Ok(Some(line))) => match request(supervisor, &line) {
                Ok(Request::Tap {
                    connectors,
                    kinds,
                    filter,
                }) => match traffic::open(supervisor, &connectors, &kinds, filter).await {
                    Ok(tap) => return tell(supervisor, tap, reader, writer).await,
                    Err(error) => Err(error),
                },
                Ok(request) => perform(supervisor, name, version, request).await,
                Err(error) => Err(error),
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
                class: error.class.label().to_owned(),
            },
        };
        let mut text = serde_json::to_string(&answer).unwrap_or_default();
        text.push('\n');
        if writer.write_all(text.as_bytes()).await.is_err() || fatal {
            return;
        }
    }
}

/// Reads a request. While the process starts it can only say so: it has no stores and queues yet, which is not the same as
/// that there are none.
fn request(supervisor: &Supervisor, line: &[u8]) -> Result<Request, WorkError> {
    let request: Request =
        serde_json::from_slice(line).map_err(|error| bad(format!("not a request: {error}")))?;
    if request == Request::Status {
        return Ok(request);
    }
    match supervisor.starting() {
        None => Ok(request),
        Some(waits) => Err(WorkError::new(
            ErrorClass::Connect,
            codes::CONTROL_STARTING,
            format!("the process is still starting: {waits}"),
        )),
    }
}

/// Tells what a tap sees until somebody has enough: the other side, or the process that is stopping.
async fn tell(
    supervisor: &Supervisor,
    mut tap: Tap,
    mut reader: BufReader<OwnedReadHalf>,
    mut writer: OwnedWriteHalf,
) {
    loop {
        let told = tokio::select! {
            told = tap.next() => told,
            // Nothing is to be said any more: whatever comes is the end.
            _ = line(&mut reader, MAX_REQUEST) => return,
            () = supervisor.stopping().cancelled() => Told::Ended("the process is stopping".into()),
        };
        let mut text = serde_json::to_string(&Answer::Ok(value(&told))).unwrap_or_default();
        text.push('\n');
        let ended = matches!(told, Told::Ended(_));
        if writer.write_all(text.as_bytes()).await.is_err() || ended {
            return;
        }
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
            let reach = supervisor.reach().await;
            let withdrawal = reach.withdrawal(&queue);
            let handled = parking::drop(&*broker, &withdrawal, &queue, &selection).await?;
            Ok(value(&handled))
        }
        Request::Publish {
            connector,
            kind,
            messages,
        } => {
            let flow = tap::flow(&kind);
            let flow =
                flow.ok_or_else(|| bad(format!("{kind:?} is none of inbound, outbound, event")))?;
            traffic::publish(supervisor, &Port::new(connector, flow), &messages).await
        }
        // It is answered where the conversation is.
        Request::Tap { .. } => Err(bad("a tap is the last thing that is asked".into())),
        Request::Kept(ask) => operate::answer(&supervisor.reach().await, ask).await,
        Request::ParkedResume { worker } => {
            let key = worker_key(supervisor, &worker)?;
            match supervisor.resume_parked(&key).await {
                true => Ok(json!({ "worker": key })),
                false => Err(bad(format!("{key} does not answer"))),
            }
        }
    }
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
