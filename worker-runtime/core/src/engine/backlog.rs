//! What is known about the depth of queues, and whether the worker pauses because of it: full targets (S2) and too many
//! parked messages (R18).

use crate::codes;
use crate::parking::{Breaker, Trip};
use crate::reasons;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;
use vumi_api::{Flow, Kind, Port};

/// Why consumers pause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pause {
    /// Target queues above the limit.
    pub(super) full: Vec<Port>,
    /// Too many messages were parked; somebody must look and resume.
    pub(super) parked: Option<Trip>,
}

/// Why one consumer pauses: for machines and as a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) reason: reasons::Reason,
    pub(super) text: String,
}

pub(super) struct Backlog {
    kind: Kind,
    limit: u32,
    pause: watch::Sender<Pause>,
    breaker: Mutex<Breaker>,
}

impl Backlog {
    pub(super) fn new(kind: Kind, limit: u32) -> Self {
        Self {
            kind,
            limit,
            pause: watch::Sender::new(Pause::default()),
            breaker: Mutex::default(),
        }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    pub(super) fn watch(&self) -> watch::Receiver<Pause> {
        self.pause.subscribe()
    }

    /// The depth of a target was read.
    pub(super) fn depth(&self, port: &Port, ready: u32) {
        let full = ready >= self.limit;
        self.pause.send_if_modified(|pause| {
            let known = pause.full.iter().position(|p| p == port);
            match (full, known) {
                (true, None) => pause.full.push(port.clone()),
                (false, Some(index)) => drop(pause.full.swap_remove(index)),
                _ => return false,
            }
            true
        });
    }

    pub(super) fn is_full(&self, port: &Port) -> bool {
        self.pause.borrow().full.contains(port)
    }

    /// A delivery was finished, parked or not.
    pub(super) fn finished(&self, parked: bool) {
        let tripped = self.breaker(|breaker| breaker.record(parked));
        self.trip(tripped);
    }

    /// So many messages lie in a parking queue.
    pub(super) fn kept(&self, kept: u32) {
        let tripped = self.breaker(|breaker| breaker.record_kept(kept.into()));
        self.trip(tripped);
    }

    fn breaker<T>(&self, act: impl FnOnce(&mut Breaker) -> T) -> T {
        act(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn trip(&self, trip: Option<Trip>) {
        let Some(trip) = trip else { return };
        self.pause.send_if_modified(|pause| {
            let first = pause.parked.is_none();
            pause.parked.get_or_insert(trip);
            first
        });
    }

    /// Somebody looked at the parked messages and wants to go on.
    pub(super) fn resume(&self) {
        self.breaker(Breaker::reset);
        self.pause
            .send_if_modified(|pause| pause.parked.take().is_some());
    }

    /// Why a consumer of `flow` pauses now: only targets that its messages can lead to count.
    pub(super) fn reason(&self, pause: &Pause, flow: Flow) -> Option<Reason> {
        if let Some(trip) = pause.parked {
            let why = trip.reason();
            return Some(Reason {
                reason: reasons::TOO_MANY_PARKED,
                text: format!(
                    "{} ({}): {why}: look at them with `vumi parked list`, then `vumi parked resume`",
                    codes::PARKED_TOO_MANY.meaning,
                    codes::PARKED_TOO_MANY,
                ),
            });
        }
        let leads_to = match (self.kind, flow) {
            (Kind::Transport, _) => Flow::Event,
            (Kind::Application, Flow::Inbound) => Flow::Outbound,
            // Events end in an application.
            (Kind::Application, _) => return None,
            (_, flow) => flow,
        };
        let full = pause.full.iter().find(|port| port.flow == leads_to)?;
        Some(Reason {
            reason: reasons::BACKLOG_FULL,
            text: format!(
                "{full} holds {} messages or more: start or scale its consumer, or raise backlogLimit",
                self.limit
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(backlog: &Backlog, flow: Flow) -> Option<String> {
        let pause = backlog.watch().borrow().clone();
        backlog.reason(&pause, flow).map(|r| r.text)
    }

    #[test]
    fn a_full_target_pauses_what_leads_to_it() {
        let backlog = Backlog::new(Kind::Dispatcher, 10);
        let port = Port::new("app", Flow::Inbound);
        backlog.depth(&port, 10);
        assert!(backlog.is_full(&port));
        assert!(reason(&backlog, Flow::Inbound).is_some_and(|r| r.contains("app.inbound")));
        assert_eq!(reason(&backlog, Flow::Outbound), None);
        backlog.depth(&port, 9);
        assert_eq!(reason(&backlog, Flow::Inbound), None);
    }

    #[test]
    fn too_many_parked_pause_everything_until_resumed() {
        let backlog = Backlog::new(Kind::Application, 10);
        (0..50).for_each(|_| backlog.finished(true));
        assert!(reason(&backlog, Flow::Event).is_some());
        backlog.resume();
        assert_eq!(reason(&backlog, Flow::Event), None);
    }
}
