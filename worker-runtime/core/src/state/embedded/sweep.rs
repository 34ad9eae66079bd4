//! What goes when its time is over. A key that will end stands in one index by time; the index is a reminder only, and
//! what is stored under the key says whether it may go: what was prolonged is looked at again later.

use super::EmbeddedStore;
use super::disk::{Failure, Space, Tx, View, readable};
use super::keys::{Key, Parts, tag};
use super::{first_seen, ledger, rate_limits, sessions, suspects, timetable};
use crate::error::WorkError;

/// Reminders looked at in one transaction.
const SOME: usize = 500;
/// What cannot be read is looked at again after so long: a later version may read it.
const LATER: u64 = 60 * 60 * 1000;

const INDEX: Failure = Failure::Damaged("the index of what ends");

fn index() -> Key {
    Key::new(tag::EXPIRY)
}

/// Something was stored that ends at `ends`; if something was there already, it ended at `before`.
pub(super) fn remind(tx: &mut Tx<'_>, key: &[u8], before: Option<u64>, ends: u64) {
    // A later reminder follows from the earlier one.
    if before.is_none_or(|before| ends < before) {
        timetable::insert(tx, &index(), ends, key);
    }
}

/// The key that a reminder is of.
pub(super) fn reminded(key: &[u8]) -> Result<&[u8], Failure> {
    key.get(index().as_ref().len() + size_of::<u64>()..)
        .ok_or(INDEX)
}

/// When the thing under a key ends, if it is there and ends.
fn ends(tx: &Tx<'_>, key: &[u8]) -> Result<Option<u64>, Failure> {
    let mut parts = Parts::of(key);
    let ends = match key.first() {
        Some(&tag::ROW) => ledger::row_ends(tx, parts.name().ok_or(INDEX)?)?,
        Some(&tag::TRAIL) => ledger::trail_ends(tx, parts.name().ok_or(INDEX)?)?,
        Some(&tag::SESSION) => sessions::ends(tx, key)?,
        Some(&tag::SEEN) => first_seen::ends(tx, key)?,
        Some(&tag::BUCKET) => rate_limits::ends(tx, key)?,
        Some(&tag::SUSPECT) => suspects::ends(tx, key)?,
        _ => return Err(INDEX),
    };
    Ok(ends.filter(|ends| *ends != NEVER))
}

/// The end of what does not end.
pub(super) const NEVER: u64 = u64::MAX;

fn remove(tx: &mut Tx<'_>, key: &[u8]) -> Result<(), Failure> {
    let mut parts = Parts::of(key);
    match key.first() {
        Some(&tag::ROW) => ledger::remove_row(tx, parts.name().ok_or(INDEX)?).map(drop),
        Some(&tag::TRAIL) => ledger::remove_trail(tx, parts.name().ok_or(INDEX)?).map(drop),
        Some(&tag::SEEN) => first_seen::remove(tx, key).map(drop),
        Some(&tag::SESSION) => {
            tx.remove(Space::Records, key);
            Ok(())
        }
        _ => {
            tx.remove(Space::Index, key);
            Ok(())
        }
    }
}

/// How many reminders were looked at, and how many things went.
fn some(tx: &mut Tx<'_>) -> Result<(usize, u64), Failure> {
    let now = tx.now();
    let due = timetable::due(tx, &index(), now, SOME)?;
    let mut removed = 0;
    for (at, key) in &due {
        timetable::remove(tx, &index(), *at, key);
        // Whose it is stands in keys, and nothing of that goes into a log.
        match readable("what has ended", ends(tx, key))? {
            Some(Some(ends)) if ends <= now => {
                remove(tx, key)?;
                removed += 1;
            }
            Some(Some(ends)) => timetable::insert(tx, &index(), ends, key),
            Some(None) => {}
            None => timetable::insert(tx, &index(), now.saturating_add(LATER), key),
        }
    }
    Ok((due.len(), removed))
}

/// Removes some of what has ended; how many.
pub(super) async fn sweep(store: &EmbeddedStore) -> Result<u64, WorkError> {
    loop {
        let (looked, removed) = store.write(some).await?;
        if removed > 0 || looked < SOME {
            return Ok(removed);
        }
    }
}
