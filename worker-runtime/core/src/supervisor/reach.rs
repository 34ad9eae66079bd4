//! What operators' commands reach through a process: the stores and consumed queues of its workers.

use super::Supervisor;
use crate::audit::account_of;
use crate::operate::{Consumed, Reach};
use std::collections::BTreeMap;
use std::sync::Arc;
use vumi_api::{Flow, Kind, Port};

impl Supervisor {
    /// The stores and consumed queues of all workers.
    pub async fn reach(&self) -> Reach {
        let mut reach = Reach::default();
        let mut stores: Vec<String> = Vec::new();
        let mut in_flight: BTreeMap<String, u64> = BTreeMap::new();
        let snapshots = self.snapshots().await;
        for resource in self.resources() {
            // A worker whose services cannot be had does not run; the others are still within reach.
            let Ok(used) = self.shared.services.get(&resource).await else {
                continue;
            };
            let store = used.state.map(|lease| {
                let known = stores.iter().position(|name| *name == lease.identity);
                known.unwrap_or_else(|| {
                    stores.push(lease.identity.clone());
                    reach.stores.push(Arc::clone(&lease.held));
                    stores.len() - 1
                })
            });
            let consumed = Consumed {
                broker: Some(Arc::clone(&used.broker.held)),
                store,
                keep: resource.settings().retention.ledger(),
                worker: resource.key(),
                journal: resource.settings().retention.journal.map(|kept| kept.0),
                classes: None,
                only_answers: false,
            };
            let topology = resource.topology();
            let ports = topology.intake.iter().chain(&topology.replies);
            let mut queues: Vec<String> = ports.map(Port::queue).collect();
            // Partitions and classes have queues of their own. What a reply queue cannot deliver is parked with its connector.
            for port in topology.intake.iter().chain(&topology.replies) {
                let parts = resource.division(port.flow).into_iter();
                queues.extend(parts.map(|part| format!("{}.{part}", port.queue())));
            }
            let snapshot = snapshots.iter().find(|s| s.key == resource.key());
            let account = queues.iter().find_map(|queue| account_of(queue));
            if let (Some(snapshot), Some(account)) = (snapshot, account) {
                *in_flight.entry(account.to_owned()).or_default() += snapshot.counts.in_flight;
            }
            reach
                .queues
                .extend(queues.into_iter().map(|queue| (queue, consumed.clone())));
            if resource.kind() == Kind::Transport {
                let queue = Port::new(resource.transport_name(), Flow::Outbound).queue();
                let classes = Some(resource.classes().is_some());
                reach.queues.insert(
                    queue,
                    Consumed {
                        classes,
                        only_answers: topology.only_answers,
                        ..consumed
                    },
                );
            }
        }
        reach.in_flight = Some(in_flight);
        reach
    }
}
