//! Secrets with the label [`WATCH`], for an operator that may list Secrets and is told to (K15): that one has changed is heard at once
//! instead of within a minute. What it says is read by its name, as of any other.

use super::Engine;
use super::seen::Seen;
use crate::secrets::SECRET;
use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, DefaultBackoff, Event, watcher};
use kube::{Api, Client};
use std::sync::Arc;

/// Label of Secrets whose changes are heard at once, with the value `true`.
pub const WATCH: &str = "vumi.dev/watch";

/// Follows them, in one namespace or all, for as long as it is polled.
pub async fn follow(engine: Arc<Engine>, client: Client, namespace: Option<String>) {
    let resource = SECRET.api_resource();
    let api: Api<Seen<true>> = match &namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let config = Config::default().labels(&format!("{WATCH}=true"));
    let mut events = std::pin::pin!(watcher(api, config).backoff(DefaultBackoff::default()));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(secret) | Event::InitApply(secret) | Event::Delete(secret)) => {
                let meta = kube::Resource::meta(&secret);
                if let (Some(namespace), Some(name)) = (&meta.namespace, &meta.name) {
                    engine.secrets.has_changed(namespace, name);
                }
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => {
                engine.metrics.watch_broke(SECRET.kind);
                tracing::warn!(%error, "Secrets cannot be watched, which takes the rights to list and watch them; it is tried again");
            }
        }
    }
}
