//! What is known about the depth of queues, and whether the worker pauses because of it: full targets (S2) and too many
//! parked messages (R18).
//!
//! A transport with classes takes everything in at once, so that an interactive message never waits behind others in the
//! shared queue. What is full then is a class, and only messages of that class are held up: at whoever sends them.

use super::labels::Labels;
use crate::codes;
use crate::message::Message;
use crate::parking::{Breaker, Trip};
use crate::reasons;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use vumi_api::shared::Class;
use vumi_api::{Flow, Kind, Port};

/// A class that this worker has not sent for so long while it sent others is not one of its own any more.
const LATELY: Duration = Duration::from_secs(300);

/// Why consumers pause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pause {
    /// Targets above the limit.
    pub(super) full: Vec<Full>,
    /// Too many messages were parked; somebody must look and resume.
    pub(super) parked: Option<Trip>,
}

/// A target that holds as many messages as the limit says, or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) port: Port,
    /// The class that is full; none for the queue itself.
    pub(super) class: Option<Class>,
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
    /// Whether any target has classes.
    has_classes: AtomicBool,
    /// When a message of each class was last sent to a target that has classes.
    sent: Mutex<HashMap<Port, [Option<Instant>; Class::ALL.len()]>>,
}

impl Backlog {
    pub(super) fn new(kind: Kind, limit: u32) -> Self {
        Self {
            kind,
            limit,
            pause: watch::Sender::new(Pause::default()),
            breaker: Mutex::default(),
            has_classes: AtomicBool::new(false),
            sent: Mutex::default(),
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
        self.note(port, None, ready.into());
    }

    /// The depth of a class of a target was read.
    pub(super) fn class_depth(&self, port: &Port, class: Class, ready: u64) {
        self.has_classes.store(true, Ordering::Relaxed);
        self.note(port, Some(class), ready);
    }

    /// A target has no classes, or no more.
    pub(super) fn no_classes(&self, port: &Port) {
        self.pause.send_if_modified(|pause| {
            let before = pause.full.len();
            pause.full.retain(|f| f.port != *port || f.class.is_none());
            pause.full.len() != before
        });
    }

    fn note(&self, port: &Port, class: Option<Class>, ready: u64) {
        let full = ready >= self.limit.into();
        self.pause.send_if_modified(|pause| {
            let same = |f: &Full| f.port == *port && f.class == class;
            match (full, pause.full.iter().position(same)) {
                (true, None) => pause.full.push(Full {
                    port: port.clone(),
                    class,
                }),
                (false, Some(index)) => drop(pause.full.swap_remove(index)),
                _ => return false,
            }
            true
        });
    }

    /// A message goes to a target.
    pub(super) fn sends(&self, port: &Port, message: &Message) {
        if port.flow != Flow::Outbound || !self.has_classes.load(Ordering::Relaxed) {
            return;
        }
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let classes = sent.entry(port.clone()).or_default();
        classes[class_of(message) as usize] = Some(Instant::now());
    }

    /// The classes that this worker sends to a target, as far as it has shown.
    fn own_classes(&self, port: &Port) -> Vec<Class> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(times) = sent.get(port) else {
            return Vec::new();
        };
        let newest = times.iter().flatten().max();
        let is_late = |at: &Instant| newest.is_some_and(|newest| *newest - *at < LATELY);
        let own = Class::ALL.into_iter().zip(times);
        own.filter(|(_, at)| at.as_ref().is_some_and(is_late))
            .map(|(class, _)| class)
            .collect()
    }

    /// What of a target is full, in words; none if nothing is.
    pub(super) fn is_full(&self, port: &Port) -> Option<String> {
        let pause = self.pause.borrow();
        let full = || pause.full.iter().filter(|f| f.port == *port);
        let whole = full().find(|f| f.class.is_none());
        let words: Vec<String> = match whole {
            Some(whole) => vec![whole.to_string()],
            None => full().map(Full::to_string).collect(),
        };
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// Why a target takes no such message now; none if it does.
    pub(super) fn refuses(&self, port: &Port, message: &Message) -> Option<String> {
        let pause = self.pause.borrow();
        let mut full = pause.full.iter().filter(|f| f.port == *port);
        let full = full.find(|f| f.class.is_none_or(|class| class == class_of(message)))?;
        Some(format!("{full} holds {} messages or more", self.limit))
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
        let mut full = pause.full.iter().filter(|f| f.port.flow == leads_to);
        let full = full.find(|f| f.class.is_none() || self.sends_nothing_else(pause, &f.port))?;
        Some(Reason {
            reason: reasons::BACKLOG_FULL,
            text: format!(
                "{full} holds {} messages or more: start or scale its consumer, or raise backlogLimit",
                self.limit
            ),
        })
    }

    /// Whether every class that this worker sends to a target is full: then nothing that it reads could go on.
    fn sends_nothing_else(&self, pause: &Pause, port: &Port) -> bool {
        let own = self.own_classes(port);
        let is_full = |class: &Class| {
            let mut full = pause.full.iter();
            full.any(|f| f.port == *port && f.class == Some(*class))
        };
        !own.is_empty() && own.iter().all(is_full)
    }
}

/// The class of a message as its sender knows it. What `classes.default` the transport has is not known here.
fn class_of(message: &Message) -> Class {
    Labels::of(message).class_or(Class::default())
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.class {
            Some(class) => write!(f, "{}, class {},", self.port, class.as_str()),
            None => write!(f, "{}", self.port),
        }
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
        assert!(backlog.is_full(&port).is_some());
        assert!(reason(&backlog, Flow::Inbound).is_some_and(|r| r.contains("app.inbound")));
        assert_eq!(reason(&backlog, Flow::Outbound), None);
        backlog.depth(&port, 9);
        assert_eq!(reason(&backlog, Flow::Inbound), None);
    }

    fn message(class: &str) -> Message {
        let mut message = crate::message::UserMessage::new("sms", Some("1"), Some("2"));
        let metadata = message.helper_metadata_mut();
        metadata.insert("class".into(), class.into());
        message.into()
    }

    #[test]
    fn a_full_class_holds_up_only_who_sends_nothing_else() {
        let backlog = Backlog::new(Kind::Application, 10);
        let port = Port::new("sms", Flow::Outbound);
        backlog.class_depth(&port, Class::Bulk, 10);
        assert_eq!(
            reason(&backlog, Flow::Inbound),
            None,
            "it sends nothing yet"
        );
        let refused = backlog.refuses(&port, &message("bulk")).unwrap();
        assert_eq!(
            refused,
            "sms.outbound, class bulk, holds 10 messages or more"
        );
        assert_eq!(backlog.refuses(&port, &message("interactive")), None);
        backlog.sends(&port, &message("bulk"));
        assert!(reason(&backlog, Flow::Inbound).is_some_and(|r| r.contains("class bulk")));
        assert_eq!(reason(&backlog, Flow::Event), None);
        backlog.sends(&port, &message("interactive"));
        assert_eq!(reason(&backlog, Flow::Inbound), None);
        backlog.class_depth(&port, Class::Interactive, 10);
        assert!(reason(&backlog, Flow::Inbound).is_some());
        backlog.class_depth(&port, Class::Bulk, 9);
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
