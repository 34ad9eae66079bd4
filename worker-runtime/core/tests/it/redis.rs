//! The state store on a real Redis: getting in, Vumi's layout, what a write survives, and what happens when Redis is
//! away, frozen, killed or replaced. What every store must do is in [`crate::state_suite`].

mod access;
mod durability;
mod faults;
mod measure;
mod sentinel;
mod unreadable;
mod vumi;

use std::sync::Arc;
use std::time::Duration;
use vumi_core::state::redis::{RedisConfig, RedisStore};
use vumi_core::state::{StateStore, StoreHealth};
use vumi_testkit::redis::Redis;

/// Longest wait for what must happen; the machine is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn store(redis: &Redis) -> Arc<RedisStore> {
    RedisStore::open(RedisConfig::from_url(&redis.url(0)).expect("url"))
}

/// Waits until the store answers.
pub(crate) async fn up(store: &RedisStore) {
    let mut health = store.health();
    let answers = health.wait_for(|health| *health == StoreHealth::Up);
    if !matches!(tokio::time::timeout(PATIENCE, answers).await, Ok(Ok(_))) {
        panic!("the store stays {:?}", *store.health().borrow());
    }
}

/// Waits until the store does not answer for a reason that holds this text.
pub(crate) async fn away(store: &RedisStore, text: &str) -> String {
    let mut health = store.health();
    let told =
        |health: &StoreHealth| matches!(health, StoreHealth::Away(why) if why.contains(text));
    match tokio::time::timeout(PATIENCE, health.wait_for(told)).await {
        Ok(Ok(health)) => match &*health {
            StoreHealth::Away(why) => why.clone(),
            StoreHealth::Up => unreachable!(),
        },
        _ => panic!("the store stays {:?}", *store.health().borrow()),
    }
}
