//! Two replicas share the partitions of their queues: one comes, dies and comes again while messages flow (R2, S12).

use super::{judge, owe};
use crate::conformance::inside::Inside;
use crate::conformance::oracle::Oracle;
use crate::conformance::rig::{LIMITS, Rig, eventually};
use crate::engine::RunningWorker;

const PARTITIONS: u16 = 4;
const USERS: usize = 12;
const EACH: usize = 6;

/// Nothing is lost, repeats are equal and each user's messages stay in order while partitions move to a second replica,
/// back when it dies, and to a third one.
pub(super) async fn order_through_it(rig: &mut Rig<Inside>) -> Result<(), String> {
    rig.divide(PARTITIONS).await?;
    let mut oracle = Oracle::default();
    let mut next = 0;
    for crashes in [true, false] {
        say(rig, &mut oracle, &mut next).await?;
        let (other, faults) = rig.colleague().await?;
        say(rig, &mut oracle, &mut next).await?;
        shares(&other, PARTITIONS / 2).await?;
        shares(rig.under.running()?, PARTITIONS / 2).await?;
        say(rig, &mut oracle, &mut next).await?;
        if crashes {
            drop(other);
            faults.sever();
            say(rig, &mut oracle, &mut next).await?;
            shares(rig.under.running()?, PARTITIONS).await?;
        } else {
            eventually("the second replica works", async || {
                match other.snapshot().counts {
                    c if c.done > 0 => Ok(()),
                    c => Err(format!("{c:?}")),
                }
            })
            .await?;
            other.stop(LIMITS).await;
        }
    }
    say(rig, &mut oracle, &mut next).await?;
    judge(rig, oracle).await
}

async fn say(rig: &Rig<Inside>, oracle: &mut Oracle, next: &mut usize) -> Result<(), String> {
    for port in rig.answering() {
        for (user, id) in rig.send_many(&port, 0..USERS, *next..*next + EACH).await? {
            owe(oracle, &port, user, &id);
        }
    }
    *next += EACH;
    Ok(())
}

/// Waits until a replica reads so many partitions of each queue.
async fn shares(worker: &RunningWorker, count: u16) -> Result<(), String> {
    let wanted = format!(": {count} of {PARTITIONS} here");
    eventually("it reads its share of the partitions", async || {
        let snapshot = worker.snapshot();
        let names = snapshot.consumers.iter().map(|(name, _)| name);
        let mut divided = names.filter(|name| name.contains(".p0–")).peekable();
        match divided.peek().is_some() && divided.all(|name| name.ends_with(&wanted)) {
            true => Ok(()),
            false => Err(format!("{snapshot:?}")),
        }
    })
    .await
}
