//! Into which queues a consumed queue is divided, and which of them a message belongs to. Pure: what is in order stays
//! together, in every process and version.

use super::super::lanes::Lane;
use crate::message::Message;
use std::collections::BTreeSet;

/// The queue of one part.
pub(super) fn queue_of(queue: &str, part: &str) -> String {
    format!("{queue}.{part}")
}

/// Whether this is the name of a partition.
pub(super) fn is_part(name: &str) -> bool {
    let number = name.strip_prefix('p');
    number.is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
}

/// How one queue is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Plan {
    queue: String,
    parts: Vec<String>,
}

impl Plan {
    /// Not at all.
    pub(in crate::engine) fn whole(queue: &str) -> Self {
        Self::by_user(queue, 0)
    }

    /// As it was divided before.
    pub(super) fn former(queue: &str, parts: &BTreeSet<String>) -> Self {
        Self {
            queue: queue.to_owned(),
            parts: parts.iter().cloned().collect(),
        }
    }

    /// By user, into `count` partitions `p0`, `p1`, ….
    pub(in crate::engine) fn by_user(queue: &str, count: u16) -> Self {
        Self {
            queue: queue.to_owned(),
            parts: (0..count).map(|k| format!("p{k}")).collect(),
        }
    }

    /// The queue that is divided.
    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    /// Names of the parts: the ends of their queues' names.
    pub(super) fn parts(&self) -> &[String] {
        &self.parts
    }

    /// The queue for a message of this lane; what needs no order may go anywhere.
    pub(in crate::engine) fn target(&self, _: &Message, lane: Lane) -> String {
        let number = match lane {
            Lane::Numbered(number) => number,
            Lane::Free => 0,
        };
        let count = self.parts.len().max(1) as u64;
        let part = usize::try_from(number % count)
            .ok()
            .and_then(|k| self.parts.get(k));
        part.map_or_else(|| self.queue.clone(), |part| queue_of(&self.queue, part))
    }
}

/// `t.inbound.p0–p7`.
pub(super) fn range(plan: &Plan) -> String {
    match plan.parts() {
        [first, .., last] => format!("{}–{last}", queue_of(plan.queue(), first)),
        _ => plan.queue().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::lanes::LaneChooser;
    use super::*;
    use crate::message::UserMessage;
    use std::collections::BTreeMap;
    use vumi_api::{Flow, OrderingMode};

    fn target(plan: &Plan, user: &str) -> String {
        let message: Message = UserMessage::new("sms", Some("555"), Some(user)).into();
        let lane = LaneChooser::new(OrderingMode::PerUser).lane(Flow::Inbound, &message);
        plan.target(&message, lane)
    }

    /// Other processes, and versions to come, must choose the same.
    #[test]
    fn a_user_has_the_same_partition_everywhere() {
        let plan = Plan::by_user("t.inbound", 8);
        assert_eq!(target(&plan, "+27820001111"), "t.inbound.p0");
        assert_eq!(target(&plan, "27820001111"), "t.inbound.p0");
        assert_eq!(target(&plan, "27820001112"), target(&plan, "+27820001112"));
        assert_eq!(range(&plan), "t.inbound.p0–p7");
    }

    #[test]
    fn users_spread_over_all_partitions() {
        let plan = Plan::by_user("t.inbound", 8);
        let mut users: BTreeMap<String, usize> = BTreeMap::new();
        for n in 0..8000 {
            *users
                .entry(target(&plan, &format!("2782{n:07}")))
                .or_default() += 1;
        }
        assert_eq!(users.len(), 8);
        assert!(users.values().all(|n| (850..1150).contains(n)), "{users:?}");
    }
}
