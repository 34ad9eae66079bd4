//! Sessions in the embedded store: a record per user, with its end before its fields.

use super::EmbeddedStore;
use super::disk::{Failure, Space, Tx, View, millis};
use super::keys::{Key, Parts, fits, tag, unpack};
use super::sweep::{self, NEVER};
use crate::error::WorkError;
use crate::state::sessions::{Change, Session, Sessions};
use async_trait::async_trait;
use std::time::Duration;

const SESSION: Failure = Failure::Damaged("a session");

fn key(scope: &str, user: &str) -> Key {
    Key::new(tag::SESSION).name(scope).name(user)
}

/// When a session begins, as its field `created_at` says it.
fn created(now: u64) -> String {
    format!("{}.{:03}", now / 1000, now % 1000)
}

fn end(now: u64, keep: Duration) -> u64 {
    now.saturating_add(millis(keep)).min(NEVER - 1)
}

fn decode(value: &[u8]) -> Result<(u64, Session), Failure> {
    let (ends, fields) = value.split_at_checked(8).ok_or(SESSION)?;
    let [ends] = unpack(ends).ok_or(SESSION)?;
    Ok((ends, serde_json::from_slice(fields).map_err(|_| SESSION)?))
}

/// The end and the fields of a session that has not ended.
fn get(view: &impl View, key: &Key) -> Result<Option<(u64, Session)>, Failure> {
    let value = view.get(Space::Records, key)?;
    let found = value.map(|value| decode(&value)).transpose()?;
    Ok(found.filter(|(ends, _)| *ends > view.now()))
}

fn set(tx: &mut Tx<'_>, key: &Key, ends: u64, fields: &Session) -> Result<(), Failure> {
    let before = self::ends(tx, key.as_ref())?;
    let fields = serde_json::to_vec(fields).map_err(|_| SESSION)?;
    tx.insert(
        Space::Records,
        key,
        [&ends.to_be_bytes()[..], &fields].concat(),
    );
    if ends != NEVER {
        sweep::remind(tx, key.as_ref(), before, ends);
    }
    Ok(())
}

/// When a session ends.
pub(super) fn ends(view: &impl View, key: &[u8]) -> Result<Option<u64>, Failure> {
    let value = view.get(Space::Records, key)?;
    Ok(value
        .map(|value| decode(&value))
        .transpose()?
        .map(|(ends, _)| ends))
}

/// The user in a session's key.
pub(super) fn user(key: &[u8]) -> Result<&str, Failure> {
    let mut parts = Parts::of(key);
    parts.name().and_then(|_| parts.name()).ok_or(SESSION)
}

#[async_trait]
impl Sessions for EmbeddedStore {
    async fn create(
        &self,
        scope: &str,
        user: &str,
        mut fields: Session,
        keep: Option<Duration>,
    ) -> Result<Session, WorkError> {
        fits([scope, user])?;
        let key = key(scope, user);
        self.write(move |tx| {
            let now = tx.now();
            fields.insert("created_at".into(), created(now));
            set(tx, &key, keep.map_or(NEVER, |keep| end(now, keep)), &fields)?;
            Ok(fields)
        })
        .await
    }

    async fn load(&self, scope: &str, user: &str) -> Result<Option<Session>, WorkError> {
        fits([scope, user])?;
        let key = key(scope, user);
        self.read(move |look| Ok(get(look, &key)?.map(|(_, fields)| fields)))
            .await
    }

    async fn save(&self, scope: &str, user: &str, fields: Session) -> Result<bool, WorkError> {
        fits([scope, user])?;
        let key = key(scope, user);
        self.write(move |tx| {
            let Some((ends, mut all)) = get(tx, &key)? else {
                return Ok(false);
            };
            all.extend(fields);
            set(tx, &key, ends, &all)?;
            Ok(true)
        })
        .await
    }

    async fn extend(&self, scope: &str, user: &str, keep: Duration) -> Result<bool, WorkError> {
        fits([scope, user])?;
        let key = key(scope, user);
        self.write(move |tx| {
            let Some((_, fields)) = get(tx, &key)? else {
                return Ok(false);
            };
            let ends = end(tx.now(), keep);
            set(tx, &key, ends, &fields)?;
            Ok(true)
        })
        .await
    }

    async fn clear(&self, scope: &str, user: &str) -> Result<Option<Session>, WorkError> {
        fits([scope, user])?;
        let key = key(scope, user);
        self.write(move |tx| {
            let found = get(tx, &key)?;
            tx.remove(Space::Records, &key);
            Ok(found.map(|(_, fields)| fields))
        })
        .await
    }

    async fn change(&self, changes: &[Change]) -> Result<bool, WorkError> {
        for change in changes {
            fits([change.scope.as_str(), change.user.as_str()])?;
        }
        let changes = changes.to_vec();
        self.write(move |tx| {
            for change in &changes {
                let held = get(tx, &key(&change.scope, &change.user))?;
                if held.map(|(_, fields)| fields) != change.before {
                    return Ok(false);
                }
            }
            let now = tx.now();
            for change in &changes {
                let key = key(&change.scope, &change.user);
                let mut after = change.after.clone();
                if let (None, Some(fields)) = (&change.before, &mut after) {
                    let created_at = fields.entry("created_at".into());
                    created_at.or_insert_with(|| created(now));
                }
                let Some(fields) = after.filter(|fields| !fields.is_empty()) else {
                    tx.remove(Space::Records, &key);
                    continue;
                };
                let ends = change.keep.map_or(NEVER, |keep| end(now, keep));
                set(tx, &key, ends, &fields)?;
            }
            Ok(true)
        })
        .await
    }

    async fn active(&self, scope: &str, limit: usize) -> Result<Vec<String>, WorkError> {
        fits([scope])?;
        let under = Key::new(tag::SESSION).name(scope);
        self.read(move |look| {
            let mut users = Vec::new();
            for item in look.all(Space::Records, &under) {
                if users.len() >= limit {
                    break;
                }
                let (key, value) = item.into_inner()?;
                if decode(&value)?.0 > look.now() {
                    users.push(user(&key)?.to_owned());
                }
            }
            Ok(users)
        })
        .await
    }

    async fn begin(&self, namespace: &str, user: &str, keep: Duration) -> Result<f64, WorkError> {
        let session = self
            .create(&clock(namespace), user, Session::new(), Some(keep))
            .await?;
        Ok(created_at(&session).unwrap_or_default())
    }

    async fn begun(&self, namespace: &str, user: &str) -> Result<Option<f64>, WorkError> {
        let session = self.load(&clock(namespace), user).await?;
        Ok(session.as_ref().and_then(created_at))
    }

    async fn end(&self, namespace: &str, user: &str) -> Result<Option<f64>, WorkError> {
        let session = self.clear(&clock(namespace), user).await?;
        Ok(session.as_ref().and_then(created_at))
    }
}

/// The scope of beginnings: a session without texts. No worker's name has a colon.
fn clock(namespace: &str) -> String {
    format!("{namespace}:session_created")
}

fn created_at(session: &Session) -> Option<f64> {
    session.get("created_at")?.parse().ok()
}
