//! The engine: watches fill the stores, the queue says what to look at, reconciling compares and writes what differs.

pub mod apply;
pub mod changes;
pub mod dispatch;
pub mod events;
pub mod kinds;
pub mod lease;
pub mod ownership;
pub mod prune;
pub mod queue;
pub mod reconcile;
pub mod rotate;
pub mod seen;
pub mod status;
pub mod store;
pub mod watch;

use crate::client::Api;
use crate::cluster::Cluster;
use crate::metrics::Metrics;
use crate::secrets::Secrets;
use events::Events;
use queue::{Backoff, Queue};
use std::sync::Arc;
use store::{Key, Stores};
use vumi_plan::Settings;

/// What all parts of the engine share.
pub struct Engine {
    /// Calls to the API server.
    pub api: Api,
    /// What the watches have told.
    pub stores: Stores,
    /// What is to be looked at.
    pub queue: Queue<Key>,
    /// What is known of Secrets.
    pub secrets: Secrets,
    /// What the cluster knows.
    pub cluster: Arc<Cluster>,
    /// How the operator is set up.
    pub settings: Settings,
    /// What is told to people.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
}

impl Engine {
    /// An engine that knows nothing yet. `identity` is the name under which it reports events.
    pub fn new(api: Api, settings: Settings, metrics: Metrics, identity: &str) -> Arc<Self> {
        Arc::new(Self {
            stores: Stores::default(),
            queue: Queue::new(Backoff::default()),
            secrets: Secrets::new(api.clone()),
            cluster: Cluster::new(api.clone(), metrics.clone()),
            settings,
            events: Events::new(api.clone(), metrics.clone(), identity),
            metrics,
            api,
        })
    }
}
