//! What it is: copies inbound messages and events of a transport to exposed names, and sends outbound messages to the
//! transport they name.
//!
//! Limits: an outbound message whose `transport_name` is not among `transports` gets a nack event.
//!
//! Codes: `route.none`.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::shapes::{ConnectorRef, ConnectorRefs};
use crate::shared::{ConnectorName, OrderingMode};
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Fixed routes by transport name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Simple {
    /// Transports to join.
    #[schemars(with = "Vec<ConnectorName>", length(min = 1, max = 100))]
    pub transports: Vec<String>,
    /// Names under which applications see them.
    #[schemars(with = "Vec<ConnectorName>", length(min = 1, max = 100))]
    pub exposed: Vec<String>,
    /// Transport → exposed names that each get a copy of its inbound messages and events. Default: every transport to
    /// the only exposed name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, ConnectorRefs>>", extend("maxProperties" = 100))]
    pub routes: Option<BTreeMap<String, Vec<String>>>,
    /// `transport_name` of an outbound message → transport it goes to. Default: the transport of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, ConnectorRef>>", extend("maxProperties" = 100))]
    pub transport_mappings: Option<BTreeMap<String, String>>,
}

impl WorkerConfig for Simple {
    const KIND: Kind = Kind::Dispatcher;
    const TYPE: &'static str = "simple";
    const ORDERING: OrderingMode = OrderingMode::PerUser;

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.dispatcher().and_then(|d| d.simple.as_ref())
    }

    fn topology(&self, _: &Resource) -> Topology {
        Topology::dispatcher(&self.transports, &self.exposed)
    }

    fn validate(&self, _: &Resource) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        match &self.routes {
            None if self.exposed.len() > 1 => findings.push((
                "simple.routes".into(),
                "with more than one exposed name, say which transport goes where".into(),
            )),
            None => {}
            Some(routes) => {
                for (transport, targets) in routes {
                    if !self.transports.contains(transport) {
                        findings.push((
                            format!("simple.routes.{transport}"),
                            format!("{transport:?} is not one of transports"),
                        ));
                    }
                    for target in targets.iter().filter(|t| !self.exposed.contains(t)) {
                        findings.push((
                            format!("simple.routes.{transport}"),
                            format!("{target:?} is not one of exposed"),
                        ));
                    }
                }
                for transport in self.transports.iter().filter(|t| !routes.contains_key(*t)) {
                    findings.push((
                        "simple.routes".into(),
                        format!(
                            "transport {transport:?} has no route: its messages would go nowhere"
                        ),
                    ));
                }
            }
        }
        for (from, to) in self.transport_mappings.iter().flatten() {
            if !self.transports.contains(to) {
                findings.push((
                    format!("simple.transportMappings.{from}"),
                    format!("{to:?} is not one of transports"),
                ));
            }
        }
        findings
    }
}
