//! The services that the workers of a process use: the broker and the state store that each names.

use super::leases::{Lease, Leased, Leases};
use crate::broker::Broker;
use crate::broker::Durability;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::state::measured::Measured;
use crate::state::{StateStore, StoreHealth};
use crate::telemetry::Telemetry;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use vumi_api::Resource;
use vumi_api::shared::StateNeed;

/// What is unfinished in a service that nobody uses any more is awaited so long.
const CLOSE: Duration = Duration::from_secs(5);

/// How a worker without a state store is shown.
const NO_STORE: &str = "none";

/// Knows which broker a resource uses, and opens it.
#[async_trait]
pub trait BrokerSource: Send + Sync + 'static {
    /// Which broker it is: host, port and virtual host, without credentials. Workers with equal texts share one
    /// connection, and a running worker whose text changes is replaced.
    fn identity(&self, resource: &Resource) -> Result<String, WorkError>;

    /// Opens it. A broker that is away is not an error.
    async fn open(&self, resource: &Resource) -> Result<Arc<dyn Broker>, WorkError>;
}

/// Knows which state store a resource uses, and opens it.
#[async_trait]
pub trait StateSource: Send + Sync + 'static {
    /// Which store it is, without credentials; none where there is none. Workers with equal texts share it, and a
    /// running worker whose text changes is replaced.
    fn identity(&self, resource: &Resource) -> Result<Option<String>, WorkError>;

    /// Opens it. A store that is away is not an error.
    async fn open(&self, resource: &Resource) -> Result<Arc<dyn StateStore>, WorkError>;
}

/// No worker has a state store.
pub struct NoState;

#[async_trait]
impl StateSource for NoState {
    fn identity(&self, _: &Resource) -> Result<Option<String>, WorkError> {
        Ok(None)
    }

    async fn open(&self, resource: &Resource) -> Result<Arc<dyn StateStore>, WorkError> {
        let text = format!("{} has no state store", resource.key());
        Err(WorkError::new(ErrorClass::Config, codes::STATE_NONE, text))
    }
}

#[async_trait]
impl Leased for dyn Broker {
    const WHAT: &'static str = "broker";

    async fn end(&self) {
        self.close(CLOSE).await;
    }
}

#[async_trait]
impl Leased for dyn StateStore {
    const WHAT: &'static str = "state store";

    async fn end(&self) {
        self.close(CLOSE).await;
    }
}

/// What one worker uses.
pub(super) struct InUse {
    pub(super) broker: Lease<dyn Broker>,
    pub(super) state: Option<Lease<dyn StateStore>>,
}

impl InUse {
    /// Which they were when the worker was built.
    pub(super) fn identities(&self) -> Identities {
        let state = self.state.as_ref();
        Identities {
            broker: Some(self.broker.identity.clone()),
            state: Some(state.map_or_else(|| NO_STORE.into(), |lease| lease.identity.clone())),
        }
    }
}

/// Which services a worker uses, as far as that is known: a Secret with an address may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identities {
    pub(super) broker: Option<String>,
    pub(super) state: Option<String>,
}

impl Identities {
    /// Whether any of those is known to be another now.
    pub(super) fn differ(&self, now: &Self) -> bool {
        let moved = |was: &Option<String>, is: &Option<String>| {
            was.as_ref().zip(is.as_ref()).is_some_and(|(a, b)| a != b)
        };
        moved(&self.broker, &now.broker) || moved(&self.state, &now.state)
    }
}

/// For people: what is being opened.
impl std::fmt::Display for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(state) = self.state.as_deref().filter(|state| *state != NO_STORE) {
            write!(f, "its state store ({state}) and ")?;
        }
        match &self.broker {
            Some(broker) => write!(f, "its broker ({broker})"),
            None => f.write_str("its broker"),
        }
    }
}

/// The services of a process.
pub(super) struct Services {
    broker_source: Box<dyn BrokerSource>,
    state_source: Box<dyn StateSource>,
    telemetry: Arc<Telemetry>,
    brokers: Leases<dyn Broker>,
    stores: Leases<dyn StateStore>,
}

impl Services {
    pub(super) fn new(
        broker_source: Box<dyn BrokerSource>,
        state_source: Box<dyn StateSource>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self {
            broker_source,
            state_source,
            telemetry,
            brokers: Leases::default(),
            stores: Leases::default(),
        }
    }

    /// Which services a resource uses now.
    pub(super) fn identities(&self, resource: &Resource) -> Identities {
        let state = self.state_source.identity(resource).ok();
        Identities {
            broker: self.broker_source.identity(resource).ok(),
            state: state.map(|state| state.unwrap_or_else(|| NO_STORE.into())),
        }
    }

    /// The services of a resource, opened if need be.
    ///
    /// # Errors
    /// [`codes::STATE_NONE`] and [`codes::STATE_NOT_DURABLE`] if it needs a state store, or a better one; else those of
    /// the sources.
    pub(super) async fn get(&self, resource: &Resource) -> Result<InUse, WorkError> {
        let state = self.state(resource).await?;
        suffices(resource, state.as_ref().map(|lease| &*lease.held))?;
        let broker = self.broker(resource).await?;
        Ok(InUse { broker, state })
    }

    /// The broker of a resource, opened if need be.
    pub(super) async fn broker(&self, resource: &Resource) -> Result<Lease<dyn Broker>, WorkError> {
        let identity = self.broker_source.identity(resource)?;
        let open = self.broker_source.open(resource);
        self.brokers.get(identity, open).await
    }

    /// The state store of a resource, opened if need be.
    async fn state(&self, resource: &Resource) -> Result<Option<Lease<dyn StateStore>>, WorkError> {
        let Some(identity) = self.state_source.identity(resource)? else {
            return Ok(None);
        };
        let open = async {
            let store = self.state_source.open(resource).await?;
            let store: Arc<dyn StateStore> = Measured::new(store, &self.telemetry);
            Ok(store)
        };
        self.stores.get(identity, open).await.map(Some)
    }

    /// Identities of the open brokers.
    pub(super) fn brokers(&self) -> Vec<String> {
        self.brokers.names()
    }

    /// The open stores.
    pub(super) fn stores(&self) -> Vec<Lease<dyn StateStore>> {
        self.stores.all()
    }

    /// Closes what no worker uses.
    pub(super) async fn close_unused(&self) {
        tokio::join!(self.brokers.close_unused(), self.stores.close_unused());
    }

    /// Closes everything: brokers first, since what they confirm is written to the stores.
    pub(super) async fn close_all(&self) {
        self.brokers.close_all().await;
        self.stores.close_all().await;
    }
}

/// Whether a resource gets the state store that it needs (K1).
fn suffices(resource: &Resource, store: Option<&dyn StateStore>) -> Result<(), WorkError> {
    let (need, field) = resource.state_need();
    let refused = |code, text: String| Err(WorkError::new(ErrorClass::Config, code, text));
    match (need, store) {
        (StateNeed::None, _) => Ok(()),
        (_, None) => refused(
            codes::STATE_NONE,
            format!("{field} needs a state store, and there is none"),
        ),
        (StateNeed::Shared, Some(_)) => Ok(()),
        (StateNeed::Durable, Some(store)) => {
            // Of a store that is away nobody knows what it survives.
            let volatile = *store.health().borrow() == StoreHealth::Up
                && store.durability() == Durability::Memory;
            match volatile && !resource.settings().allow_volatile_state {
                true => refused(
                    codes::STATE_NOT_DURABLE,
                    format!(
                        "{field} needs a state store that survives a crash, and {} does not",
                        store.describe()
                    ),
                ),
                false => Ok(()),
            }
        }
    }
}
