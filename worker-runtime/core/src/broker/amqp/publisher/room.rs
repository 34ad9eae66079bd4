//! How many messages may be unconfirmed at once. Every one of them comes twice if the broker or this process ends now, so
//! there are no more than the broker confirms in a short while: more would wait there, and make nothing faster.

use std::time::{Duration, Instant};

/// Unconfirmed messages at most.
const MOST: usize = 1024;
/// A broker that hardly moves gets so many all the same.
const LEAST: usize = 8;
const FIRST: usize = 16;
/// Confirmations that take longer, and longer than twice what the broker takes for a few, mean that there are too many under
/// way.
const PATIENCE: Duration = Duration::from_millis(10);

/// The limit now.
pub(super) struct Room {
    limit: usize,
    /// What was sent before says nothing about the limit now.
    lowered: Option<Instant>,
    /// How long the broker takes for a few messages, if that is long: it is far away, or its disk is slow.
    base: Duration,
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            limit: FIRST,
            lowered: None,
            base: Duration::ZERO,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// `count` messages are confirmed, of which the one that was sent first was sent at `sent`; `full` if there was no
    /// room for more.
    pub(super) fn confirmed(&mut self, count: usize, sent: Instant, now: Instant, full: bool) {
        let took = now.duration_since(sent);
        if took < self.base {
            // One that was lucky is not believed at once.
            self.base -= (self.base - took) / 8;
        }
        let slow = took > PATIENCE.max(self.base * 2);
        let settled = self.lowered.is_none_or(|lowered| sent >= lowered);
        if slow && settled && self.limit == LEAST {
            // So few do not wait for each other: fewer would not be confirmed sooner.
            self.base = took;
        } else if slow && settled {
            self.limit = (self.limit * 2 / 3).max(LEAST);
            self.lowered = Some(now);
        } else if !slow && full {
            // Twice as many in the time of one confirmation.
            self.limit = (self.limit + count).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// A broker that confirms one message after the other, `rate` a second, each `delay` after its turn, in bunches; how
    /// many were confirmed a second, and the limit at the end.
    fn run(rate: u32, delay: Duration) -> (f64, usize) {
        const SECONDS: u32 = 20;
        let tick = Duration::from_millis(1);
        let (began, mut room) = (Instant::now(), Room::new());
        let (mut flight, mut ready) = (VecDeque::new(), VecDeque::new());
        let (mut credit, mut confirmed) = (0.0, 0);
        for step in 0..SECONDS * 1000 {
            let now = began + tick * step;
            while flight.len() + ready.len() < room.limit() {
                flight.push_back(now);
            }
            credit = (credit + f64::from(rate) / 1000.0).min(f64::from(rate));
            while credit >= 1.0 && !flight.is_empty() {
                credit -= 1.0;
                ready.push_back((flight.pop_front().unwrap(), now + delay));
            }
            let due = ready.iter().take_while(|(_, at)| *at <= now).count();
            if due > 0 {
                let first = ready[0].0;
                ready.drain(..due);
                confirmed += due;
                room.confirmed(due, first, now, true);
            }
        }
        (confirmed as f64 / f64::from(SECONDS), room.limit())
    }

    #[test]
    fn a_fast_broker_has_all_the_room() {
        let (per_second, limit) = run(20_000, Duration::from_millis(3));
        assert!(per_second > 19_000.0, "{per_second}");
        assert!(limit > 200, "{limit}");
    }

    #[test]
    fn a_slow_broker_has_no_more_than_it_confirms_soon_and_is_not_slower_for_it() {
        let (per_second, limit) = run(300, Duration::from_millis(3));
        assert!(per_second > 290.0, "{per_second}");
        assert!(limit <= 40, "{limit}");
    }

    #[test]
    fn a_broker_that_is_far_away_has_room_for_what_is_on_the_way() {
        let (per_second, limit) = run(5000, Duration::from_millis(120));
        assert!(per_second > 4000.0, "{per_second}");
        assert!(limit > 300, "{limit}");
    }

    #[test]
    fn a_broker_that_is_near_again_has_no_more_than_before() {
        let (began, mut room) = (Instant::now(), Room::new());
        let mut now = began;
        let mut confirm = |room: &mut Room, took: u64| {
            let sent = now;
            now += Duration::from_millis(took);
            room.confirmed(room.limit(), sent, now, true);
        };
        (0..50).for_each(|_| confirm(&mut room, 200));
        assert!(room.limit() > 300, "{}", room.limit());
        (0..50).for_each(|_| confirm(&mut room, 2));
        (0..20).for_each(|_| confirm(&mut room, 150));
        // It was lowered at once, and learned later that less does not help.
        assert!(room.base >= Duration::from_millis(100), "{:?}", room.base);
        (0..50).for_each(|_| confirm(&mut room, 2));
        assert!(room.base < PATIENCE / 2, "{:?}", room.base);
    }

    proptest! {
        #[test]
        fn the_limit_keeps_its_bounds(steps in prop::collection::vec((1usize..100, 0u64..1000, any::<bool>()), 1..200)) {
            let (began, mut room) = (Instant::now(), Room::new());
            for (n, (count, took, full)) in steps.into_iter().enumerate() {
                let now = began + Duration::from_secs(n as u64 + 1);
                room.confirmed(count, now - Duration::from_millis(took), now, full);
                prop_assert!((LEAST..=MOST).contains(&room.limit()));
            }
        }
    }
}
