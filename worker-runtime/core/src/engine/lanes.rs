//! Lanes: one user's messages run one after the other, users run beside each other. Positions in the prefetch window, not
//! a queue of their own: there are never more than the window holds.

use crate::message::Message;
use crate::numbers::by_form;
use crate::state::person::lane_number;
use std::collections::{HashMap, VecDeque};
use vumi_api::{Flow, OrderingMode};

/// The lane of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// Alone: nothing waits for it.
    Free,
    /// In order with everything of the same number.
    Numbered(u64),
}

/// Chooses lanes (S7).
pub(super) struct LaneChooser {
    mode: OrderingMode,
}

impl LaneChooser {
    pub(super) fn new(mode: OrderingMode) -> Self {
        Self { mode }
    }

    /// User messages: the user's address, else the group. Events: the message they speak of. Null: one lane for all
    /// such. Two users whose numbers collide share a lane, which costs time and no order.
    pub(super) fn lane(&self, flow: Flow, message: &Message) -> Lane {
        match self.mode {
            OrderingMode::None => Lane::Free,
            OrderingMode::PerQueue => Lane::Numbered(0),
            OrderingMode::PerUser => {
                let key = match message {
                    Message::User(m) => {
                        let user = match flow {
                            Flow::Outbound => m.to_addr(),
                            Flow::Inbound | Flow::Event => m.from_addr(),
                        };
                        user.or_else(|| m.group()).unwrap_or_default()
                    }
                    Message::Event(e) => e.user_message_id(),
                };
                Lane::Numbered(lane_number(&by_form(key)))
            }
        }
    }
}

/// What waits in each lane behind the one that runs. A lane is listed while something of it runs.
pub(super) struct Lanes<T> {
    busy: HashMap<u64, VecDeque<T>>,
    waiting: usize,
}

impl<T> Lanes<T> {
    pub(super) fn new() -> Self {
        Self {
            busy: HashMap::new(),
            waiting: 0,
        }
    }

    /// The item back if it may run now; else it waits for its turn.
    pub(super) fn enter(&mut self, lane: Lane, item: T) -> Option<T> {
        let Lane::Numbered(number) = lane else {
            return Some(item);
        };
        match self.busy.entry(number) {
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                Some(item)
            }
            std::collections::hash_map::Entry::Occupied(mut busy) => {
                busy.get_mut().push_back(item);
                self.waiting += 1;
                None
            }
        }
    }

    /// The running item of a lane ended: the next one, if any waits.
    pub(super) fn leave(&mut self, lane: Lane) -> Option<T> {
        let Lane::Numbered(number) = lane else {
            return None;
        };
        let next = self.busy.get_mut(&number)?.pop_front();
        match next {
            Some(_) => self.waiting -= 1,
            None => {
                self.busy.remove(&number);
            }
        }
        next
    }

    /// The running item of a lane ended, and nothing behind it may run: what waited.
    pub(super) fn abandon(&mut self, lane: Lane) -> VecDeque<T> {
        let Lane::Numbered(number) = lane else {
            return VecDeque::new();
        };
        let behind = self.busy.remove(&number).unwrap_or_default();
        self.waiting -= behind.len();
        behind
    }

    /// How many wait in a lane.
    pub(super) fn waiting(&self, lane: Lane) -> usize {
        match lane {
            Lane::Numbered(number) => self.busy.get(&number).map_or(0, VecDeque::len),
            Lane::Free => 0,
        }
    }

    /// Takes out everything that waits; what runs goes on.
    pub(super) fn clear_waiting(&mut self) -> Vec<T> {
        if std::mem::take(&mut self.waiting) == 0 {
            return Vec::new();
        }
        let lanes = self.busy.values_mut();
        lanes.flat_map(std::mem::take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Event, UserMessage};

    fn user(to: Option<&str>, from: Option<&str>) -> Message {
        UserMessage::new("sms", to, from).into()
    }

    #[test]
    fn a_user_has_one_lane_in_each_direction() {
        let chooser = LaneChooser::new(OrderingMode::PerUser);
        let inbound = chooser.lane(Flow::Inbound, &user(Some("555"), Some("+2782")));
        let outbound = chooser.lane(Flow::Outbound, &user(Some("2782 "), Some("555")));
        assert_eq!(inbound, outbound);
        assert_ne!(
            inbound,
            chooser.lane(Flow::Inbound, &user(Some("555"), Some("2783")))
        );
    }

    #[test]
    fn groups_events_and_nothing() {
        let chooser = LaneChooser::new(OrderingMode::PerUser);
        let mut group = UserMessage::new("irc", None, Some("bot"));
        group.set_field("group", "#room");
        let mut other = UserMessage::new("irc", None, Some("bot"));
        assert_ne!(
            chooser.lane(Flow::Outbound, &group.clone().into()),
            chooser.lane(Flow::Outbound, &other.clone().into())
        );
        other.set_field("group", "#room");
        assert_eq!(
            chooser.lane(Flow::Outbound, &group.into()),
            chooser.lane(Flow::Outbound, &other.into())
        );
        let event = |id| Message::from(Event::ack(id, "r"));
        assert_eq!(
            chooser.lane(Flow::Event, &event("m1")),
            chooser.lane(Flow::Event, &event("m1"))
        );
    }

    #[test]
    fn modes() {
        let message = user(Some("1"), Some("2"));
        let lane = |mode| LaneChooser::new(mode).lane(Flow::Inbound, &message);
        assert_eq!(lane(OrderingMode::None), Lane::Free);
        assert_eq!(lane(OrderingMode::PerQueue), Lane::Numbered(0));
    }

    #[test]
    fn one_runs_the_others_wait_in_order() {
        let mut lanes = Lanes::new();
        let (a, b) = (Lane::Numbered(1), Lane::Numbered(2));
        assert_eq!(lanes.enter(a, 1), Some(1));
        assert_eq!(lanes.enter(a, 2), None);
        assert_eq!(lanes.enter(a, 3), None);
        assert_eq!(lanes.enter(b, 4), Some(4));
        assert_eq!(lanes.leave(a), Some(2));
        assert_eq!(lanes.clear_waiting(), [3]);
        assert_eq!(lanes.enter(a, 5), None, "2 still runs");
        assert_eq!(lanes.leave(a), Some(5));
        assert_eq!(lanes.leave(a), None);
        assert_eq!(lanes.enter(a, 6), Some(6));
        assert_eq!(lanes.enter(a, 8), None);
        assert_eq!(lanes.abandon(a), [8]);
        assert_eq!(lanes.enter(a, 9), Some(9));
        assert_eq!(lanes.enter(Lane::Free, 7), Some(7));
        assert_eq!(lanes.leave(Lane::Free), None);
    }
}
