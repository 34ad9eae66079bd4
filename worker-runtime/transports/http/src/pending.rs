//! Requests held until their reply comes: request id → the connections that wait. An entry lives as long as one of its
//! callers does.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use vumi_http::{Answer, Reply, Written};

/// Answered requests remembered, to recognise a reply that the engine repeats.
const REMEMBERED: usize = 4096;
/// How long a repeat waits until the broker has the first.
const TAKING: Duration = Duration::from_secs(2);

/// All held requests of a transport.
#[derive(Default)]
pub(crate) struct Pending {
    held: Mutex<Held>,
    changed: Notify,
}

#[derive(Default)]
struct Held {
    entries: HashMap<String, Entry>,
    next_caller: u64,
    /// Ids of requests whose reply is being written.
    writing: HashSet<String>,
    /// `(request id, id of the reply)` of answered requests, oldest first.
    answered: VecDeque<(String, String)>,
}

struct Entry {
    callers: Vec<(u64, oneshot::Sender<Reply>)>,
    since: Instant,
    /// Whether the broker has the request.
    accepted: bool,
}

/// A caller's place in the map; leaves it when dropped.
pub(crate) struct Place {
    pending: Arc<Pending>,
    id: String,
    caller: u64,
    /// Resolves with the reply; fails when the transport gives up.
    pub(crate) reply: oneshot::Receiver<Reply>,
}

/// What became of a request that wants a place.
pub(crate) enum Opened {
    /// The first with this id: to be published.
    First(Place),
    /// A repeat of a request that the broker has: waits for the same reply.
    Repeat(Place),
    /// A repeat of a request that is being published for long: the caller must try again.
    TooEarly,
}

/// What became of a reply.
pub(crate) enum Finished {
    /// Handed to the callers; with the age of the request.
    Handed(Vec<Written>, Duration),
    /// This very reply was written before.
    Repeated,
    /// Nobody waits for it: another reply was first.
    Answered,
    /// Nobody waits for it.
    NotPending,
}

impl Pending {
    /// Takes a place for the request `id`. A repeat waits a moment until the broker has the first.
    pub(crate) async fn open(self: &Arc<Self>, id: &str) -> Opened {
        let opened = self.until(|| self.place(id));
        let opened = tokio::time::timeout(TAKING, opened).await;
        opened.unwrap_or(Opened::TooEarly)
    }

    /// A place for the request `id`; none while it is being published.
    fn place(self: &Arc<Self>, id: &str) -> Option<Opened> {
        let mut held = self.lock();
        held.next_caller += 1;
        let caller = held.next_caller;
        let (sender, reply) = oneshot::channel();
        let first = match held.entries.get_mut(id) {
            Some(entry) if !entry.accepted => return None,
            Some(entry) => {
                entry.callers.push((caller, sender));
                false
            }
            None => {
                let entry = Entry {
                    callers: vec![(caller, sender)],
                    since: Instant::now(),
                    accepted: false,
                };
                held.entries.insert(id.to_owned(), entry);
                true
            }
        };
        let place = Place {
            pending: Arc::clone(self),
            id: id.to_owned(),
            caller,
            reply,
        };
        Some(match first {
            true => Opened::First(place),
            false => Opened::Repeat(place),
        })
    }

    /// Hands the reply `reply_id` to everyone who waits for request `id`.
    pub(crate) fn finish(&self, id: &str, reply_id: &str, answer: &Answer) -> Finished {
        let entry = {
            let mut held = self.lock();
            match held.entries.remove(id) {
                Some(entry) => {
                    held.writing.insert(id.to_owned());
                    entry
                }
                None => {
                    let mut replies = held.answered.iter().filter(|(i, _)| i == id);
                    return if replies.clone().any(|(_, reply)| reply == reply_id) {
                        Finished::Repeated
                    } else if replies.next().is_some() || held.writing.contains(id) {
                        Finished::Answered
                    } else {
                        Finished::NotPending
                    };
                }
            }
        };
        self.changed.notify_waiters();
        let mut written = Vec::new();
        for (_, caller) in entry.callers {
            let (reply, receipt) = Reply::watched(answer.clone());
            if caller.send(reply).is_ok() {
                written.push(receipt);
            }
        }
        Finished::Handed(written, entry.since.elapsed())
    }

    /// The reply `reply_id` that was handed to those who wait for request `id` is written, or they are gone. It is
    /// remembered if it reached one of them.
    pub(crate) fn written(&self, id: &str, reply_id: &str, reached: bool) {
        let mut held = self.lock();
        held.writing.remove(id);
        if !reached {
            return;
        }
        if held.answered.len() == REMEMBERED {
            held.answered.pop_front();
        }
        held.answered
            .push_back((id.to_owned(), reply_id.to_owned()));
    }

    /// Whether somebody waits here for the reply to request `id`.
    pub(crate) fn holds(&self, id: &str) -> bool {
        self.lock().entries.contains_key(id)
    }

    /// Requests held now.
    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Waits until no request is held.
    pub(crate) async fn empty(&self) {
        self.until(|| (self.len() == 0).then_some(())).await;
    }

    /// Looks after each change until there is something.
    async fn until<T>(&self, look: impl Fn() -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            changed.await;
        }
    }

    /// Gives up every held request: its callers' `reply` fails.
    pub(crate) fn give_up(&self) {
        let given_up = std::mem::take(&mut self.lock().entries);
        drop(given_up);
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The broker has the request: repeats may wait for its reply.
    pub(crate) fn accepted(&self) {
        if let Some(entry) = self.pending.lock().entries.get_mut(&self.id) {
            entry.accepted = true;
        }
        self.pending.changed.notify_waiters();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.pending.lock();
        let Some(entry) = held.entries.get_mut(&self.id) else {
            return;
        };
        entry.callers.retain(|(caller, _)| *caller != self.caller);
        if entry.callers.is_empty() {
            held.entries.remove(&self.id);
            drop(held);
            self.pending.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vumi_http::StatusCode;

    fn first(pending: &Arc<Pending>, id: &str) -> Place {
        match pending.place(id) {
            Some(Opened::First(place)) => place,
            _ => panic!("{id} is held already"),
        }
    }

    fn answer() -> Answer {
        Answer::text(StatusCode::OK, "pong")
    }

    #[tokio::test]
    async fn a_reply_reaches_everyone_who_waits_for_the_request() {
        let pending = Arc::new(Pending::default());
        let one = first(&pending, "r");
        assert!(pending.place("r").is_none(), "it is being published");
        one.accepted();
        let Some(Opened::Repeat(two)) = pending.place("r") else {
            panic!("a repeat of an accepted request waits");
        };
        let Finished::Handed(written, _) = pending.finish("r", "reply", &answer()) else {
            panic!("the request is held");
        };
        assert_eq!(written.len(), 2);
        assert_eq!(pending.len(), 0);
        drop((one, two));
    }

    #[tokio::test]
    async fn the_entry_leaves_with_its_last_caller() {
        let pending = Arc::new(Pending::default());
        let one = first(&pending, "r");
        one.accepted();
        let two = pending.place("r");
        drop(one);
        assert_eq!(pending.len(), 1);
        drop(two);
        assert_eq!(pending.len(), 0);
        pending.empty().await;
        let finished = pending.finish("r", "reply", &answer());
        assert!(matches!(finished, Finished::NotPending));
    }

    #[tokio::test]
    async fn a_repeat_waits_a_moment_until_the_broker_has_the_first() {
        let pending = Arc::new(Pending::default());
        let one = first(&pending, "r");
        let began = Instant::now();
        assert!(matches!(pending.open("r").await, Opened::TooEarly));
        assert!(began.elapsed() >= TAKING);
        let soon = async {
            tokio::time::sleep(TAKING / 2).await;
            one.accepted();
        };
        let (opened, ()) = tokio::join!(pending.open("r"), soon);
        assert!(
            matches!(opened, Opened::Repeat(_)),
            "its reply is waited for"
        );
        drop((one, opened));
        // The first is given up: then the next one is the first.
        let one = first(&pending, "r");
        let gone = async {
            tokio::time::sleep(TAKING / 2).await;
            drop(one);
        };
        let (opened, ()) = tokio::join!(pending.open("r"), gone);
        assert!(matches!(opened, Opened::First(_)));
    }

    #[tokio::test]
    async fn a_place_of_an_older_life_does_not_end_a_newer_one() {
        let pending = Arc::new(Pending::default());
        let old = first(&pending, "r");
        pending.finish("r", "reply", &answer());
        let new = first(&pending, "r");
        drop(old);
        assert_eq!(pending.len(), 1);
        drop(new);
    }

    #[tokio::test]
    async fn only_the_same_reply_is_a_repeat() {
        let pending = Arc::new(Pending::default());
        pending.written("r", "a", true);
        assert!(matches!(
            pending.finish("r", "a", &answer()),
            Finished::Repeated
        ));
        assert!(matches!(
            pending.finish("r", "b", &answer()),
            Finished::Answered
        ));
        for n in 0..REMEMBERED {
            pending.written(&n.to_string(), "x", true);
        }
        assert!(matches!(
            pending.finish("r", "a", &answer()),
            Finished::NotPending
        ));
    }

    #[tokio::test]
    async fn giving_up_fails_the_callers() {
        let pending = Arc::new(Pending::default());
        let mut place = first(&pending, "r");
        pending.give_up();
        assert!((&mut place.reply).await.is_err());
        assert_eq!(pending.len(), 0);
    }
}
