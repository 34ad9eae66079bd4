//! The worker is replaced by a new one while messages flow, as the supervisor does it (R8).

use super::peer::{answer_opening, ask, outcome, received, reply};
use super::{judge, owe};
use crate::conformance::inside::Inside;
use crate::conformance::oracle::Oracle;
use crate::conformance::rig::{MARK, Rig};
use crate::message::{EventType, Message, random_id};
use vumi_api::OrderingMode;

/// Two reloads, each with one message being handled, others waiting behind it and more to come: nothing is lost, order
/// is kept, repeats are equal.
pub(super) async fn messages_flow_through(rig: &mut Rig<Inside>) -> Result<(), String> {
    const EACH: usize = 2;
    let ports = rig.answering();
    // Where one message at a time is handled, nobody is served before the held one.
    let parallel = rig.ordering != OrderingMode::PerQueue;
    let mut oracle = Oracle::default();
    for n in [0, 10] {
        let mut gates = Vec::new();
        for port in &ports {
            gates.push(rig.under.plan.hold(rig.message(port, 0, n).id()));
            for (user, id) in rig.send_many(port, 0..3, n..n + EACH).await? {
                owe(&mut oracle, port, user, &id);
                if user > 0 && parallel {
                    rig.far_end.output_of(&id).await?;
                }
            }
        }
        let sent = rig
            .reload(async |rig| {
                let mut sent = Vec::new();
                for port in &ports {
                    let more = rig.send_many(port, 0..3, n + EACH..n + 2 * EACH).await?;
                    sent.extend(more.into_iter().map(|(user, id)| (port, user, id)));
                }
                gates.iter().for_each(|gate| gate.cancel());
                Ok(sent)
            })
            .await?;
        for (port, user, id) in &sent {
            owe(&mut oracle, port, *user, id);
        }
        let counts = rig.settle().await?;
        if counts.parked > 0 {
            return Err(format!("a reload sets messages aside: {counts:?}"));
        }
    }
    judge(rig, oracle).await
}

/// Who waits for a reply at a reload gets it, and who comes during it is served by the new worker, on the same port.
pub(super) async fn peers_are_served(rig: &mut Rig<Inside>) -> Result<(), String> {
    let mut peer = rig.peer()?;
    let waiting = ask(rig, &mut peer, 0).await?;
    answer_opening(rig, &mut peer, 0, &waiting).await?;
    let mut newcomer = rig.peer()?;
    let asked = format!("{MARK} {}", random_id());
    rig.reload(async |rig| {
        newcomer.send(1, &asked).await?;
        let (text, id) = reply(rig, &waiting).await?;
        received(&mut peer, 0, &text).await?;
        match outcome(rig, &id).await?.event_type() {
            EventType::Ack => Ok(()),
            other => Err(format!("the reply reached the user and got {other:?}")),
        }
    })
    .await?;
    let seen = rig.far_end.inbound(&asked).await?;
    let Message::User(message) = seen.message else {
        return Err("it arrived as an event".into());
    };
    let (text, _) = reply(rig, &message).await?;
    received(&mut newcomer, 1, &text).await?;
    rig.settle().await.map(drop)
}
