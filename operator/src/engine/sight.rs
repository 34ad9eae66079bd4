//! What is seen of a resource at one moment, from the stores and from what its broker and its worker said.

use super::Engine;
use super::claims::connector;
use super::store::{Family, Key};
use crate::brokers::{Place, unread};
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;
use vumi_api::Resource;
use vumi_plan::{Broker, Pod, Report, Sight, Unread};

/// What is seen.
pub struct Sighting {
    /// Its pods.
    pub pods: Vec<Pod>,
    /// What workers of its connector said last.
    pub reports: Vec<Report>,
    /// Readings of its virtual host.
    pub broker: Arc<Broker>,
    /// How many readings there were.
    pub reading: u64,
    /// The time.
    pub now: Timestamp,
}

impl Sighting {
    /// What is seen now.
    pub fn new(engine: &Engine, key: &Key, resource: &Resource, family: &Family) -> Self {
        let pods = family.all("Pod").filter_map(|held| Pod::of(&held.object()));
        let pods: Vec<Pod> = pods.collect();
        let place = Place {
            namespace: key.namespace.clone(),
            broker: resource.broker(),
        };
        let link = engine.brokers.link(&place);
        let (broker, reading) = match &link {
            Some(link) => link.broker(),
            None => (Arc::new(unread(Unread::NotYet)), 0),
        };
        let now = engine.clock.now();
        let reports = link.map(|link| link.reports(connector(resource), resource, &pods, now));
        Self {
            pods,
            reports: reports.unwrap_or_default(),
            broker,
            reading,
            now,
        }
    }

    /// As functions of `vumi_plan` take it.
    pub fn of<'a>(&'a self, resource: &'a Resource) -> Sight<'a> {
        Sight {
            resource,
            pods: &self.pods,
            reports: &self.reports,
            broker: &self.broker,
            now: self.now,
        }
    }
}
