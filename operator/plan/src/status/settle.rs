//! Hysteresis (K7): what changes has to stay changed for a while before it is written, so that a constant load with its noise
//! writes nothing.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// What a resource's status has to remember between two looks and does not say itself. The operator keeps it; after a restart
/// it begins anew, and changes come a little later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What is about to change, to what, and since when.
    pending: BTreeMap<&'static str, (String, Timestamp)>,
    /// When a class was last changed.
    classes: Option<Timestamp>,
}

/// One look, with what it changes in the memory.
pub struct Settling {
    memory: Memory,
    now: Timestamp,
    /// When something that is pending may be settled.
    pub again: Option<Timestamp>,
}

impl Settling {
    /// A look at `now`.
    pub fn new(memory: &Memory, now: Timestamp) -> Self {
        Self {
            memory: memory.clone(),
            now,
            again: None,
        }
    }

    /// Whether `slot` may change from `before` to `wanted`, which it may once that was wanted at every look for `after`.
    pub fn settles(
        &mut self,
        slot: &'static str,
        before: &str,
        wanted: &str,
        after: SignedDuration,
    ) -> bool {
        if before == wanted || after.is_zero() {
            self.memory.pending.remove(slot);
            return true;
        }
        let since = match self.memory.pending.get(slot) {
            Some((pending, since)) if pending == wanted => *since,
            _ => self.now,
        };
        if self.now.duration_since(since) >= after {
            self.memory.pending.remove(slot);
            return true;
        }
        let pending = (wanted.to_owned(), since);
        self.memory.pending.insert(slot, pending);
        self.look_again(since.checked_add(after).unwrap_or(Timestamp::MAX));
        false
    }

    /// Whether something holds, and held at every look for `after`.
    pub fn lasts(&mut self, slot: &'static str, holds: bool, after: SignedDuration) -> bool {
        if !holds {
            self.memory.pending.remove(slot);
            return false;
        }
        let began = (String::new(), self.now);
        let (_, since) = self.memory.pending.entry(slot).or_insert(began);
        let end = since.checked_add(after).unwrap_or(Timestamp::MAX);
        self.look_again(end);
        end <= self.now
    }

    /// The class after this look. Of all classes of a resource one changes at most each minute.
    pub fn class(
        &mut self,
        slot: &'static str,
        before: Option<String>,
        wanted: Option<&str>,
    ) -> Option<String> {
        let first = before.is_none() && wanted.is_some();
        let after = match first {
            true => SignedDuration::ZERO,
            false => PAUSE,
        };
        let text = |class: Option<&str>| class.unwrap_or_default().to_owned();
        let (from, to) = (text(before.as_deref()), text(wanted));
        if !self.settles(slot, &from, &to, after) || from == to {
            return before;
        }
        // Two that change in one look are one write.
        let last = self
            .memory
            .classes
            .filter(|last| !first && *last != self.now);
        if let Some(last) = last
            && let Ok(free) = last.checked_add(PAUSE)
            && free > self.now
        {
            self.memory.pending.insert(slot, (to, self.now.min(last)));
            self.look_again(free);
            return before;
        }
        self.memory.classes = Some(self.now);
        wanted.map(str::to_owned)
    }

    /// Asks for another look at `at`.
    pub fn look_again(&mut self, at: Timestamp) {
        if at > self.now {
            self.again = Some(self.again.map_or(at, |again| again.min(at)));
        }
    }

    /// What is to be remembered until the next look.
    pub fn memory(self) -> Memory {
        self.memory
    }
}

/// Between two changes of classes, and before one.
const PAUSE: SignedDuration = SignedDuration::from_secs(60);

/// The class of a number: the highest bound that it reaches.
pub fn class(number: u64, bounds: &[(u64, &'static str)]) -> &'static str {
    let reached = bounds.iter().rev().find(|(least, _)| number >= *least);
    reached.map_or("0", |(_, name)| name)
}

/// Classes of a backlog.
pub const BACKLOG: &[(u64, &str)] = &[(1, "1+"), (100, "100+"), (10_000, "10k+")];
/// Classes of what was set aside.
pub const PARKED: &[(u64, &str)] = &[(1, "1+"), (100, "100+")];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn a_change_has_to_last() {
        let after = SignedDuration::from_secs(10);
        let mut memory = Memory::default();
        let mut settled = Vec::new();
        for (second, wanted) in [
            (0, "b"),
            (5, "b"),
            (9, "a"),
            (10, "b"),
            (19, "b"),
            (20, "b"),
        ] {
            let mut look = Settling::new(&memory, at(second));
            settled.push(look.settles("x", "a", wanted, after));
            match (second, wanted) {
                (20, _) | (_, "a") => assert_eq!(look.again, None),
                (0 | 5, _) => assert_eq!(look.again, Some(at(10))),
                _ => assert_eq!(look.again, Some(at(20))),
            }
            memory = look.memory();
        }
        assert_eq!(settled, [false, false, true, false, false, true]);
        assert_eq!(memory, Memory::default());
    }

    #[test]
    fn classes_change_once_a_minute_at_most() {
        let mut memory = Memory::default();
        let mut class = Some("0".to_owned());
        let mut changes = Vec::new();
        for second in 0..600 {
            let wanted = match second {
                0..100 => "1+",
                100..200 => "100+",
                _ => "10k+",
            };
            let mut look = Settling::new(&memory, at(second));
            let next = look.class("backlog", class.clone(), Some(wanted));
            memory = look.memory();
            if next != class {
                changes.push(second);
                class = next;
            }
        }
        assert_eq!(class.as_deref(), Some("10k+"));
        assert_eq!(changes, [60, 160, 260]);
    }

    #[test]
    fn numbers_have_classes() {
        for (number, backlog, parked) in [
            (0, "0", "0"),
            (1, "1+", "1+"),
            (99, "1+", "1+"),
            (100, "100+", "100+"),
            (9_999, "100+", "100+"),
            (10_000, "10k+", "100+"),
            (u64::MAX, "10k+", "100+"),
        ] {
            assert_eq!(class(number, BACKLOG), backlog);
            assert_eq!(class(number, PARKED), parked);
        }
    }
}
