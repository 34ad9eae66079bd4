//! Stopping loses nothing, repeats nothing that was finished, and ends in time (R8).

use super::broker::equal_ids;
use crate::conformance::far_end::PATIENCE;
use crate::conformance::rig::{LIMITS, Rig};
use crate::engine::StopLimits;
use std::time::Duration;

/// What runs is finished; what comes after the stop began waits for the next worker.
pub(super) async fn stop_finishes_what_runs(rig: &mut Rig) -> Result<(), String> {
    let port = rig.answering().swap_remove(0);
    let intake = rig.topology.intake.contains(&port);
    rig.faults.hold_confirmations(true);
    let first = rig.send(&port, &rig.message(&port, 0, 0)).await?;
    rig.far_end.output_of(&first).await?;
    let worker = rig.worker.take().ok_or("it does not run")?;
    let stopping = tokio::spawn(worker.stop(LIMITS));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = rig.send(&port, &rig.message(&port, 1, 0)).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    if intake && rig.plan.attempts(&second) > 0 {
        return Err("new work was taken in after the stop began".into());
    }
    rig.faults.hold_confirmations(false);
    let stopped = tokio::time::timeout(PATIENCE, stopping).await;
    stopped
        .map_err(|_| "it did not stop")?
        .map_err(|e| format!("stopping it panicked: {e}"))?;
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
pub(super) async fn stop_is_bounded(rig: &mut Rig) -> Result<(), String> {
    let port = rig.answering().swap_remove(0);
    rig.faults.hold_confirmations(true);
    let id = rig.send(&port, &rig.message(&port, 0, 0)).await?;
    rig.far_end.output_of(&id).await?;
    let bound = Duration::from_millis(200);
    let took = rig
        .stop(StopLimits {
            drain: bound,
            flush: bound,
            close: bound,
        })
        .await?;
    if took > Duration::from_secs(10) {
        return Err(format!(
            "limits of {bound:?} each, and the stop took {took:?}"
        ));
    }
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
