//! A deep journal without the hours in which it grows: written as the engine writes it.

use super::PATIENCE;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vumi_core::state::journal::{About, Append, Due, Entry, Lane, Reason};
use vumi_core::state::redis::{RedisConfig, RedisStore};
use vumi_core::state::{Person, StateStore, StoreHealth};

/// Entries of one write.
const BATCH: usize = 2000;

/// Puts `messages` of so many `people` into the journal of `queue`: the first one of each waits for its next attempt for a day,
/// the others for it. `message` gives the address and the body of a person's `n`-th.
pub async fn fill(
    store: &dyn StateStore,
    queue: &str,
    messages: usize,
    people: usize,
    message: impl Fn(usize, usize) -> (String, Value),
) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap().as_millis() as u64;
    for batch in (0..messages).collect::<Vec<_>>().chunks(BATCH) {
        let batch = batch.iter().map(|n| {
            let (person, number) = (n % people, n / people);
            let (address, body) = message(person, number);
            let about = About {
                reason: if number == 0 {
                    Reason::Backoff
                } else {
                    Reason::Behind
                },
                since,
                attempts: u32::from(number == 0),
                counted: 0,
                code: String::new(),
                text: String::new(),
                routing_key: queue.into(),
                amqp_message_id: None,
            };
            Append {
                lane: Lane {
                    group: String::new(),
                    number: Person::new(&address).lane(),
                },
                due: Due::After(Duration::from_secs(24 * 3600)),
                entry: Entry {
                    about,
                    body: body.to_string().into(),
                },
            }
        });
        store.append(queue, batch.collect()).await.unwrap();
    }
}

/// A Redis as a state store, once it answers.
pub async fn opened(url: &str) -> Arc<dyn StateStore> {
    let store: Arc<dyn StateStore> = RedisStore::open(RedisConfig::from_url(url).unwrap());
    let mut health = store.health();
    let up = health.wait_for(|health| *health == StoreHealth::Up);
    tokio::time::timeout(PATIENCE, up).await.unwrap().unwrap();
    store
}
