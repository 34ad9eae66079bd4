//! Stopping loses nothing, repeats nothing that was finished, and ends in time (R8).

use super::broker::equal_ids;
use super::peer::{ask, received, reply};
use crate::conformance::far_end::patience;
use crate::conformance::faults::Mischief;
use crate::conformance::inside::Inside;
use crate::conformance::rig::{
    LIMITS, Rig, UnderTest, WITHOUT_REPLIES, eventually, everything_turns,
};
use crate::engine::StopLimits;
use std::time::Duration;

/// What runs is finished; what comes after the stop began waits for the next worker.
pub(super) async fn stop_finishes_what_runs<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let port = rig.answering().swap_remove(0);
    let intake = rig.topology.intake.contains(&port);
    rig.faults.hold_confirmations(true);
    let first = rig.send(&port, &rig.message(&port, 0, 0)).await?;
    rig.far_end.output_of(&first).await?;
    let stopping = tokio::spawn(rig.under.stopping(LIMITS)?);
    everything_turns().await;
    let second = rig.send(&port, &rig.message(&port, 1, 0)).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.faults.hold_confirmations(false);
    let stopped = tokio::time::timeout(patience(), stopping).await;
    stopped
        .map_err(|_| "it did not stop")?
        .map_err(|e| format!("stopping it panicked: {e}"))??;
    if intake && !rig.far_end.caused_by(&second).is_empty() {
        return Err("new work was taken in after the stop began".into());
    }
    rig.run().await?;
    rig.far_end.output_of(&second).await?;
    rig.settle().await?;
    for id in [first, second] {
        match equal_ids(rig, &id)? {
            1 => {}
            n => return Err(format!("message {id} came out {n} times")),
        }
    }
    Ok(())
}

/// A stop that cannot finish what runs ends all the same, and the messages are there for the next worker.
pub(super) async fn stop_is_bounded<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let port = rig.answering().swap_remove(0);
    rig.faults.hold_confirmations(true);
    let id = rig.send(&port, &rig.message(&port, 0, 0)).await?;
    rig.far_end.output_of(&id).await?;
    let bound = Duration::from_millis(200);
    let limits = StopLimits {
        drain: bound,
        flush: bound,
        close: bound,
    };
    let stopped = tokio::time::timeout(patience(), rig.stop(limits)).await;
    stopped.map_err(|_| format!("limits of {bound:?} each, and it does not stop"))??;
    rig.faults.hold_confirmations(false);
    rig.run().await?;
    let again = |seen: &[crate::conformance::far_end::Seen]| {
        let count = seen.iter().filter(|s| s.is_caused_by(&id)).count();
        (count >= 2).then_some(())
    };
    let what = "the unfinished message is handled by the next worker";
    rig.far_end.until(what, again).await?;
    equal_ids(rig, &id)?;
    rig.settle().await.map(drop)
}

/// Once a worker has stopped, nothing of it is left: no task, and nothing that holds it.
pub(super) async fn nothing_is_left(rig: &mut Rig<Inside>) -> Result<(), String> {
    // The first life brings about what the client of the broker keeps for good.
    life(rig, 0).await?;
    let before = settled_tasks().await;
    for n in 1..3 {
        rig.run().await?;
        life(rig, n).await?;
        eventually("the worker is let go", async || {
            match rig.under.plan.alive() {
                0 => Ok(()),
                alive => Err(format!("{alive} workers are held after their stop")),
            }
        })
        .await?;
        eventually("no task of it runs", async || match tasks() {
            now if now <= before => Ok(()),
            now => Err(format!(
                "{before} tasks before it ran, {now} after its stop"
            )),
        })
        .await?;
    }
    Ok(())
}

/// Messages through the worker, a session that nobody ended, and a stop.
async fn life(rig: &mut Rig<Inside>, n: usize) -> Result<(), String> {
    let mut session = None;
    if rig.under.has_peer() {
        let mut peer = rig.peer()?;
        let message = ask(rig, &mut peer, 0).await?;
        let (text, _) = reply(rig, &message).await?;
        received(&mut peer, 0, &text).await?;
        session = Some(peer);
    }
    for port in rig.answering() {
        let id = rig.send(&port, &rig.message(&port, 0, n)).await?;
        rig.far_end.output_of(&id).await?;
    }
    rig.settle().await?;
    rig.stop(WITHOUT_REPLIES).await?;
    drop(session);
    Ok(())
}

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// The number of tasks once it does not change any more.
async fn settled_tasks() -> usize {
    let (mut last, mut same) = (tasks(), 0);
    while same < 30 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = tasks();
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}
