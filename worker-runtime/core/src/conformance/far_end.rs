//! The far end of a worker's queues: consumes everything that the worker publishes and keeps it to be judged.

use crate::broker::{Access, Broker, ConsumerState, QueueSpec, Subscribe};
use crate::message::{EventType, Message};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use vumi_api::{Flow, Port};

/// How long a case waits for anything before it calls it missing, unless [`be_patient`] said otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

thread_local! {
    static WAIT: Cell<Duration> = const { Cell::new(PATIENCE) };
}

/// How long the case of this thread waits for anything before it calls it missing.
pub(super) fn patience() -> Duration {
    WAIT.get()
}

/// Sets [`patience`] for the cases of this thread: less where the suite itself is judged by what it finds missing.
pub(super) fn be_patient(wait: Option<Duration>) {
    WAIT.set(wait.unwrap_or(PATIENCE));
}

/// One message that the worker published.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) port: Port,
    pub(super) message: Message,
}

impl Seen {
    /// Where it came out, and as what: of all outputs of one cause at one place there is one id. A message is told ack
    /// or nack, never both.
    pub(super) fn place(&self) -> String {
        let queue = self.port.queue();
        let Message::Event(event) = &self.message else {
            return queue;
        };
        match (event.event_type(), event.delivery_status()) {
            (EventType::DeliveryReport, Some(status)) => format!("{queue} {}", status.as_str()),
            _ => queue,
        }
    }

    /// Whether handling the message `id` caused this: it is that message, answers it, or reports on it.
    pub(super) fn is_caused_by(&self, id: &str) -> bool {
        self.answers() == id || self.message.id() == id
    }

    fn answers(&self) -> &str {
        match &self.message {
            Message::User(m) => m.in_reply_to().unwrap_or_default(),
            Message::Event(e) => e.user_message_id(),
        }
    }
}

#[derive(Default)]
struct Kept {
    log: Mutex<Log>,
    changed: Notify,
}

#[derive(Default)]
struct Log {
    seen: Vec<Seen>,
    /// What could not be read: where it came out, and why.
    unreadable: Vec<String>,
    /// Places in `seen` by what [`Seen::is_caused_by`] compares.
    by_cause: HashMap<String, Vec<usize>>,
}

impl Log {
    fn push(&mut self, seen: Seen) {
        let place = self.seen.len();
        let causes = [seen.message.id(), seen.answers()];
        for (n, cause) in causes.into_iter().enumerate() {
            if n == 0 || cause != causes[0] {
                let places = self.by_cause.entry(cause.to_owned()).or_default();
                places.push(place);
            }
        }
        self.seen.push(seen);
    }

    fn caused_by(&self, id: &str) -> impl Iterator<Item = &Seen> {
        let places = self.by_cause.get(id).into_iter().flatten();
        places.map(|place| &self.seen[*place])
    }
}

/// Consumers of a worker's published queues.
pub(super) struct FarEnd {
    kept: Arc<Kept>,
    states: Vec<(Port, watch::Receiver<ConsumerState>)>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl FarEnd {
    pub(super) async fn open(broker: &Arc<dyn Broker>, ports: &[Port]) -> Self {
        let kept = Arc::<Kept>::default();
        let mut tasks = Vec::new();
        let mut states = Vec::new();
        for port in ports {
            let mut subscription = broker
                .subscribe(Subscribe {
                    queue: QueueSpec::Data(port.queue()),
                    prefetch: 1000,
                    access: Access::Shared,
                    tag: "conformance".into(),
                })
                .await;
            states.push((port.clone(), subscription.state.clone()));
            let (kept, port) = (Arc::clone(&kept), port.clone());
            tasks.push(tokio::spawn(async move {
                while let Some(delivery) = subscription.deliveries.recv().await {
                    match Message::decode(port.flow, &delivery.body) {
                        Ok(message) => {
                            let port = port.clone();
                            kept.lock().push(Seen { port, message });
                        }
                        Err(error) => kept.lock().unreadable.push(format!("{port}: {error}")),
                    }
                    kept.changed.notify_waiters();
                    let acker = &subscription.acker;
                    acker.ack(delivery.generation, delivery.tag, false);
                }
            }));
        }
        Self {
            kept,
            states,
            tasks,
        }
    }

    /// Waits until it consumes; an error if a queue is declared in another way than ours.
    pub(super) async fn consumes(&self) -> Result<(), String> {
        for (port, state) in &self.states {
            let mut state = state.clone();
            let known = state.wait_for(|state| {
                matches!(state, ConsumerState::Consuming | ConsumerState::Refused(..))
            });
            match tokio::time::timeout(patience(), known).await {
                Ok(Ok(state)) => {
                    if let ConsumerState::Refused(code, text) = &*state {
                        return Err(format!("{port} cannot be read: {text} ({code})"));
                    }
                }
                _ => return Err(format!("{port} cannot be read within {:?}", patience())),
            }
        }
        Ok(())
    }

    /// Everything seen so far, in the order of arrival.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.kept.lock().seen.clone()
    }

    /// What the worker published and nobody can read, the first of it.
    pub(super) fn unreadable(&self) -> Option<String> {
        self.kept.lock().unreadable.first().cloned()
    }

    /// What the message `id` caused so far.
    pub(super) fn caused_by(&self, id: &str) -> Vec<Seen> {
        self.kept.lock().caused_by(id).cloned().collect()
    }

    /// Waits until `look` finds something among what was seen.
    pub(super) async fn until<T>(
        &self,
        what: &str,
        look: impl Fn(&[Seen]) -> Option<T>,
    ) -> Result<T, String> {
        self.until_log(what, |log| look(&log.seen)).await
    }

    async fn until_log<T>(
        &self,
        what: &str,
        look: impl Fn(&Log) -> Option<T>,
    ) -> Result<T, String> {
        let wait = async {
            loop {
                let changed = self.kept.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = look(&self.kept.lock()) {
                    return found;
                }
                changed.await;
            }
        };
        let patience = patience();
        tokio::time::timeout(patience, wait).await.map_err(|_| {
            let log = self.kept.lock();
            let arrived: Vec<String> = log.seen.iter().map(|s| s.port.queue()).collect();
            let unreadable = match log.unreadable.first() {
                None => String::new(),
                Some(first) => format!("; and what cannot be read: {first}"),
            };
            format!("{what}: nothing within {patience:?}; arrived: {arrived:?}{unreadable}")
        })
    }

    /// The first output that the message `id` causes.
    pub(super) async fn output_of(&self, id: &str) -> Result<Seen, String> {
        let what = format!("an output caused by {id}");
        self.until_log(&what, |log| log.caused_by(id).next().cloned())
            .await
    }

    /// The first inbound message with this content.
    pub(super) async fn inbound(&self, content: &str) -> Result<Seen, String> {
        self.until("an inbound message of the peer", |seen| {
            seen.iter()
                .find(|s| s.port.flow == Flow::Inbound && content_of(&s.message) == Some(content))
                .cloned()
        })
        .await
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn content_of(message: &Message) -> Option<&str> {
    match message {
        Message::User(m) => m.content(),
        Message::Event(_) => None,
    }
}
