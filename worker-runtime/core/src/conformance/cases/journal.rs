//! Messages that leave the window for the journal and come back.

use super::{judge, owe};
use crate::conformance::inside::Inside;
use crate::conformance::oracle::Oracle;
use crate::conformance::rig::{Rig, UnderTest, eventually};
use vumi_api::Flow;

/// A user with more messages than a lane may hold of the window: the lane moves into the journal as a whole and is
/// replayed in order, others are served meanwhile, and nothing overtakes.
pub(super) async fn order_through_divert(rig: &mut Rig<Inside>) -> Result<(), String> {
    const MANY: usize = 120;
    let mut ports = rig.answering().into_iter();
    let port = ports.find(|port| port.flow != Flow::Event);
    let port = port.ok_or("no queue of user messages")?;
    let first = rig.message(&port, 0, 0);
    let gate = rig.under.plan.hold(first.id());
    let mut oracle = Oracle::default();
    for (user, id) in rig.send_many(&port, 0..1, 0..MANY).await? {
        owe(&mut oracle, &port, user, &id);
    }
    eventually("the first one is at work", async || {
        match rig.under.attempts(first.id()) {
            0 => Err("it is not".to_owned()),
            _ => Ok(()),
        }
    })
    .await?;
    for (user, id) in rig.send_many(&port, 10..15, 0..4).await? {
        rig.far_end.output_of(&id).await?;
        owe(&mut oracle, &port, user, &id);
    }
    gate.cancel();
    for (user, id) in rig.send_many(&port, 0..1, MANY..MANY + 5).await? {
        owe(&mut oracle, &port, user, &id);
    }
    judge(rig, oracle).await?;
    match rig.counts()? {
        c if c.journaled > 0 => Ok(()),
        c => Err(format!("nothing moved into the journal: {c:?}")),
    }
}
