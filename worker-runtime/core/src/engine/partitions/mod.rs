//! A queue that several replicas share without losing order (R2, S12): the holder of its fence passes every message on to
//! one of its parts, each part has a fence of its own, and the replicas divide the parts among them.
//!
//! Membership decides who should read a part, and only the fence who may: whatever the replicas believe of each other,
//! a part has one reader, and the next one begins where it ended.

mod crew;
mod forward;
mod found;
mod layout;
mod leftover;
mod members;
mod plan;
mod shares;

pub use found::parts_on;
pub(super) use layout::Layout;
pub(super) use plan::Plan;
pub(crate) use plan::is_part;

use super::backlog::Backlog;
use super::consumer::{Consumer, Parts, Watched};
use super::delivery::{Desk, Duty};
use crew::Crew;
use futures::future::{BoxFuture, FutureExt};
use leftover::Leftover;
use std::sync::Arc;
use vumi_api::{Kind, OrderingMode};

/// Unacknowledged messages of all parts of a queue in one replica, at least: many parts share them.
const WINDOW: usize = 1600;

/// Unacknowledged messages of one of so many parts: everybody who reads or holds it has the same window.
fn window_of_part(parts: usize, whole: u16) -> u16 {
    let share = (WINDOW / parts.max(1)).clamp(25, usize::from(whole));
    u16::try_from(share).unwrap_or(whole)
}

/// A loop of the engine, and what is seen of it.
pub(super) type Loop = (BoxFuture<'static, ()>, Option<Watched>);

/// Starts what reads a queue that is not divided. If it was before, what waits in its parts is finished first.
pub(super) async fn start_whole(parts: Parts, queue: &str) -> Vec<Loop> {
    let layout = Arc::new(Layout::new(&parts, Plan::whole(queue)));
    let leftover = Leftover::new(parts.clone(), Arc::clone(&layout));
    // Where no order is kept, nothing waits for what is older.
    let ordered = parts.mode != OrderingMode::None;
    let desk = Desk {
        layout: ordered.then(|| Arc::clone(&layout)),
        ..(*parts.desk).clone()
    };
    let desk = Arc::new(desk);
    let (consumer, mut watched) = Consumer::subscribe(Parts { desk, ..parts }).await;
    layout.led_by(watched.state.clone(), consumer.acker());
    watched.leftover = Some(layout.leftover());
    vec![
        (kept(consumer, layout), Some(watched)),
        (leftover.run().boxed(), None),
    ]
}

/// Consumes a queue as a whole, and sees to it that it is divided as it should be.
fn kept(consumer: Consumer, layout: Arc<Layout>) -> BoxFuture<'static, ()> {
    let run = async move {
        tokio::select! {
            biased;
            () = consumer.run() => {}
            () = layout.keep() => {}
        }
    };
    run.boxed()
}

/// Starts what reads a divided queue: the forwarder, and the crew that reads parts. `parts` is what a consumer of the
/// queue as a whole would be made of.
pub(super) async fn start(parts: Parts, plan: Plan) -> Vec<Loop> {
    let layout = Arc::new(Layout::new(&parts, plan.clone()));
    // To its partitions the forwarder is what a dispatcher is to its targets: when they are full, it waits. Classes never
    // hold it up.
    let backlog = Arc::new(Backlog::new(Kind::Dispatcher, parts.backlog.limit()));
    let desk = Desk {
        duty: Duty::Forward(Arc::new(plan.clone())),
        layout: Some(Arc::clone(&layout)),
        counters: Arc::default(),
        generation: Arc::default(),
        ..(*parts.desk).clone()
    };
    let (consumer, mut forwarding) = Consumer::subscribe(Parts {
        desk: Arc::new(desk),
        backlog: Arc::clone(&backlog),
        // Parts may be competed for, but who divides the queue is one.
        mode: match parts.mode {
            OrderingMode::None => OrderingMode::PerUser,
            mode => mode,
        },
        // What must wait waits in its part.
        hold: None,
        ..parts.clone()
    })
    .await;
    layout.led_by(forwarding.state.clone(), consumer.acker());
    forwarding.own_backlog = Some(Arc::clone(&backlog));
    let (crew, reading) = Crew::new(parts, plan, Arc::clone(&layout), backlog);
    vec![
        (kept(consumer, layout), Some(forwarding)),
        (crew.run().boxed(), Some(reading)),
    ]
}
