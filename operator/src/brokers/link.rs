//! What is known of one virtual host.

use super::Place;
use super::reports::Reports;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
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
}

/// One virtual host.
pub struct Link {
    pub(super) place: Place,
    said: Mutex<Said>,
    connectors: watch::Sender<BTreeSet<String>>,
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
            }),
            connectors: watch::Sender::default(),
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connectors whose workers are listened to.
    pub(super) fn listen_to(&self, connectors: &BTreeSet<String>) {
        let changed = self.connectors.send_if_modified(|known| {
            let changed = known != connectors;
            if changed {
                known.clone_from(connectors);
            }
            changed
        });
        if changed {
            self.said().reports.only(connectors);
        }
    }

    pub(super) fn connectors(&self) -> watch::Receiver<BTreeSet<String>> {
        self.connectors.subscribe()
    }

    /// The last reading, and how many there were, those that failed included.
    pub fn broker(&self) -> (Arc<Broker>, u64) {
        let said = self.said();
        (Arc::clone(&said.broker), said.reading)
    }

    /// Takes a reading. Returns the last one.
    pub fn read(&self, mut broker: Broker) -> Arc<Broker> {
        let mut said = self.said();
        if broker.address.is_none() {
            broker.address.clone_from(&said.broker.address);
        }
        said.reading += 1;
        std::mem::replace(&mut said.broker, Arc::new(broker))
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
