//! The broker goes away and comes back (R9): nothing is lost, and the worker says truthfully whether it is ready.

use super::peer::{ask, received, reply};
use super::unroutable::is_told;
use super::{judge, owe};
use crate::conformance::far_end::patience;
use crate::conformance::faults::Mischief;
use crate::conformance::oracle::Oracle;
use crate::conformance::rig::{MARK, Rig, UnderTest, everything_turns};
use crate::message::{Message, random_id};

/// The connection breaks with messages in flight and more to come: the worker is not ready meanwhile; afterwards it
/// consumes again and everything comes out, in order and with equal ids.
pub(super) async fn broker_away_and_back<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let mut oracle = Oracle::default();
    rig.faults.hold_confirmations(true);
    for port in rig.answering() {
        for (user, id) in rig.send_many(&port, 0..3, 0..1).await? {
            owe(&mut oracle, &port, user, &id);
            // Whoever handles one message after the other waits for the confirmation now.
            if user == 0 {
                rig.far_end.output_of(&id).await?;
            }
        }
    }
    rig.faults.go_away();
    rig.under.notices_outage().await?;
    let mut meanwhile = Vec::new();
    for port in rig.answering() {
        for (user, id) in rig.send_many(&port, 0..3, 1..3).await? {
            owe(&mut oracle, &port, user, &id);
            meanwhile.push(id);
        }
    }
    everything_turns().await;
    if let Some(id) = meanwhile.iter().find(|id| rig.under.attempts(id) > 0) {
        return Err(format!("message {id} was handled without a broker"));
    }
    rig.faults.hold_confirmations(false);
    rig.faults.come_back();
    rig.until_consuming().await?;
    judge(rig, oracle).await
}

/// What a peer sends while the broker is away is published when it is back, or the peer is told that it was not taken.
pub(super) async fn peer_waits<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let mut peer = rig.peer()?;
    let opening = ask(rig, &mut peer, 0).await?;
    let (text, _) = reply(rig, &opening).await?;
    received(&mut peer, 0, &text).await?;
    rig.settle().await?;
    rig.faults.go_away();
    rig.under.notices_outage().await?;
    let asked = format!("{MARK} {}", random_id());
    let sent = tokio::time::timeout(patience(), peer.send(0, &asked)).await;
    everything_turns().await;
    rig.faults.come_back();
    rig.until_consuming().await?;
    match sent {
        // Told at once.
        Ok(Err(_)) => {}
        Err(_) => return Err("a peer waits for ever while the broker is away".into()),
        Ok(Ok(())) => match rig.far_end.inbound(&asked).await {
            Ok(seen) => {
                let Message::User(message) = seen.message else {
                    return Err("it arrived as an event".into());
                };
                let (text, _) = reply(rig, &message).await?;
                received(&mut peer, 0, &text).await?;
            }
            Err(lost) => {
                let told = is_told(&mut peer, 0).await;
                told.map_err(|silent| format!("{lost}; and {silent}"))?;
            }
        },
    }
    let mut other = rig.peer()?;
    let message = ask(rig, &mut other, 1).await?;
    let (text, _) = reply(rig, &message).await?;
    received(&mut other, 1, &text).await?;
    rig.settle().await.map(drop)
}
