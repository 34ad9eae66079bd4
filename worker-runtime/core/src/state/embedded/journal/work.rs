//! How workers use the journal: they append, claim the heads of lanes, and say what became of them.

use super::super::disk::{Failure, Space, Tx, View};
use super::super::keys::{Key, pack, tag, unpack};
use super::super::timetable;
use super::lanes::{
    ENTRY, GROUP, LANE, RELEASED, State, claim_end, count, decode, due_at, due_index, entries,
    entry_from, entry_id, set_state, state,
};
use crate::state::journal::{Append, Claimed, Due, Entry, Lane, Next, Step};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

pub(super) fn append(tx: &mut Tx<'_>, queue: &str, messages: Vec<Append>) -> Result<(), Failure> {
    let messages = messages.into_iter();
    let stored = messages.map(|m| (m.lane, m.due, m.entry.encode()));
    append_stored(tx, queue, stored.collect())
}

fn append_stored(
    tx: &mut Tx<'_>,
    queue: &str,
    messages: Vec<(Lane, Due, Bytes)>,
) -> Result<(), Failure> {
    let next_key = Key::new(tag::NEXT_ID);
    let mut id = match tx.get(Space::Index, &next_key)? {
        Some(value) => unpack::<1>(&value).ok_or(GROUP)?[0],
        None => 1,
    };
    let mut added: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for (lane, due, entry) in messages {
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
        tx.insert(Space::Records, key, entry);
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
            let body = decode(&value).body;
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

/// Moves lanes that nobody has claimed, at most `room` messages: how many lanes are finished, and how many messages
/// moved. The next lane may be moved in part, its oldest messages first.
pub(super) fn relocate(
    tx: &mut Tx<'_>,
    queue: &str,
    to: &str,
    lanes: &[Lane],
    mut room: usize,
) -> Result<(usize, u64), Failure> {
    let (mut finished, mut relocated) = (0, 0);
    for lane in lanes {
        if room == 0 {
            break;
        }
        let old = match state(tx, queue, lane)? {
            Some(old) if old.claimed == 0 => old,
            _ => {
                finished += 1;
                continue;
            }
        };
        let due = match old.due {
            RELEASED => Due::Released,
            at => Due::At(UNIX_EPOCH + Duration::from_millis(at)),
        };
        let (mut keys, mut messages, mut rest) = (Vec::new(), Vec::new(), None);
        for item in tx.all(Space::Records, &entries(queue, lane)) {
            let (key, value) = item.into_inner()?;
            if messages.len() >= room {
                rest = Some(entry_id(&key)?);
                break;
            }
            keys.push(key);
            messages.push((lane.clone(), due, Bytes::copy_from_slice(&value)));
        }
        for key in keys {
            tx.remove(Space::Records, key);
        }
        room -= messages.len();
        let count_moved = i64::try_from(messages.len()).unwrap_or(i64::MAX);
        let new = rest.map(|head| State { head, ..old });
        set_state(tx, queue, lane, Some(old), new);
        let lanes_gone = i64::from(new.is_none());
        count(tx, queue, &lane.group, -count_moved, -lanes_gone)?;
        append_stored(tx, to, messages)?;
        relocated += count_moved.unsigned_abs();
        if rest.is_some() {
            break;
        }
        finished += 1;
    }
    Ok((finished, relocated))
}

#[cfg(test)]
mod tests {
    use super::super::lanes::groups;
    use super::*;
    use crate::state::embedded::disk::Disk;
    use crate::state::embedded::timetable::Fronts;
    use crate::state::journal::{About, Depth, Reason};

    fn message(lane: &Lane, body: u8) -> Append {
        let about = About {
            reason: Reason::Held,
            since: 1,
            attempts: 0,
            counted: 0,
            code: String::new(),
            text: String::new(),
            routing_key: String::new(),
            amqp_message_id: None,
        };
        Append {
            lane: lane.clone(),
            due: Due::Released,
            entry: Entry {
                about,
                body: vec![body].into(),
            },
        }
    }

    /// However long a lane is, a transaction moves so many messages and no more.
    #[test]
    fn a_long_lane_moves_in_steps_and_keeps_its_order_and_time() {
        let folder = tempfile::tempdir().expect("folder");
        let disk = Disk::open(folder.path().to_owned(), None).expect("open");
        let lane = |number| Lane {
            group: String::new(),
            number,
        };
        let (long, short) = (lane(1), lane(2));
        let (mut steps, mut bodies) = (Vec::new(), Vec::new());
        let moved = disk.commit(
            &mut Fronts::default(),
            |tx| {
                let mut messages: Vec<Append> = (0..5).map(|n| message(&long, n)).collect();
                messages.push(message(&short, 9));
                append(tx, "from", messages)?;
                let all = [long.clone(), short.clone()];
                let mut left = all.as_slice();
                while !left.is_empty() {
                    let step = relocate(tx, "from", "to", left, 2)?;
                    left = &left[step.0..];
                    steps.push(step);
                }
                let mut from = 0;
                while let Some((id, entry)) = entry_from(tx, "to", &long, from)? {
                    bodies.push(entry.body[0]);
                    from = id + 1;
                }
                assert!(groups(tx, "from")?.is_empty());
                let depth = Depth {
                    messages: 6,
                    lanes: 2,
                };
                assert_eq!(groups(tx, "to")?, [(String::new(), depth)].into());
                let there = state(tx, "to", &long)?.expect("moved");
                assert_eq!((there.due, there.claimed), (RELEASED, 0));
                assert_eq!(state(tx, "from", &long)?, None);
                Ok(())
            },
            true,
        );
        moved.expect("committed");
        assert_eq!(steps, [(0, 2), (0, 2), (2, 2)]);
        assert_eq!(bodies, [0, 1, 2, 3, 4]);
    }
}
