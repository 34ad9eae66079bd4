//! What becomes of a message once it has its verdict, and when the broker hears of it.

use super::Consumer;
use crate::engine::delivery::{Finished, Verdict};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Finished messages wait so long for others before they are acknowledged together.
const ACK_DELAY: Duration = Duration::from_millis(2);

impl Consumer {
    pub(super) fn count_returned(&self, count: usize) {
        if count > 0 {
            let count = count as u64;
            self.counters.returned.fetch_add(count, Ordering::SeqCst);
            self.desk.metrics.returned.inc_by(count);
        }
    }

    pub(super) fn finish(&mut self, finished: Finished) {
        let now = Instant::now();
        let Finished {
            raw,
            replay,
            lane,
            received,
            verdict,
        } = finished;
        let current = match &replay {
            Some(replay) => self.is_ours(replay),
            None => raw.generation == self.desk.generation.load(Ordering::Relaxed),
        };
        let parked = match verdict {
            verdict if !current && self.own.is_none() => {
                if verdict == Verdict::Done {
                    self.known.note_done(&raw, replay.as_deref());
                }
                self.next_of(lane);
                self.count_returned(1);
                return;
            }
            Verdict::Returned => {
                // It comes again: what waits behind it must not run before it does.
                let behind = self.lanes.abandon(lane);
                self.return_all(behind);
                self.return_one(replay);
                return;
            }
            Verdict::Waits(waits) => {
                let (about, due) = *waits;
                self.leave_window(raw, replay, lane, about, due);
                return;
            }
            Verdict::Held(held) => {
                let (about, group) = *held;
                self.hold_back(raw, replay, lane, about, &group);
                return;
            }
            Verdict::Done => false,
            Verdict::Parked => true,
        };
        self.next_of(lane);
        let metrics = &self.desk.metrics;
        if parked {
            self.counters.parked.fetch_add(1, Ordering::SeqCst);
            metrics.parked.inc();
        } else {
            self.counters.done.fetch_add(1, Ordering::SeqCst);
            metrics.done.inc();
        }
        let took = now.duration_since(received);
        metrics.handling.observe(took.as_secs_f64());
        self.backlog.finished(parked);
        // What was set aside can be sent back to its queue at once, and is to be worked on then.
        match parked {
            true => self.known.forget(&raw.body),
            false => self.known.note_done(&raw, replay.as_deref()),
        }
        match (replay, &mut self.journal) {
            (Some(replay), Some(journal)) => journal.done(*replay),
            _ if current => self.finished_with(raw.tag, now),
            // Its channel is gone, and nobody waits for the acknowledgement.
            _ => {}
        }
    }

    /// A delivery is to be acknowledged.
    pub(super) fn finished_with(&mut self, tag: u64, now: Instant) {
        self.acks.finish(tag, now);
        self.unacknowledged += 1;
        self.ack_at.get_or_insert(now + ACK_DELAY);
    }

    pub(super) fn acknowledge_if_many(&mut self) {
        if self.unacknowledged >= usize::from(self.prefetch / 4) || self.running.is_empty() {
            self.acknowledge();
        }
    }

    pub(super) fn acknowledge(&mut self) {
        self.unacknowledged = 0;
        self.ack_at = None;
        let mut buffer = std::mem::take(&mut self.ack_buffer);
        self.acks.due(Instant::now(), &mut buffer);
        self.window.close_before(self.acks.first_open());
        let generation = self.desk.generation.load(Ordering::Relaxed);
        for ack in buffer.drain(..) {
            // False means that the channel was lost meanwhile: the message comes again.
            self.acker.ack(generation, ack.tag, ack.multiple);
        }
        self.ack_buffer = buffer;
    }
}
