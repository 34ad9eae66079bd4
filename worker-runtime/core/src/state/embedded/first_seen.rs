//! What was seen, in the embedded store: a record per provider's id, reserved or committed; committed ones of a scope stand
//! in the order of their commits, so that the oldest goes out first.

use super::EmbeddedStore;
use super::disk::{Failure, Space, Tx, View, millis};
use super::keys::{Key, Parts, fits, pack, tag, unpack};
use super::sweep::{self, NEVER};
use crate::error::WorkError;
use crate::state::Person;
use crate::state::first_seen::{FirstSeen, MAX_ANSWER, Reserved};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;

const SEEN: Failure = Failure::Damaged("a record of what was seen");

/// Put out with one commit when a bound was lowered; the next one goes on.
const PUT_OUT: u64 = 1000;

/// The place of what is reserved only.
const RESERVED: u64 = 0;

/// What is known of a provider's id.
#[derive(Debug, PartialEq)]
struct Seen {
    ends: u64,
    /// Place in the order of commits, or [`RESERVED`].
    place: u64,
    /// [`Person::key`], or nothing.
    person: String,
    answer: Bytes,
}

/// The committed ones of a scope.
struct Scope {
    count: u64,
    /// None is before this place.
    oldest: u64,
    next: u64,
}

fn seen_key(scope: &str, id: &str) -> Key {
    Key::new(tag::SEEN).name(scope).name(id)
}

fn order(scope: &str) -> Key {
    Key::new(tag::SEEN_ORDER).name(scope)
}

fn scope_key(scope: &str) -> Key {
    Key::new(tag::SEEN_SCOPE).name(scope)
}

fn decode(value: &[u8]) -> Option<Seen> {
    let (numbers, rest) = value.split_at_checked(16)?;
    let [ends, place] = unpack(numbers)?;
    let (length, rest) = rest.split_first()?;
    let (person, answer) = rest.split_at_checked(usize::from(*length))?;
    Some(Seen {
        ends,
        place,
        person: std::str::from_utf8(person).ok()?.to_owned(),
        answer: Bytes::copy_from_slice(answer),
    })
}

fn get(view: &impl View, key: &[u8]) -> Result<Option<Seen>, Failure> {
    let value = view.get(Space::Records, key)?;
    value.map(|value| decode(&value).ok_or(SEEN)).transpose()
}

fn set(tx: &mut Tx<'_>, key: &Key, before: Option<u64>, seen: &Seen) {
    let mut value = pack([seen.ends, seen.place]);
    value.push(seen.person.len() as u8);
    value.extend_from_slice(seen.person.as_bytes());
    value.extend_from_slice(&seen.answer);
    tx.insert(Space::Records, key, value);
    sweep::remind(tx, key.as_ref(), before, seen.ends);
}

fn scope(view: &impl View, name: &str) -> Result<Scope, Failure> {
    let [count, oldest, next] = match view.get(Space::Index, scope_key(name))? {
        Some(value) => unpack(&value).ok_or(SEEN)?,
        None => [0, RESERVED + 1, RESERVED + 1],
    };
    Ok(Scope {
        count,
        oldest,
        next,
    })
}

fn set_scope(tx: &mut Tx<'_>, name: &str, scope: &Scope) {
    let value = pack([scope.count, scope.oldest, scope.next]);
    tx.insert(Space::Index, scope_key(name), value);
}

/// Removes a record; whether it was there.
pub(super) fn remove(tx: &mut Tx<'_>, key: &[u8]) -> Result<bool, Failure> {
    let Some(seen) = get(tx, key)? else {
        return Ok(false);
    };
    tx.remove(Space::Records, key);
    if seen.place != RESERVED {
        let name = Parts::of(key).name().ok_or(SEEN)?.to_owned();
        let mut scope = scope(tx, &name)?;
        scope.count = scope.count.saturating_sub(1);
        set_scope(tx, &name, &scope);
        tx.remove(Space::Index, order(&name).number(seen.place));
    }
    Ok(true)
}

/// When a record ends.
pub(super) fn ends(view: &impl View, key: &[u8]) -> Result<Option<u64>, Failure> {
    Ok(get(view, key)?.map(|seen| seen.ends))
}

/// Whose answer a record holds: [`Person::key`].
pub(super) fn person(value: &[u8]) -> Result<String, Failure> {
    Ok(decode(value).ok_or(SEEN)?.person)
}

/// What a record says now.
fn known(seen: Option<Seen>, now: u64) -> Reserved {
    match seen.filter(|seen| seen.ends > now) {
        None => Reserved::First,
        Some(seen) if seen.place == RESERVED => {
            Reserved::Pending(Duration::from_millis(seen.ends - now))
        }
        Some(seen) => Reserved::Seen(seen.answer),
    }
}

fn reserve(tx: &mut Tx<'_>, key: &Key, hold: Duration) -> Result<Reserved, Failure> {
    let now = tx.now();
    let old = get(tx, key.as_ref())?;
    let is_there = old.is_some();
    let known = known(old, now);
    if known != Reserved::First {
        return Ok(known);
    }
    // One that has ended.
    if is_there {
        remove(tx, key.as_ref())?;
    }
    let seen = Seen {
        ends: now.saturating_add(millis(hold)).min(NEVER - 1),
        place: RESERVED,
        person: String::new(),
        answer: Bytes::new(),
    };
    set(tx, key, None, &seen);
    Ok(Reserved::First)
}

/// How many were put out early.
fn commit(
    tx: &mut Tx<'_>,
    name: &str,
    id: &str,
    answer: Bytes,
    person: String,
    keep: Duration,
    bound: u64,
) -> Result<u64, Failure> {
    let now = tx.now();
    let key = seen_key(name, id);
    let old = get(tx, key.as_ref())?;
    if old
        .as_ref()
        .is_some_and(|old| old.ends > now && !old.answer.is_empty())
    {
        return Ok(0);
    }
    let before = old.map(|old| old.ends);
    remove(tx, key.as_ref())?;
    let mut scope = scope(tx, name)?;
    let seen = Seen {
        ends: now.saturating_add(millis(keep)).min(NEVER - 1),
        place: scope.next,
        person,
        answer,
    };
    set(tx, &key, before, &seen);
    let place = order(name).number(scope.next);
    tx.insert(Space::Index, place, id);
    scope.next += 1;
    scope.count += 1;
    let over = scope.count.saturating_sub(bound).min(PUT_OUT);
    let mut early = 0;
    let first = order(name).number(scope.oldest);
    let oldest = tx.from(Space::Index, &order(name), first.as_ref());
    for item in oldest.take(usize::try_from(over).unwrap_or(usize::MAX)) {
        let (place, id) = item.into_inner()?;
        let id = std::str::from_utf8(&id).map_err(|_| SEEN)?;
        let key = seen_key(name, id);
        early += u64::from(ends(tx, key.as_ref())?.is_some_and(|ends| ends > now));
        tx.remove(Space::Records, key);
        tx.remove(Space::Index, &place);
        let place = place.last_chunk().ok_or(SEEN)?;
        scope.oldest = u64::from_be_bytes(*place) + 1;
        scope.count -= 1;
    }
    set_scope(tx, name, &scope);
    Ok(early)
}

#[async_trait]
impl FirstSeen for EmbeddedStore {
    async fn reserve(&self, scope: &str, id: &str, hold: Duration) -> Result<Reserved, WorkError> {
        fits([scope, id])?;
        let key = seen_key(scope, id);
        self.write(move |tx| reserve(tx, &key, hold)).await
    }

    async fn look(&self, scope: &str, id: &str) -> Result<Reserved, WorkError> {
        fits([scope, id])?;
        let key = seen_key(scope, id);
        self.read(move |view| Ok(known(get(view, key.as_ref())?, view.now())))
            .await
    }

    async fn commit(
        &self,
        scope: &str,
        id: &str,
        answer: Bytes,
        person: Option<&Person>,
        keep: Duration,
        bound: u64,
    ) -> Result<u64, WorkError> {
        fits([scope, id])?;
        let (scope, id) = (scope.to_owned(), id.to_owned());
        let person = person.map(Person::key).unwrap_or_default();
        let answer = answer.slice(..answer.len().min(MAX_ANSWER));
        self.write(move |tx| commit(tx, &scope, &id, answer, person, keep, bound))
            .await
    }

    async fn release(&self, scope: &str, id: &str) -> Result<(), WorkError> {
        fits([scope, id])?;
        let key = seen_key(scope, id);
        self.write(move |tx| {
            let found = get(tx, key.as_ref())?;
            if found.is_some_and(|seen| seen.place == RESERVED) {
                tx.remove(Space::Records, &key);
            }
            Ok(())
        })
        .await
    }
}
