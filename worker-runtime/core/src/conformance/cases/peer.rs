//! The side towards the peer of a transport.

use crate::conformance::Peer;
use crate::conformance::far_end::{Seen, patience};
use crate::conformance::faults::{Mischief, Mishap};
use crate::conformance::inside::Inside;
use crate::conformance::rig::{LIMITS, MARK, Rig, UnderTest, eventually, everything_turns};
use crate::message::{Event, EventType, Message, UserMessage, random_id};
use std::time::Duration;
use vumi_api::{Flow, Port};

/// Sends as a user, and the inbound message that this causes.
pub(super) async fn ask<W: UnderTest>(
    rig: &Rig<W>,
    peer: &mut Box<dyn Peer>,
    user: usize,
) -> Result<UserMessage, String> {
    let text = format!("{MARK} {}", random_id());
    peer.send(user, &text).await?;
    let seen = rig.far_end.inbound(&text).await?;
    let name = rig.name.as_str();
    if seen.port != Port::new(name, Flow::Inbound) || seen.message.transport_name() != Some(name) {
        return Err(format!(
            "it arrived on {} for {:?}",
            seen.port,
            seen.message.transport_name()
        ));
    }
    match seen.message {
        Message::User(message) => Ok(message),
        Message::Event(_) => Err("it arrived as an event".into()),
    }
}

/// Replies to a message through the outbound queue; content and id of the reply.
pub(super) async fn reply<W: UnderTest>(
    rig: &Rig<W>,
    to: &UserMessage,
) -> Result<(String, String), String> {
    let text = format!("{MARK} reply {}", random_id());
    let reply = to.reply("conformance", 0, Some(&text), false);
    let port = Port::new(&rig.name, Flow::Outbound);
    let id = rig.send(&port, &reply.into()).await?;
    Ok((text, id))
}

pub(super) async fn received(
    peer: &mut Box<dyn Peer>,
    user: usize,
    text: &str,
) -> Result<(), String> {
    let got = peer.receive(user, patience()).await?;
    match got.contains(text) {
        true => Ok(()),
        false => Err("the peer received another text than was sent to it".into()),
    }
}

/// The one ack or nack for the message `id`.
pub(super) async fn outcome<W: UnderTest>(rig: &Rig<W>, id: &str) -> Result<Event, String> {
    let seen = rig.far_end.output_of(id).await?;
    match seen.message {
        Message::Event(event) => Ok(event),
        Message::User(_) => Err("an outbound message caused a user message".into()),
    }
}

/// Answers what opened the user's session, if the protocol has sessions: now only `message` waits for a reply.
pub(super) async fn answer_opening(
    rig: &Rig<Inside>,
    peer: &mut Box<dyn Peer>,
    user: usize,
    message: &UserMessage,
) -> Result<(), String> {
    for seen in rig.far_end.seen() {
        if let Message::User(other) = &seen.message
            && other.from_addr() == message.from_addr()
            && other.message_id() != message.message_id()
        {
            let (text, _) = reply(rig, other).await?;
            received(peer, user, &text).await?;
        }
    }
    Ok(())
}

/// Users speak and are answered, each by themselves; every outbound message gets exactly one ack with the peer's id.
pub(super) async fn conversation<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let mut peer = rig.peer()?;
    let mut asked = Vec::new();
    for user in 0..3 {
        asked.push(ask(rig, &mut peer, user).await?);
    }
    let mut addresses: Vec<_> = asked.iter().map(UserMessage::from_addr).collect();
    addresses.sort();
    addresses.dedup();
    if addresses.len() != 3 || addresses.contains(&None) {
        return Err("three users have not three addresses".into());
    }
    let mut ids = Vec::new();
    for (user, message) in asked.iter().enumerate().rev() {
        let (text, id) = reply(rig, message).await?;
        received(&mut peer, user, &text).await?;
        ids.push(id);
    }
    for id in &ids {
        let event = outcome(rig, id).await?;
        if event.event_type() != EventType::Ack || event.sent_message_id().is_none() {
            return Err(format!("a delivered reply got {:?}", event.event_type()));
        }
    }
    rig.settle().await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let more = ids.iter().find(|id| rig.far_end.caused_by(id).len() != 1);
    match more {
        None => Ok(()),
        Some(id) => Err(format!("message {id} got more than one event")),
    }
}

/// Bytes that are not the protocol hurt nobody.
pub(super) async fn garbage<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let mut peer = rig.peer()?;
    peer.garbage().await?;
    let mut neighbour = rig.peer()?;
    let message = ask(rig, &mut neighbour, 0).await?;
    let (text, id) = reply(rig, &message).await?;
    received(&mut neighbour, 0, &text).await?;
    outcome(rig, &id).await?;
    rig.until_consuming().await?;
    rig.settle().await.map(drop)
}

/// A message of the peer survives publications that are refused and lost, and its repeats are equal.
pub(super) async fn publication_troubles<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let mut peer = rig.peer()?;
    // Whatever opens the session comes first, so that the faults meet the message itself.
    let opening = ask(rig, &mut peer, 0).await?;
    let (text, _) = reply(rig, &opening).await?;
    received(&mut peer, 0, &text).await?;
    rig.settle().await?;
    rig.faults
        .next(&[Mishap::Nacked, Mishap::ConfirmationLost, Mishap::Lost]);
    let message = ask(rig, &mut peer, 0).await?;
    eventually("every lost publication is repeated", async || {
        match rig.faults.mishaps_left() {
            0 => Ok(()),
            left => Err(format!("{left} were not")),
        }
    })
    .await?;
    let twice = |seen: &[Seen]| {
        let id = message.message_id();
        let count = seen.iter().filter(|s| s.message.id() == id).count();
        (count >= 2).then_some(())
    };
    let what = "the message whose confirmation was lost comes again with its id";
    rig.far_end.until(what, twice).await?;
    let (text, _) = reply(rig, &message).await?;
    received(&mut peer, 0, &text).await?;
    rig.settle().await.map(drop)
}

/// A stop closes the intake first: who waits for a reply still gets it, and nothing new is taken in.
pub(super) async fn replies_during_a_stop(rig: &mut Rig<Inside>) -> Result<(), String> {
    let mut peer = rig.peer()?;
    let waiting = ask(rig, &mut peer, 0).await?;
    answer_opening(rig, &mut peer, 0, &waiting).await?;
    let worker = rig.under.worker.take().ok_or("it does not run")?;
    let stopping = tokio::spawn(worker.stop(LIMITS));
    everything_turns().await;
    if stopping.is_finished() {
        return Err("it stopped although a user waits for a reply".into());
    }
    let late = format!("{MARK} too late");
    // Refused or not taken up: either is right, but nothing may come of it.
    let mut newcomer = rig.peer()?;
    let _ = tokio::time::timeout(Duration::from_millis(300), newcomer.send(1, &late)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (text, id) = reply(rig, &waiting).await?;
    received(&mut peer, 0, &text).await?;
    let event = outcome(rig, &id).await?;
    if event.event_type() != EventType::Ack {
        return Err("the reply reached the user and was nacked".into());
    }
    tokio::time::timeout(patience(), stopping)
        .await
        .map_err(|_| "it did not stop")?
        .map_err(|e| format!("stopping it panicked: {e}"))?;
    let seen = rig.far_end.seen();
    let content = |s: &Seen| super::super::far_end::content_of(&s.message) == Some(late.as_str());
    match seen.iter().any(content) {
        true => Err("new work was taken in after the stop began".into()),
        false => Ok(()),
    }
}
