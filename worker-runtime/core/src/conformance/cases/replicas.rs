//! Two replicas of a transport that holds requests or sessions share the outbound queue (R19).

use super::peer::{ask, outcome, received, reply};
use crate::conformance::far_end::patience;
use crate::conformance::inside::Inside;
use crate::conformance::rig::{LIMITS, Rig, eventually};
use crate::message::{EventType, random_id};
use std::time::Duration;
use vumi_api::Holds;

/// Two replicas share the outbound queue: a reply reaches the one that holds the request or session, whichever consumed it, and
/// when that one is gone, the sender is told (R19).
pub(super) async fn replies_find_their_replica(rig: &mut Rig<Inside>) -> Result<(), String> {
    const USERS: usize = 6;
    let mut other = rig.replica().await?;
    let mut asked = Vec::new();
    for user in 0..USERS {
        asked.push(ask(rig, &mut other.peer, user).await?);
    }
    for (user, message) in asked.iter().enumerate() {
        let (text, id) = reply(rig, message).await?;
        received(&mut other.peer, user, &text).await?;
        match outcome(rig, &id).await?.event_type() {
            EventType::Ack => {}
            other => return Err(format!("a forwarded reply got {other:?}")),
        }
    }
    if rig.settle().await?.done == 0 {
        return Err(
            "the replica that holds nothing consumed no reply, so none was forwarded".into(),
        );
    }
    let c = other.worker.snapshot().counts;
    if c.received != c.done + c.parked + c.returned + c.in_flight {
        return Err(format!("the counts of the holder do not add up: {c:?}"));
    }
    let orphan = ask(rig, &mut other.peer, USERS).await?;
    let name = &rig.name;
    let holder = format!("{name}.reply.{}", other.instance);
    other.faults.sever();
    drop(other);
    eventually(
        "the queue of the replica that is gone is gone",
        async || match rig.broker.depth(&holder).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await?;
    let (_, id) = reply(rig, &orphan).await?;
    let event = outcome(rig, &id).await?;
    let code = event.fate().map(|fate| fate.code).unwrap_or_default();
    match (event.event_type(), code.as_str()) {
        (EventType::Nack, "reply.holder_gone") => rig.settle().await.map(drop),
        other => Err(format!("a reply whose holder is gone got {other:?}")),
    }
}

/// Replies that do not name the replica any more, because their application dropped the name, find it by the trail of what
/// they answer; and one that answers nothing that anybody knows is nobody's.
pub(super) async fn nameless_replies_find_their_replica(
    rig: &mut Rig<Inside>,
) -> Result<(), String> {
    let mut other = rig.replica().await?;
    let mut last = None;
    for user in 0..3 {
        let mut message = ask(rig, &mut other.peer, user).await?;
        message.transport_metadata_mut().clear();
        let (text, id) = reply(rig, &message).await?;
        received(&mut other.peer, user, &text).await?;
        match outcome(rig, &id).await?.event_type() {
            EventType::Ack => last = Some(message),
            other => return Err(format!("a reply without the name got {other:?}")),
        }
    }
    // What requests are open is known by their ids alone; a transport that also sends takes it for a message of its own.
    if let Some(mut message) = last
        && rig.topology.holds == Some(Holds::Sessions)
    {
        message.set_message_id(&random_id());
        let (_, id) = reply(rig, &message).await?;
        match outcome(rig, &id).await?.event_type() {
            EventType::Nack => {}
            other => return Err(format!("an answer to nothing got {other:?}")),
        }
    }
    rig.settle().await.map(drop)
}

/// The replica that reads the outbound queue stops while replies to the users of the other one come: these hear every one,
/// in order, once. Then the other one reads.
pub(super) async fn replies_keep_their_order(rig: &mut Rig<Inside>) -> Result<(), String> {
    const USERS: usize = 4;
    const EACH: usize = 30;
    let mut other = rig.replica().await?;
    let mut asked = Vec::new();
    for user in 0..USERS {
        asked.push(ask(rig, &mut other.peer, user).await?);
    }
    let (mut said, mut stopping) = (Vec::new(), None);
    for n in 0..EACH {
        if n == EACH / 3 {
            let worker = rig.under.worker.take().ok_or("it does not run")?;
            stopping = Some(tokio::spawn(worker.stop(LIMITS)));
        }
        for (user, message) in asked.iter().enumerate() {
            let (text, id) = reply(rig, message).await?;
            said.push((user, text, id));
        }
        tokio::task::yield_now().await;
    }
    for (user, text, _) in &said {
        let heard = other.peer.receive(*user, patience()).await?;
        if !heard.contains(text.as_str()) {
            return Err(format!(
                "user {user} hears {heard:?} where {text:?} is next"
            ));
        }
    }
    for user in 0..USERS {
        if let Ok(more) = other.peer.receive(user, Duration::from_millis(50)).await {
            return Err(format!("user {user} hears {more:?} once more"));
        }
    }
    for (_, _, id) in &said {
        match outcome(rig, id).await?.event_type() {
            EventType::Ack => {}
            other => return Err(format!("a reply that was heard got {other:?}")),
        }
    }
    if let Some(stopping) = stopping {
        let stopped = tokio::time::timeout(patience(), stopping).await;
        stopped
            .map_err(|_| "it did not stop")?
            .map_err(|e| format!("stopping it panicked: {e}"))?;
    }
    Ok(())
}
