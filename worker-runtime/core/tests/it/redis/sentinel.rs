//! Sentinel: the master is found by its name, and a replica that takes over is found as well, under racing writers.

use super::{PATIENCE, up};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use vumi_core::error::ErrorClass;
use vumi_core::secrets::Secrets;
use vumi_core::state::redis::{RedisConfig, RedisStore};
use vumi_core::state::{StateStore, Suspects};
use vumi_testkit::redis::{Append, Options, Sentinels};

const KEEP: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_over_under_load() {
    let options = Options {
        append: Append::EverySec,
        password: Some("hush".into()),
        ..Options::default()
    };
    let Some(mut redis) = Sentinels::start_or_skip(options).await else {
        return;
    };
    let values = [
        ("sentinels", redis.addresses()),
        ("masterName", redis.master_name().to_owned()),
        ("password", "hush".to_owned()),
    ];
    let values = values.map(|(key, value)| (key.to_owned(), value));
    let documents = BTreeMap::from([("redis".to_owned(), BTreeMap::from(values))]);
    let secrets = Arc::new(Secrets::new(documents, None));
    let store = RedisStore::open(RedisConfig::from_secret(secrets, "redis"));
    up(&store).await;
    assert!(store.describe().contains(redis.master_name()) && !store.describe().contains("hush"));

    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..20)
        .map(|writer| {
            let (store, stop, done) = (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    match store
                        .suspect("q", &format!("{writer}"), rand::random(), KEEP)
                        .await
                    {
                        Ok(count) => {
                            last = count;
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => assert_eq!(error.class, ErrorClass::Connect, "{error:?}"),
                    }
                }
                last
            })
        })
        .collect();
    let served = async |more: u64| {
        let target = done.load(Ordering::Relaxed) + more;
        let serving = async {
            while done.load(Ordering::Relaxed) < target {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, serving)
            .await
            .expect("served");
    };
    served(1000).await;
    let old = redis.master_port().await.expect("a master");
    redis.servers[0].kill().await.expect("killed");
    served(1000).await;
    assert_ne!(redis.master_port().await.expect("a master"), old);

    // The old master comes back as a replica; nobody takes it for the master.
    redis.servers[0].restart().await.expect("started again");
    served(1000).await;
    stop.store(true, Ordering::Relaxed);
    for (writer, task) in writers.into_iter().enumerate() {
        let last = task.await.expect("a writer");
        let next = store
            .suspect("q", &writer.to_string(), rand::random(), KEEP)
            .await
            .expect("answers");
        assert_eq!(next, last + 1, "the new master has what it confirmed");
    }
    store.close(Duration::from_secs(5)).await;
}
