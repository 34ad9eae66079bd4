//! What happens to messages that cannot be read or handled, and to their neighbours.

use super::{judge, owe};
use crate::conformance::far_end::Seen;
use crate::conformance::inside::Inside;
use crate::conformance::oracle::Oracle;
use crate::conformance::rig::{MARK, Rig, UnderTest, eventually};
use crate::conformance::saboteur::Trouble;
use crate::message::{EventType, MAX_BODY, MAX_DEPTH, Message};
use bytes::Bytes;
use vumi_api::{Flow, Port};

/// Bodies that are no messages, and the code each is parked with.
fn garbage() -> [(Bytes, &'static str); 6] {
    let deep = format!("{{\"x\": {}1", "[".repeat(MAX_DEPTH));
    let large = format!("{{\"content\": \"{MARK}{}\"}}", "x".repeat(MAX_BODY));
    let old = format!(r#"{{"message_version": "20110707", "content": "{MARK}"}}"#);
    let bare = r#"{"message_version": "20110921", "message_type": "user_message"}"#;
    [
        (Bytes::from_static(b"\x00\xff not JSON"), "message.not_json"),
        (Bytes::new(), "message.not_json"),
        (deep.into(), "message.too_large"),
        (large.into(), "message.too_large"),
        (old.into(), "message.version"),
        (bare.into(), "message.invalid"),
    ]
}

/// The flow goes on after garbage on every consumed queue.
pub(super) async fn garbage_stops_nothing<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    for port in rig.answering() {
        for (body, _) in garbage() {
            rig.feed(&port.queue(), body).await?;
        }
        for user in 0..3 {
            let id = rig.send(&port, &rig.message(&port, user, 0)).await?;
            rig.far_end.output_of(&id).await?;
        }
    }
    rig.until_consuming().await
}

/// Garbage on every consumed queue is set aside with its reason.
pub(super) async fn garbage_is_parked<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let ports: Vec<_> = rig.consumed().cloned().collect();
    let mut before = Vec::new();
    for port in &ports {
        // What is there already was set aside from somebody else's queue of that name.
        before.push(rig.parked(port).await?.len());
        for (body, _) in garbage() {
            rig.feed(&port.queue(), body).await?;
        }
        let id = rig.send(port, &rig.message(port, 0, 0)).await?;
        if rig.answers(port) {
            rig.far_end.output_of(&id).await?;
        }
    }
    let all = (ports.len() * garbage().len()) as u64;
    rig.under.finished(ports.len() as u64, all).await?;
    for (port, before) in ports.iter().zip(before) {
        let mut expected = garbage().map(|(_, code)| code);
        // Of a worker that others started no acknowledgement is seen: it may not be done yet.
        let mut parked = eventually("what is no message is set aside", async || {
            let parked = rig.parked(port).await?.into_iter().skip(before);
            let parked: Vec<String> = parked.map(|envelope| envelope.code).collect();
            match parked.len() < expected.len() {
                true => Err(format!(
                    "{port}: parked are {parked:?}, expected {expected:?}"
                )),
                false => Ok(parked),
            }
        })
        .await?;
        parked.sort();
        expected.sort();
        let right = match rig.under.has_our_codes() {
            true => parked == expected,
            false => parked.len() == expected.len() && parked.iter().all(|code| !code.is_empty()),
        };
        if !right {
            return Err(format!(
                "{port}: parked are {parked:?}, expected {expected:?}"
            ));
        }
    }
    rig.settle().await.map(drop)
}

/// A temporary error holds its user, in order, and nobody else.
pub(super) async fn temporary_error_holds_one_user(rig: &mut Rig<Inside>) -> Result<(), String> {
    const FAILURES: u32 = 5;
    for port in rig.answering().iter().filter(|p| p.flow != Flow::Event) {
        let mut oracle = Oracle::default();
        let held = rig.message(port, 0, 0).id().to_owned();
        rig.under.plan.trouble(&held, Trouble::Temporary(FAILURES));
        let gate = rig.under.plan.hold(&held);
        let mut others = Vec::new();
        for (user, id) in rig.send_many(port, 0..4, 0..3).await? {
            owe(&mut oracle, port, user, &id);
            if user > 0 {
                others.push(id);
            }
        }
        for id in &others {
            let out = rig.far_end.output_of(id).await;
            out.map_err(|e| format!("{port}: message {id} waited for another user's: {e}"))?;
        }
        gate.cancel();
        rig.far_end.output_of(&held).await?;
        rig.settle().await?;
        if rig.under.attempts(&held) != FAILURES + 1 {
            return Err(format!("{port}: {} attempts", rig.under.attempts(&held)));
        }
        judge(rig, oracle).await?;
    }
    let counts = rig.settle().await?;
    match (counts.parked, counts.retried) {
        (0, retried) if retried >= u64::from(FAILURES) => Ok(()),
        _ => Err(format!("{counts:?}")),
    }
}

/// A permanent error is tried once: the sender of an outbound message is told, everything else is set aside.
pub(super) async fn permanent_error(rig: &mut Rig<Inside>) -> Result<(), String> {
    let ports: Vec<_> = rig.consumed().cloned().collect();
    let mut parked = 0;
    for port in &ports {
        let message = rig.message(port, 0, 0);
        let id = message.id().to_owned();
        rig.under.plan.trouble(&id, Trouble::Permanent);
        rig.send(port, &message).await?;
        if port.flow == Flow::Outbound {
            expect_nack(rig, &id).await?;
        } else {
            expect_parked(rig, port, "message.invalid").await?;
            parked += 1;
        }
        if rig.under.attempts(&id) != 1 {
            return Err(format!("{port}: tried {} times", rig.under.attempts(&id)));
        }
    }
    let counts = rig.settle().await?;
    match counts.parked == parked && counts.retried == 0 {
        true => Ok(()),
        false => Err(format!("{counts:?}")),
    }
}

pub(super) async fn expect_nack<W: UnderTest>(rig: &Rig<W>, id: &str) -> Result<(), String> {
    let nack = |seen: &[Seen]| {
        let found = seen.iter().find(|s| s.is_caused_by(id))?;
        Some(match &found.message {
            Message::Event(event) => {
                event.event_type() == EventType::Nack
                    && event.fate().is_some_and(|fate| fate.is_final)
            }
            Message::User(_) => false,
        })
    };
    match rig.far_end.until("a nack for the sender", nack).await? {
        true => Ok(()),
        false => Err(format!("the output for {id} is no nack with a final fate")),
    }
}

async fn expect_parked(rig: &Rig<Inside>, port: &Port, code: &str) -> Result<(), String> {
    eventually("the message is parked", async || {
        let parked = rig.parked(port).await?;
        match parked.iter().find(|e| e.code == code) {
            Some(envelope) if envelope.reason.contains(MARK) => {
                Err("its reason quotes the content".into())
            }
            Some(_) => Ok(()),
            None => Err(format!("{} others are", parked.len())),
        }
    })
    .await
}

/// A message whose handling panics is set aside at the third attempt; the worker lives and the neighbours flow (R15). One
/// that may have reached the peer is set aside at once: another attempt could make a second copy (R17).
pub(super) async fn panic_is_parked(rig: &mut Rig<Inside>) -> Result<(), String> {
    let ports: Vec<_> = rig.consumed().cloned().collect();
    for port in &ports {
        let poison = rig.message(port, 0, 0);
        let id = poison.id().to_owned();
        rig.under.plan.trouble(&id, Trouble::Panic);
        rig.send(port, &poison).await?;
        for user in 0..2 {
            let neighbour = rig.send(port, &rig.message(port, user, 1)).await?;
            if rig.answers(port) {
                rig.far_end.output_of(&neighbour).await?;
            }
        }
        expect_parked(rig, port, "bug.panic").await?;
        let attempts = if rig.sends(port) { 1 } else { 3 };
        if rig.under.attempts(&id) != attempts {
            return Err(format!("{port}: handled {} times", rig.under.attempts(&id)));
        }
        if !rig.far_end.caused_by(&id).is_empty() {
            return Err(format!("{port}: the panicking message came out"));
        }
    }
    rig.until_consuming().await?;
    let counts = rig.settle().await?;
    match counts.parked == ports.len() as u64 {
        true => Ok(()),
        false => Err(format!("{counts:?}")),
    }
}
