//! The operator as a whole: caches first, then the lease, then work; and the way back.

use crate::brokers;
use crate::client::Api;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::engine::dispatch::dispatch;
use crate::engine::kinds::{KINDS, ObjectKind};
use crate::engine::labelled;
use crate::engine::lease::{Lease, Times};
use crate::engine::watch::follow;
use crate::gate::Gate;
use crate::health::Health;
use crate::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vumi_plan::Settings;

/// How often it is said what the watches have not told yet.
const IMPATIENCE: Duration = Duration::from_secs(10);

/// What the operator is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// What workers get.
    pub settings: Settings,
    /// Namespaces that are watched; none: all.
    pub namespaces: Vec<String>,
    /// Whether Secrets with the label [`labelled::WATCH`] are watched.
    pub watch_secrets: bool,
    /// Resources that are worked on at one time.
    pub concurrency: usize,
    /// Namespace and name of the lease.
    pub lease: (String, String),
    /// Its times.
    pub times: Times,
    /// Name of this operator.
    pub identity: String,
}

/// An operator that is not running yet.
pub struct Operator {
    engine: Arc<Engine>,
    client: kube::Client,
    options: Options,
    health: Arc<Health>,
}

/// One watch of one kind.
struct Watch {
    kind: &'static ObjectKind,
    synced: watch::Receiver<bool>,
}

impl Operator {
    /// An operator that uses this client, around whose service [`crate::client::Bounded`] stands.
    pub fn new(client: kube::Client, options: Options, metrics: Metrics) -> Self {
        let api = Api::new(client.clone(), Arc::new(Gate::default()));
        let engine = Engine::new(
            api,
            options.settings.clone(),
            metrics,
            &options.identity,
            Clock::machine(),
        );
        let health = Arc::new(Health::new(engine.cluster.definitions()));
        Self {
            engine,
            client,
            options,
            health,
        }
    }

    /// Whether it lives and is ready.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// The engine.
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine)
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// A part of it ended by itself, which is a bug: the process should end, and be started anew.
    pub async fn run(self, stop: CancellationToken) -> Result<(), String> {
        let engine = Arc::clone(&self.engine);
        let mut parts: JoinSet<&'static str> = JoinSet::new();
        let cluster = Arc::clone(&engine.cluster);
        parts.spawn(async move {
            cluster.run().await;
            "looking at the cluster"
        });
        let mut watches: Vec<Watch> = Vec::new();
        for kind in KINDS.iter().filter(|kind| !kind.optional) {
            self.watch(kind, &mut watches, &mut parts);
        }
        let beat = Arc::clone(&self.health);
        let started = tokio::select! {
            () = self.synced(&watches, &beat) => true,
            () = stop.cancelled() => false,
            Some(part) = parts.join_next() => return Err(ended(part)),
        };
        if !started {
            return Ok(());
        }
        engine.metrics.synced(true);
        tracing::info!("everything is watched");
        let (secrets, listens) = (Arc::clone(&engine), Arc::clone(&engine));
        parts.spawn(async move {
            let changed = |key| secrets.queue.add(key, Duration::ZERO);
            secrets.secrets.run(changed).await;
            "reading Secrets"
        });
        parts.spawn(async move {
            brokers::keep(listens).await;
            "listening to brokers"
        });
        let places = match self.options.watch_secrets {
            true => self.places(),
            false => Vec::new(),
        };
        for namespace in places {
            let (engine, client) = (Arc::clone(&engine), self.client.clone());
            parts.spawn(async move {
                labelled::follow(engine, client, namespace).await;
                "watching Secrets"
            });
        }
        let (leads, leading) = watch::channel(false);
        let lease = Lease::new(
            engine.api.clone(),
            engine.metrics.clone(),
            self.options.times,
            self.options.lease.clone(),
            self.options.identity.clone(),
        );
        // The lease is given back after the last write.
        let finished = CancellationToken::new();
        let lease = tokio::spawn(lease.run(finished.clone(), leads));
        let work = dispatch(
            Arc::clone(&engine),
            leading,
            self.options.concurrency,
            Arc::clone(&self.health),
            self.options.lease.clone(),
            stop.clone(),
        );
        let mut work = std::pin::pin!(work);
        let mut platforms = engine.cluster.platforms();
        let result = loop {
            for kind in KINDS
                .iter()
                .filter(|kind| kind.optional && engine.cluster.has(kind))
            {
                if watches.iter().all(|watch| watch.kind != kind) {
                    self.watch(kind, &mut watches, &mut parts);
                    // Whoever went without so far gets one.
                    engine
                        .stores
                        .keys()
                        .into_iter()
                        .for_each(|key| engine.queue.add(key, Duration::ZERO));
                }
            }
            tokio::select! {
                () = &mut work => break Ok(()),
                Some(part) = parts.join_next() => break Err(ended(part)),
                Ok(()) = platforms.changed() => {}
            }
        };
        finished.cancel();
        if lease.await.is_err() {
            return Err("the lease failed: this is a bug".into());
        }
        result
    }

    /// The namespaces that are watched; none stands for all.
    fn places(&self) -> Vec<Option<String>> {
        match self.options.namespaces.as_slice() {
            [] => vec![None],
            some => some.iter().cloned().map(Some).collect(),
        }
    }

    /// Begins to watch a kind, in every namespace that is watched.
    fn watch(
        &self,
        kind: &'static ObjectKind,
        watches: &mut Vec<Watch>,
        parts: &mut JoinSet<&'static str>,
    ) {
        for namespace in self.places() {
            let (tell, synced) = watch::channel(false);
            watches.push(Watch { kind, synced });
            let (engine, client) = (Arc::clone(&self.engine), self.client.clone());
            parts.spawn(async move {
                follow(engine, client, kind, namespace, tell).await;
                "a watch"
            });
        }
    }

    /// Waits until every watch has told what there is.
    async fn synced(&self, watches: &[Watch], health: &Health) {
        loop {
            let behind = watches.iter().filter(|watch| !*watch.synced.borrow());
            let behind: Vec<&Watch> = behind.collect();
            let mut kinds: Vec<String> = behind.iter().map(|w| w.kind.plural.to_owned()).collect();
            kinds.dedup();
            health.await_kinds(kinds.clone());
            health.beat();
            let Some(first) = behind.first() else {
                return;
            };
            let mut synced = first.synced.clone();
            if tokio::time::timeout(IMPATIENCE, synced.wait_for(|synced| *synced))
                .await
                .is_err()
            {
                tracing::warn!(
                    kinds = kinds.join(", "),
                    "waiting for the watches; is there a right that is missing, or are the CRDs?"
                );
            }
        }
    }
}

fn ended(part: Result<&'static str, tokio::task::JoinError>) -> String {
    match part {
        Ok(part) => format!("{part} ended by itself: this is a bug"),
        Err(error) => format!("a part failed: {error}; this is a bug"),
    }
}
