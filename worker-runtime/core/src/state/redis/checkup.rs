//! A look at a Redis before workers depend on it: who answers, what a write survives, what we may do there, and its clock.

use super::config::RedisConfig;
use super::dial;
use crate::broker::Durability;
use crate::checkup::{Finding, Level};
use crate::clock;
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Clocks further apart than this are worth a word: due times, deadlines and retention are the store's.
const SKEW: Duration = Duration::from_secs(2);

/// Looks at a Redis.
pub async fn checkup(config: &RedisConfig) -> Vec<Finding> {
    let about = format!("state store {}", config.describe());
    let (mut connection, server) = match dial::connect(config).await {
        Ok(up) => up,
        Err(error) => {
            return vec![Finding::new(
                Level::Problem,
                &about,
                error.text,
                error.code.fix,
            )];
        }
    };
    let says = format!(
        "Redis {}, durability {}",
        server.version,
        server.durability.as_str()
    );
    let mut found = vec![match (server.doubt, server.durability) {
        (Some(doubt), Durability::Memory) => Finding::new(
            Level::Warning,
            &about,
            format!("{says}: {doubt}"),
            "Set `appendonly yes` and `appendfsync everysec` or `always`, and `maxmemory-policy noeviction`.",
        ),
        (Some(doubt), _) => Finding::new(Level::Note, &about, format!("{says}: {doubt}"), ""),
        (None, _) => Finding::good(&about, says),
    }];
    found.push(rights(&about, &mut connection, &config.keys().probe()).await);
    found.push(time(&about, &mut connection).await);
    found
}

/// Writes and removes the key that a store which refused writes is tried with, by a script as all operations are.
async fn rights(about: &str, connection: &mut MultiplexedConnection, key: &str) -> Finding {
    let script = redis::Script::new(
        "redis.call('SET', KEYS[1], '1', 'EX', 60) return redis.call('DEL', KEYS[1])",
    );
    let done: RedisResult<i64> = script.key(key).invoke_async(connection).await;
    match done {
        Ok(_) => Finding::good(about, "we may write and run scripts"),
        Err(error) => Finding::new(
            Level::Problem,
            about,
            format!("it does not take a write by a script: {error}"),
            "Give the user the keys below the prefix and the commands that scripts use: `ACL SETUSER NAME ~vumi:* +@all -@dangerous +info`.",
        ),
    }
}

async fn time(about: &str, connection: &mut MultiplexedConnection) -> Finding {
    let began = Instant::now();
    let told: RedisResult<(u64, u64)> = redis::cmd("TIME").query_async(connection).await;
    let trip = began.elapsed();
    match told {
        Ok((seconds, micros)) => {
            let theirs = Duration::from_secs(seconds) + Duration::from_micros(micros);
            let ours = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            skew(about, theirs, ours, trip)
        }
        Err(error) => Finding::new(
            Level::Note,
            about,
            format!("it does not tell its time: {error}"),
            "",
        ),
    }
}

/// The answer was given within `trip` before `ours`.
fn skew(about: &str, theirs: Duration, ours: Duration, trip: Duration) -> Finding {
    let apart = theirs.abs_diff(ours);
    let says = format!(
        "its clock and ours are {} ms apart, an answer takes {} ms",
        apart.as_millis(),
        trip.as_millis()
    );
    match apart > SKEW + trip {
        true => Finding::new(
            Level::Warning,
            about,
            says,
            "Synchronise both machines with NTP: times in the ledger and of schedules are the store's.",
        ),
        false => Finding::good(about, says),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_be_apart_as_long_as_an_answer_takes() {
        let level = |theirs: u64, ours: u64, trip: u64| {
            let seconds = Duration::from_secs;
            skew("s", seconds(theirs), seconds(ours), seconds(trip)).level
        };
        assert_eq!(level(100, 101, 0), Level::Good);
        assert_eq!(level(100, 104, 3), Level::Good);
        assert_eq!(level(104, 100, 1), Level::Warning);
        assert_eq!(level(100, 3700, 1), Level::Warning);
    }
}
