//! The thread that writes to disk: one commit for everything that gathered during the last one. After an error
//! nothing is confirmed and publishers wait until the disk works again; removals are kept and written then.

use super::core::Core;
use super::disk::Disk;
use super::message::Write;
use crate::broker::Confirmation;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Between attempts to write again, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Writes until every connection is closed and nothing waits.
pub(super) fn run(core: &Arc<Core>, mut disk: Disk) {
    while let Some(batch) = core.next_batch() {
        match guarded(|| disk.commit(&batch)) {
            Ok(()) => core.committed(batch),
            Err(error) => {
                if !recover(core, &mut disk, batch, error) {
                    break;
                }
            }
        }
    }
    // The store must be closed before anybody may think that it is.
    drop(disk);
    let left = core.with(|state| state.pending.as_mut().map(|pending| pending.take()));
    drop(left);
    core.finished.send_replace(true);
}

/// Goes on once the disk takes writes again; false if every connection closed before.
fn recover(core: &Core, disk: &mut Disk, batch: Vec<Write>, error: String) -> bool {
    let mut owed = Vec::new();
    refuse(batch, &mut owed);
    trouble(core, Some(&error), &mut owed);
    tracing::error!(
        error,
        "the state folder cannot be written; nothing is confirmed until it can"
    );
    let mut pause = FIRST_PAUSE;
    loop {
        if core.closed_within(pause) {
            return false;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        let written = guarded(|| {
            disk.reopen()?;
            disk.probe()?;
            disk.commit(&owed)
        });
        match written {
            Ok(()) => {
                tracing::info!("the state folder can be written again");
                core.committed(owed);
                trouble(core, None, &mut Vec::new());
                return true;
            }
            Err(error) => trouble(core, Some(&error), &mut Vec::new()),
        }
    }
}

/// Sets or clears what is wrong with the disk; refuses what still waits when it begins.
fn trouble(core: &Core, error: Option<&str>, owed: &mut Vec<Write>) {
    let waiting = core.with(|state| {
        let waiting = state.pending.as_mut().map(|pending| {
            let first = pending.trouble.is_none() && error.is_some();
            pending.trouble = error.map(|e| format!("the state folder cannot be written: {e}"));
            if first { pending.take() } else { Vec::new() }
        });
        state.tell_links();
        waiting.unwrap_or_default()
    });
    refuse(waiting, owed);
}

/// Publications are refused, and what may be left of them on disk is owed a removal; everything else is owed as it is.
fn refuse(writes: Vec<Write>, owed: &mut Vec<Write>) {
    for write in writes {
        match write {
            Write::Put(arriving) => {
                let _ = arriving.resolve.send(Confirmation::Nacked);
                owed.extend(
                    arriving
                        .targets
                        .into_iter()
                        .filter_map(|(queue, key)| key.map(|key| Write::Remove { queue, key })),
                );
            }
            other => owed.push(other),
        }
    }
}

/// A panic of the store is an error like others: the store is opened anew.
fn guarded(write: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(write))
        .unwrap_or_else(|_| Err("the store failed in a way it should not".into()))
}
