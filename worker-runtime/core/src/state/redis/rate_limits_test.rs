//! The token bucket of Redis, which is Lua, against that of the embedded store, which is Rust: the same operations at the
//! same moments, answer by answer. The clock of both is the test's.

use crate::clock;
use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::state::rate_limits::{Bucket, Level, RateLimits};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use redis::aio::MultiplexedConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use vumi_testkit::redis::{Options, Redis};

/// As far from a border two computations with floating point may stand on both sides of it.
const BORDER: f64 = 0.01;
/// The embedded store counts in milliseconds and rounds up.
const MILLISECOND: Duration = Duration::from_micros(1100);

#[derive(Clone, Copy, Debug)]
enum Act {
    Take(u32),
    SlowDown(u64),
    Pace,
}

/// After so many milliseconds, which may be less than none, an act.
type Step = (i64, Act);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![
        8 => 0..1500i64,
        2 => 0..200_000i64,
        1 => -5000..0i64,
    ];
    let act = prop_oneof![
        6 => (1..9u32).prop_map(Act::Take),
        2 => (0..4000u64).prop_map(Act::SlowDown),
        1 => Just(Act::SlowDown(0)),
        2 => Just(Act::Pace),
    ];
    proptest::collection::vec((wait, act), 1..60)
}

fn replaced(text: &str, what: &str, by: &str) -> String {
    assert!(text.contains(what), "{what}");
    text.replace(what, by)
}

/// The scripts as they are, but for the clock, which they are told, and the expiry, which they note.
struct Lua {
    redis: MultiplexedConnection,
    take: redis::Script,
    slow_down: redis::Script,
    pace: redis::Script,
}

impl Lua {
    async fn on(server: &Redis) -> Self {
        let client = redis::Client::open(server.url(0)).unwrap();
        // Its own limit is half a second, which a busy machine may need.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let lib = include_str!("lua/lib.lua");
        let lib = replaced(lib, "local t = call('TIME')", "local t = { KEYS[2], 0 }");
        let lib = replaced(&lib, "t[1] * 1000000", "t[1] * 1000");
        let bucket = include_str!("lua/bucket_lib.lua");
        let expire = "call('PEXPIRE', KEYS[1],";
        let bucket = replaced(bucket, expire, "call('HSET', KEYS[1], 'ends',");
        let script = |text| redis::Script::new(&format!("{lib}{bucket}{text}"));
        Self {
            redis: client
                .get_multiplexed_async_connection_with_config(&patient)
                .await
                .unwrap(),
            take: script(include_str!("lua/take.lua")),
            slow_down: script(include_str!("lua/slow_down.lua")),
            pace: script(include_str!("lua/pace.lua")),
        }
    }

    async fn take(&mut self, key: &str, cost: u32, of: Bucket, now: u64) -> Option<Duration> {
        let mut call = self.take.key(key);
        call.key(now).arg(cost).arg(of.per_second).arg(of.burst);
        let wait: u64 = call.invoke_async(&mut self.redis).await.unwrap();
        (wait > 0).then(|| Duration::from_micros(wait))
    }

    async fn slow_down(&mut self, key: &str, pause: u64, of: Bucket, now: u64) {
        let mut call = self.slow_down.key(key);
        call.key(now).arg(pause).arg(of.per_second).arg(of.burst);
        let () = call.invoke_async(&mut self.redis).await.unwrap();
    }

    async fn pace(&mut self, key: &str, now: u64) -> f64 {
        let mut call = self.pace.key(key);
        call.key(now).invoke_async(&mut self.redis).await.unwrap()
    }

    /// For how many milliseconds it is kept.
    async fn kept(&mut self, key: &str) -> u64 {
        let mut get = redis::cmd("HGET");
        get.arg(key).arg("ends");
        get.query_async(&mut self.redis).await.unwrap()
    }
}

fn same(rust: Option<Duration>, lua: Option<Duration>) -> bool {
    match (rust, lua) {
        (None, None) => true,
        (Some(rust), Some(lua)) => rust.abs_diff(lua) <= MILLISECOND,
        _ => false,
    }
}

/// Whether a bucket is at that moment as one that nobody knows.
fn as_good_as_new(level: Level, bucket: Bucket, then: u64) -> bool {
    let level = level.after(bucket, then);
    level.tokens >= bucket.burst - BORDER && level.pace(then) >= 1.0 - 2e-5
}

/// Both do these steps.
async fn compare(
    lua: &mut Lua,
    rust: &Arc<EmbeddedStore>,
    bucket: Bucket,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    static KEYS: AtomicU64 = AtomicU64::new(0);
    let key = format!("b{}", KEYS.fetch_add(1, Ordering::Relaxed));
    let mut now = 1_800_000_000_000u64;
    let mut level = None;
    for (n, (wait, act)) in steps.into_iter().enumerate() {
        now = now.saturating_add_signed(wait);
        clock::set(now);
        let mut here = level.unwrap_or(Level::full(bucket, now));
        let at = here.after(bucket, now);
        match act {
            Act::Take(cost) => {
                let needed = f64::from(cost).min(bucket.burst);
                if (at.tokens - needed).abs() < BORDER {
                    continue;
                }
                let one = rust.take(&key, cost, bucket).await.unwrap();
                let other = lua.take(&key, cost, bucket, now).await;
                prop_assert!(same(one, other), "{n}: {one:?}, {other:?} of {at:?}");
                prop_assert_eq!(here.take(cost, bucket, now), one);
                if one.is_none() {
                    level = Some(here);
                }
            }
            Act::SlowDown(pause) => {
                if at.paused + 500 == now {
                    continue;
                }
                let time = Duration::from_millis(pause);
                rust.slow_down(&key, time, bucket).await.unwrap();
                lua.slow_down(&key, pause, bucket, now).await;
                here.slow_down(time, bucket, now);
                level = Some(here);
            }
            Act::Pace => {}
        }
        let one = rust.pace(&key).await.unwrap();
        let other = lua.pace(&key, now).await;
        prop_assert!((one - other).abs() < 2e-6, "{n}: {one}, {other} of {at:?}");
        if let Some(level) = level.filter(|level| level.at == now) {
            let kept = lua.kept(&key).await;
            prop_assert!(as_good_as_new(level, bucket, now + kept), "{n}: {kept}");
            let forgotten = level.forgotten(bucket);
            prop_assert!(as_good_as_new(level, bucket, forgotten), "{n}: {forgotten}");
        }
    }
    Ok(())
}

#[test]
fn the_buckets_of_redis_and_of_the_embedded_store_give_the_same_answers() {
    if !vumi_testkit::alone() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(server) = runtime.block_on(Redis::start_or_skip(Options::default())) else {
        return;
    };
    let mut lua = runtime.block_on(Lua::on(&server));
    let rust = EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap();
    let config = Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    };
    let cases = (0.2..120.0f64, 1.0..20.0f64, steps());
    let lua = std::cell::RefCell::new(&mut lua);
    let compared = TestRunner::new(config).run(&cases, |(per_second, burst, steps)| {
        let bucket = Bucket { per_second, burst };
        runtime.block_on(compare(&mut lua.borrow_mut(), &rust, bucket, steps))
    });
    match compared {
        Ok(()) => {}
        Err(TestError::Fail(why, least)) => panic!("{why}: {least:?}"),
        Err(error) => panic!("{error}"),
    }
}
