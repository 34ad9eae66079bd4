//! Getting in: passwords, ACL users, TLS with a private authority, Secrets that rotate, and what is refused. No secret
//! is ever shown.

use super::{away, store, up};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vumi_core::codes;
use vumi_core::error::ErrorClass;
use vumi_core::secrets::Secrets;
use vumi_core::state::redis::{RedisConfig, RedisStore};
use vumi_core::state::{Sessions, StateStore, Suspects};
use vumi_testkit::redis::{Options, Redis};

fn write(folder: &Path, secret: &str, pairs: &[(&str, &str)]) {
    let folder = folder.join(secret);
    std::fs::create_dir_all(&folder).expect("folder");
    for (key, value) in pairs {
        std::fs::write(folder.join(key), format!("{value}\n")).expect("file");
    }
}

async fn works(store: &RedisStore) {
    up(store).await;
    let times = store.suspect("q", "m", 1, Duration::from_secs(60)).await;
    assert!(times.expect("an answer") >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_private_authority() {
    let options = Options {
        tls: true,
        ..Options::default()
    };
    let Some(redis) = Redis::start_or_skip(options).await else {
        return;
    };
    let config = || RedisConfig::from_url(&redis.url(1)).expect("url");
    works(&RedisStore::open(config().with_ca_file(redis.ca_file()))).await;

    let strict = RedisStore::open(config());
    let why = away(&strict, "certificate").await;
    let error = strict
        .suspect("q", "m", 1, Duration::from_secs(1))
        .await
        .expect_err("untrusted");
    assert_eq!((error.class, error.text), (ErrorClass::Connect, why));

    let plain = redis.url(1).replace("rediss://", "redis://");
    let plain = RedisStore::open(RedisConfig::from_url(&plain).expect("url"));
    away(&plain, "speaks TLS").await;

    // The same from Secrets: the authority under `ca.crt`.
    let pem = std::fs::read_to_string(redis.ca_file()).expect("authority");
    let folder = tempfile::tempdir().expect("folder");
    write(folder.path(), "ca", &[("ca.crt", &pem)]);
    let port = redis.port().to_string();
    write(
        folder.path(),
        "redis",
        &[("host", "localhost"), ("port", &port), ("db", "1")],
    );
    let secrets = Arc::new(Secrets::new(BTreeMap::new(), Some(folder.path().into())));
    let config = RedisConfig::from_secret(Arc::clone(&secrets), "redis");
    works(&RedisStore::open(config.with_ca_secret(secrets, "ca"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_to_a_port_without_is_said() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let url = redis.url(0).replace("redis://", "rediss://");
    let store = RedisStore::open(RedisConfig::from_url(&url).expect("url"));
    away(&store, "does not speak TLS").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_few_rights_is_enough() {
    let options = Options {
        password: Some("hush-default".into()),
        lines: vec![
            "user worker on >hush-worker ~vumi:* +@all -@admin -@dangerous +info +client|setname"
                .into(),
        ],
        ..Options::default()
    };
    let Some(redis) = Redis::start_or_skip(options).await else {
        return;
    };
    let url = |who: &str| format!("redis://{who}@localhost:{}/0", redis.port());
    let open = |who: &str| RedisStore::open(RedisConfig::from_url(&url(who)).expect("url"));
    let worker = open("worker:hush-worker");
    works(&worker).await;
    // CONFIG is forbidden to it, and INFO says enough.
    assert_eq!(worker.durability(), vumi_core::broker::Durability::Memory);

    let elsewhere = RedisConfig::from_url(&url("worker:hush-worker")).expect("url");
    let elsewhere = RedisStore::open(elsewhere.with_key_prefix("other"));
    up(&elsewhere).await;
    let denied = elsewhere
        .suspect("q", "m", 1, Duration::from_secs(60))
        .await
        .expect_err("denied");
    assert_eq!(
        (denied.class, denied.code),
        (ErrorClass::Auth, codes::STATE_REFUSED)
    );

    for who in ["worker:wrong-hush", ":wrong-hush", "nobody:hush-worker"] {
        let refused = open(who);
        let why = away(&refused, "refuses").await;
        let error = refused.load("s", "u").await.expect_err("refused");
        assert_eq!(
            (error.class, error.code),
            (ErrorClass::Auth, codes::STATE_REFUSED)
        );
        assert!(
            !format!("{why}{error:?}{}", refused.describe()).contains("hush"),
            "{error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_rotate_while_running() {
    let options = Options {
        password: Some("old-hush".into()),
        ..Options::default()
    };
    let Some(redis) = Redis::start_or_skip(options).await else {
        return;
    };
    let folder = tempfile::tempdir().expect("folder");
    let port = redis.port().to_string();
    write(
        folder.path(),
        "redis",
        &[
            ("host", "localhost"),
            ("port", &port),
            ("password", "wrong-hush"),
        ],
    );
    let secrets = Arc::new(Secrets::new(BTreeMap::new(), Some(folder.path().into())));
    let store = RedisStore::open(RedisConfig::from_secret(secrets, "redis"));
    away(&store, "refuses").await;
    write(folder.path(), "redis", &[("password", "old-hush")]);
    works(&store).await;

    // A new password ends nothing that is connected; the next connection uses it.
    let mut health = store.health();
    health.mark_unchanged();
    redis
        .cli(&["config", "set", "requirepass", "new-hush"])
        .await
        .expect("set");
    write(folder.path(), "redis", &[("password", "new-hush")]);
    works(&store).await;
    assert!(!health.has_changed().expect("open"));
    let admin = format!("redis://:new-hush@localhost:{port}/0");
    let admin = redis::Client::open(admin).expect("url");
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut admin = admin
        .get_multiplexed_async_connection_with_config(&patient)
        .await
        .expect("connected");
    let () = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
        .query_async(&mut admin)
        .await
        .expect("killed");
    // Somebody notices within a second, and the store heals itself.
    let changed = tokio::time::timeout(super::PATIENCE, health.changed()).await;
    changed.expect("in time").expect("open");
    works(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_mode_is_refused() {
    let options = Options {
        cluster: true,
        ..Options::default()
    };
    let Some(redis) = Redis::start_or_skip(options).await else {
        return;
    };
    let store = store(&redis);
    away(&store, "Cluster mode").await;
    let error = store.load("s", "u").await.expect_err("refused");
    assert_eq!(
        (error.class, error.code),
        (ErrorClass::Config, codes::STATE_CLUSTER)
    );
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("a log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The log is that of all tests of this binary: what a test beside this one logs counts as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_content_or_address_is_logged() {
    let log = Log::default();
    let kept = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("vumi_core::state=trace,redis=trace")
        .with_ansi(false)
        .with_writer(move || kept.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).expect("nobody else listens");
    let options = Options {
        password: Some("hush-password".into()),
        ..Options::default()
    };
    let Some(mut redis) = Redis::start_or_skip(options).await else {
        return;
    };
    let refused = format!("redis://hush-user:hush-wrong@localhost:{}/0", redis.port());
    let refused = RedisStore::open(RedisConfig::from_url(&refused).expect("url"));
    away(&refused, "refuses").await;
    let store = store(&redis);
    up(&store).await;
    let fields = [("content".to_owned(), "hush-content".to_owned())].into();
    store
        .create("s", "+27820hush", fields, None)
        .await
        .expect("created");
    redis.kill().await.expect("killed");
    away(&store, "").await;
    redis.restart().await.expect("started");
    up(&store).await;
    let log = String::from_utf8(log.0.lock().expect("a log").clone()).expect("a text");
    let address = format!("localhost:{}/0", redis.port());
    for told in ["state store away", "state store answers"] {
        let is_told = |line: &str| line.contains(told) && line.contains(&address);
        assert!(log.lines().any(is_told), "{log}");
    }
    assert!(!log.contains("hush"), "{log}");
}
