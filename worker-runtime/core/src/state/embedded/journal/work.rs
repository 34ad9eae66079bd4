//! How workers use the journal: they append, claim the heads of lanes, and say what became of them.

use super::super::disk::{Failure, Space, Tx, View};
use super::super::keys::{Key, pack, tag, unpack};
use super::super::timetable;
use super::lanes::{
    ENTRY, GROUP, LANE, RELEASED, State, claim_end, count, decode, due_at, due_index, entries,
    entry_from, set_state, state,
};
use crate::state::journal::{Append, Claimed, Due, Entry, Lane, Next, Step};
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

pub(super) fn append(tx: &mut Tx<'_>, queue: &str, messages: Vec<Append>) -> Result<(), Failure> {
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

pub(super) fn claim(
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
        claimed.push(Claimed {
            lane,
            id,
            entry,
            again: old.claimed != 0,
        });
    }
    Ok(claimed)
}

pub(super) fn step(
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
            Ok(Next::Head(Claimed {
                lane,
                id,
                entry,
                again: false,
            }))
        }
    }
}

/// The first message of a lane, if that is there.
pub(super) fn head(view: &impl View, queue: &str, lane: &Lane) -> Result<Option<Entry>, Failure> {
    let Some(state) = state(view, queue, lane)? else {
        return Ok(None);
    };
    let head = entry_from(view, queue, lane, state.head)?;
    Ok(head.map(|(_, entry)| entry))
}

/// Moves lanes that nobody has claimed; how many messages.
pub(super) fn relocate(
    tx: &mut Tx<'_>,
    queue: &str,
    to: &str,
    lanes: &[Lane],
) -> Result<u64, Failure> {
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
