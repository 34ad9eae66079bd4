//! No queue takes what the worker publishes: it is tried again, and then said, never silent (R12).

use super::errors::expect_nack;
use super::peer::{ask, received, reply};
use crate::codes;
use crate::conformance::Peer;
use crate::conformance::far_end::patience;
use crate::conformance::faults::Mischief;
use crate::conformance::inside::Inside;
use crate::conformance::rig::{MARK, Rig, UnderTest, eventually};
use crate::message::random_id;
use tokio::time::Instant;
use vumi_api::{Flow, Holds, Port};

/// Where nothing at all is taken, not even a word to the sender, every message is set aside with the reason; when queues
/// are there again, the flow goes on.
pub(super) async fn set_aside(rig: &mut Rig<Inside>) -> Result<(), String> {
    let ports = rig.answering();
    let all = rig.topology.publishes.iter().map(Port::queue);
    rig.faults.unroutable(all.collect::<Vec<_>>());
    let mut ids = Vec::new();
    for port in &ports {
        ids.push(rig.send(port, &rig.message(port, 0, 0)).await?);
    }
    for (port, id) in ports.iter().zip(&ids) {
        parked_unroutable(rig, port, id).await?;
    }
    let counts = rig.settle().await?;
    if counts.parked != ids.len() as u64 || counts.retried == 0 {
        return Err(format!("{} are unroutable: {counts:?}", ids.len()));
    }
    rig.faults.unroutable([]);
    for port in &ports {
        let id = rig.send(port, &rig.message(port, 0, 1)).await?;
        rig.far_end.output_of(&id).await?;
    }
    rig.settle().await.map(drop)
}

async fn parked_unroutable(rig: &Rig<Inside>, port: &Port, id: &str) -> Result<(), String> {
    let parked = eventually("the unroutable message is parked", async || {
        let parked = rig.parked(port).await?;
        let found = parked.iter().find(|e| e.message_id.as_deref() == Some(id));
        found.cloned().ok_or(format!("{} others are", parked.len()))
    })
    .await?;
    let reasons = [codes::RETRY_EXHAUSTED.name, codes::ROUTE_NO_QUEUE.name];
    let handled = if rig.sends(port) { 1 } else { 2 };
    if parked.attempts < 2 || rig.under.attempts(id) < handled {
        return Err(format!("{port}: set aside without trying again"));
    }
    match reasons.contains(&parked.code.as_str()) && !parked.reason.contains(MARK) {
        true => Ok(()),
        false => Err(format!("{port}: parked with {}", parked.code)),
    }
}

/// Where no queue takes an outbound message, its sender gets a nack.
pub(super) async fn sender_is_told(rig: &mut Rig<Inside>) -> Result<(), String> {
    let messages = rig.topology.publishes.iter();
    let messages = messages.filter(|p| p.flow != Flow::Event).map(Port::queue);
    rig.faults.unroutable(messages.collect::<Vec<_>>());
    let ports = rig.answering().into_iter();
    let ports: Vec<_> = ports.filter(|p| p.flow == Flow::Outbound).collect();
    for port in &ports {
        let id = rig.send(port, &rig.message(port, 0, 0)).await?;
        expect_nack(rig, &id).await?;
        if rig.under.attempts(&id) < 2 {
            return Err(format!("{port}: given up without trying again"));
        }
    }
    rig.faults.unroutable([]);
    match rig.settle().await? {
        counts if counts.parked == 0 && counts.done == ports.len() as u64 => Ok(()),
        counts => Err(format!("{counts:?}")),
    }
}

/// Where no queue takes what a peer sends, the peer is told, and served again afterwards.
pub(super) async fn peer_is_told<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let mut peer = rig.peer()?;
    let opening = ask(rig, &mut peer, 0).await?;
    let (text, _) = reply(rig, &opening).await?;
    received(&mut peer, 0, &text).await?;
    rig.settle().await?;
    let inbound = Port::new(&rig.name, Flow::Inbound);
    rig.faults.unroutable([inbound.queue()]);
    let asked = format!("{MARK} {}", random_id());
    if peer.send(0, &asked).await.is_ok() {
        let answered = is_told(&mut peer, 0).await?;
        if answered && rig.topology.holds == Some(Holds::Requests) {
            return Err("a request that no queue took was answered as if one had".into());
        }
    }
    rig.faults.unroutable([]);
    let mut other = rig.peer()?;
    let message = ask(rig, &mut other, 1).await?;
    let (text, _) = reply(rig, &message).await?;
    received(&mut other, 1, &text).await?;
    rig.settle().await.map(drop)
}

/// Demands that the peer hears something. Whether it was an answer that says yes, for peers whose protocol tells.
pub(super) async fn is_told(peer: &mut Box<dyn Peer>, user: usize) -> Result<bool, String> {
    let (asked, patience) = (Instant::now(), patience());
    match peer.receive(user, patience).await {
        Ok(_) => Ok(true),
        Err(_) if asked.elapsed() < patience => Ok(false),
        Err(silent) => Err(format!("the peer is not told: {silent}")),
    }
}
