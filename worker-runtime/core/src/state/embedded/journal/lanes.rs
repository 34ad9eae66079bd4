//! What the embedded store keeps of lanes: each knows its head, its time and its claim, and stands in an index by the time at
//! which it may be claimed; entries follow their lane, in order of their ids.

use super::super::disk::{Failure, Space, Tx, View, millis};
use super::super::keys::{Key, Parts, pack, tag, unpack};
use super::super::timetable;
use crate::state::journal::{Depth, Due, Entry, Filter, Lane};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

/// The due time of a lane that waits to be released.
pub(super) const RELEASED: u64 = u64::MAX;

pub(super) const GROUP: Failure = Failure::Damaged("a journal's count");
pub(super) const LANE: Failure = Failure::Damaged("a lane");
pub(super) const ENTRY: Failure = Failure::Damaged("a journal's entry");

/// What is kept of a lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct State {
    /// Id of its first entry.
    pub(super) head: u64,
    /// When it is due, or [`RELEASED`].
    pub(super) due: u64,
    /// Until when it is claimed; 0 if it is not.
    pub(super) claimed: u64,
}

impl State {
    /// Whether somebody works on the entry `id`: it is the head, and the claim has not ended.
    pub(super) fn in_hand(self, id: u64, now: u64) -> bool {
        self.head == id && self.claimed > now
    }

    /// When it may be claimed; none if it waits to be released.
    fn at(self) -> Option<u64> {
        match self.claimed {
            0 => (self.due != RELEASED).then_some(self.due),
            claimed => Some(claimed),
        }
    }
}

pub(super) fn group_key(queue: &str, group: &str) -> Key {
    Key::new(tag::GROUP).name(queue).name(group)
}

pub(super) fn lane_key(queue: &str, lane: &Lane) -> Key {
    Key::new(tag::LANE)
        .name(queue)
        .name(&lane.group)
        .number(lane.number)
}

pub(super) fn due_index(queue: &str, group: &str) -> Key {
    Key::new(tag::DUE).name(queue).name(group)
}

pub(super) fn entries(queue: &str, lane: &Lane) -> Key {
    Key::new(tag::ENTRY)
        .name(queue)
        .name(&lane.group)
        .number(lane.number)
}

pub(super) fn due_at(now: u64, due: Due) -> u64 {
    match due {
        Due::After(span) => now.saturating_add(millis(span)).min(RELEASED - 1),
        Due::At(time) => time
            .duration_since(UNIX_EPOCH)
            .map_or(0, millis)
            .min(RELEASED - 1),
        Due::Released => RELEASED,
    }
}

pub(super) fn claim_end(now: u64, lease: Duration) -> u64 {
    now.saturating_add(millis(lease)).clamp(1, RELEASED - 1)
}

pub(super) fn state(view: &impl View, queue: &str, lane: &Lane) -> Result<Option<State>, Failure> {
    let Some(value) = view.get(Space::Index, lane_key(queue, lane))? else {
        return Ok(None);
    };
    let [head, due, claimed] = unpack(&value).ok_or(LANE)?;
    Ok(Some(State { head, due, claimed }))
}

/// Stores a lane's state and its place in the index.
pub(super) fn set_state(
    tx: &mut Tx<'_>,
    queue: &str,
    lane: &Lane,
    old: Option<State>,
    new: Option<State>,
) {
    let index = due_index(queue, &lane.group);
    let (before, after) = (old.and_then(State::at), new.and_then(State::at));
    if before != after {
        let number = lane.number.to_be_bytes();
        if let Some(at) = before {
            timetable::remove(tx, &index, at, &number);
        }
        if let Some(at) = after {
            timetable::insert(tx, &index, at, &number);
        }
    }
    let key = lane_key(queue, lane);
    match new {
        Some(new) if old != Some(new) => {
            tx.insert(Space::Index, key, pack([new.head, new.due, new.claimed]));
        }
        Some(_) => {}
        None => tx.remove(Space::Index, key),
    }
}

/// Adds to the counts of a group.
pub(super) fn count(
    tx: &mut Tx<'_>,
    queue: &str,
    group: &str,
    messages: i64,
    lanes: i64,
) -> Result<(), Failure> {
    let key = group_key(queue, group);
    let [m, l] = match tx.get(Space::Index, &key)? {
        Some(value) => unpack(&value).ok_or(GROUP)?,
        None => [0, 0],
    };
    let now = [
        m.saturating_add_signed(messages),
        l.saturating_add_signed(lanes),
    ];
    if now == [0, 0] {
        tx.remove(Space::Index, &key);
        tx.fronts.forget(&due_index(queue, group));
    } else {
        tx.insert(Space::Index, &key, pack(now));
    }
    Ok(())
}

/// Counts of the groups of a queue.
pub(super) fn groups(view: &impl View, queue: &str) -> Result<BTreeMap<String, Depth>, Failure> {
    let mut groups = BTreeMap::new();
    for item in view.all(Space::Index, &Key::new(tag::GROUP).name(queue)) {
        let (key, value) = item.into_inner()?;
        let mut parts = Parts::of(&key);
        let group = parts.name().and_then(|_| parts.name()).ok_or(GROUP)?;
        let [messages, lanes] = unpack(&value).ok_or(GROUP)?;
        groups.insert(group.to_owned(), Depth { messages, lanes });
    }
    Ok(groups)
}

pub(super) fn decode(value: &[u8]) -> Entry {
    Entry::decode(&Bytes::copy_from_slice(value))
}

/// The first entry of a lane from an id on.
pub(super) fn entry_from(
    view: &impl View,
    queue: &str,
    lane: &Lane,
    from: u64,
) -> Result<Option<(u64, Entry)>, Failure> {
    let under = entries(queue, lane);
    let first = under.clone().number(from);
    let Some(item) = view.from(Space::Records, &under, first.as_ref()).next() else {
        return Ok(None);
    };
    let (key, value) = item.into_inner()?;
    Ok(Some((entry_id(&key)?, decode(&value))))
}

pub(super) fn entry_id(key: &[u8]) -> Result<u64, Failure> {
    let id = key.last_chunk::<8>().ok_or(ENTRY)?;
    Ok(u64::from_be_bytes(*id))
}

/// Every lane of a queue with its state.
pub(super) fn lanes<V: View>(
    view: &V,
    queue: &str,
) -> impl Iterator<Item = Result<(Lane, State), Failure>> + use<V> {
    let found = view.all(Space::Index, &Key::new(tag::LANE).name(queue));
    found.map(|item| {
        let (key, value) = item.into_inner()?;
        let mut parts = Parts::of(&key);
        let group = parts.name().and_then(|_| parts.name()).ok_or(LANE)?;
        let lane = Lane {
            group: group.to_owned(),
            number: parts.number().ok_or(LANE)?,
        };
        let [head, due, claimed] = unpack(&value).ok_or(LANE)?;
        Ok((lane, State { head, due, claimed }))
    })
}

/// The lanes that a filter may mean, with their states. One that it names is looked up.
pub(super) fn lanes_of<'f, V: View + 'f>(
    view: &V,
    queue: &str,
    filter: &'f Filter,
) -> Box<dyn Iterator<Item = Result<(Lane, State), Failure>> + 'f> {
    match filter.one_lane() {
        Some(lane) => {
            let found = state(view, queue, &lane).map(|state| state.map(|state| (lane, state)));
            Box::new(found.transpose().into_iter())
        }
        None => Box::new(lanes(view, queue).filter(|item| match item {
            Ok((lane, _)) => filter.takes_lane(lane),
            Err(_) => true,
        })),
    }
}
