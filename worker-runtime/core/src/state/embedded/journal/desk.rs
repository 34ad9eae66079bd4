//! How operators use the journal: they look through it, release lanes and take messages out.

use super::super::disk::{Failure, Space, Tx, View, readable};
use super::super::keys::{Key, Parts, pack, tag, unpack};
use super::lanes::{
    ENTRY, LANE, RELEASED, State, claim_end, count, decode, entries, entry_from, entry_id,
    lanes_of, set_state, state,
};
use crate::state::journal::{Cause, Filter, Lane, Listed, Outgoing, Withdrawn};
use std::time::Duration;

const OUTGOING: Failure = Failure::Damaged("a message on its way out of a journal");

/// Entries that match, lane by lane, each with whether somebody works on it, until `each` says that it is enough.
pub(super) fn matching(
    view: &impl View,
    queue: &str,
    filter: &Filter,
    mut each: impl FnMut(Listed, bool) -> bool,
) -> Result<(), Failure> {
    for item in lanes_of(view, queue, filter) {
        let (lane, state) = item?;
        let under = entries(queue, &lane);
        let first = under.clone().number(state.head);
        let found = view.from(Space::Records, &under, first.as_ref());
        for (place, item) in (0..).zip(found) {
            let (key, value) = item.into_inner()?;
            let id = entry_id(&key)?;
            let entry = decode(&value);
            if filter.ends_before(&entry) {
                break;
            }
            if !filter.takes(id, &entry) {
                continue;
            }
            let listed = Listed {
                queue: queue.to_owned(),
                lane: lane.clone(),
                id,
                place,
                due: (state.due != RELEASED).then_some(state.due),
                entry,
            };
            if !each(listed, state.in_hand(id, view.now())) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Removes an entry wherever it stands in its lane. A claim stays: whoever has it may be at work on what is removed, and
/// what follows must wait for that.
pub(in crate::state::embedded) fn remove_entry(
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

fn outgoing_key(queue: &str, id: u64) -> Key {
    Key::new(tag::OUTGOING).name(queue).number(id)
}

/// Takes what was found before out of its lanes, as far as it is still there, wanted, and nobody works on it.
pub(super) fn withdraw(
    tx: &mut Tx<'_>,
    filter: &Filter,
    found: Vec<Listed>,
    cause: Cause,
    lease: Duration,
) -> Result<Withdrawn, Failure> {
    let mut withdrawn = Withdrawn::default();
    for Listed {
        queue, lane, id, ..
    } in found
    {
        let Some(value) = tx.get(Space::Records, entries(&queue, &lane).number(id))? else {
            continue;
        };
        let entry = decode(&value);
        if !filter.takes(id, &entry) {
            continue;
        }
        let state = state(tx, &queue, &lane)?.ok_or(LANE)?;
        if state.in_hand(id, tx.now()) {
            withdrawn.in_hand += 1;
            continue;
        }
        remove_entry(tx, &queue, &lane, id)?;
        let until = claim_end(tx.now(), lease);
        let outgoing = Outgoing {
            queue,
            id,
            cause,
            entry,
        };
        set_outgoing(tx, &outgoing, until);
        withdrawn.taken.push(outgoing);
    }
    Ok(withdrawn)
}

fn set_outgoing(tx: &mut Tx<'_>, outgoing: &Outgoing, until: u64) {
    let mut value = pack([until]);
    value.push(outgoing.cause.as_str().as_bytes()[0]);
    value.extend_from_slice(&outgoing.entry.encode());
    let key = outgoing_key(&outgoing.queue, outgoing.id);
    tx.insert(Space::Records, key, value);
}

/// What is on its way out of a queue's journal, and until when somebody ends it.
fn all_outgoing<V: View>(
    view: &V,
    queue: &str,
) -> impl Iterator<Item = Result<(Outgoing, u64), Failure>> + use<V> {
    let queue = queue.to_owned();
    let found = view.all(Space::Records, &Key::new(tag::OUTGOING).name(&queue));
    found.filter_map(move |item| {
        let read = || -> Result<_, Failure> {
            let (key, value) = item.into_inner()?;
            let (until, cause, entry) = read_outgoing(&value)?;
            let outgoing = Outgoing {
                queue: queue.clone(),
                id: entry_id(&key)?,
                cause,
                entry: decode(entry),
            };
            Ok((outgoing, until))
        };
        // What cannot be read stays where it is, and holds up nothing else.
        readable(&queue, read()).transpose()
    })
}

fn read_outgoing(value: &[u8]) -> Result<(u64, Cause, &[u8]), Failure> {
    let (until, rest) = value.split_at_checked(8).ok_or(OUTGOING)?;
    let [until] = unpack(until).ok_or(OUTGOING)?;
    let (cause, entry) = rest.split_first().ok_or(OUTGOING)?;
    let cause = [Cause::Dropped, Cause::Expired]
        .into_iter()
        .find(|known| known.as_str().as_bytes()[0] == *cause);
    Ok((until, cause.ok_or(OUTGOING)?, entry))
}

/// The entry of a message on its way out, as it is stored.
pub(in crate::state::embedded) fn outgoing_entry(value: &[u8]) -> Result<&[u8], Failure> {
    read_outgoing(value).map(|(_, _, entry)| entry)
}

pub(super) fn outgoing(
    view: &impl View,
    queue: &str,
    limit: usize,
) -> Result<Vec<Outgoing>, Failure> {
    let found = all_outgoing(view, queue).map(|item| item.map(|(outgoing, _)| outgoing));
    found.take(limit).collect()
}

/// Gives what others took out and did not end to whoever asks.
pub(super) fn adopt(
    tx: &mut Tx<'_>,
    queue: &str,
    limit: usize,
    lease: Duration,
) -> Result<Vec<Outgoing>, Failure> {
    let now = tx.now();
    let mut adopted = Vec::new();
    for item in all_outgoing(tx, queue) {
        let (outgoing, until) = item?;
        if adopted.len() >= limit {
            break;
        }
        if until <= now {
            adopted.push(outgoing);
        }
    }
    for outgoing in &adopted {
        set_outgoing(tx, outgoing, claim_end(now, lease));
    }
    Ok(adopted)
}

pub(super) fn forget(tx: &mut Tx<'_>, queue: &str, ids: &[u64]) {
    for id in ids {
        tx.remove(Space::Records, outgoing_key(queue, *id));
    }
}

/// The queues with messages on their way out.
pub(super) fn outgoing_queues(view: &impl View) -> Result<Vec<String>, Failure> {
    let mut queues: Vec<String> = Vec::new();
    for item in view.all(Space::Records, &Key::new(tag::OUTGOING)) {
        let key = item.key()?;
        let queue = Parts::of(&key).name().ok_or(ENTRY)?;
        if queues.last().is_none_or(|last| last != queue) {
            queues.push(queue.to_owned());
        }
    }
    Ok(queues)
}

/// Makes lanes due now, as far as they still exist; how many.
pub(super) fn release(tx: &mut Tx<'_>, queue: &str, lanes: &[Lane]) -> Result<u64, Failure> {
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
