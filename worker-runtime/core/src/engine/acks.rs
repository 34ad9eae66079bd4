//! Which deliveries may be acknowledged, and how (R4): `multiple` up to the first gap, one by one above it as soon as the
//! gap is old or much is finished behind it. Pure: tags and times in, acknowledgements out.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// A gap older than this is acknowledged around.
pub(super) const GAP_AGE: Duration = Duration::from_millis(5);

/// One `basic.ack` to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) tag: u64,
    pub(super) multiple: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// Not finished.
    Open,
    /// Finished, not acknowledged.
    Finished,
    /// Acknowledged by itself, above a gap.
    Acked,
}

/// The open and finished deliveries of one generation of one channel.
pub(super) struct Acks {
    /// Tag of the first slot.
    base: u64,
    slots: VecDeque<Slot>,
    /// Finished ones above the first open one.
    behind_gap: usize,
    /// Since when something finished waits behind a gap.
    gap_since: Option<Instant>,
    /// So many finished ones behind a gap are acknowledged at once.
    patience: usize,
    /// Nothing that is finished now waits for a gap.
    patience_over: bool,
}

impl Acks {
    pub(super) fn new(prefetch: u16) -> Self {
        Self {
            base: 1,
            slots: VecDeque::new(),
            behind_gap: 0,
            gap_since: None,
            patience: usize::from(prefetch / 4).max(1),
            patience_over: false,
        }
    }

    /// A delivery arrived. Tags rise by one.
    pub(super) fn open(&mut self, tag: u64) {
        if self.slots.is_empty() {
            self.base = tag;
        }
        while self.base + (self.slots.len() as u64) < tag {
            // A tag that never came counts as acknowledged: it holds nothing of ours.
            self.slots.push_back(Slot::Acked);
        }
        self.slots.push_back(Slot::Open);
    }

    /// A delivery is finished: everything it caused is confirmed.
    pub(super) fn finish(&mut self, tag: u64, now: Instant) {
        let Some(slot) = tag
            .checked_sub(self.base)
            .and_then(|n| self.slots.get_mut(usize::try_from(n).ok()?))
        else {
            return;
        };
        if *slot == Slot::Open {
            *slot = Slot::Finished;
            self.behind_gap += 1;
            self.gap_since.get_or_insert(now);
        }
    }

    /// Whether a delivery arrived and is not finished.
    pub(super) fn is_open(&self, tag: u64) -> bool {
        self.slot(tag).is_some_and(|slot| *slot == Slot::Open)
    }

    fn slot(&self, tag: u64) -> Option<&Slot> {
        let place = tag.checked_sub(self.base)?;
        self.slots.get(usize::try_from(place).ok()?)
    }

    /// The first tag that is not finished; the next one to come if all are.
    pub(super) fn first_open(&self) -> u64 {
        self.base
    }

    /// When [`Self::due`] should be asked again although nothing finishes.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.gap_since.map(|since| since + GAP_AGE)
    }

    /// What is finished by now is not worked on any more and took its place from others: no gap is waited for.
    pub(super) fn hurry(&mut self) {
        if self.behind_gap > 0 {
            self.patience_over = true;
        }
    }

    /// Acknowledgements to send now.
    pub(super) fn due(&mut self, now: Instant, out: &mut Vec<Ack>) {
        let mut last = None;
        while let Some(slot) = self.slots.front().copied() {
            match slot {
                Slot::Open => break,
                Slot::Finished => {
                    last = Some(self.base);
                    self.behind_gap -= 1;
                }
                Slot::Acked => {}
            }
            self.slots.pop_front();
            self.base += 1;
        }
        if let Some(tag) = last {
            out.push(Ack {
                tag,
                multiple: true,
            });
        }
        if self.behind_gap == 0 {
            self.gap_since = None;
            self.patience_over = false;
            return;
        }
        let since = *self.gap_since.get_or_insert(now);
        let patient = !std::mem::take(&mut self.patience_over);
        if patient && now.duration_since(since) < GAP_AGE && self.behind_gap < self.patience {
            return;
        }
        for (tag, slot) in (self.base..).zip(self.slots.iter_mut()) {
            if *slot == Slot::Finished {
                *slot = Slot::Acked;
                out.push(Ack {
                    tag,
                    multiple: false,
                });
            }
        }
        self.behind_gap = 0;
        self.gap_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn due(acks: &mut Acks, now: Instant) -> Vec<Ack> {
        let mut out = Vec::new();
        acks.due(now, &mut out);
        out
    }

    #[test]
    fn a_run_without_gap_is_one_acknowledgement() {
        let (mut acks, now) = (Acks::new(100), Instant::now());
        (1..=10).for_each(|tag| acks.open(tag));
        (1..=7).rev().for_each(|tag| acks.finish(tag, now));
        let expected = Ack {
            tag: 7,
            multiple: true,
        };
        assert_eq!(due(&mut acks, now), [expected]);
        assert_eq!(due(&mut acks, now + GAP_AGE), []);
    }

    #[test]
    fn one_held_message_does_not_hold_the_others() {
        let (mut acks, now) = (Acks::new(8), Instant::now());
        (1..=4).for_each(|tag| acks.open(tag));
        acks.finish(2, now);
        assert_eq!(due(&mut acks, now), []);
        let single = |tag| Ack {
            tag,
            multiple: false,
        };
        assert_eq!(due(&mut acks, now + GAP_AGE), [single(2)], "by age");
        acks.finish(3, now);
        acks.finish(4, now);
        assert_eq!(due(&mut acks, now), [single(3), single(4)], "by number");
        acks.open(5);
        acks.finish(5, now);
        acks.finish(1, now);
        let expected = Ack {
            tag: 5,
            multiple: true,
        };
        assert_eq!(due(&mut acks, now), [expected]);
    }

    proptest! {
        /// As a broker sees it: no open delivery is ever acknowledged, none twice, `multiple` only on an unacknowledged
        /// tag, and in the end everything finished is acknowledged.
        #[test]
        fn no_order_of_verdicts_acknowledges_an_open_delivery(
            order in Just((1u64..=60).collect::<Vec<_>>()).prop_shuffle(),
            ask in proptest::collection::vec(0u64..80, 60),
            held in 0usize..3,
        ) {
            let start = Instant::now();
            let mut acks = Acks::new(16);
            (1..=60).for_each(|tag| acks.open(tag));
            let mut unacked: BTreeSet<u64> = (1..=60).collect();
            let mut finished = BTreeSet::new();
            let mut clock = start;
            let mut check = |acks: &mut Acks, finished: &BTreeSet<u64>, clock: Instant| {
                for ack in due(acks, clock) {
                    prop_assert!(unacked.contains(&ack.tag), "{ack:?} is not outstanding");
                    let covered: Vec<u64> = if ack.multiple {
                        unacked.range(..=ack.tag).copied().collect()
                    } else {
                        vec![ack.tag]
                    };
                    for tag in covered {
                        prop_assert!(finished.contains(&tag), "{ack:?} acknowledges open {tag}");
                        unacked.remove(&tag);
                    }
                }
                Ok(unacked.len())
            };
            for (tag, wait) in order.iter().zip(ask).skip(held) {
                finished.insert(*tag);
                acks.finish(*tag, clock);
                clock += Duration::from_millis(wait);
                check(&mut acks, &finished, clock)?;
            }
            let left = check(&mut acks, &finished, clock + GAP_AGE)?;
            prop_assert_eq!(left, held);
        }
    }
}
