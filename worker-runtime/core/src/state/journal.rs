//! The lane journal (R3): messages that wait longer than a delivery may be held, lane by lane, in order.
//!
//! A lane is a list; only its head is ever worked on, and it is removed after its verdict. A lane is due at a time of its
//! own; whoever works on it claims it, so that two replicas without a fence never work on one lane at once.

use crate::codes;
use crate::error::{ErrorClass, WorkError};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// Which list of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lane {
    /// Lanes of different groups (batches, tenants) are served in turn. Empty where there are no groups.
    pub group: String,
    /// [`super::person`]'s number of the lane.
    pub number: u64,
}

/// Why a message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// Its last attempt failed.
    Backoff,
    /// The peer or the rate limit asks to slow down.
    Throttle,
    /// Its lane held too much of the window.
    Overflow,
    /// An earlier message of its lane waits.
    Behind,
    /// Somebody holds it: a paused batch, quiet hours.
    Held,
    /// It is to be sent later.
    Schedule,
    /// Taken over from Vumi's failure worker.
    Imported,
    /// It cannot be read as an entry: it is damaged, or of a later version. Whoever works on it sets it aside.
    Unreadable,
}

/// When the head of a lane may be worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// So long after now.
    After(Duration),
    /// At this time of the store's clock.
    At(SystemTime),
    /// When somebody releases it.
    Released,
}

/// One message that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Everything but the body.
    pub about: About,
    /// The message, byte for byte.
    pub body: Bytes,
}

/// What is known of a message that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Why it waits.
    pub reason: Reason,
    /// When the broker first delivered it here: milliseconds since 1970; 0 if that cannot be read. Retries end by it.
    pub since: u64,
    /// Attempts made.
    pub attempts: u32,
    /// Those of them that count towards `retry.maxAttempts`: of which the peer heard.
    #[serde(default)]
    pub counted: u32,
    /// Registered code of the last error; empty if there was none.
    pub code: String,
    /// Its sentence; no content, addresses or secrets.
    pub text: String,
    /// Routing key it was published with.
    pub routing_key: String,
    /// AMQP `message_id` property.
    pub amqp_message_id: Option<String>,
}

impl Entry {
    /// The stored form: length of the description as four bytes (big endian), the description as JSON, the body.
    pub fn encode(&self) -> Bytes {
        let about = serde_json::to_vec(&self.about).unwrap_or_default();
        let mut bytes = Vec::with_capacity(4 + about.len() + self.body.len());
        bytes.extend_from_slice(&(about.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&about);
        bytes.extend_from_slice(&self.body);
        bytes.into()
    }

    /// Reads what [`Self::encode`] wrote. What is something else is an entry too, so that it stops nothing but itself: its
    /// reason is [`Reason::Unreadable`], and nothing of it is lost. If only its description cannot be read, the text has
    /// that, and the body is the message; else the body is all of it.
    pub fn decode(bytes: &Bytes) -> Self {
        let parts = || {
            let length = bytes.get(..4)?.try_into().ok().map(u32::from_be_bytes)?;
            let end = usize::try_from(length).ok()?.checked_add(4)?;
            Some((bytes.get(4..end)?, bytes.slice(end..)))
        };
        let Some((about, body)) = parts() else {
            return Self::unreadable("it is no entry of a journal".into(), bytes.clone());
        };
        if let Ok(about) = serde_json::from_slice(about) {
            return Self { about, body };
        }
        match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(about) {
            // Descriptions have no content, whatever version wrote them.
            Ok(about) => {
                let about = serde_json::Value::Object(about);
                Self::unreadable(format!("its description cannot be read: {about}"), body)
            }
            Err(_) => Self::unreadable("it is no entry of a journal".into(), bytes.clone()),
        }
    }

    fn unreadable(text: String, body: Bytes) -> Self {
        let about = About {
            reason: Reason::Unreadable,
            since: 0,
            attempts: 0,
            counted: 0,
            code: codes::STATE_UNREADABLE.name.to_owned(),
            text,
            routing_key: String::new(),
            amqp_message_id: None,
        };
        Self { about, body }
    }

    /// Why it cannot be worked on, if it cannot.
    pub fn flaw(&self) -> Option<WorkError> {
        (self.about.reason == Reason::Unreadable).then(|| {
            let text = format!(
                "an entry of the journal cannot be read: {}",
                self.about.text
            );
            WorkError::new(ErrorClass::Bug, codes::STATE_UNREADABLE, text)
        })
    }
}

/// A message to append.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    /// Where.
    pub lane: Lane,
    /// When its lane is due, if it is the first of it; a lane that exists keeps its time.
    pub due: Due,
    /// The message.
    pub entry: Entry,
}

/// The head of a lane that is claimed.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// Its lane.
    pub lane: Lane,
    /// Number of the entry, rising within a queue.
    pub id: u64,
    /// The message.
    pub entry: Entry,
    /// Its lane was claimed before, and whoever had it neither stepped nor gave it back: that process may have died.
    pub again: bool,
}

/// What became of the head of a lane.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It has its verdict: it is removed.
    Done,
    /// It waits on, as described; the claim ends.
    Again(About, Due),
}

/// What follows in a lane after a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The next head, claimed as the one before.
    Head(Claimed),
    /// Nothing is claimed any more; the lane waits for its time.
    Waits,
    /// The lane is empty and gone.
    Empty,
    /// The head is another one than was said: somebody else worked on the lane, or it was dropped. Nothing changed.
    Moved,
}

/// Which entries an operator means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// Only these entries (numbers as listed).
    pub ids: Option<Vec<u64>>,
    /// Only lanes of this group.
    pub group: Option<String>,
    /// Only this lane.
    pub lane: Option<u64>,
    /// Only entries that wait for this reason.
    pub reason: Option<Reason>,
    /// Only entries whose `since` is before this (milliseconds since 1970). What stands behind a younger one is not looked
    /// at: lanes are looked through from their heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
}

impl Filter {
    /// Whether entries of this lane may be meant.
    pub fn takes_lane(&self, lane: &Lane) -> bool {
        let group = self.group.as_ref().is_none_or(|group| *group == lane.group);
        group && self.lane.is_none_or(|number| number == lane.number)
    }

    /// The one lane whose entries may be meant, if it is named.
    pub fn one_lane(&self) -> Option<Lane> {
        let (group, number) = (self.group.clone()?, self.lane?);
        Some(Lane { group, number })
    }

    /// Whether all entries of such lanes are meant.
    pub fn takes_whole_lanes(&self) -> bool {
        self.ids.is_none() && self.reason.is_none() && self.before.is_none()
    }

    /// Whether this entry of such a lane is meant.
    pub fn takes(&self, id: u64, entry: &Entry) -> bool {
        let has = |ids: &Vec<u64>| ids.contains(&id);
        let reason = self.reason.is_none_or(|r| r == entry.about.reason);
        // How old it is nobody knows.
        let aged = self.before.is_none() || entry.about.reason != Reason::Unreadable;
        let meant = reason && aged && self.ids.as_ref().is_none_or(has);
        meant && !self.ends_before(entry)
    }

    /// Whether neither this entry nor what stands behind it is meant.
    pub fn ends_before(&self, entry: &Entry) -> bool {
        self.before
            .is_some_and(|before| entry.about.since >= before)
    }
}

/// Why messages are taken out of a journal for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A person dropped them.
    Dropped,
    /// They have waited as long as they may.
    Expired,
}

impl Cause {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Expired => "expired",
        }
    }
}

/// A message that was taken out of its lane for good, and whose sender may not know yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Queue it belonged to.
    pub queue: String,
    /// Number.
    pub id: u64,
    /// Why.
    pub cause: Cause,
    /// The message.
    pub entry: Entry,
}

/// What a withdrawal did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Withdrawn {
    /// These are out: no worker gets them any more.
    pub taken: Vec<Outgoing>,
    /// Heads that match and stay, because somebody works on them. Of all lanes only if fewer were taken than allowed.
    pub in_hand: u64,
}

/// An entry as it is listed.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Queue it belongs to.
    pub queue: String,
    /// Its lane.
    pub lane: Lane,
    /// Number.
    pub id: u64,
    /// Its place in the lane; 0 is the head.
    pub place: u64,
    /// When its lane is due: milliseconds since 1970; none when it waits to be released.
    pub due: Option<u64>,
    /// The message.
    pub entry: Entry,
}

/// How much waits in a queue's journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Depth {
    /// Messages.
    pub messages: u64,
    /// Lanes.
    pub lanes: u64,
}

/// Who may move lanes between the journals of a queue and its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mover {
    /// The queue that is divided.
    pub queue: String,
    /// Its own, and never another's.
    pub token: String,
}

/// Lanes were to be moved by somebody who is not the last that was appointed.
pub(crate) fn superseded(mover: &Mover) -> WorkError {
    let text = format!("another replica divides {} by now", mover.queue);
    WorkError::new(ErrorClass::RemoteTemporary, codes::PARTITIONS_BUSY, text)
}

/// Operations on the journals of consumed queues.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Appends each message to the end of its lane: all, or none if it fails.
    async fn append(&self, queue: &str, messages: Vec<Append>) -> Result<(), WorkError>;

    /// Every lane of a queue that holds something.
    async fn lanes(&self, queue: &str) -> Result<Vec<Lane>, WorkError>;

    /// The first message of each of these lanes, in their order; none of a lane that is gone.
    async fn heads(&self, queue: &str, lanes: &[Lane]) -> Result<Vec<Option<Entry>>, WorkError>;

    /// Groups of a queue that hold something.
    async fn groups(&self, queue: &str) -> Result<Vec<String>, WorkError>;

    /// Claims up to `limit` lanes of a group that are due, longest due first, for `lease`; their heads.
    async fn claim(
        &self,
        queue: &str,
        group: &str,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<Claimed>, WorkError>;

    /// Until the next lane of a queue is due or a claim ends; zero if one is due, none if nothing waits for a time.
    async fn next_due(&self, queue: &str) -> Result<Option<Duration>, WorkError>;

    /// Says what became of a claimed head.
    async fn step(
        &self,
        queue: &str,
        lane: &Lane,
        id: u64,
        step: Step,
        lease: Duration,
    ) -> Result<Next, WorkError>;

    /// Prolongs claims: `lease` from now. Without any they are given back: their lanes are due now.
    async fn renew(&self, queue: &str, lanes: &[Lane], lease: Duration) -> Result<(), WorkError>;

    /// Ends every claim of a queue: for the holder of its fence, who knows that nobody else works on it.
    async fn reclaim(&self, queue: &str) -> Result<(), WorkError>;

    /// Moves whole lanes into the journal of another queue, behind what stands there in the same lane. A lane that is new
    /// there keeps its time. A long one may move in steps, oldest messages first: after an error, repeat it. One that is claimed stays. How many messages. Nothing moves if somebody else was appointed since
    /// `mover` was: whoever was frozen in between, and has lost the fence meanwhile, undoes nothing.
    async fn relocate(
        &self,
        mover: &Mover,
        queue: &str,
        to: &str,
        lanes: &[Lane],
    ) -> Result<u64, WorkError>;

    /// From now on nobody else moves lanes of this queue and its parts. For the holder of its fence.
    async fn appoint(&self, mover: &Mover) -> Result<(), WorkError>;

    /// From now on nobody moves them until somebody is appointed. A store that is full does this too.
    async fn dismiss(&self, queue: &str) -> Result<(), WorkError>;

    /// How much waits.
    async fn depth(&self, queue: &str) -> Result<Depth, WorkError>;

    /// Queues that have a journal, or something on its way out of one.
    async fn queues(&self) -> Result<Vec<String>, WorkError>;

    /// Entries that match, lane by lane, in order, at most `limit`.
    async fn list(
        &self,
        queue: &str,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<Listed>, WorkError>;

    /// Makes the lanes of matching entries due now; how many lanes. Claims stay. Very many lanes are released some at a
    /// time: after an error, repeat it.
    async fn release(&self, queue: &str, filter: &Filter) -> Result<u64, WorkError>;

    /// Takes matching entries out of their lanes for good, at most `limit`; a head that somebody works on stays. What is
    /// taken is kept until [`Self::forget`]: whoever took it tells its sender within `lease`, or another does
    /// ([`Self::adopt`]).
    async fn withdraw(
        &self,
        queue: &str,
        filter: &Filter,
        limit: usize,
        cause: Cause,
        lease: Duration,
    ) -> Result<Withdrawn, WorkError>;

    /// What was taken out of a queue's lanes and is not forgotten, at most `limit`.
    async fn outgoing(&self, queue: &str, limit: usize) -> Result<Vec<Outgoing>, WorkError>;

    /// Those of them whose lease is over: they are the caller's for `lease`.
    async fn adopt(
        &self,
        queue: &str,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<Outgoing>, WorkError>;

    /// Their senders know: they are removed.
    async fn forget(&self, queue: &str, ids: &[u64]) -> Result<(), WorkError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_survive_their_stored_form(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            text in ".{0,40}",
            attempts in any::<u32>(),
        ) {
            let about = About {
                reason: Reason::Backoff,
                since: 1_700_000_000_123,
                attempts,
                counted: 3,
                code: "peer.timeout".into(),
                text,
                routing_key: "sms.outbound".into(),
                amqp_message_id: None,
            };
            let entry = Entry { about, body: body.into() };
            prop_assert_eq!(Entry::decode(&entry.encode()), entry);
        }

        #[test]
        fn a_damaged_entry_is_kept_as_it_is(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let bytes = Bytes::from(bytes);
            let entry = Entry::decode(&bytes);
            prop_assert_eq!(entry.about.reason, Reason::Unreadable);
            prop_assert_eq!(&entry.body, &bytes);
            prop_assert_eq!(Entry::decode(&entry.encode()), entry);
        }
    }

    #[test]
    fn of_a_later_version_the_message_is_read_and_the_description_kept() {
        let about = br#"{"reason":"some day","waits":7}"#;
        let length = u32::try_from(about.len()).unwrap().to_be_bytes();
        let stored = [&length[..], about, b"the message"].concat();
        let entry = Entry::decode(&stored.into());
        assert_eq!(entry.about.reason, Reason::Unreadable);
        assert_eq!(&entry.body[..], b"the message");
        assert!(
            entry.about.text.contains("some day"),
            "{}",
            entry.about.text
        );
        assert_eq!(Entry::decode(&entry.encode()), entry);
        assert_eq!(
            entry.flaw().map(|flaw| flaw.code),
            Some(codes::STATE_UNREADABLE)
        );
    }
}
