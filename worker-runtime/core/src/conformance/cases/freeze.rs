//! A worker is frozen for longer than its broker waits, another one takes over, and the first one goes on (R1, R2).

use super::{judge, owe};
use crate::conformance::far_end::{be_patient, patience};
use crate::conformance::faults::Mischief;
use crate::conformance::inside::Inside;
use crate::conformance::oracle::Oracle;
use crate::conformance::rig::{Rig, WITHOUT_REPLIES, eventually};
use crate::engine::patience::TELLING;
use crate::message::{EventType, Message};
use crate::state::ledger::RowState;
use std::time::Duration;

const USERS: usize = 4;
const EACH: usize = 3;

/// While a replica with messages in hand is frozen, another one takes its queues over and handles everything: nothing is
/// lost, in order. Thawed, the first one goes on with what it had in hand, on a connection that the broker has given up,
/// before it hears of that: it hands nothing to a peer that was handed over meanwhile, and nothing that it says then or
/// later comes out.
pub(super) async fn another_takes_over(rig: &mut Rig<Inside>) -> Result<(), String> {
    // What the frozen one wrote down and did not tell is told by the other when that is overdue.
    be_patient(Some(patience() + TELLING));
    rig.stop(WITHOUT_REPLIES).await?;
    let mut frozen = rig.freezable().await?;
    let (mut oracle, mut gates, mut sent) = (Oracle::default(), Vec::new(), Vec::new());
    for port in rig.answering() {
        let first = rig.message(&port, 0, 0);
        gates.push((first.id().to_owned(), rig.under.plan.hold(first.id())));
        for (user, id) in rig.send_many(&port, 0..USERS, 0..EACH).await? {
            owe(&mut oracle, &port, user, &id);
            sent.push((port.clone(), id));
        }
    }
    eventually("it has all of them, and some at work", async || {
        let counts = frozen.snapshot().await?.counts;
        let at_work = gates.iter().all(|(id, _)| rig.under.plan.attempts(id) > 0);
        match at_work && counts.received >= sent.len() as u64 {
            true => Ok(()),
            false => Err(format!("{counts:?}")),
        }
    })
    .await?;
    frozen.freeze().await?;
    frozen.faults.give_up();
    let (published, acknowledged) = (frozen.faults.published(), frozen.faults.acks_passed());
    // Nobody waits there: what the frozen one has at work goes on when it does.
    gates.iter().for_each(|(_, gate)| gate.cancel());

    rig.run().await?;
    for (_, id) in &sent {
        let output = rig.far_end.output_of(id).await;
        output.map_err(|missing| format!("{missing}; {:?}", rig.counts()))?;
    }
    rig.settle().await?;

    frozen.thaw();
    frozen.snapshot().await?;
    // It works on what it had in hand, and does not know better yet.
    tokio::time::sleep(Duration::from_millis(200)).await;
    frozen.faults.go_away();
    eventually("it has nothing in hand any more", async || {
        match frozen.snapshot().await?.counts {
            c if c.in_flight == 0 => Ok(()),
            c => Err(format!("{c:?}")),
        }
    })
    .await?;
    frozen.faults.come_back();
    eventually("it stands by, or consumes beside the other", async || {
        let snapshot = frozen.snapshot().await?;
        match snapshot.state {
            "connecting" => Err(format!("{snapshot:?}")),
            _ => Ok(()),
        }
    })
    .await?;
    let said = frozen.faults.published() - published;
    let acks = frozen.faults.acks_passed() - acknowledged;
    if said > 0 || acks > 0 {
        return Err(format!(
            "the thawed one published {said} messages and made {acks} acknowledgements"
        ));
    }
    for (port, id) in sent.iter().filter(|(port, _)| rig.sends(port)) {
        match rig.under.plan.attempts(id) {
            1 => {}
            n => return Err(format!("{port}: {id} was handed to the peer {n} times")),
        }
        told_as_written(rig, id).await?;
    }
    frozen.stop().await?;
    judge(rig, oracle).await
}

/// A message has at most one ack or nack, and the one that the ledger says it has. One whose answer was lost may have none:
/// then a receipt tells its end.
async fn told_as_written(rig: &Rig<Inside>, id: &str) -> Result<(), String> {
    let row = rig.under.store().row(id).await.map_err(|e| e.to_string())?;
    let row = row.ok_or_else(|| format!("{id} has no row"))?;
    if row.told.is_empty() && row.state != RowState::Unknown {
        return Err(format!("{id} is {:?}, and nobody is told", row.state));
    }
    let judged = |told: &&String| {
        let told: serde_json::Value = serde_json::from_str(told).unwrap_or_default();
        ["ack", "nack"].contains(&told["event_type"].as_str().unwrap_or_default())
    };
    let expected = row.told.iter().filter(judged).count();
    if expected > 1 {
        return Err(format!("{id} has {expected} acks and nacks in the ledger"));
    }
    eventually("what the ledger says is told", async || {
        let mut verdicts: Vec<String> = Vec::new();
        for seen in rig.far_end.caused_by(id) {
            match &seen.message {
                Message::Event(e) if e.event_type() != EventType::DeliveryReport => {
                    verdicts.push(e.event_id().to_owned());
                }
                _ => {}
            }
        }
        verdicts.sort();
        verdicts.dedup();
        match verdicts.len() == expected {
            true => Ok(()),
            false => Err(format!("{id} is {:?} and has {verdicts:?}", row.state)),
        }
    })
    .await
}
