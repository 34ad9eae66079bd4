//! Indexes by time: keys that begin alike, then a time, then what is due. The front of such an index is where everything
//! was removed from, and a database walks over what was removed; so the writer remembers where each one begins.

use super::disk::{Failure, Space, Tx, View};
use super::keys::Key;
use std::collections::HashMap;

/// No key of an index is before its front. Held by the writer alone, forgotten with a transaction that failed.
#[derive(Default)]
pub(super) struct Fronts(HashMap<Vec<u8>, Vec<u8>>);

impl Fronts {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The index is empty for now.
    pub(super) fn forget(&mut self, index: &Key) {
        self.0.remove(index.as_ref());
    }

    fn wrote(&mut self, index: &Key, key: &[u8]) {
        if let Some(front) = self.0.get_mut(index.as_ref())
            && key < front.as_slice()
        {
            *front = key.to_vec();
        }
    }
}

/// Says that something is due at a time.
pub(super) fn insert(tx: &mut Tx<'_>, index: &Key, at: u64, what: &[u8]) {
    let key = index.clone().number(at).rest(what);
    tx.fronts.wrote(index, key.as_ref());
    tx.insert(Space::Index, &key, []);
}

/// Takes that back.
pub(super) fn remove(tx: &mut Tx<'_>, index: &Key, at: u64, what: &[u8]) {
    tx.remove(Space::Index, index.clone().number(at).rest(what));
}

/// What is due up to and at a time, at most `limit`, longest due first.
pub(super) fn due(
    tx: &mut Tx<'_>,
    index: &Key,
    until: u64,
    limit: usize,
) -> Result<Vec<(u64, Vec<u8>)>, Failure> {
    let begin = index.as_ref();
    let from = tx.fronts.0.get(begin).map_or(begin, Vec::as_slice);
    let to = match until.checked_add(1) {
        Some(behind) => index.clone().number(behind).bytes(),
        None => index.end(),
    };
    let mut front = None;
    let mut found = Vec::new();
    if limit > 0 && from < to.as_slice() {
        for item in tx.range(Space::Index, from, &to) {
            let key = item.key()?;
            front.get_or_insert_with(|| key.to_vec());
            let (at, what) = key
                .get(begin.len()..)
                .and_then(|rest| rest.split_at_checked(8))
                .and_then(|(at, what)| Some((u64::from_be_bytes(at.try_into().ok()?), what)))
                .ok_or(Failure::Damaged("an index by time"))?;
            found.push((at, what.to_vec()));
            if found.len() >= limit {
                break;
            }
        }
        tx.fronts.0.insert(begin.to_vec(), front.unwrap_or(to));
    }
    Ok(found)
}

/// The earliest time of an index.
pub(super) fn first(tx: &mut Tx<'_>, index: &Key) -> Result<Option<u64>, Failure> {
    Ok(due(tx, index, u64::MAX, 1)?.first().map(|(at, _)| *at))
}
