//! What is seen of a crew: one state and one set of gauges for all parts that it reads.

use super::super::super::Counts;
use super::super::super::consumer::state_word;
use super::super::layout::Here;
use super::super::plan::range;
use super::Crew;
use crate::broker::ConsumerState;
use crate::reasons::{self, Reason};
use crate::status::{StatusLevel, StatusReport};
use std::sync::atomic::Ordering;

impl Crew {
    /// Tells status, metrics and the layout how the parts here are.
    pub(super) fn show(&mut self) {
        let mut counts = Counts::default();
        self.counters.add_to(&mut counts);
        self.layout.tell(Here {
            reads: self.reads().cloned().collect(),
            left: self.has_left(),
            in_hand: counts.in_flight,
            received: counts.received,
        });
        let in_flight = counts.in_flight.try_into().unwrap_or(i64::MAX);
        self.metrics.in_flight.set(in_flight);
        let ages = self
            .posts
            .values()
            .map(|post| post.oldest.load(Ordering::Relaxed));
        let oldest = ages.map(f64::from_bits).fold(0.0, f64::max);
        self.metrics.oldest.set(oldest);
        let turned = self
            .posts
            .values()
            .map(|post| post.watched.turned.load(Ordering::Relaxed));
        let now = self.parts.epoch.elapsed().as_millis();
        let turned = turned.min().unwrap_or(now.try_into().unwrap_or(u64::MAX));
        self.turned.store(turned, Ordering::Relaxed);
        let paused = self
            .posts
            .values()
            .find_map(|post| post.watched.paused.borrow().clone());
        self.paused.send_if_modified(|old| {
            let changed = *old != paused;
            *old = paused;
            changed
        });
        let reads = self.reads().count();
        self.here
            .send_replace(Some((reads, self.plan.parts().len())));
        let state = self.judge();
        let changed = self.state.send_if_modified(|old| {
            let changed = *old != state;
            old.clone_from(&state);
            changed
        });
        if changed {
            self.report(&state);
        }
    }

    /// One state for all parts here.
    fn judge(&self) -> ConsumerState {
        let states: Vec<ConsumerState> = self
            .posts
            .values()
            .map(|post| post.watched.state.borrow().clone())
            .collect();
        let find = |wanted: fn(&ConsumerState) -> bool| states.iter().find(|s| wanted(s)).cloned();
        if let Some(refused) = find(|s| matches!(s, ConsumerState::Refused(..))) {
            return refused;
        }
        if self.members.share().is_none() {
            return ConsumerState::Connecting(Some("waiting for the other replicas".into()));
        }
        let consuming = find(|s| *s == ConsumerState::Consuming);
        let connecting = find(|s| matches!(s, ConsumerState::Connecting(_)));
        let standby = find(|s| matches!(s, ConsumerState::Standby(_)));
        let others = || match self.members.others() {
            0 => ConsumerState::Connecting(None),
            others => ConsumerState::Standby(Some(format!("{others} other replicas"))),
        };
        consuming.or(connecting).or(standby).unwrap_or_else(others)
    }

    fn report(&self, state: &ConsumerState) {
        let paused = self.paused.borrow().is_some();
        let label = &self.parts.label;
        let desk = &self.parts.desk;
        desk.worker_metrics
            .consumer_state(label, state_word(state, paused));
        let queue = range(&self.plan);
        let (level, reason, text) = match state {
            ConsumerState::Consuming => (
                StatusLevel::Ok,
                reasons::CONSUMING,
                format!("reading parts of {queue}"),
            ),
            ConsumerState::Standby(_) => (
                StatusLevel::Ok,
                reasons::STANDBY,
                format!("standing by: {queue} are read by other replicas"),
            ),
            ConsumerState::Refused(code, text) => {
                (StatusLevel::Down, Reason::of_code(code), text.clone())
            }
            ConsumerState::Connecting(_) | ConsumerState::Stopped => return,
        };
        let report = StatusReport::new(format!("queue {queue}"), level, reason, text);
        self.parts.status.report(report);
    }
}
