//! Removes what is kept of a person. What is kept under the person's key is found by an index, the rest by looking at
//! everything; what was found is removed some at a time, as far as it is still there. At the end the files are written
//! anew, since a database that only ever appends keeps what was removed for as long as it likes.

use super::disk::{Failure, Space, Tx, View};
use super::keys::{Key, Parts, tag};
use super::{EmbeddedStore, first_seen, journal, ledger, sessions, suspects, sweep};
use crate::error::WorkError;
use crate::state::journal::{Entry, Lane};
use crate::state::ledger::Query;
use crate::state::{Erased, Person};
use bytes::Bytes;
use serde_json::Value;
use std::collections::HashSet;

/// Removed in one transaction.
const SOME: usize = 500;

const ENTRY: Failure = Failure::Damaged("a journal's entry");

/// Removes everything of a person.
pub(super) async fn erase(
    store: &EmbeddedStore,
    person: &Person,
) -> Result<Vec<Erased>, WorkError> {
    let query = Query::Person(person.key());
    let messages = store
        .read(move |look| ledger::find(look, &query, usize::MAX))
        .await?;
    let mut ids: HashSet<String> = messages.iter().cloned().collect();

    let who = person.clone();
    let of_user = move |key: &[u8], _: &[u8]| Ok(who.owns(sessions::user(key)?));
    let found = keys(store, Space::Records, tag::SESSION, of_user).await?;
    let sessions = remove(store, found, remove_record).await?;
    // Reminders of these, and of sessions that have ended, have the user in their keys too.
    let who = person.clone();
    let of_user = move |key: &[u8], _: &[u8]| {
        let key = sweep::reminded(key)?;
        Ok(key.first() == Some(&tag::SESSION) && who.owns(sessions::user(key)?))
    };
    let found = keys(store, Space::Index, tag::EXPIRY, of_user).await?;
    let later = remove(store, found, |tx, reminder| {
        // With the session, should one have begun since: without its reminder it would never end.
        let there = remove_record(tx, &sweep::reminded(reminder)?.to_vec())?;
        tx.remove(Space::Index, reminder);
        Ok(there)
    })
    .await?;

    let (who, known) = (person.clone(), ids.clone());
    let of_message = move |_: &[u8], value: &[u8]| {
        let entry = Entry::decode(&Bytes::copy_from_slice(value));
        Ok(who.is_in(&entry.body, &known))
    };
    let found = keys(store, Space::Records, tag::ENTRY, of_message).await?;
    let (entries, more) = remove_entries(store, found).await?;
    ids.extend(more);
    let (who, known) = (person.clone(), ids.clone());
    let of_message = move |_: &[u8], value: &[u8]| {
        let entry = Bytes::copy_from_slice(journal::outgoing_entry(value)?);
        let entry = Entry::decode(&entry);
        Ok(who.is_in(&entry.body, &known))
    };
    let found = keys(store, Space::Records, tag::OUTGOING, of_message).await?;
    let outgoing = remove(store, found, remove_record).await?;

    let rows = remove(store, messages, |tx, id| {
        let removed = [ledger::remove_row(tx, id)?, ledger::remove_trail(tx, id)?];
        Ok(removed.into_iter().filter(|removed| *removed).count() as u64)
    })
    .await?;

    let key = person.key();
    let of_person = move |_: &[u8], value: &[u8]| Ok(first_seen::person(value)? == key);
    let found = keys(store, Space::Records, tag::SEEN, of_person).await?;
    let answers = remove(store, found, |tx, key| {
        Ok(u64::from(first_seen::remove(tx, key)?))
    })
    .await?;

    let of_ids = move |key: &[u8], _: &[u8]| Ok(ids.contains(suspects::message(key)?));
    let found = keys(store, Space::Index, tag::SUSPECT, of_ids).await?;
    let suspects = remove(store, found, |tx, key| {
        let there = tx.get(Space::Index, key)?.is_some();
        tx.remove(Space::Index, key);
        Ok(u64::from(there))
    })
    .await?;

    store.beside(|disk| disk.forget()).await?;

    let counts = [
        ("sessions", sessions + later),
        ("journal", entries + outgoing),
        ("ledger", rows),
        ("firstSeen", answers),
        ("suspects", suspects),
    ];
    Ok(counts
        .map(|(what, count)| Erased {
            what: what.to_owned(),
            count,
        })
        .into())
}

/// Keys of a kind that are meant.
async fn keys(
    store: &EmbeddedStore,
    space: Space,
    tag: u8,
    mut meant: impl FnMut(&[u8], &[u8]) -> Result<bool, Failure> + Send + 'static,
) -> Result<Vec<Vec<u8>>, WorkError> {
    store
        .read(move |look| {
            let mut found = Vec::new();
            for item in look.all(space, &Key::new(tag)) {
                let (key, value) = item.into_inner()?;
                if meant(&key, &value)? {
                    found.push(key.to_vec());
                }
            }
            Ok(found)
        })
        .await
}

/// Removes what was found, some at a time; how many.
async fn remove<K: Clone + Send + 'static>(
    store: &EmbeddedStore,
    found: Vec<K>,
    one: fn(&mut Tx<'_>, &K) -> Result<u64, Failure>,
) -> Result<u64, WorkError> {
    let mut removed = 0;
    for some in found.chunks(SOME) {
        let some = some.to_vec();
        removed += store
            .write(move |tx| {
                some.iter()
                    .map(|what| one(tx, what))
                    .sum::<Result<u64, _>>()
            })
            .await?;
    }
    Ok(removed)
}

fn remove_record(tx: &mut Tx<'_>, key: &Vec<u8>) -> Result<u64, Failure> {
    let there = tx.get(Space::Records, key)?.is_some();
    tx.remove(Space::Records, key);
    Ok(u64::from(there))
}

/// Removes entries of journals; how many, and the ids of their messages.
async fn remove_entries(
    store: &EmbeddedStore,
    found: Vec<Vec<u8>>,
) -> Result<(u64, Vec<String>), WorkError> {
    let (mut removed, mut ids) = (0, Vec::new());
    for some in found.chunks(SOME) {
        let some = some.to_vec();
        let (count, more) = store
            .write(move |tx| {
                let (mut count, mut ids) = (0, Vec::new());
                for key in &some {
                    let Some(value) = tx.get(Space::Records, key)? else {
                        continue;
                    };
                    let entry = Entry::decode(&Bytes::copy_from_slice(&value));
                    let message: Value = serde_json::from_slice(&entry.body).unwrap_or_default();
                    let id = message.get("message_id").and_then(Value::as_str);
                    ids.extend(id.map(str::to_owned));
                    remove_entry(tx, key)?;
                    count += 1;
                }
                Ok((count, ids))
            })
            .await?;
        removed += count;
        ids.extend(more);
    }
    Ok((removed, ids))
}

fn remove_entry(tx: &mut Tx<'_>, key: &[u8]) -> Result<(), Failure> {
    let mut parts = Parts::of(key);
    let queue = parts.name().ok_or(ENTRY)?;
    let group = parts.name().ok_or(ENTRY)?.to_owned();
    let number = parts.number().ok_or(ENTRY)?;
    let id = parts.number().ok_or(ENTRY)?;
    journal::remove_entry(tx, queue, &Lane { group, number }, id)
}
