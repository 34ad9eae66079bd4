//! The state of a process as `vumi status` shows it: the workers' snapshots in a form that travels as JSON.

use super::Supervisor;
use crate::broker::{ConsumerState, LinkState};
use crate::engine::{StoreSnapshot, WorkerSnapshot};
use crate::state::StoreHealth;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// A process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessStatus {
    /// Its name: the campaign's, or what `--name` said.
    pub name: String,
    /// Process id.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// Open brokers, for people, without credentials.
    pub brokers: Vec<String>,
    /// Why the manifests as they are now are not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What it waits for before it has workers; absent once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting: Option<String>,
    /// Whether it is on its way out.
    #[serde(default)]
    pub stopping: bool,
    /// Its workers by kind and name.
    pub workers: Vec<WorkerStatus>,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    /// Kind and name.
    pub worker: String,
    /// Worker type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Ready as R9 defines it.
    pub ready: bool,
    /// Whether its listeners accept; absent for workers without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepting: Option<bool>,
    /// One word: `running`, `standby`, `paused`, `connecting`, `stalled`, `stopping`, `stopped`.
    pub state: String,
    /// Why; empty while all is well.
    pub why: String,
    /// Addresses it listens on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listens: Vec<String>,
    /// Consumed queues and their states.
    pub queues: Vec<QueueStatus>,
    /// The connection to the broker, in words.
    pub link: String,
    /// What a confirmed message survives: `memory`, `process` or `host`.
    pub durability: String,
    /// Its state store; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreStatus>,
    /// Last report per component.
    pub components: Vec<ComponentStatus>,
    /// Deliveries taken from the broker.
    pub received: u64,
    /// Handled and acknowledged.
    pub done: u64,
    /// Attempts after the first.
    pub retried: u64,
    /// Set aside since it started.
    pub parked: u64,
    /// Moved into the journal, or left to wait on there.
    #[serde(default)]
    pub journaled: u64,
    /// Of those received: taken out of the journal.
    #[serde(default)]
    pub replayed: u64,
    /// Returned to the queue unhandled.
    pub returned: u64,
    /// Being handled now.
    pub in_flight: u64,
    /// Age of the oldest message that is not finished, in seconds; 0 without one.
    #[serde(default)]
    pub oldest: f64,
    /// Messages that wait in its queues on the broker, as it saw when it last looked: some seconds ago.
    #[serde(default)]
    pub queued: u64,
    /// Messages that wait in its journals: for a retry, their turn or a release.
    #[serde(default)]
    pub waiting: u64,
    /// Messages that are set aside from its queues now, by whomever, as the broker saw when it last looked: some seconds ago.
    #[serde(default)]
    pub set_aside: u64,
    /// When it started, or has stalled: seconds since 1970.
    pub since: u64,
}

/// A state store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    /// What it is, without credentials.
    pub name: String,
    /// What a finished operation survives: `memory`, `process` or `host`.
    pub durability: String,
    /// `up`, or why it does not answer.
    pub health: String,
}

/// One consumed queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// Queue name.
    pub queue: String,
    /// `consuming`, `standby`, `connecting`, `refused` or `stopped`.
    pub state: String,
    /// More, where there is more to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// One component of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// Part concerned.
    pub component: String,
    /// `ok`, `degraded` or `down`.
    pub level: String,
    /// Machine-readable reason.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl ProcessStatus {
    /// The present state of the workers of `supervisor`.
    pub async fn of(supervisor: &Supervisor, name: &str, version: &str) -> Self {
        let (resources, stopping) = (supervisor.resources(), supervisor.stopping().is_cancelled());
        let workers = supervisor.snapshots().await.into_iter().map(|snapshot| {
            let mut status = WorkerStatus::from(snapshot);
            let resource = resources.iter().find(|r| r.key() == status.worker);
            if let (Some(resource), false) = (resource, stopping) {
                let listens = resource.topology().listens;
                status.listens = listens.iter().map(super::plan::shown_address).collect();
            }
            status
        });
        Self {
            name: name.to_owned(),
            pid: std::process::id(),
            version: version.to_owned(),
            problem: supervisor.problem(),
            starting: supervisor.starting(),
            stopping,
            workers: workers.collect(),
            brokers: supervisor.describe_brokers(),
        }
    }
}

impl From<WorkerSnapshot> for WorkerStatus {
    fn from(snapshot: WorkerSnapshot) -> Self {
        Self {
            worker: snapshot.key,
            type_name: snapshot.type_name.to_owned(),
            ready: snapshot.ready,
            accepting: snapshot.accepting,
            state: snapshot.state.to_owned(),
            why: snapshot.why,
            listens: Vec::new(),
            queues: snapshot
                .consumers
                .into_iter()
                .map(|(queue, state)| queue_status(queue, state))
                .collect(),
            link: link(&snapshot.link),
            durability: snapshot.durability.as_str().to_owned(),
            store: snapshot.store.map(StoreStatus::from),
            components: snapshot
                .components
                .into_iter()
                .map(|report| ComponentStatus {
                    component: report.component,
                    level: report.level.as_str().to_owned(),
                    reason: report.reason,
                    message: report.message,
                })
                .collect(),
            received: snapshot.counts.received,
            done: snapshot.counts.done,
            retried: snapshot.counts.retried,
            parked: snapshot.counts.parked,
            journaled: snapshot.counts.journaled,
            replayed: snapshot.counts.replayed,
            returned: snapshot.counts.returned,
            in_flight: snapshot.counts.in_flight,
            oldest: snapshot.oldest,
            queued: snapshot.queued,
            waiting: snapshot.waiting,
            set_aside: snapshot.set_aside,
            since: seconds(snapshot.since),
        }
    }
}

impl From<StoreSnapshot> for StoreStatus {
    fn from(store: StoreSnapshot) -> Self {
        Self {
            name: store.name,
            durability: store.durability.as_str().to_owned(),
            health: match store.health {
                StoreHealth::Up => "up".into(),
                StoreHealth::Away(why) => format!("away: {why}"),
            },
        }
    }
}

fn queue_status(queue: String, state: ConsumerState) -> QueueStatus {
    let (state, detail) = match state {
        ConsumerState::Connecting(error) => ("connecting", error.unwrap_or_default()),
        ConsumerState::Consuming => ("consuming", String::new()),
        ConsumerState::Standby(holder) => (
            "standby",
            holder.map_or_else(String::new, |holder| format!("behind {holder}")),
        ),
        ConsumerState::Refused(code, text) => ("refused", format!("{text} ({code})")),
        ConsumerState::Stopped => ("stopped", String::new()),
    };
    QueueStatus {
        queue,
        state: state.to_owned(),
        detail,
    }
}

fn link(state: &LinkState) -> String {
    match state {
        LinkState::Connecting {
            error: Some(error), ..
        } => format!("connecting: {error}"),
        LinkState::Connecting { error: None, .. } => "connecting".into(),
        LinkState::Up { server } => format!("up, {server}"),
        LinkState::Blocked(why) => format!("blocked by the broker: {why}"),
        LinkState::Closed => "closed".into(),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
