//! The ledger: a text for each row, and sorted sets by state, deadline and person. A row's names stand before its JSON,
//! so that a script need not read that.

use super::RedisStore;
use super::errors::unreadable;
use super::keys::{name, part};
use super::script::{at_most, millis, script};
use crate::error::WorkError;
use crate::state::ledger::{
    Counts, Ledger, LeftTo, MAX_STEPS, Note, Put, Query, Row, RowState, Step,
};
use async_trait::async_trait;
use redis::ScriptInvocation;
use serde::de::DeserializeOwned;
use std::time::Duration;

#[async_trait]
impl Ledger for RedisStore {
    async fn put(
        &self,
        row: &Row,
        expected: Option<u64>,
        keep: Duration,
    ) -> Result<Put, WorkError> {
        let text = |number: Option<u64>| number.map_or(String::new(), |n| n.to_string());
        let named = |name: &Option<String>| name.as_deref().map_or(String::new(), part);
        let deadline = row.deadline.filter(|_| !row.state.is_final());
        let json = serde_json::to_string(row).map_err(|_| unreadable("a row"))?;
        let mut call = self.ledger(script!("ledger_lib", "put"));
        call.arg(part(&row.message_id))
            .arg(text(expected))
            .arg(row.version)
            .arg(row.state.as_str())
            .arg(u8::from(row.state.is_final()))
            .arg(millis(keep))
            .arg(row.born)
            .arg(part(&row.account))
            .arg(named(&row.person))
            .arg(named(&row.remote_id))
            .arg(text(deadline))
            .arg(json)
            .arg(named(&row.batch))
            .arg(deadlines(row.left_to()));
        let stays: Option<String> = self.link.script(&call).await?;
        Ok(match stays {
            None => Put::Stored,
            Some(json) => Put::Conflict(Box::new(read(&json)?)),
        })
    }

    async fn row(&self, message_id: &str) -> Result<Option<Row>, WorkError> {
        let mut call = self.ledger(script!("ledger_lib", "row"));
        call.arg(part(message_id));
        self.one(&call).await
    }

    async fn by_remote_id(&self, account: &str, remote_id: &str) -> Result<Option<Row>, WorkError> {
        let mut call = self.ledger(script!("ledger_lib", "by_remote_id"));
        call.arg(part(account)).arg(part(remote_id));
        self.one(&call).await
    }

    async fn live(&self, worker: &str, hold: Duration) -> Result<(), WorkError> {
        let mut set = redis::cmd("SET");
        set.arg(self.keys.life(worker)).arg(1);
        set.arg("PX").arg(millis(hold));
        self.link.command(&set).await
    }

    async fn lives(&self, worker: &str) -> Result<bool, WorkError> {
        let mut exists = redis::cmd("EXISTS");
        exists.arg(self.keys.life(worker));
        self.link.command(&exists).await
    }

    async fn note(&self, notes: &[Note], keep: Duration) -> Result<(), WorkError> {
        let mut call = self.ledger(script!("ledger_lib", "note"));
        call.arg(millis(keep)).arg(MAX_STEPS);
        for note in notes {
            let json = serde_json::to_string(&note.step).map_err(|_| unreadable("a step"))?;
            call.arg(part(&note.message_id))
                .arg(note.person.as_deref().map_or(String::new(), part))
                .arg(note.step.at)
                .arg(json);
        }
        self.link.script(&call).await
    }

    async fn trail(&self, message_id: &str) -> Result<Vec<Step>, WorkError> {
        let mut call = self.ledger(script!("ledger_lib", "trail"));
        call.arg(part(message_id));
        let steps: Vec<String> = self.link.script(&call).await?;
        let mut steps: Vec<Step> = steps
            .iter()
            .map(|json| read(json))
            .collect::<Result<_, _>>()?;
        steps.sort_by_key(|step| step.at);
        Ok(steps)
    }

    async fn find(&self, query: &Query, limit: usize) -> Result<Vec<String>, WorkError> {
        let mut call = self.ledger(script!("ledger_lib", "find"));
        call.arg(at_most(limit));
        match query {
            Query::Message(id) => call.arg("message").arg(part(id)),
            Query::Person(key) => call.arg("person").arg(part(key)),
            Query::Between(from, to) => call
                .arg("between")
                .arg(from)
                .arg(to)
                .arg(&RowState::ALL.map(RowState::as_str)[..]),
        };
        self.ids(&call).await
    }

    async fn counts(&self) -> Result<Counts, WorkError> {
        let mut call = self.ledger(script!("ledger_lib", "counts"));
        call.arg(&RowState::ALL.map(RowState::as_str)[..]);
        let rows: Vec<(String, String, u64)> = self.link.script(&call).await?;
        let counts = rows.into_iter().map(|(account, state, count)| {
            let state = RowState::ALL.into_iter().find(|s| s.as_str() == state);
            let state = state.ok_or_else(|| unreadable("a state"))?;
            Ok(((name(&account), state), count))
        });
        counts.collect()
    }

    async fn overdue(
        &self,
        account: &str,
        left_to: LeftTo,
        skip: usize,
        limit: usize,
    ) -> Result<(u64, Vec<String>), WorkError> {
        let mut call = self.ledger(script!("ledger_lib", "overdue"));
        call.arg(part(account))
            .arg(deadlines(left_to))
            .arg(at_most(skip))
            .arg(at_most(limit));
        let (count, ids): (u64, Vec<String>) = self.link.script(&call).await?;
        Ok((count, ids.iter().map(|id| name(id)).collect()))
    }

    async fn in_state(
        &self,
        account: &str,
        state: RowState,
        limit: usize,
    ) -> Result<Vec<String>, WorkError> {
        let mut call = self.ledger(script!("ledger_lib", "in_state"));
        call.arg(part(account))
            .arg(state.as_str())
            .arg(at_most(limit));
        self.ids(&call).await
    }
}

/// Which sorted set by deadline.
fn deadlines(left_to: LeftTo) -> &'static str {
    match left_to {
        LeftTo::Rules => "d",
        LeftTo::Person => "w",
    }
}

impl RedisStore {
    pub(super) fn ledger<'a>(&self, script: &'a redis::Script) -> ScriptInvocation<'a> {
        script.key(self.keys.ledger())
    }

    async fn one(&self, call: &ScriptInvocation<'_>) -> Result<Option<Row>, WorkError> {
        let json: Option<String> = self.link.script(call).await?;
        json.map(|json| read(&json)).transpose()
    }

    async fn ids(&self, call: &ScriptInvocation<'_>) -> Result<Vec<String>, WorkError> {
        let ids: Vec<String> = self.link.script(call).await?;
        Ok(ids.iter().map(|id| name(id)).collect())
    }
}

fn read<T: DeserializeOwned>(json: &str) -> Result<T, WorkError> {
    serde_json::from_str(json).map_err(|_| unreadable("a row or step of the ledger"))
}
