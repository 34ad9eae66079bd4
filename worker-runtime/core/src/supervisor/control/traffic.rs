//! Messages into and out of a running process: published for whoever injects them, copied to whoever taps.

use super::super::Supervisor;
use super::{bad, consumed};
use crate::broker::Broker;
use crate::error::{Classify, WorkError};
use crate::inject::Injector;
use crate::message::Message;
use crate::tap::{self, Filter, Tap};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use vumi_api::{Flow, Port};

/// Publishes messages into a queue that a worker here consumes; on return all are confirmed.
pub(super) async fn publish(
    supervisor: &Supervisor,
    port: &Port,
    messages: &[Value],
) -> Result<Value, WorkError> {
    let queues = consumed(supervisor).await?;
    let Some(broker) = queues.get(&port.queue()) else {
        let known: Vec<&str> = queues.keys().map(String::as_str).collect();
        return Err(bad(format!(
            "no worker here reads {}; read are: {}",
            port.queue(),
            known.join(", ")
        )));
    };
    let mut bodies = Vec::with_capacity(messages.len());
    for message in messages {
        let body = message.to_string();
        Message::decode(port.flow, body.as_bytes())
            .map_err(|error| WorkError::new(error.class(), error.code(), error.to_string()))?;
        bodies.push(Bytes::from(body));
    }
    let mut injector = Injector::new(Arc::clone(broker), port.queue(), false);
    for body in bodies {
        injector.send(body).await?;
    }
    injector.flush().await?;
    Ok(json!({"confirmed": injector.confirmed()}))
}

/// Opens a tap on connectors of the process; without any, on all of them.
pub(super) async fn open(
    supervisor: &Supervisor,
    connectors: &[String],
    kinds: &[String],
    filter: Filter,
) -> Result<Tap, WorkError> {
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut found: Option<Arc<dyn Broker>> = None;
    for resource in supervisor.resources() {
        let topology = resource.topology();
        let ports = topology.intake.iter().chain(&topology.replies);
        let names: BTreeSet<String> = ports
            .chain(&topology.publishes)
            .map(|port| port.connector.clone())
            .collect();
        let meant = connectors.is_empty() || names.iter().any(|name| connectors.contains(name));
        known.extend(names);
        if meant {
            let broker = supervisor.broker_of(&resource).await?;
            if found
                .as_ref()
                .is_some_and(|first| !Arc::ptr_eq(first, &broker))
            {
                return Err(bad(
                    "these connectors are on several brokers; tap them one by one".into(),
                ));
            }
            found = Some(broker);
        }
    }
    let missing = connectors.iter().find(|name| !known.contains(*name));
    let (None, Some(broker)) = (missing, found) else {
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        return Err(bad(format!(
            "no worker here has the connector {:?}; there are: {}",
            missing.map_or("", String::as_str),
            names.join(", ")
        )));
    };
    let flows = flows(kinds)?;
    let names: Vec<String> = match connectors {
        [] => known.into_iter().collect(),
        some => some.to_vec(),
    };
    let ports = names
        .iter()
        .flat_map(|name| flows.iter().map(move |flow| Port::new(name, *flow)));
    Ok(Tap::open(&*broker, &ports.collect::<Vec<_>>(), filter).await)
}

/// The flows with these names; without any, all.
fn flows(kinds: &[String]) -> Result<Vec<Flow>, WorkError> {
    if kinds.is_empty() {
        return Ok(vec![Flow::Inbound, Flow::Outbound, Flow::Event]);
    }
    let flow = |kind: &String| {
        tap::flow(kind).ok_or_else(|| bad(format!("{kind:?} is none of inbound, outbound, event")))
    };
    kinds.iter().map(flow).collect()
}
