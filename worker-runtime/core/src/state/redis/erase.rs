//! Removes what is kept of a person. The ledger and what was seen have indexes by person; sessions, journals and
//! suspects are looked through, step by step.

use super::RedisStore;
use super::keys::{SESSION_CREATED, literal, name};
use super::script::script;
use crate::error::WorkError;
use crate::state::journal::{Filter, Journal};
use crate::state::ledger::{Ledger, Query};
use crate::state::{Erased, Person};
use std::collections::HashSet;

/// Messages whose rows go in one step.
const SOME: usize = 500;

pub(super) async fn erase(store: &RedisStore, person: &Person) -> Result<Vec<Erased>, WorkError> {
    let sessions = sessions(store, person).await?;
    // Rows last: until they are gone, a repeated call finds by them what this one missed.
    let mut ids = known(store, person).await?;
    let journal = journal(store, person, &mut ids).await?;
    let suspects = suspects(store, &ids).await?;
    let mut call = script!("erase_seen").key(store.keys.first_seen());
    call.arg(person.key());
    let seen: u64 = store.link.script(&call).await?;
    let ledger = ledger(store, person).await?;
    let erased = [
        ("sessions", sessions),
        ("journal", journal),
        ("ledger", ledger),
        ("firstSeen", seen),
        ("suspects", suspects),
    ];
    let erased = erased.map(|(what, count)| Erased {
        what: what.to_owned(),
        count,
    });
    Ok(erased.into())
}

async fn sessions(store: &RedisStore, person: &Person) -> Result<u64, WorkError> {
    let root = literal(store.keys.root());
    let is_theirs = |key: &&String| {
        let user = store.keys.session_user(key);
        user.is_some_and(|user| person.owns(user))
            || store.keys.is_session_created(key, |user| person.owns(user))
    };
    let mut erased = 0;
    for pattern in [
        format!("{root}*session:*"),
        format!("{root}*{}", literal(SESSION_CREATED)),
    ] {
        let mut search = store.search(&pattern);
        while let Some(keys) = search.next().await? {
            erased += delete(store, keys.iter().filter(is_theirs)).await?;
        }
    }
    Ok(erased)
}

/// Messages of the person that the ledger knows.
async fn known(store: &RedisStore, person: &Person) -> Result<HashSet<String>, WorkError> {
    let query = Query::Person(person.key());
    let ids = store.find(&query, usize::MAX).await?;
    Ok(ids.into_iter().collect())
}

async fn journal(
    store: &RedisStore,
    person: &Person,
    ids: &mut HashSet<String>,
) -> Result<u64, WorkError> {
    let mut erased = 0;
    for queue in store.queues().await? {
        let mut walk = store.look(&queue).await?;
        while let Some(page) = walk.next(SOME).await? {
            let theirs: Vec<_> = page
                .iter()
                .filter(|listed| person.is_in(&listed.entry.body, ids))
                .collect();
            ids.extend(
                theirs
                    .iter()
                    .filter_map(|listed| message_id(&listed.entry.body)),
            );
            for group in theirs.chunk_by(|a, b| a.lane == b.lane) {
                let filter = Filter {
                    ids: Some(group.iter().map(|listed| listed.id).collect()),
                    group: Some(group[0].lane.group.clone()),
                    lane: Some(group[0].lane.number),
                    ..Filter::default()
                };
                erased += store.remove(&queue, &filter, group.len()).await? as u64;
            }
        }
        let outgoing = store.outgoing(&queue, usize::MAX).await?;
        let theirs = outgoing.iter();
        let theirs = theirs.filter(|one| person.is_in(&one.entry.body, ids));
        let theirs: Vec<u64> = theirs.map(|one| one.id).collect();
        erased += store.left(&queue, &theirs).await?;
    }
    Ok(erased)
}

fn message_id(body: &[u8]) -> Option<String> {
    let message: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(message.get("message_id")?.as_str()?.to_owned())
}

async fn suspects(store: &RedisStore, ids: &HashSet<String>) -> Result<u64, WorkError> {
    let mut search = store.search(&format!("{}*", literal(&store.keys.suspects())));
    let mut erased = 0;
    while let Some(keys) = search.next().await? {
        let is_theirs = |key: &&String| {
            let id = key.rsplit(':').next().map(name);
            id.is_some_and(|id| ids.contains(&id))
        };
        erased += delete(store, keys.iter().filter(is_theirs)).await?;
    }
    Ok(erased)
}

async fn delete<'a>(
    store: &RedisStore,
    keys: impl Iterator<Item = &'a String>,
) -> Result<u64, WorkError> {
    let mut command = redis::cmd("DEL");
    let mut any = false;
    for key in keys {
        command.arg(key);
        any = true;
    }
    match any {
        true => store.link.command(&command).await,
        false => Ok(0),
    }
}

async fn ledger(store: &RedisStore, person: &Person) -> Result<u64, WorkError> {
    let mut erased = 0;
    loop {
        let mut call = store.ledger(script!("ledger_lib", "erase_ledger"));
        call.arg(person.key()).arg(SOME);
        let (removed, ids): (u64, Vec<String>) = store.link.script(&call).await?;
        erased += removed;
        if ids.is_empty() {
            return Ok(erased);
        }
    }
}
