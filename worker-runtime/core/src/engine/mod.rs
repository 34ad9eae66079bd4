//! Runs one worker: consumers, lanes, verdicts, publishing, retries, parking, status, readiness, two-stage stop.

mod acks;
mod backlog;
mod backoff;
mod consumer;
mod delivery;
mod forwarded;
mod insist;
mod journal;
mod labels;
mod lanes;
mod marks;
mod orders;
mod outlet;
mod partitions;
mod peer;
mod running;
mod sending;
mod steady;
mod store_watch;
mod watch;

pub(crate) use labels::{LONGEST as LONGEST_LABEL, group_of};
pub(crate) use partitions::is_part;
pub use partitions::parts_on;
pub use running::{BuiltWorker, RunningWorker, build};
pub(crate) use sending::{
    may_be_withdrawn, may_double, patience, sender, sent_until, told_with_verdict,
};

use crate::broker::{Broker, ConsumerState, Durability, LinkState};
use crate::outside::Outside;
use crate::secrets::Secrets;
use crate::state::{StateStore, StoreHealth};
use crate::status::StatusReport;
use crate::supervisor::listeners::Listeners;
use crate::telemetry::Telemetry;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What a worker needs from its process.
#[derive(Clone)]
pub struct Environment {
    /// The broker its resource names.
    pub broker: Arc<dyn Broker>,
    /// The state store of its resource; none where there is none.
    pub state: Option<Arc<dyn StateStore>>,
    /// Secrets.
    pub secrets: Arc<Secrets>,
    /// Listening sockets, kept across reloads.
    pub listeners: Arc<Listeners>,
    /// Where its calls to others go.
    pub outside: Outside,
    /// Metrics of the process.
    pub telemetry: Arc<Telemetry>,
    /// Name of this replica, unique on the broker.
    pub instance: String,
    /// `system_id` of heartbeats.
    pub system_id: String,
}

/// What a worker is doing, for `vumi status`, readiness and the supervisor.
#[derive(Clone, Debug)]
pub struct WorkerSnapshot {
    /// Kind and name.
    pub key: String,
    /// Worker type.
    pub type_name: &'static str,
    /// Ready as R9 defines it.
    pub ready: bool,
    /// Its loops turned lately; false means that the process should be restarted.
    pub alive: bool,
    /// Whether its listeners accept; none for workers without.
    pub accepting: Option<bool>,
    /// One word: `running`, `standby`, `paused`, `blocked`, `connecting`, `stalled`, `stopping`.
    pub state: &'static str,
    /// Why, in one sentence; empty while all is well.
    pub why: String,
    /// Per consumed queue.
    pub consumers: Vec<(String, ConsumerState)>,
    /// Broker connection.
    pub link: LinkState,
    /// Durability of a confirmed message.
    pub durability: Durability,
    /// Its state store; none where there is none.
    pub store: Option<StoreSnapshot>,
    /// Last report per component.
    pub components: Vec<StatusReport>,
    /// Counters of this process: received, done, retried, parked, journaled, in flight.
    pub counts: Counts,
    /// Age of the oldest message that is not finished, in seconds; 0 without one.
    pub oldest: f64,
    /// Messages that wait in its queues on the broker, as it saw when it last looked: some seconds ago.
    pub queued: u64,
    /// Messages that wait in its journals.
    pub waiting: u64,
    /// Messages that are set aside from its queues, by whomever, as the broker saw when it last looked.
    pub set_aside: u64,
    /// When it started.
    pub since: SystemTime,
}

/// The state store of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSnapshot {
    /// What it is, for people.
    pub name: String,
    /// What a finished operation survives.
    pub durability: Durability,
    /// Whether it answers.
    pub health: StoreHealth,
}

/// The zero-sum ledger of a worker: `received = done + parked + journaled + returned + in_flight` at all times. A message
/// that was journaled is received again when it is replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages taken from the broker or out of the journal.
    pub received: u64,
    /// Handled, outputs confirmed, acknowledged.
    pub done: u64,
    /// Attempts after the first.
    pub retried: u64,
    /// Set aside and acknowledged.
    pub parked: u64,
    /// Moved into the journal, or left to wait on there.
    pub journaled: u64,
    /// Of those received: taken out of the journal.
    pub replayed: u64,
    /// Returned to the queue unhandled: shutdown, generation change.
    pub returned: u64,
    /// Being handled now, retries and lane waits included.
    pub in_flight: u64,
}

/// Bounds of the stages of a stop (R8).
#[derive(Clone, Copy, Debug)]
pub struct StopLimits {
    /// Held requests get their replies within this.
    pub drain: Duration,
    /// Messages in flight finish and confirms arrive within this.
    pub flush: Duration,
    /// Goodbye to the peer takes at most this.
    pub close: Duration,
}

impl Default for StopLimits {
    fn default() -> Self {
        Self {
            drain: Duration::from_secs(20),
            flush: Duration::from_secs(5),
            close: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
mod tests;
