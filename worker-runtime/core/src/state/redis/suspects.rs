//! Suspects: a set of lives, with an end, for each message that was begun again.

use super::RedisStore;
use super::script::{millis, script};
use crate::error::WorkError;
use crate::state::suspects::Suspects;
use async_trait::async_trait;
use std::time::Duration;

#[async_trait]
impl Suspects for RedisStore {
    async fn begun_in(&self, queue: &str, id: &str) -> Result<Vec<u64>, WorkError> {
        let key = self.keys.suspect(queue, id);
        self.link.command(redis::cmd("SMEMBERS").arg(key)).await
    }

    async fn suspect(
        &self,
        queue: &str,
        id: &str,
        life: u64,
        keep: Duration,
    ) -> Result<u32, WorkError> {
        let mut call = script!("suspect").key(self.keys.suspect(queue, id));
        call.arg(life).arg(millis(keep));
        self.link.script(&call).await
    }

    async fn spare(&self, queue: &str, id: &str, life: u64) -> Result<(), WorkError> {
        let key = self.keys.suspect(queue, id);
        self.link
            .command(redis::cmd("SREM").arg(key).arg(life))
            .await
    }

    async fn acquit(&self, queue: &str, id: &str) -> Result<(), WorkError> {
        let key = self.keys.suspect(queue, id);
        self.link.command(redis::cmd("DEL").arg(key)).await
    }
}
