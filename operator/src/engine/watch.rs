//! The watches: what they tell goes into the stores, and whose it is into the queue. One that breaks begins again by itself,
//! with its own waiting times, and lists anew where it has to (410).

use super::Engine;
use super::claims;
use super::kinds::{Depth, ObjectKind, Part};
use super::seen::{Seen, belongs, hold};
use super::store::{Change, Key};
use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, DefaultBackoff, Event, watcher};
use kube::{Api, Client};
use rand::RngExt;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use vumi_plan::names::MANAGER;

/// In this time events of children are taken together.
const TOGETHER: Duration = Duration::from_millis(200);
/// Objects in a page of a list: what is in memory at one time beside the stores.
const PAGE: u32 = 200;
/// A watch begins again after so many seconds, and five later at the latest: so long nobody notices a connection that died without a
/// word. Not all at the same time.
const WATCHED: std::ops::RangeInclusive<u32> = 50..=60;

/// Follows the objects of a kind, in one namespace or all, for as long as it is polled.
pub async fn follow(
    engine: Arc<Engine>,
    client: Client,
    kind: &'static ObjectKind,
    namespace: Option<String>,
    synced: tokio::sync::watch::Sender<bool>,
) {
    match kind.depth {
        Depth::Metadata => observe::<true>(&engine, client, kind, namespace, &synced).await,
        Depth::Pruned => observe::<false>(&engine, client, kind, namespace, &synced).await,
    }
}

async fn observe<const META: bool>(
    engine: &Engine,
    client: Client,
    kind: &'static ObjectKind,
    namespace: Option<String>,
    synced: &tokio::sync::watch::Sender<bool>,
) {
    let resource = kind.api_resource();
    let api: Api<Seen<META>> = match &namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let mut config = Config::default()
        .page_size(PAGE)
        .timeout(rand::rng().random_range(WATCHED));
    if !matches!(kind.part, Part::Resource(_)) {
        config = config.labels(&format!("app.kubernetes.io/managed-by={MANAGER}"));
    }
    let mut events = std::pin::pin!(watcher(api, config).backoff(DefaultBackoff::default()));
    let mut listed: HashSet<(String, String)> = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                let meta = kube::Resource::meta(&object);
                let namespace = meta.namespace.clone().unwrap_or_default();
                listed.insert((namespace, meta.name.clone().unwrap_or_default()));
                put(engine, kind, object);
            }
            Ok(Event::InitDone) => {
                let gone = engine.stores.sweep(kind, namespace.as_deref(), &listed);
                listed = HashSet::new();
                for key in gone {
                    if matches!(kind.part, Part::Resource(_)) {
                        claims::note(engine, &key);
                    }
                    engine.queue.add(key, Duration::ZERO);
                }
                synced.send_replace(true);
            }
            Ok(Event::Apply(object)) => put(engine, kind, object),
            Ok(Event::Delete(object)) => {
                let meta = kube::Resource::meta(&object);
                if let Some(key) = belongs(kind, meta) {
                    let (name, uid) = (meta.name.as_deref(), meta.uid.as_deref());
                    let (name, uid) = (name.unwrap_or_default(), uid.unwrap_or_default());
                    let change = engine.stores.remove(kind, &key, name, uid);
                    enqueue(engine, key, change);
                }
            }
            Err(error) => {
                engine.metrics.watch_broke(kind.kind);
                // What closed it may be another version of the definitions (K2).
                if matches!(kind.part, Part::Resource(_)) {
                    engine.cluster.look_again();
                }
                tracing::warn!(kind = kind.kind, %error, "a watch broke; it begins again");
            }
        }
    }
}

fn put<const META: bool>(engine: &Engine, kind: &'static ObjectKind, object: Seen<META>) {
    if let Some((key, held)) = hold(kind, object, &engine.stores.packer) {
        let change = engine.stores.put(&key, held);
        enqueue(engine, key, change);
    }
}

fn enqueue(engine: &Engine, key: Key, change: Change) {
    match change {
        Change::None => {}
        Change::Some => engine.queue.add(key, TOGETHER),
        Change::Edit => {
            claims::note(engine, &key);
            engine.queue.add_edited(key);
        }
    }
}
