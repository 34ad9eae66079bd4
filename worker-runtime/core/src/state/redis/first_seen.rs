//! What was seen: a key with an end for each id, and for each scope the order in which they were committed.

use super::RedisStore;
use super::errors::unreadable;
use super::keys::part;
use super::script::{millis, script};
use crate::error::WorkError;
use crate::state::Person;
use crate::state::first_seen::{FirstSeen, MAX_ANSWER, Reserved};
use async_trait::async_trait;
use bytes::Bytes;
use redis::{FromRedisValue, Value};
use std::time::Duration;

#[async_trait]
impl FirstSeen for RedisStore {
    async fn reserve(&self, scope: &str, id: &str, hold: Duration) -> Result<Reserved, WorkError> {
        // Most are new, and a script costs the server several times as much as this.
        let mut take = redis::cmd("SET");
        take.arg(self.keys.seen(scope, id)).arg("P");
        take.arg("NX").arg("PX").arg(millis(hold));
        if let Value::Okay = self.link.command(&take).await? {
            return Ok(Reserved::First);
        }
        let mut call = script!("seen_lib", "reserve").key(self.keys.first_seen());
        call.arg(part(scope)).arg(part(id)).arg(millis(hold));
        let answer: Vec<Value> = self.link.script(&call).await?;
        reserved(answer).ok_or_else(|| unreadable("a reservation"))
    }

    async fn look(&self, scope: &str, id: &str) -> Result<Reserved, WorkError> {
        let mut call = script!("seen_lib", "look").key(self.keys.first_seen());
        call.arg(part(scope)).arg(part(id));
        let answer: Vec<Value> = self.link.script(&call).await?;
        reserved(answer).ok_or_else(|| unreadable("what was seen"))
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
        let answer = &answer[..answer.len().min(MAX_ANSWER)];
        let mut call = script!("commit").key(self.keys.first_seen());
        call.arg(part(scope))
            .arg(part(id))
            .arg(answer)
            .arg(person.map_or(String::new(), Person::key))
            .arg(millis(keep))
            .arg(bound);
        self.link.script(&call).await
    }

    async fn release(&self, scope: &str, id: &str) -> Result<(), WorkError> {
        let mut call = script!("release").key(self.keys.first_seen());
        call.arg(part(scope)).arg(part(id));
        self.link.script(&call).await
    }
}

fn reserved(answer: Vec<Value>) -> Option<Reserved> {
    let mut answer = answer.into_iter();
    let word = String::from_redis_value(answer.next()?).ok()?;
    match word.as_str() {
        "first" => Some(Reserved::First),
        "pending" => {
            let rest = i64::from_redis_value(answer.next()?).ok()?;
            Some(Reserved::Pending(Duration::from_millis(
                rest.max(0).unsigned_abs(),
            )))
        }
        "seen" => Some(Reserved::Seen(
            Bytes::from_redis_value(answer.next()?).ok()?,
        )),
        _ => None,
    }
}
