//! The journal in the embedded store: a lane knows its head, its time and its claim, and stands in an index by the time at
//! which it may be claimed; entries follow their lane, in order of their ids.

use super::EmbeddedStore;
use super::disk::{Failure, Space, Tx, View, millis};
use super::keys::{Key, Parts, fits, pack, tag, unpack};
use super::timetable;
use crate::error::WorkError;
use crate::state::journal::{
    Append, Claimed, Depth, Due, Entry, Filter, Journal, Lane, Listed, Next, Step,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

/// The due time of a lane that waits to be released.
const RELEASED: u64 = u64::MAX;
/// Lanes released in one transaction.
const RELEASE: usize = 1000;

const GROUP: Failure = Failure::Damaged("a journal's count");
const LANE: Failure = Failure::Damaged("a lane");
const ENTRY: Failure = Failure::Damaged("a journal's entry");

/// What is kept of a lane.
#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    /// Id of its first entry.
    head: u64,
    /// When it is due, or [`RELEASED`].
    due: u64,
    /// Until when it is claimed; 0 if it is not.
    claimed: u64,
}

impl State {
    /// When it may be claimed; none if it waits to be released.
    fn at(self) -> Option<u64> {
        match self.claimed {
            0 => (self.due != RELEASED).then_some(self.due),
            claimed => Some(claimed),
        }
    }
}

fn group_key(queue: &str, group: &str) -> Key {
    Key::new(tag::GROUP).name(queue).name(group)
}

fn lane_key(queue: &str, lane: &Lane) -> Key {
    Key::new(tag::LANE)
        .name(queue)
        .name(&lane.group)
        .number(lane.number)
}

fn due_index(queue: &str, group: &str) -> Key {
    Key::new(tag::DUE).name(queue).name(group)
}

fn entries(queue: &str, lane: &Lane) -> Key {
    Key::new(tag::ENTRY)
        .name(queue)
        .name(&lane.group)
        .number(lane.number)
}

fn due_at(now: u64, due: Due) -> u64 {
    match due {
        Due::After(span) => now.saturating_add(millis(span)).min(RELEASED - 1),
        Due::At(time) => time
            .duration_since(UNIX_EPOCH)
            .map_or(0, millis)
            .min(RELEASED - 1),
        Due::Released => RELEASED,
    }
}

fn claim_end(now: u64, lease: Duration) -> u64 {
    now.saturating_add(millis(lease)).clamp(1, RELEASED - 1)
}

fn state(view: &impl View, queue: &str, lane: &Lane) -> Result<Option<State>, Failure> {
    let Some(value) = view.get(Space::Index, lane_key(queue, lane))? else {
        return Ok(None);
    };
    let [head, due, claimed] = unpack(&value).ok_or(LANE)?;
    Ok(Some(State { head, due, claimed }))
}

/// Stores a lane's state and its place in the index.
fn set_state(tx: &mut Tx<'_>, queue: &str, lane: &Lane, old: Option<State>, new: Option<State>) {
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
fn count(
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
fn groups(view: &impl View, queue: &str) -> Result<BTreeMap<String, Depth>, Failure> {
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

fn decode(value: &[u8]) -> Result<Entry, Failure> {
    Entry::decode(&Bytes::copy_from_slice(value)).ok_or(ENTRY)
}

/// The first entry of a lane from an id on.
fn entry_from(
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
    Ok(Some((entry_id(&key)?, decode(&value)?)))
}

fn entry_id(key: &[u8]) -> Result<u64, Failure> {
    let id = key.last_chunk::<8>().ok_or(ENTRY)?;
    Ok(u64::from_be_bytes(*id))
}

fn append(tx: &mut Tx<'_>, queue: &str, messages: Vec<Append>) -> Result<(), Failure> {
    let next_key = Key::new(tag::NEXT_ID);
    let mut id = match tx.get(Space::Index, &next_key)? {
        Some(value) => unpack::<1>(&value).ok_or(GROUP)?[0],
        None => 1,
    };
    let mut added: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for Append { lane, due, entry } in messages {
        let counts = added.entry(lane.group.clone()).or_default();
        counts.0 += 1;
        if state(tx, queue, &lane)?.is_none() {
            counts.1 += 1;
            let new = State {
                head: id,
                due: due_at(tx.now(), due),
                claimed: 0,
            };
            set_state(tx, queue, &lane, None, Some(new));
        }
        let key = entries(queue, &lane).number(id);
        tx.insert(Space::Records, key, entry.encode());
        id += 1;
    }
    tx.insert(Space::Index, next_key, pack([id]));
    for (group, (messages, lanes)) in added {
        count(tx, queue, &group, messages, lanes)?;
    }
    Ok(())
}

fn claim(
    tx: &mut Tx<'_>,
    queue: &str,
    group: &str,
    limit: usize,
    lease: Duration,
) -> Result<Vec<Claimed>, Failure> {
    let now = tx.now();
    let mut claimed = Vec::new();
    for (_, number) in timetable::due(tx, &due_index(queue, group), now, limit)? {
        let number = number.try_into().map_err(|_| LANE)?;
        let lane = Lane {
            group: group.to_owned(),
            number: u64::from_be_bytes(number),
        };
        let old = state(tx, queue, &lane)?.ok_or(LANE)?;
        let (id, entry) = entry_from(tx, queue, &lane, old.head)?.ok_or(ENTRY)?;
        let new = State {
            claimed: claim_end(now, lease),
            ..old
        };
        set_state(tx, queue, &lane, Some(old), Some(new));
        claimed.push(Claimed { lane, id, entry });
    }
    Ok(claimed)
}

fn step(
    tx: &mut Tx<'_>,
    queue: &str,
    lane: Lane,
    id: u64,
    step: Step,
    lease: Duration,
) -> Result<Next, Failure> {
    let old = match state(tx, queue, &lane)? {
        Some(old) if old.head == id => old,
        _ => return Ok(Next::Moved),
    };
    let now = tx.now();
    let key = entries(queue, &lane).number(id);
    match step {
        Step::Again(about, due) => {
            let value = tx.get(Space::Records, &key)?.ok_or(ENTRY)?;
            let body = decode(&value)?.body;
            tx.insert(Space::Records, key, Entry { about, body }.encode());
            let new = State {
                due: due_at(now, due),
                claimed: 0,
                ..old
            };
            set_state(tx, queue, &lane, Some(old), Some(new));
            Ok(Next::Waits)
        }
        Step::Done => {
            let next = entry_from(tx, queue, &lane, id + 1)?;
            tx.remove(Space::Records, key);
            let Some((id, entry)) = next else {
                set_state(tx, queue, &lane, Some(old), None);
                count(tx, queue, &lane.group, -1, -1)?;
                return Ok(Next::Empty);
            };
            let new = State {
                head: id,
                due: now,
                claimed: claim_end(now, lease),
            };
            set_state(tx, queue, &lane, Some(old), Some(new));
            count(tx, queue, &lane.group, -1, 0)?;
            Ok(Next::Head(Claimed { lane, id, entry }))
        }
    }
}

/// Moves lanes that nobody has claimed; how many messages.
fn relocate(tx: &mut Tx<'_>, queue: &str, to: &str, lanes: &[Lane]) -> Result<u64, Failure> {
    let mut relocated = 0;
    for lane in lanes {
        let old = match state(tx, queue, lane)? {
            Some(old) if old.claimed == 0 => old,
            _ => continue,
        };
        let due = match old.due {
            RELEASED => Due::Released,
            at => Due::At(UNIX_EPOCH + Duration::from_millis(at)),
        };
        let (mut keys, mut messages) = (Vec::new(), Vec::new());
        for item in tx.all(Space::Records, &entries(queue, lane)) {
            let (key, value) = item.into_inner()?;
            keys.push(key);
            messages.push(Append {
                lane: lane.clone(),
                due,
                entry: decode(&value)?,
            });
        }
        for key in keys {
            tx.remove(Space::Records, key);
        }
        let count_moved = i64::try_from(messages.len()).unwrap_or(i64::MAX);
        set_state(tx, queue, lane, Some(old), None);
        count(tx, queue, &lane.group, -count_moved, -1)?;
        append(tx, to, messages)?;
        relocated += count_moved.unsigned_abs();
    }
    Ok(relocated)
}

/// Every lane of a queue with its state.
fn lanes<V: View>(
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

fn wanted(filter: &Filter, id: u64, entry: &Entry) -> bool {
    let has = |ids: &Vec<u64>| ids.contains(&id);
    filter.ids.as_ref().is_none_or(has) && filter.reason.is_none_or(|r| r == entry.about.reason)
}

/// Entries that match, lane by lane, until `each` says that it is enough.
fn matching(
    view: &impl View,
    queue: &str,
    filter: &Filter,
    mut each: impl FnMut(Listed) -> bool,
) -> Result<(), Failure> {
    let groups = match &filter.group {
        Some(group) => vec![group.clone()],
        None => groups(view, queue)?.into_keys().collect(),
    };
    for group in groups {
        let mut under = Key::new(tag::ENTRY).name(queue).name(&group);
        if let Some(lane) = filter.lane {
            under = under.number(lane);
        }
        let mut place = 0;
        let mut current = None;
        for item in view.all(Space::Records, &under) {
            let (key, value) = item.into_inner()?;
            let id = entry_id(&key)?;
            let mut parts = Parts::of(&key);
            let number = parts.name().and_then(|_| parts.name());
            let number = number.and_then(|_| parts.number()).ok_or(ENTRY)?;
            let lane = Lane {
                group: group.clone(),
                number,
            };
            let due = match current {
                Some((at, due)) if at == number => {
                    place += 1;
                    due
                }
                _ => {
                    place = 0;
                    let due = state(view, queue, &lane)?.ok_or(LANE)?.due;
                    current = Some((number, due));
                    due
                }
            };
            let entry = decode(&value)?;
            if wanted(filter, id, &entry) {
                let listed = Listed {
                    queue: queue.to_owned(),
                    lane,
                    id,
                    place,
                    due: (due != RELEASED).then_some(due),
                    entry,
                };
                if !each(listed) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Removes an entry wherever it stands in its lane. A claim stays: whoever has it may be at work on what is removed, and
/// what follows must wait for that.
pub(super) fn remove_entry(
    tx: &mut Tx<'_>,
    queue: &str,
    lane: &Lane,
    id: u64,
) -> Result<(), Failure> {
    let old = state(tx, queue, lane)?.ok_or(LANE)?;
    tx.remove(Space::Records, entries(queue, lane).number(id));
    if old.head != id {
        return count(tx, queue, &lane.group, -1, 0);
    }
    match entry_from(tx, queue, lane, id + 1)? {
        Some((head, _)) => {
            set_state(tx, queue, lane, Some(old), Some(State { head, ..old }));
            count(tx, queue, &lane.group, -1, 0)
        }
        None => {
            set_state(tx, queue, lane, Some(old), None);
            count(tx, queue, &lane.group, -1, -1)
        }
    }
}

/// Removes what was found before, as far as it is still there and wanted.
fn remove(tx: &mut Tx<'_>, filter: &Filter, found: Vec<Listed>) -> Result<Vec<Listed>, Failure> {
    let mut removed = Vec::new();
    for mut listed in found {
        let key = entries(&listed.queue, &listed.lane).number(listed.id);
        let Some(value) = tx.get(Space::Records, key)? else {
            continue;
        };
        listed.entry = decode(&value)?;
        if wanted(filter, listed.id, &listed.entry) {
            remove_entry(tx, &listed.queue, &listed.lane, listed.id)?;
            removed.push(listed);
        }
    }
    Ok(removed)
}

/// Makes lanes due now, as far as they still exist; how many.
fn release(tx: &mut Tx<'_>, queue: &str, lanes: &[Lane]) -> Result<u64, Failure> {
    let mut released = 0;
    for lane in lanes {
        if let Some(old) = state(tx, queue, lane)? {
            let due = tx.now();
            set_state(tx, queue, lane, Some(old), Some(State { due, ..old }));
            released += 1;
        }
    }
    Ok(released)
}

fn names<'a>(queue: &'a str, filter: &'a Filter) -> impl Iterator<Item = &'a str> {
    [queue].into_iter().chain(filter.group.as_deref())
}

#[async_trait]
impl Journal for EmbeddedStore {
    async fn append(&self, queue: &str, messages: Vec<Append>) -> Result<(), WorkError> {
        fits(
            [queue]
                .into_iter()
                .chain(messages.iter().map(|m| m.lane.group.as_str())),
        )?;
        let queue = queue.to_owned();
        self.write(move |tx| append(tx, &queue, messages)).await
    }

    async fn lanes(&self, queue: &str) -> Result<Vec<Lane>, WorkError> {
        fits([queue])?;
        let queue = queue.to_owned();
        self.read(move |look| {
            let all = lanes(look, &queue);
            all.map(|lane| lane.map(|(lane, _)| lane)).collect()
        })
        .await
    }

    async fn groups(&self, queue: &str) -> Result<Vec<String>, WorkError> {
        fits([queue])?;
        let queue = queue.to_owned();
        self.read(move |look| Ok(groups(look, &queue)?.into_keys().collect()))
            .await
    }

    async fn claim(
        &self,
        queue: &str,
        group: &str,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<Claimed>, WorkError> {
        fits([queue, group])?;
        let (queue, group) = (queue.to_owned(), group.to_owned());
        self.write(move |tx| claim(tx, &queue, &group, limit, lease))
            .await
    }

    async fn next_due(&self, queue: &str) -> Result<Option<Duration>, WorkError> {
        fits([queue])?;
        let queue = queue.to_owned();
        self.write(move |tx| {
            let mut earliest = None;
            for group in groups(tx, &queue)?.into_keys() {
                let at = timetable::first(tx, &due_index(&queue, &group))?;
                earliest = earliest.into_iter().chain(at).min();
            }
            let now = tx.now();
            Ok(earliest.map(|at: u64| Duration::from_millis(at.saturating_sub(now))))
        })
        .await
    }

    async fn step(
        &self,
        queue: &str,
        lane: &Lane,
        id: u64,
        said: Step,
        lease: Duration,
    ) -> Result<Next, WorkError> {
        fits([queue, &lane.group])?;
        let (queue, lane) = (queue.to_owned(), lane.clone());
        self.write(move |tx| step(tx, &queue, lane, id, said, lease))
            .await
    }

    async fn renew(&self, queue: &str, lanes: &[Lane], lease: Duration) -> Result<(), WorkError> {
        fits(
            [queue]
                .into_iter()
                .chain(lanes.iter().map(|l| l.group.as_str())),
        )?;
        let (queue, lanes) = (queue.to_owned(), lanes.to_vec());
        self.write(move |tx| {
            for lane in &lanes {
                if let Some(old) = state(tx, &queue, lane)?
                    && old.claimed != 0
                {
                    let claimed = claim_end(tx.now(), lease);
                    set_state(tx, &queue, lane, Some(old), Some(State { claimed, ..old }));
                }
            }
            Ok(())
        })
        .await
    }

    async fn reclaim(&self, queue: &str) -> Result<(), WorkError> {
        fits([queue])?;
        let queue = queue.to_owned();
        self.write(move |tx| {
            for lane in lanes(tx, &queue) {
                let (lane, old) = lane?;
                if old.claimed != 0 {
                    let new = State { claimed: 0, ..old };
                    set_state(tx, &queue, &lane, Some(old), Some(new));
                }
            }
            Ok(())
        })
        .await
    }

    async fn relocate(&self, queue: &str, to: &str, lanes: &[Lane]) -> Result<u64, WorkError> {
        fits([queue, to])?;
        let mut relocated = 0;
        for some in lanes.chunks(RELEASE) {
            let (queue, to, some) = (queue.to_owned(), to.to_owned(), some.to_vec());
            let work = move |tx: &mut Tx<'_>| relocate(tx, &queue, &to, &some);
            relocated += self.write(work).await?;
        }
        Ok(relocated)
    }

    async fn depth(&self, queue: &str) -> Result<Depth, WorkError> {
        fits([queue])?;
        let queue = queue.to_owned();
        self.read(move |look| {
            let mut depth = Depth::default();
            for group in groups(look, &queue)?.values() {
                depth.messages += group.messages;
                depth.lanes += group.lanes;
            }
            Ok(depth)
        })
        .await
    }

    async fn queues(&self) -> Result<Vec<String>, WorkError> {
        self.read(|look| {
            let mut queues = BTreeSet::new();
            for item in look.all(Space::Index, &Key::new(tag::GROUP)) {
                let key = item.key()?;
                queues.insert(Parts::of(&key).name().ok_or(GROUP)?.to_owned());
            }
            Ok(queues.into_iter().collect())
        })
        .await
    }

    async fn list(
        &self,
        queue: &str,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<Listed>, WorkError> {
        fits(names(queue, filter))?;
        let (queue, filter) = (queue.to_owned(), filter.clone());
        self.read(move |look| {
            let mut found = Vec::new();
            if limit > 0 {
                matching(look, &queue, &filter, |listed| {
                    found.push(listed);
                    found.len() < limit
                })?;
            }
            Ok(found)
        })
        .await
    }

    async fn release(&self, queue: &str, filter: &Filter) -> Result<u64, WorkError> {
        fits(names(queue, filter))?;
        let (queue, filter) = (queue.to_owned(), filter.clone());
        let sought = queue.clone();
        let found = self
            .read(move |look| {
                let mut found = BTreeSet::new();
                if filter.ids.is_none() && filter.reason.is_none() {
                    for lane in lanes(look, &sought) {
                        let (lane, _) = lane?;
                        let group = filter.group.as_ref().is_none_or(|g| *g == lane.group);
                        if group && filter.lane.is_none_or(|n| n == lane.number) {
                            found.insert(lane);
                        }
                    }
                } else {
                    matching(look, &sought, &filter, |listed| {
                        found.insert(listed.lane);
                        true
                    })?;
                }
                Ok(found.into_iter().collect::<Vec<_>>())
            })
            .await?;
        let mut released = 0;
        for some in found.chunks(RELEASE) {
            let (queue, some) = (queue.clone(), some.to_vec());
            released += self.write(move |tx| release(tx, &queue, &some)).await?;
        }
        Ok(released)
    }

    async fn remove(
        &self,
        queue: &str,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<Listed>, WorkError> {
        let found = self.list(queue, filter, limit).await?;
        let filter = filter.clone();
        self.write(move |tx| remove(tx, &filter, found)).await
    }
}
