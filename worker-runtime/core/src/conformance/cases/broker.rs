//! Nothing is acknowledged before it is safe, and nothing that was not acknowledged is lost.

use crate::codes;
use crate::conformance::far_end::Seen;
use crate::conformance::faults::{Mischief, Mishap};
use crate::conformance::inside::Inside;
use crate::conformance::rig::{Rig, UnderTest, eventually};
use crate::message::{EventType, FateState, Message};
use std::collections::BTreeMap;
use std::time::Duration;
use vumi_api::{Flow, Port};

/// All outputs of `id` at one place have one id; how often the first of them came out.
pub(super) fn equal_ids<W: UnderTest>(rig: &Rig<W>, id: &str) -> Result<usize, String> {
    let seen = rig.far_end.caused_by(id);
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    for one in &seen {
        let new = one.message.id();
        let old = *known.entry(one.place()).or_insert(new);
        if old != new {
            return Err(format!("message {id} came out as {old} and as {new}"));
        }
    }
    let first = seen.first().map(Seen::place);
    Ok(seen.iter().filter(|s| Some(s.place()) == first).count())
}

/// While the broker has not confirmed what a message causes, the message is not acknowledged.
pub(super) async fn confirmed_before_acknowledged<W: UnderTest>(
    rig: &mut Rig<W>,
) -> Result<(), String> {
    let ports = rig.answering();
    rig.faults.hold_confirmations(true);
    for port in &ports {
        let id = rig.send(port, &rig.message(port, 0, 0)).await?;
        rig.far_end.output_of(&id).await?;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let counts = rig.counts()?;
    let early = rig.faults.acks_tried();
    if early > 0 || counts.done > 0 || counts.in_flight != ports.len() as u64 {
        return Err(format!(
            "nothing was confirmed, {early} acknowledgements were made, and the counts are {counts:?}"
        ));
    }
    rig.faults.hold_confirmations(false);
    let counts = rig.settle().await?;
    if counts.done != ports.len() as u64 {
        return Err(format!("all is confirmed and the counts are {counts:?}"));
    }
    eventually(
        "the acknowledgements reach the broker",
        async || match rig.faults.acks_passed() {
            0 => Err("none did".to_owned()),
            _ => Ok(()),
        },
    )
    .await
}

/// The process dies after the confirmation and before the acknowledgement: everything comes out again. What was handed to
/// a peer is not handed to it again: its sender is told the same, byte for byte (R17).
pub(super) async fn crash_between_confirm_and_ack<W: UnderTest>(
    rig: &mut Rig<W>,
) -> Result<(), String> {
    for (port, id) in handled_twice(rig).await? {
        let seen = rig.far_end.caused_by(&id);
        let differs = |one: &&Seen| {
            let mut others = seen.iter().filter(|s| s.message.id() == one.message.id());
            others.any(|other| other.message.encode() != one.message.encode())
        };
        if rig.sends(&port) && seen.iter().any(|one| differs(&one)) {
            return Err(format!("what was told of {id} differs from the first time"));
        }
    }
    rig.settle().await.map(drop)
}

/// What comes out again after such a crash has the ids of the first time (R6).
pub(super) async fn repeats_have_equal_ids<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    for (_, id) in handled_twice(rig).await? {
        equal_ids(rig, &id)?;
    }
    rig.settle().await.map(drop)
}

/// Lets a message of each queue be handled, the process die before the acknowledgement, and it be handled again; the
/// queues and the messages.
async fn handled_twice<W: UnderTest>(rig: &mut Rig<W>) -> Result<Vec<(Port, String)>, String> {
    rig.faults.swallow_acks(true);
    let mut sent = Vec::new();
    for port in rig.answering() {
        let id = rig.send(&port, &rig.message(&port, 0, 0)).await?;
        rig.far_end.output_of(&id).await?;
        sent.push((port, id));
    }
    rig.settle().await?;
    eventually("the worker acknowledges", async || {
        match rig.faults.acks_tried() {
            0 => Err("it does not".to_owned()),
            _ => Ok(()),
        }
    })
    .await?;
    rig.faults.swallow_acks(false);
    rig.crash_and_restart().await?;
    for (port, id) in &sent {
        // What a transport has sent is told again, not sent again. One handling may have several outputs, so the outputs
        // alone do not tell.
        let expected = if rig.sends(port) { 1 } else { 2 };
        let attempts = eventually("the message is handled again", async || {
            match rig.under.attempts(id) {
                n if n < expected => Err(format!("message {id} was handled {n} times")),
                n => Ok(n),
            }
        })
        .await?;
        if attempts != expected {
            return Err(format!("message {id} was handled {attempts} times"));
        }
        let twice = |seen: &[Seen]| {
            let count = seen.iter().filter(|s| s.is_caused_by(id)).count();
            (count >= 2).then_some(())
        };
        let what = format!("message {id} comes out again");
        rig.far_end.until(&what, twice).await?;
    }
    rig.settle().await?;
    Ok(sent)
}

/// The process dies while a message is with the peer and before the answer: it is not handed to the peer again. Its
/// sender hears that nobody knows: a nack that says so, or that it is pending while a receipt is waited for (R17).
pub(super) async fn crash_while_sending(rig: &mut Rig<Inside>) -> Result<(), String> {
    let port = Port::new(&rig.name, Flow::Outbound);
    let message = rig.message(&port, 0, 0);
    let id = message.id().to_owned();
    let gate = rig.under.plan.hold(&id);
    rig.send(&port, &message).await?;
    eventually("the message is with the worker", async || {
        match rig.under.attempts(&id) {
            0 => Err("it is not".to_owned()),
            _ => Ok(()),
        }
    })
    .await?;
    rig.crash_and_restart().await?;
    gate.cancel();
    let seen = rig.far_end.output_of(&id).await?;
    let Message::Event(event) = seen.message else {
        return Err("it caused a user message".into());
    };
    let fate = event.fate().ok_or("what is told has no fate")?;
    let told = match event.event_type() {
        EventType::Nack => fate.is_final && fate.code == codes::FATE_UNKNOWN.name,
        EventType::DeliveryReport => fate.state == FateState::Unknown,
        EventType::Ack => false,
    };
    if !told {
        return Err(format!(
            "nobody knows, and told is {:?}",
            event.event_type()
        ));
    }
    rig.settle().await?;
    match rig.under.attempts(&id) {
        1 => Ok(()),
        other => Err(format!("it was handed over {other} times")),
    }
}

/// Publications that are refused, returned or lost are repeated; nothing is lost, and repeats are equal.
pub(super) async fn publications_are_repeated<W: UnderTest>(
    rig: &mut Rig<W>,
) -> Result<(), String> {
    let mishaps = [
        Mishap::Nacked,
        Mishap::ConfirmationLost,
        Mishap::Lost,
        Mishap::Returned,
    ];
    for port in rig.answering() {
        rig.faults.next(&mishaps);
        let id = rig.send(&port, &rig.message(&port, 0, 0)).await?;
        rig.far_end.output_of(&id).await?;
        rig.settle().await?;
        let left = rig.faults.mishaps_left();
        if left > 0 {
            return Err(format!(
                "{port}: done although {left} publications were not repeated"
            ));
        }
        // The one whose confirmation was lost, and the one that was confirmed.
        eventually("the message comes out twice", async || {
            match equal_ids(rig, &id)? {
                2 => Ok(()),
                other => Err(format!("{port}: came out {other} times")),
            }
        })
        .await?;
    }
    let counts = rig.settle().await?;
    match counts.parked {
        0 => Ok(()),
        _ => Err(format!("{counts:?}")),
    }
}

/// The channels are lost with messages in flight: consuming goes on, verdicts from before count for nothing, and nothing
/// is lost.
pub(super) async fn channel_lost(rig: &mut Rig<Inside>) -> Result<(), String> {
    rig.faults.hold_confirmations(true);
    let mut ids = Vec::new();
    for port in rig.answering() {
        let sent = rig.send_many(&port, 0..3, 0..1).await?;
        ids.extend(sent.into_iter().map(|(_, id)| id));
    }
    for id in &ids {
        rig.far_end.output_of(id).await?;
    }
    let cut = rig.faults.cut();
    if cut == 0 {
        return Err("the worker has no channel".into());
    }
    eventually(
        "the repeats arrive while the old ones wait",
        async || match rig.counts()? {
            c if c.received >= 2 * ids.len() as u64 => Ok(()),
            c => Err(format!("{c:?}")),
        },
    )
    .await?;
    rig.faults.hold_confirmations(false);
    rig.until_consuming().await?;
    let handled = eventually(
        "every message is done in the new life of the channel",
        async || match rig.counts()? {
            c if c.done >= ids.len() as u64 => Ok(c),
            c => Err(format!("{c:?}")),
        },
    )
    .await?;
    if handled.returned < ids.len() as u64 {
        return Err(format!("the cut struck nothing: {handled:?}"));
    }
    for id in &ids {
        equal_ids(rig, id)?;
    }
    for port in rig.answering() {
        let id = rig.send(&port, &rig.message(&port, 0, 1)).await?;
        rig.far_end.output_of(&id).await?;
    }
    rig.settle().await.map(drop)
}

/// With more messages waiting than a window holds and none of them finishing, the worker takes a bounded number; then
/// all come out.
pub(super) async fn window_is_bounded<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    const MESSAGES: usize = 900;
    const BOUND: u64 = 500;
    let port = rig.answering().swap_remove(0);
    rig.faults.hold_confirmations(true);
    rig.send_many(&port, 0..MESSAGES, 0..1).await?;
    eventually(
        "the worker takes what its window holds",
        async || match rig.counts()?.in_flight {
            0 => Err("it takes nothing".to_owned()),
            _ => Ok(()),
        },
    )
    .await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let counts = rig.counts()?;
    if counts.received > BOUND {
        return Err(format!("nothing finishes and the counts are {counts:?}"));
    }
    rig.faults.hold_confirmations(false);
    let all_out = |seen: &[Seen]| (seen.len() >= MESSAGES).then_some(());
    rig.far_end
        .until("every message comes out", all_out)
        .await?;
    let all = MESSAGES as u64;
    eventually("every message is done", async || match rig.counts()? {
        c if c.done == all => Ok(()),
        c => Err(format!("{c:?}")),
    })
    .await
}
