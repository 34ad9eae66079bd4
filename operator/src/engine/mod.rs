//! The engine: watches fill the stores, the queue says what to look at, reconciling compares and writes what differs.

pub mod apply;
pub mod changes;
pub mod claims;
pub mod dispatch;
pub mod events;
pub mod kinds;
pub mod labelled;
pub mod lease;
pub mod looked;
pub mod ownership;
pub mod packed;
pub mod prune;
pub mod queue;
pub mod recall;
pub mod reconcile;
pub mod rotate;
pub mod scale;
pub mod seen;
pub mod sight;
pub mod spec;
pub mod status;
pub mod store;
pub mod trouble;
pub mod watch;
pub mod written;

use crate::brokers::Brokers;
use crate::bucket::Bucket;
use crate::client::{Api, ApiError};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::metrics::Metrics;
use crate::secrets::Secrets;
use claims::Claims;
use events::Events;
use queue::{Backoff, Queue};
use recall::Recall;
use std::sync::Arc;
use store::{Key, Stores};
use vumi_plan::Settings;

/// Statuses that are written in a second, and at one time, of which nothing has changed but coarse classes (K7).
const COARSE: f64 = 5.0;

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
    /// What brokers say.
    pub brokers: Brokers,
    /// Who uses which of their queues.
    pub claims: Claims,
    /// What the cluster knows.
    pub cluster: Arc<Cluster>,
    /// The time.
    pub clock: Clock,
    /// How the operator is set up.
    pub settings: Settings,
    /// What is remembered between two looks.
    pub recall: Recall,
    /// How many statuses are written that could wait.
    pub coarse: Bucket,
    /// What is told to people.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
}

impl Engine {
    /// An engine that knows nothing yet. `identity` is the name under which it reports events.
    pub fn new(
        api: Api,
        settings: Settings,
        metrics: Metrics,
        identity: &str,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            stores: Stores::default(),
            queue: Queue::new(Backoff::default()),
            secrets: Secrets::new(api.clone()),
            cluster: Cluster::new(api.clone(), metrics.clone()),
            clock,
            settings,
            brokers: Brokers::default(),
            claims: Claims::default(),
            recall: Recall::default(),
            coarse: Bucket::new(COARSE, COARSE),
            events: Events::new(api.clone(), metrics.clone(), identity),
            metrics,
            api,
        })
    }

    /// Calls that write of our resources and what belongs to them. If the definitions are older than this operator, what it read
    /// lacks fields, and what it writes would make that last (K2): they are compared first, unless they just were.
    ///
    /// # Errors
    /// They cannot be compared. That they are older is what the gate says, at the call.
    pub async fn writer(&self) -> Result<&Api, ApiError> {
        self.cluster.compare_before_write().await?;
        Ok(&self.api)
    }
}
