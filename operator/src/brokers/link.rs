//! What is known of one virtual host.

use super::Place;
use super::reports::Reports;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vumi_api::Resource;
use vumi_plan::{Broker, BrokerIdentity, Pod, Report, Unread};

/// Which broker it is, beside those that call themselves the same.
#[derive(Clone, Debug)]
pub struct Known {
    /// As it is compared.
    pub identity: BrokerIdentity,
    /// The name of its cluster.
    pub cluster: String,
    /// Host and port.
    pub address: String,
    /// A queue of ours that is there as long as we listen.
    pub queue: String,
    /// Whether we do.
    pub listening: bool,
}

struct Said {
    broker: Arc<Broker>,
    reading: u64,
    known: Option<Known>,
    reports: Reports,
    /// The connectors whose workers are listened to.
    connectors: BTreeSet<String>,
}

/// One virtual host.
pub struct Link {
    pub(super) place: Place,
    said: Mutex<Said>,
}

impl Link {
    pub(super) fn new(place: Place) -> Self {
        let broker = Arc::new(unread(Unread::NotYet));
        Self {
            place,
            said: Mutex::new(Said {
                broker,
                reading: 0,
                known: None,
                reports: Reports::default(),
                connectors: BTreeSet::new(),
            }),
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens to the workers of these connectors from now on. Returns whether these are others than before.
    pub(super) fn listen_to(&self, connectors: &BTreeSet<String>) -> bool {
        let mut said = self.said();
        let changed = said.connectors != *connectors;
        if changed {
            said.connectors.clone_from(connectors);
            said.reports.only(connectors);
        }
        changed
    }

    pub(super) fn listens_to(&self, connector: &str) -> bool {
        self.said().connectors.contains(connector)
    }

    pub(super) fn connectors(&self) -> BTreeSet<String> {
        self.said().connectors.clone()
    }

    /// The last reading, and how many there were, those that failed included.
    pub fn broker(&self) -> (Arc<Broker>, u64) {
        let said = self.said();
        (Arc::clone(&said.broker), said.reading)
    }

    /// Takes a reading. Returns the last one.
    pub fn read(&self, broker: impl Into<Arc<Broker>>) -> Arc<Broker> {
        let mut broker: Arc<Broker> = broker.into();
        let mut said = self.said();
        if broker.address.is_none() && said.broker.address.is_some() {
            Arc::make_mut(&mut broker)
                .address
                .clone_from(&said.broker.address);
        }
        said.reading += 1;
        std::mem::replace(&mut said.broker, broker)
    }

    /// Which broker it is. None until it has said so.
    pub fn identity(&self) -> Option<BrokerIdentity> {
        self.said()
            .known
            .as_ref()
            .map(|known| known.identity.clone())
    }

    pub(super) fn known(&self) -> Option<Known> {
        self.said().known.clone()
    }

    /// It has said which broker it is.
    pub fn know(&self, known: Known) {
        self.said().known = Some(known);
    }

    /// Nobody listens for now; which broker it is holds until another one answers.
    pub(super) fn deaf(&self) {
        if let Some(known) = &mut self.said().known {
            known.listening = false;
        }
    }

    /// Takes what a worker said. Returns whether it is news.
    pub fn hear(&self, report: Report) -> bool {
        self.said().reports.put(report)
    }

    /// What workers of a connector said last. What replicas said that are gone is forgotten, once it is old.
    pub fn reports(
        &self,
        connector: &str,
        resource: &Resource,
        pods: &[Pod],
        now: Timestamp,
    ) -> Vec<Report> {
        let mut said = self.said();
        said.reports.forget(connector, resource, pods, now);
        said.reports.of(connector)
    }
}

/// A reading that could not be made.
pub fn unread(why: Unread) -> Broker {
    Broker {
        unread: Some(why),
        ..Broker::default()
    }
}

/// What came with a routing key, if it is a report.
pub fn report(routing_key: &str, body: &[u8], received: Timestamp) -> Option<Report> {
    let connector = routing_key.strip_suffix(".status.status")?;
    Report::parse(connector, body, received)
}
