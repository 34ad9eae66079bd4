//! Several Secrets may hold the same credentials for one virtual host: one session serves all links that lead there with them.

use super::link::Link;
use super::{Brokers, TOGETHER, tell};
use crate::engine::Engine;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use vumi_api::shared::{BrokerManagement, BrokerRef};
use vumi_core::broker::amqp::{AmqpConfig, Identity};
use vumi_core::error::WorkError;
use vumi_core::secrets::Secrets;
use vumi_plan::Report;

/// What a session connects with; equal means that one will do. Has no `Debug`: it holds the password.
#[derive(PartialEq)]
pub(super) struct Access {
    identity: Identity,
    credentials: (String, String),
    /// PEM of a private authority.
    authority: Option<String>,
    management: Option<BrokerManagement>,
}

impl Access {
    /// What a resource's broker is reached with.
    ///
    /// # Errors
    /// The Secret is wrong.
    pub(super) fn of(
        config: &AmqpConfig,
        broker: &BrokerRef,
        secrets: &Secrets,
    ) -> Result<Self, WorkError> {
        let authority = broker.authority();
        Ok(Self {
            identity: config.identity()?,
            credentials: config.credentials()?,
            authority: authority.and_then(|name| secrets.get(name, "ca.crt")),
            management: broker.management.clone(),
        })
    }

    /// Which virtual host of which broker it is.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// One session and the links that it serves.
pub(super) struct Shared {
    access: Access,
    links: Mutex<Vec<Arc<Link>>>,
    ended: CancellationToken,
}

impl Shared {
    /// What it connects with.
    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The links that it serves.
    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.list().clone()
    }

    /// The connectors that any of them listens to.
    pub(super) fn connectors(&self) -> BTreeSet<String> {
        self.list()
            .iter()
            .flat_map(|link| link.connectors())
            .collect()
    }

    /// Gives what a worker said to the links that listen to it.
    pub(super) fn hear(&self, engine: &Engine, report: &Report) {
        for link in self.links() {
            if link.listens_to(&report.connector) && link.hear(report.clone()) {
                let keys = engine.claims.speakers(&link.place, &report.connector);
                tell(engine, keys, TOGETHER);
            }
        }
    }
}

/// How a link comes to be served.
pub(super) enum Entry {
    /// By a session of its own, which others may join.
    First(Member),
    /// By that of another link.
    Beside(Member),
}

/// A link that is served, until this is dropped. With the first one the session ends, and the others begin anew.
pub(super) struct Member {
    engine: Arc<Engine>,
    link: Arc<Link>,
    shared: Arc<Shared>,
    first: bool,
}

impl Member {
    /// Joins the session that connects with the same, or begins one.
    pub(super) fn enter(engine: &Arc<Engine>, link: &Arc<Link>, access: Access) -> Entry {
        let mut sessions = engine.brokers.sessions();
        let known = sessions.iter().find(|known| known.access == access);
        let first = known.is_none();
        let shared = match known {
            Some(known) => Arc::clone(known),
            None => {
                let shared = Arc::new(Shared {
                    access,
                    links: Mutex::default(),
                    ended: CancellationToken::new(),
                });
                sessions.push(Arc::clone(&shared));
                shared
            }
        };
        shared.list().push(Arc::clone(link));
        drop(sessions);
        engine.brokers.connectors_changed();
        let member = Self {
            engine: Arc::clone(engine),
            link: Arc::clone(link),
            shared,
            first,
        };
        match first {
            true => Entry::First(member),
            false => Entry::Beside(member),
        }
    }

    /// The session.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Waits until the session has ended.
    pub(super) async fn ended(&self) {
        self.shared.ended.cancelled().await;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let brokers: &Brokers = &self.engine.brokers;
        let mut sessions = brokers.sessions();
        self.shared
            .list()
            .retain(|link| !Arc::ptr_eq(link, &self.link));
        if self.first {
            sessions.retain(|known| !Arc::ptr_eq(known, &self.shared));
            self.shared.ended.cancel();
        }
    }
}
