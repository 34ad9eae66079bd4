//! What a running worker is doing: readiness, liveness, one word for its state, and why (R9).

use super::RunningWorker;
use crate::broker::{ConsumerState, LinkState};
use crate::engine::consumer::{Watched, state_word};
use crate::engine::store_watch;
use crate::engine::{Counts, StoreSnapshot, WorkerSnapshot};
use crate::state::StoreHealth;
use crate::telemetry::QueueMetrics;
use prometheus::IntGauge;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A consumer whose loop did not turn for so long is stuck.
const STUCK: Duration = Duration::from_secs(30);

impl RunningWorker {
    /// What it is doing now.
    pub fn snapshot(&self) -> WorkerSnapshot {
        let link = self.environment.broker.link().borrow().clone();
        let consumers: Vec<(String, ConsumerState)> = self
            .watched
            .iter()
            .map(|w| (name(w), w.state.borrow().clone()))
            .collect();
        let paused: Option<String> = self.watched.iter().find_map(|w| w.paused.borrow().clone());
        let stopping = self.stopping.load(Ordering::Relaxed);
        let accepting = self.accepting.load(Ordering::Relaxed) && !stopping;
        let store = self.environment.state.as_deref().map(store_watch::snapshot);
        let (state, why) = self.state(stopping, &link, store.as_ref(), &consumers, paused);
        let mut counts = Counts::default();
        self.watched.iter().for_each(|w| w.add_to(&mut counts));
        let now = self.epoch.elapsed();
        let alive = stopping
            || self.watched.iter().all(|w| {
                let turned = Duration::from_millis(w.turned.load(Ordering::Relaxed));
                now.saturating_sub(turned) < STUCK
            });
        let ready = matches!(state, "running" | "standby" | "paused");
        self.metrics.ready.set(i64::from(ready));
        WorkerSnapshot {
            key: self.cx.worker_name().to_owned(),
            type_name: self.type_name,
            ready,
            alive,
            accepting: self.listens.then_some(accepting),
            state,
            why,
            consumers,
            link,
            durability: self.environment.broker.durability(),
            store,
            components: self.status.components(),
            counts,
            queued: self.sum(|metrics| &metrics.ready),
            waiting: self.sum(|metrics| &metrics.journal_messages),
            set_aside: self.sum(|metrics| &metrics.kept),
            oldest: self
                .watched
                .iter()
                .map(|w| w.metrics.oldest.get())
                .fold(0.0, f64::max),
            since: self.since,
        }
    }

    /// A gauge of its queues, all of them together.
    fn sum(&self, gauge: impl Fn(&QueueMetrics) -> &IntGauge) -> u64 {
        let each = self.watched.iter().map(|w| gauge(&w.metrics).get());
        each.map(|n| u64::try_from(n).unwrap_or(0)).sum()
    }

    /// The state as one word and its reason (R9).
    fn state(
        &self,
        stopping: bool,
        link: &LinkState,
        store: Option<&StoreSnapshot>,
        consumers: &[(String, ConsumerState)],
        paused: Option<String>,
    ) -> (&'static str, String) {
        if stopping {
            return ("stopping", String::new());
        }
        match link {
            LinkState::Connecting { error, .. } => {
                let why = error.clone().unwrap_or_default();
                return ("connecting", why);
            }
            LinkState::Closed => return ("connecting", "the connection is closed".into()),
            LinkState::Blocked(why) => return ("blocked", why.clone()),
            LinkState::Up { .. } => {}
        }
        if let Some(StoreSnapshot {
            name,
            health: StoreHealth::Away(why),
            ..
        }) = store
        {
            return (
                "connecting",
                format!("the state store ({name}) does not answer: {why}"),
            );
        }
        let words: Vec<&str> = consumers
            .iter()
            .map(|(_, s)| state_word(s, false))
            .collect();
        for (_, state) in consumers {
            match state {
                ConsumerState::Refused(_, why) => return ("stalled", why.clone()),
                ConsumerState::Connecting(why) => {
                    return ("connecting", why.clone().unwrap_or_default());
                }
                _ => {}
            }
        }
        // A peer that is away is its own status; a socket that cannot be opened is ours.
        if self.listens
            && let Some(why) = &*self.peer_failing.borrow()
        {
            return ("stalled", why.clone());
        }
        if let Some(why) = paused {
            return ("paused", why);
        }
        let standby = consumers.iter().find_map(|(queue, state)| match state {
            ConsumerState::Standby(holder) => Some((queue, holder)),
            _ => None,
        });
        match standby {
            Some((queue, holder)) if !words.contains(&"consuming") => {
                let holder = holder.as_deref().unwrap_or("another consumer");
                ("standby", format!("{queue} is read by {holder}"))
            }
            _ => ("running", String::new()),
        }
    }
}

/// The queue, and of a divided one how much of it is read here.
fn name(watched: &Watched) -> String {
    let here = watched.here.as_ref().and_then(|here| *here.borrow());
    match here {
        Some((here, all)) => format!("{}: {here} of {all} here", watched.queue),
        None => watched.queue.clone(),
    }
}
