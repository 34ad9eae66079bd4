//! The ledger in the embedded store: rows and trails by message id, each with its keys in the indexes; counts of rows by
//! account and state move in the same transaction as the row.

use super::EmbeddedStore;
use super::batches;
use super::disk::{Failure, Space, Tx, View, millis, readable};
use super::keys::{Key, Parts, fits, pack, tag, unpack};
use super::sweep::{self, NEVER};
use crate::error::WorkError;
use crate::state::ledger::{
    Counts, Ledger, LeftTo, MAX_STEPS, Note, Put, Query, Row, RowState, Step,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

const ROW: Failure = Failure::Damaged("a row of the ledger");
const TRAIL: Failure = Failure::Damaged("a trail");
const INDEX: Failure = Failure::Damaged("an index of the ledger");

/// A row as stored.
struct Stored {
    /// When it may go, or [`NEVER`].
    expires: u64,
    row: Row,
}

/// A trail as stored.
#[derive(Debug, Serialize, Deserialize)]
struct Trail {
    /// When it may go.
    expires: u64,
    /// Time of its first note.
    begun: u64,
    person: Option<String>,
    steps: Vec<Step>,
}

pub(super) fn row_key(message_id: &str) -> Key {
    Key::new(tag::ROW).name(message_id)
}

pub(super) fn trail_key(message_id: &str) -> Key {
    Key::new(tag::TRAIL).name(message_id)
}

fn count_key(account: &str, state: RowState) -> Key {
    Key::new(tag::COUNT).name(account).byte(number(state))
}

fn state_index(account: &str, state: RowState) -> Key {
    Key::new(tag::STATE).name(account).byte(number(state))
}

fn deadlines(account: &str, left_to: LeftTo) -> Key {
    let tag = match left_to {
        LeftTo::Rules => tag::DEADLINE,
        LeftTo::Person => tag::ALARM,
    };
    Key::new(tag).name(account)
}

/// A state as stored; new states get new numbers.
pub(super) fn number(state: RowState) -> u8 {
    match state {
        RowState::Accepted => 0,
        RowState::Queued => 1,
        RowState::Held => 2,
        RowState::Sending => 3,
        RowState::Sent => 4,
        RowState::Unknown => 5,
        RowState::Parked => 6,
        RowState::Delivered => 7,
        RowState::SentFinal => 8,
        RowState::Failed => 9,
        RowState::Expired => 10,
        RowState::Cancelled => 11,
    }
}

pub(super) fn state_of(byte: u8) -> Option<RowState> {
    RowState::ALL
        .into_iter()
        .find(|state| number(*state) == byte)
}

/// Keys of a row in the indexes.
fn row_indexes(row: &Row) -> BTreeSet<Vec<u8>> {
    let id = &row.message_id;
    let state = state_index(&row.account, row.state);
    let mut keys = BTreeSet::from([
        state.number(row.born).name(id).bytes(),
        born_key(row.born, id, tag::ROW),
    ]);
    if let Some(deadline) = row.deadline
        && !row.state.is_final()
    {
        let key = deadlines(&row.account, row.left_to());
        keys.insert(key.number(deadline).name(id).bytes());
    }
    if let Some(remote) = &row.remote_id {
        let key = Key::new(tag::REMOTE).name(&row.account);
        keys.insert(key.name(remote).name(id).bytes());
    }
    if let Some(person) = &row.person {
        keys.insert(person_key(person, row.born, id, tag::ROW));
    }
    keys
}

fn trail_indexes(message_id: &str, trail: &Trail) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::from([born_key(trail.begun, message_id, tag::TRAIL)]);
    if let Some(person) = &trail.person {
        keys.insert(person_key(person, trail.begun, message_id, tag::TRAIL));
    }
    keys
}

fn born_key(at: u64, message_id: &str, kind: u8) -> Vec<u8> {
    let key = Key::new(tag::BORN).number(at).name(message_id);
    key.byte(kind).bytes()
}

fn person_key(person: &str, at: u64, message_id: &str, kind: u8) -> Vec<u8> {
    let key = Key::new(tag::PERSON).name(person).number(at);
    key.name(message_id).byte(kind).bytes()
}

fn stored(view: &impl View, message_id: &str) -> Result<Option<Stored>, Failure> {
    let Some(value) = view.get(Space::Records, row_key(message_id))? else {
        return Ok(None);
    };
    let (expires, row) = value.split_at_checked(8).ok_or(ROW)?;
    let [expires] = unpack(expires).ok_or(ROW)?;
    let row = serde_json::from_slice(row).map_err(|_| ROW)?;
    Ok(Some(Stored { expires, row }))
}

fn trail(view: &impl View, message_id: &str) -> Result<Option<Trail>, Failure> {
    let value = view.get(Space::Records, trail_key(message_id))?;
    let trail = value.map(|value| serde_json::from_slice(&value));
    trail.transpose().map_err(|_| TRAIL)
}

fn set_trail(tx: &mut Tx<'_>, message_id: &str, trail: &Trail) -> Result<(), Failure> {
    let value = serde_json::to_vec(trail).map_err(|_| TRAIL)?;
    tx.insert(Space::Records, trail_key(message_id), value);
    Ok(())
}

/// Moves the indexes from what was to what is.
fn reindex(tx: &mut Tx<'_>, old: &BTreeSet<Vec<u8>>, new: &BTreeSet<Vec<u8>>) {
    for gone in old.difference(new) {
        tx.remove(Space::Index, gone);
    }
    for come in new.difference(old) {
        tx.insert(Space::Index, come, []);
    }
}

fn count(tx: &mut Tx<'_>, row: &Row, by: i64) -> Result<(), Failure> {
    let key = count_key(&row.account, row.state);
    let before = match tx.get(Space::Index, &key)? {
        Some(value) => unpack::<1>(&value).ok_or(INDEX)?[0],
        None => 0,
    };
    match before.saturating_add_signed(by) {
        0 => tx.remove(Space::Index, key),
        count => tx.insert(Space::Index, key, pack([count])),
    }
    batches::count(tx, row, by)
}

fn put(tx: &mut Tx<'_>, row: &Row, expected: Option<u64>, keep: Duration) -> Result<Put, Failure> {
    let old = stored(tx, &row.message_id)?;
    if let Some(old) = &old
        && expected != Some(old.row.version)
    {
        return Ok(Put::Conflict(Box::new(old.row.clone())));
    }
    let json = serde_json::to_vec(row).map_err(|_| ROW)?;
    let ends = tx.now().saturating_add(millis(keep)).min(NEVER - 1);
    let expires = if row.state.is_final() { ends } else { NEVER };
    let before = old.as_ref().map(|old| row_indexes(&old.row));
    if let Some(old) = &old {
        count(tx, &old.row, -1)?;
    }
    count(tx, row, 1)?;
    reindex(tx, &before.unwrap_or_default(), &row_indexes(row));
    let key = row_key(&row.message_id);
    let value = [&expires.to_be_bytes()[..], &json].concat();
    tx.insert(Space::Records, &key, value);
    if expires != NEVER {
        let before = old.map(|old| old.expires).filter(|before| *before != NEVER);
        sweep::remind(tx, key.as_ref(), before, expires);
    }
    Ok(Put::Stored)
}

fn note(tx: &mut Tx<'_>, notes: Vec<Note>, keep: Duration) -> Result<(), Failure> {
    for note in notes {
        let id = &note.message_id;
        let Some(old) = readable("a message", trail(tx, id))? else {
            continue;
        };
        let before = old.as_ref().map(|old| trail_indexes(id, old));
        let mut trail = match old {
            Some(trail) => trail,
            None => {
                let expires = tx.now().saturating_add(millis(keep)).min(NEVER - 1);
                sweep::remind(tx, trail_key(id).as_ref(), None, expires);
                Trail {
                    expires,
                    begun: note.step.at,
                    person: None,
                    steps: Vec::new(),
                }
            }
        };
        trail.person = trail.person.or(note.person);
        if trail.steps.len() >= MAX_STEPS {
            trail.steps.remove(MAX_STEPS / 2);
        }
        trail.steps.push(note.step);
        reindex(tx, &before.unwrap_or_default(), &trail_indexes(id, &trail));
        set_trail(tx, id, &trail)?;
    }
    Ok(())
}

/// When a row may go, if it is there.
pub(super) fn row_ends(view: &impl View, message_id: &str) -> Result<Option<u64>, Failure> {
    Ok(stored(view, message_id)?.map(|stored| stored.expires))
}

/// When a trail may go, if it is there.
pub(super) fn trail_ends(view: &impl View, message_id: &str) -> Result<Option<u64>, Failure> {
    Ok(trail(view, message_id)?.map(|trail| trail.expires))
}

/// Removes a row; whether it was there.
pub(super) fn remove_row(tx: &mut Tx<'_>, message_id: &str) -> Result<bool, Failure> {
    let row = match readable("a message", stored(tx, message_id))? {
        Some(Some(Stored { row, .. })) => Some(row),
        Some(None) => return Ok(false),
        // What stands in indexes of it nobody knows.
        None => None,
    };
    if let Some(row) = row {
        count(tx, &row, -1)?;
        reindex(tx, &row_indexes(&row), &BTreeSet::new());
    }
    tx.remove(Space::Records, row_key(message_id));
    Ok(true)
}

/// Removes a trail; whether it was there.
pub(super) fn remove_trail(tx: &mut Tx<'_>, message_id: &str) -> Result<bool, Failure> {
    let Some(trail) = trail(tx, message_id)? else {
        return Ok(false);
    };
    reindex(tx, &trail_indexes(message_id, &trail), &BTreeSet::new());
    tx.remove(Space::Records, trail_key(message_id));
    Ok(true)
}

/// The message id in a key of an index by time, whose names and time before it are skipped.
fn id_behind(key: &[u8], names: usize) -> Result<String, Failure> {
    let mut parts = Parts::of(key);
    for _ in 0..names {
        parts.name().ok_or(INDEX)?;
    }
    parts.number().ok_or(INDEX)?;
    Ok(parts.name().ok_or(INDEX)?.to_owned())
}

/// Ids of messages, newest first, each once.
pub(super) fn find(view: &impl View, query: &Query, limit: usize) -> Result<Vec<String>, Failure> {
    let (found, names) = match query {
        Query::Message(id) => {
            let there = view.get(Space::Records, row_key(id))?.is_some()
                || view.get(Space::Records, trail_key(id))?.is_some();
            return Ok((there && limit > 0)
                .then(|| id.clone())
                .into_iter()
                .collect());
        }
        Query::Person(person) => {
            let under = Key::new(tag::PERSON).name(person);
            (view.all(Space::Index, &under), 1)
        }
        Query::Between(from, to) => {
            let first = Key::new(tag::BORN).number(*from).bytes();
            let last = Key::new(tag::BORN).number(*to).end();
            if first >= last {
                return Ok(Vec::new());
            }
            (view.range(Space::Index, &first, &last), 0)
        }
    };
    let mut ids = Vec::new();
    let mut seen = HashSet::new();
    for item in found.rev() {
        if ids.len() >= limit {
            break;
        }
        let id = id_behind(&item.key()?, names)?;
        if seen.insert(id.clone()) {
            ids.push(id);
        }
    }
    Ok(ids)
}

#[async_trait]
impl Ledger for EmbeddedStore {
    async fn put(
        &self,
        row: &Row,
        expected: Option<u64>,
        keep: Duration,
    ) -> Result<Put, WorkError> {
        let optional = [&row.person, &row.remote_id, &row.batch]
            .into_iter()
            .flatten();
        let names = [&row.message_id, &row.account].into_iter().chain(optional);
        fits(names.map(String::as_str))?;
        let row = row.clone();
        self.write(move |tx| put(tx, &row, expected, keep)).await
    }

    async fn row(&self, message_id: &str) -> Result<Option<Row>, WorkError> {
        fits([message_id])?;
        let id = message_id.to_owned();
        self.read(move |look| Ok(stored(look, &id)?.map(|stored| stored.row)))
            .await
    }

    async fn by_remote_id(&self, account: &str, remote_id: &str) -> Result<Option<Row>, WorkError> {
        fits([account, remote_id])?;
        let under = Key::new(tag::REMOTE).name(account).name(remote_id);
        self.read(move |look| {
            let mut found = look.all(Space::Index, &under);
            let (Some(one), None) = (found.next(), found.next()) else {
                return Ok(None);
            };
            let key = one.key()?;
            let mut parts = Parts::of(&key);
            let id = parts.name().and_then(|_| parts.name());
            let id = id.and_then(|_| parts.name()).ok_or(INDEX)?;
            Ok(stored(look, id)?.map(|stored| stored.row))
        })
        .await
    }

    async fn live(&self, worker: &str, hold: Duration) -> Result<(), WorkError> {
        self.signs.given(worker, hold);
        Ok(())
    }

    async fn lives(&self, worker: &str) -> Result<bool, WorkError> {
        Ok(self.signs.is_good(worker))
    }

    async fn note(&self, notes: &[Note], keep: Duration) -> Result<(), WorkError> {
        fits(notes.iter().flat_map(|note| {
            [note.message_id.as_str()]
                .into_iter()
                .chain(note.person.as_deref())
        }))?;
        let notes = notes.to_vec();
        self.write(move |tx| note(tx, notes, keep)).await
    }

    async fn trail(&self, message_id: &str) -> Result<Vec<Step>, WorkError> {
        fits([message_id])?;
        let id = message_id.to_owned();
        self.read(move |look| {
            let mut steps = trail(look, &id)?
                .map(|trail| trail.steps)
                .unwrap_or_default();
            steps.sort_by_key(|step| step.at);
            Ok(steps)
        })
        .await
    }

    async fn find(&self, query: &Query, limit: usize) -> Result<Vec<String>, WorkError> {
        if let Query::Message(name) | Query::Person(name) = query {
            fits([name.as_str()])?;
        }
        let query = query.clone();
        self.read(move |look| find(look, &query, limit)).await
    }

    async fn counts(&self) -> Result<Counts, WorkError> {
        self.read(|look| {
            let mut counts = Counts::new();
            for item in look.all(Space::Index, &Key::new(tag::COUNT)) {
                let (key, value) = item.into_inner()?;
                let mut parts = Parts::of(&key);
                let account = parts.name().ok_or(INDEX)?.to_owned();
                // One of a later version is not counted.
                let Some(state) = parts.byte().and_then(state_of) else {
                    continue;
                };
                let [count] = unpack(&value).ok_or(INDEX)?;
                counts.insert((account, state), count);
            }
            Ok(counts)
        })
        .await
    }

    async fn overdue(
        &self,
        account: &str,
        left_to: LeftTo,
        skip: usize,
        limit: usize,
    ) -> Result<(u64, Vec<String>), WorkError> {
        fits([account])?;
        let under = deadlines(account, left_to);
        self.read(move |look| {
            let now = under.clone().number(look.now()).bytes();
            let (mut count, mut ids) = (0, Vec::new());
            for item in look.range(Space::Index, under.as_ref(), &now) {
                let key = item.key()?;
                count += 1;
                if count > skip as u64 && ids.len() < limit {
                    ids.push(id_behind(&key, 1)?);
                }
            }
            Ok((count, ids))
        })
        .await
    }

    async fn in_state(
        &self,
        account: &str,
        state: RowState,
        limit: usize,
    ) -> Result<Vec<String>, WorkError> {
        fits([account])?;
        let under = state_index(account, state);
        self.read(move |look| {
            let mut ids = Vec::new();
            for item in look.all(Space::Index, &under).take(limit) {
                let key = item.key()?;
                let mut parts = Parts::of(&key);
                let state = parts.name().and_then(|_| parts.byte());
                let born = state.and_then(|_| parts.number());
                ids.push(born.and_then(|_| parts.name()).ok_or(INDEX)?.to_owned());
            }
            Ok(ids)
        })
        .await
    }
}
