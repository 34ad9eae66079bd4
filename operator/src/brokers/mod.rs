//! What brokers say: for each broker that resources name there is a link, over which the reports of workers come and queues are
//! read. Links that lead to one virtual host with the same credentials share a session. Every operator listens, the one that
//! writes reads as well.

mod ears;
mod identify;
mod link;
mod management;
mod reports;
mod session;
mod shared;

pub use link::{Known, Link, unread};

use crate::engine::Engine;
use crate::engine::claims;
use shared::Shared;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use vumi_api::shared::BrokerRef;

/// How often it is looked which virtual hosts are in use, if nobody says so.
const LOOK: Duration = Duration::from_secs(10);
/// In this time changes are taken together.
const TOGETHER: Duration = Duration::from_millis(200);

/// What a resource means by its broker: the same words mean another Secret in another namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Namespace of the resource.
    pub namespace: String,
    /// As the resource has it.
    pub broker: BrokerRef,
}

/// The links.
#[derive(Default)]
pub struct Brokers {
    links: Mutex<HashMap<Place, Arc<Link>>>,
    sessions: Mutex<Vec<Arc<Shared>>>,
    changed: Notify,
    /// Some link listens to other connectors than before.
    connectors: watch::Sender<()>,
    /// One broker at a time is told from the others.
    identifying: tokio::sync::Mutex<()>,
}

impl Brokers {
    fn links(&self) -> MutexGuard<'_, HashMap<Place, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, Vec<Arc<Shared>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connectors_changed(&self) {
        self.connectors.send_replace(());
    }

    /// What is known of a virtual host; none until somebody has begun to listen there.
    pub fn link(&self, place: &Place) -> Option<Arc<Link>> {
        self.links().get(place).cloned()
    }

    /// All of them.
    fn all(&self) -> Vec<Arc<Link>> {
        self.links().values().cloned().collect()
    }

    /// Resources may use other virtual hosts or connectors than before.
    pub fn changed(&self) {
        self.changed.notify_one();
    }

    /// Which link a place has, made if there is none yet.
    pub fn open(&self, place: &Place) -> Arc<Link> {
        let mut links = self.links();
        let link = links
            .entry(place.clone())
            .or_insert_with(|| Arc::new(Link::new(place.clone())));
        Arc::clone(link)
    }
}

/// Keeps a link for each virtual host in use, for as long as it is polled.
pub async fn keep(engine: Arc<Engine>) {
    let mut tasks = JoinSet::new();
    let mut running: HashMap<Place, AbortHandle> = HashMap::new();
    loop {
        let wanted = engine.claims.places();
        for (place, connectors) in &wanted {
            let link = engine.brokers.open(place);
            if link.listen_to(connectors) {
                engine.brokers.connectors_changed();
            }
            running.entry(place.clone()).or_insert_with(|| {
                tasks.spawn(session::keep(Arc::clone(&engine), Arc::clone(&link)))
            });
        }
        running.retain(|place, task| {
            let used = wanted.contains_key(place);
            if !used {
                task.abort();
                engine.brokers.links().remove(place);
            }
            used
        });
        tokio::select! {
            () = engine.brokers.changed.notified() => tokio::time::sleep(TOGETHER).await,
            () = tokio::time::sleep(LOOK) => {}
            // Aborted, or broken by a bug: it is begun anew.
            Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        if error.is_panic() {
                            tracing::error!(%error, "listening to a broker failed: this is a bug");
                        }
                        error.id()
                    }
                };
                running.retain(|_, task| task.id() != id);
            }
        }
    }
}

/// Something was said of some queues, or by workers of a connector: those are looked at whom it concerns.
fn tell(engine: &Engine, keys: Vec<crate::engine::store::Key>, after: Duration) {
    for key in keys {
        engine.queue.add(key, after);
    }
}

/// It is known now which broker a link leads to, or it is another one.
fn identified(engine: &Engine) {
    claims::unsettle(engine);
}
