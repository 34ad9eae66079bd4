//! A queue that several replicas share without losing order (R2, S12): the holder of its fence passes every message on to
//! one of its parts, each part has a fence of its own, and the replicas divide the parts among them.
//!
//! Membership decides who should read a part, and only the fence who may: whatever the replicas believe of each other,
//! a part has one reader, and the next one begins where it ended.

mod crew;
mod forward;
mod layout;
mod members;
mod plan;
mod shares;

pub(super) use forward::Forwarder;
pub(super) use plan::Plan;

use super::backlog::Backlog;
use super::consumer::{Consumer, Parts, Watched};
use super::delivery::{Desk, Duty};
use crew::Crew;
use futures::future::BoxFuture;
use layout::Layout;
use std::sync::Arc;
use vumi_api::Kind;

/// Unacknowledged messages of all parts of a queue in one replica, at least: many parts share them.
const WINDOW: usize = 1600;

/// Starts what reads a divided queue: the forwarder, and the crew that reads parts. `parts` is what a consumer of the
/// queue as a whole would be made of.
pub(super) async fn start(
    parts: Parts,
    plan: Plan,
    member: &str,
) -> Vec<(BoxFuture<'static, ()>, Watched)> {
    let layout = Arc::new(Layout::new(
        Arc::clone(&parts.broker),
        Arc::clone(&parts.status),
        plan.clone(),
    ));
    // To its parts the forwarder is what a dispatcher is to its targets: when they are full, it waits.
    let backlog = Arc::new(Backlog::new(Kind::Dispatcher, parts.backlog.limit()));
    let forwarder = Forwarder {
        plan: plan.clone(),
        layout: Arc::clone(&layout),
    };
    let desk = Desk {
        duty: Duty::Forward(Arc::new(forwarder)),
        counters: Arc::default(),
        ..(*parts.desk).clone()
    };
    let (consumer, mut forwarding) = Consumer::subscribe(Parts {
        desk: Arc::new(desk),
        backlog: Arc::clone(&backlog),
        // What must wait waits in its part.
        journal: None,
        hold: None,
        ..parts.clone()
    })
    .await;
    forwarding.own_backlog = Some(Arc::clone(&backlog));
    let (crew, reading) = Crew::new(
        parts,
        plan,
        member,
        layout,
        forwarding.state.clone(),
        backlog,
    );
    vec![
        (Box::pin(consumer.run()), forwarding),
        (Box::pin(crew.run()), reading),
    ]
}
