//! What it is: routes by connector and endpoint, in both directions, by a fixed table.
//!
//! Limits: a message without a row gets a nack event (outbound) or is parked (inbound, event).
//!
//! Codes: `route.none`.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::shapes::Rows;
use crate::shared::{ConnectorName, OrderingMode};
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Routes by connector and endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoutingTable {
    /// Connectors towards transports: their inbound messages and events are consumed here.
    #[schemars(with = "Vec<ConnectorName>", length(min = 1, max = 100))]
    pub transports: Vec<String>,
    /// Connectors towards applications: their outbound messages are consumed here.
    #[schemars(with = "Vec<ConnectorName>", length(min = 1, max = 100))]
    pub exposed: Vec<String>,
    /// Connector a message arrived on → its endpoint (`default` when it names none) → where it goes.
    #[schemars(with = "BTreeMap<String, Rows>", extend("minProperties" = 1, "maxProperties" = 200))]
    pub table: BTreeMap<String, BTreeMap<String, Route>>,
}

/// Target of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Target connector.
    #[schemars(length(min = 1, max = 180))]
    pub connector: String,
    /// Endpoint that the message gets there. Default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 180))]
    pub endpoint: Option<String>,
}

impl WorkerConfig for RoutingTable {
    const KIND: Kind = Kind::Dispatcher;
    const TYPE: &'static str = "routingTable";
    const ORDERING: OrderingMode = OrderingMode::PerUser;

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.dispatcher().and_then(|d| d.routing_table.as_ref())
    }

    fn topology(&self, _: &Resource) -> Topology {
        Topology::dispatcher(&self.transports, &self.exposed)
    }

    fn validate(&self, _: &Resource) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        for (from, rows) in &self.table {
            let targets = if self.transports.contains(from) {
                &self.exposed
            } else if self.exposed.contains(from) {
                &self.transports
            } else {
                findings.push((
                    format!("routingTable.table.{from}"),
                    format!("{from:?} is neither one of transports nor of exposed"),
                ));
                continue;
            };
            for (endpoint, route) in rows {
                if !targets.contains(&route.connector) {
                    findings.push((
                        format!("routingTable.table.{from}.{endpoint}.connector"),
                        format!("{:?} is not on the other side of {from:?}", route.connector),
                    ));
                }
            }
        }
        findings
    }
}
