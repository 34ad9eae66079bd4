//! Sessions in Vumi's layout: a hash of texts, whose end is set when it is created. A session that is over is not saved
//! (in Vumi it then never ended). Beginnings are in the layout of Vumi's session length middleware.

use super::RedisStore;
use super::keys::literal;
use super::script::{millis, script};
use crate::error::WorkError;
use crate::state::sessions::{Change, Session, Sessions};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::time::Duration;

/// Keys that one step of a search looks at.
const STEP: usize = 1000;

#[async_trait]
impl Sessions for RedisStore {
    async fn create(
        &self,
        scope: &str,
        user: &str,
        fields: Session,
        keep: Option<Duration>,
    ) -> Result<Session, WorkError> {
        let keep = keep.map_or(String::new(), |keep| millis(keep).to_string());
        let mut call = script!("session_create").key(self.keys.session(scope, user));
        call.arg(keep);
        for (name, text) in fields {
            call.arg(name).arg(text);
        }
        self.link.script(&call).await.map(texts)
    }

    async fn load(&self, scope: &str, user: &str) -> Result<Option<Session>, WorkError> {
        let key = self.keys.session(scope, user);
        let held = self.link.command(redis::cmd("HGETALL").arg(key)).await?;
        Ok(held_or_none(held))
    }

    async fn save(&self, scope: &str, user: &str, fields: Session) -> Result<bool, WorkError> {
        let mut call = script!("session_save").key(self.keys.session(scope, user));
        for (name, text) in fields {
            call.arg(name).arg(text);
        }
        self.link.script(&call).await
    }

    async fn extend(&self, scope: &str, user: &str, keep: Duration) -> Result<bool, WorkError> {
        let key = self.keys.session(scope, user);
        self.link
            .command(redis::cmd("PEXPIRE").arg(key).arg(millis(keep)))
            .await
    }

    async fn clear(&self, scope: &str, user: &str) -> Result<Option<Session>, WorkError> {
        let call = script!("session_clear").key(self.keys.session(scope, user));
        Ok(held_or_none(self.link.script(&call).await?))
    }

    async fn change(&self, changes: &[Change]) -> Result<bool, WorkError> {
        let mut call = script!("session_change").prepare_invoke();
        for change in changes {
            call.key(self.keys.session(&change.scope, &change.user));
            call.arg(pairs(change.before.as_ref()));
            call.arg(pairs(change.after.as_ref()));
            let keep = change.keep.map_or(0, millis);
            call.arg(keep);
        }
        self.link.script(&call).await
    }

    async fn active(&self, scope: &str, limit: usize) -> Result<Vec<String>, WorkError> {
        let prefix = self.keys.sessions(scope);
        let mut users = BTreeSet::new();
        let mut search = self.search(&format!("{}*", literal(&prefix)));
        while let Some(keys) = search.next().await? {
            let found = keys
                .iter()
                .filter_map(|key| key.strip_prefix(prefix.as_str()));
            users.extend(found.map(str::to_owned));
            if users.len() >= limit {
                break;
            }
        }
        Ok(users.into_iter().take(limit).collect())
    }

    async fn begin(&self, namespace: &str, user: &str, keep: Duration) -> Result<f64, WorkError> {
        let mut call = script!("session_begin").key(self.keys.session_created(namespace, user));
        call.arg(millis(keep));
        self.link.script(&call).await
    }

    async fn begun(&self, namespace: &str, user: &str) -> Result<Option<f64>, WorkError> {
        let key = self.keys.session_created(namespace, user);
        self.link.command(redis::cmd("GET").arg(key)).await
    }

    async fn end(&self, namespace: &str, user: &str) -> Result<Option<f64>, WorkError> {
        let key = self.keys.session_created(namespace, user);
        self.link.command(redis::cmd("GETDEL").arg(key)).await
    }
}

type Held = Vec<(Vec<u8>, Vec<u8>)>;

/// Python 2 wrote bytes; what is no text is shown as well as it can be.
fn texts(held: Held) -> Session {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    held.into_iter().map(|(k, v)| (text(k), text(v))).collect()
}

fn held_or_none(held: Held) -> Option<Session> {
    (!held.is_empty()).then(|| texts(held))
}

/// Names and texts in turn, as a JSON list; empty for no session.
fn pairs(session: Option<&Session>) -> String {
    let Some(session) = session else {
        return String::new();
    };
    let pairs: Vec<&str> = session
        .iter()
        .flat_map(|(name, text)| [name.as_str(), text.as_str()])
        .collect();
    serde_json::json!(pairs).to_string()
}

/// A search through all keys, step by step, so that Redis serves others in between. A key may be found twice.
pub(super) struct Search<'a> {
    store: &'a RedisStore,
    pattern: String,
    cursor: Option<u64>,
}

impl RedisStore {
    pub(super) fn search(&self, pattern: &str) -> Search<'_> {
        Search {
            store: self,
            pattern: pattern.to_owned(),
            cursor: Some(0),
        }
    }
}

impl Search<'_> {
    /// The keys of one step; none when it is over.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<String>>, WorkError> {
        let Some(cursor) = self.cursor else {
            return Ok(None);
        };
        let mut command = redis::cmd("SCAN");
        command
            .arg(cursor)
            .arg("MATCH")
            .arg(&self.pattern)
            .arg("COUNT")
            .arg(STEP);
        let (cursor, keys): (u64, Vec<Vec<u8>>) = self.store.link.command(&command).await?;
        self.cursor = (cursor != 0).then_some(cursor);
        // Ours are texts.
        let keys = keys
            .into_iter()
            .filter_map(|key| String::from_utf8(key).ok());
        Ok(Some(keys.collect()))
    }
}
