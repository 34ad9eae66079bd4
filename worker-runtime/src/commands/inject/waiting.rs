//! What people see of `vumi inject` while it runs: a bar on a terminal, and anywhere what it waits for, and why.

use crate::output;
use crate::patience::{OFTEN, meanwhile};
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use vumi_core::broker::{Broker, LinkState};
use vumi_core::journal_desk::is_of;
use vumi_core::supervisor::control::{Request, ask};
use vumi_core::supervisor::status::{ProcessStatus, WorkerStatus};

/// A process is asked so long why it confirms nothing.
const ASKED: Duration = Duration::from_secs(2);

/// Who says why nothing is confirmed.
pub enum Link {
    /// The broker that is published on.
    Broker(Arc<dyn Broker>),
    /// The process behind this control socket, which publishes to this queue.
    Process(PathBuf, String),
}

impl Link {
    /// What is in the way, as far as it is known.
    async fn trouble(&self) -> Option<String> {
        match self {
            Link::Broker(broker) => trouble(&broker.link().borrow()),
            Link::Process(socket, queue) => {
                let answer = timeout(ASKED, ask(socket, &Request::Status)).await;
                let status: ProcessStatus = serde_json::from_value(answer.ok()?.ok()?).ok()?;
                trouble_in(&status, queue)
            }
        }
    }
}

fn trouble(link: &LinkState) -> Option<String> {
    match link {
        LinkState::Blocked(why) => Some(format!("it takes no messages for now: {why}")),
        LinkState::Connecting { error, .. } => {
            let why = error.as_deref().unwrap_or("it is tried again");
            Some(format!("it cannot be reached: {why}"))
        }
        LinkState::Up { .. } | LinkState::Closed => None,
    }
}

/// What the worker that reads the queue says of its broker.
fn trouble_in(status: &ProcessStatus, queue: &str) -> Option<String> {
    let reads = |worker: &&WorkerStatus| worker.queues.iter().any(|one| is_of(&one.queue, queue));
    let worker = status.workers.iter().find(reads)?;
    (!worker.link.starts_with("up")).then(|| format!("{} is {}", worker.worker, worker.link))
}

/// What is said after so long a wait; nothing yet, if nothing is known to be in the way.
fn sentence(trouble: Option<&str>, so_far: Duration) -> Option<String> {
    let seconds = so_far.as_secs();
    match trouble {
        Some(why) => Some(format!("waiting for the broker, {seconds} s so far: {why}")),
        None if so_far < OFTEN => None,
        None => Some(format!(
            "waiting for the broker, {seconds} s so far: it confirms nothing"
        )),
    }
}

/// Shows how far it came, and what it waits for.
pub struct Waiting {
    bar: ProgressBar,
    known: Option<u64>,
    link: Link,
    /// Confirmed so far.
    position: Cell<u64>,
    /// Whether the bar says how long it will take.
    estimates: Cell<bool>,
}

impl Waiting {
    /// Begins at `before` of all messages, if it is known how many those are.
    pub fn new(known: Option<u64>, before: u64, link: Link) -> Self {
        let bar = match known {
            Some(known) => ProgressBar::new(known),
            None => ProgressBar::no_length(),
        };
        let waiting = Self {
            bar,
            known,
            link,
            position: Cell::new(before),
            estimates: Cell::new(false),
        };
        // Before the first confirmation nobody knows how long it takes.
        waiting.estimate(false);
        waiting.bar.set_position(before);
        waiting
    }

    /// So many are confirmed.
    pub fn reached(&self, position: u64) {
        if position > self.position.replace(position) && !self.estimates.get() {
            self.estimate(true);
            self.bar.reset_eta();
        }
        self.bar.set_position(position);
    }

    fn estimate(&self, estimates: bool) {
        self.estimates.set(estimates);
        let template = match (self.known, estimates) {
            (Some(_), true) => "{bar:30} {pos} of {len} confirmed, {per_sec}, {eta} left",
            (Some(_), false) => "{bar:30} {pos} of {len} confirmed",
            (None, true) => "{spinner} {pos} confirmed, {per_sec}",
            (None, false) => "{spinner} {pos} confirmed",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    /// Waits for `work`, and says from time to time why it takes long.
    pub async fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        let look = async |so_far| {
            let trouble = self.link.trouble().await;
            self.estimate(false);
            if let Some(line) = sentence(trouble.as_deref(), so_far) {
                self.bar.suspend(|| output::note(&line));
            }
        };
        meanwhile(look, work).await
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::SOON;
    use serde_json::json;
    use tokio::time::sleep;

    #[test]
    fn what_blocks_is_said_at_once_and_silence_after_a_while() {
        let why = trouble(&LinkState::Blocked("low on memory".into()));
        let soon = sentence(why.as_deref(), SOON);
        assert_eq!(
            soon.as_deref(),
            Some("waiting for the broker, 2 s so far: it takes no messages for now: low on memory")
        );
        let up = LinkState::Up {
            server: "RabbitMQ 4.0.5".into(),
        };
        assert_eq!(trouble(&up), None);
        assert_eq!(sentence(None, SOON), None);
        let late = sentence(None, OFTEN + SOON);
        assert!(late.is_some_and(|line| line.ends_with("12 s so far: it confirms nothing")));
    }

    #[test]
    fn a_process_says_it_of_the_worker_that_reads_the_queue() {
        let worker = |name: &str, queue: &str, link: &str| {
            json!({
                "worker": name, "type": "telnet", "ready": true, "state": "running", "why": "", "link": link,
                "queues": [{"queue": queue, "state": "consuming"}], "durability": "memory", "components": [],
                "received": 0, "done": 0, "retried": 0, "parked": 0, "returned": 0, "inFlight": 0, "since": 0,
            })
        };
        let status: ProcessStatus = serde_json::from_value(json!({
            "name": "demo", "pid": 7, "version": "1.0", "brokers": [],
            "workers": [
                worker("application/e", "t.inbound", "up, RabbitMQ 4.0.5"),
                worker("transport/t", "t.outbound.p0", "blocked by the broker: low on disk"),
            ],
        }))
        .unwrap();
        assert_eq!(trouble_in(&status, "t.inbound"), None);
        let why = trouble_in(&status, "t.outbound");
        assert_eq!(
            why.as_deref(),
            Some("transport/t is blocked by the broker: low on disk")
        );
    }

    #[tokio::test]
    async fn there_is_an_estimate_only_while_messages_are_confirmed() {
        use vumi_core::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
        let broker = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
        let waiting = Waiting::new(Some(10), 2, Link::Broker(broker));
        waiting.reached(2);
        assert!(!waiting.estimates.get(), "nothing is confirmed yet");
        waiting.reached(3);
        assert!(waiting.estimates.get());
        tokio::time::pause();
        waiting.wait(sleep(2 * SOON)).await;
        assert!(!waiting.estimates.get(), "nothing came for a while");
        waiting.end();
    }
}
