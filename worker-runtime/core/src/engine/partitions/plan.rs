//! Into which queues a consumed queue is divided, and which of them a message belongs to. Pure: what is in order stays
//! together, in every process and version.

use super::super::labels::Labels;
use super::super::lanes::Lane;
use crate::message::Message;
use std::collections::BTreeSet;
use vumi_api::shared::{Class, Classes};
use vumi_api::{Flow, Port, Resource};

/// The queue of one part.
pub(super) fn queue_of(queue: &str, part: &str) -> String {
    format!("{queue}.{part}")
}

/// Parts of one unit are read by one replica: the classes of the same users, between which it keeps the weights.
pub(super) fn unit_of(part: &str) -> &str {
    let last = part.rsplit('.').next().unwrap_or(part);
    match is_partition(last) {
        true => last,
        false => "",
    }
}

/// Whether this is the name of a part of any division: a class, a partition, or a partition of a class.
pub(crate) fn is_part(name: &str) -> bool {
    match name.split_once('.') {
        Some((class, partition)) => Class::find(class).is_some() && is_partition(partition),
        None => Class::find(name).is_some() || is_partition(name),
    }
}

fn is_partition(name: &str) -> bool {
    let number = name.strip_prefix('p');
    number.is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
}

/// How one queue is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Plan {
    queue: String,
    /// By class first, then by user.
    parts: Vec<String>,
    /// Class of messages that name none, if the queue is divided by class.
    classes: Option<Class>,
}

impl Plan {
    /// Not at all.
    pub(in crate::engine) fn whole(queue: &str) -> Self {
        Self::former(queue, &BTreeSet::new())
    }

    /// As it was divided before.
    pub(super) fn former(queue: &str, parts: &BTreeSet<String>) -> Self {
        Self {
            queue: queue.to_owned(),
            parts: parts.iter().cloned().collect(),
            classes: None,
        }
    }

    /// As the manifest says, for the queue of `port`.
    pub(in crate::engine) fn of(resource: &Resource, port: &Port) -> Self {
        let classes = resource.classes().filter(|_| port.flow == Flow::Outbound);
        Self {
            queue: port.queue(),
            parts: resource.division(port.flow),
            classes: classes.map(Classes::default_class),
        }
    }

    /// The queue that is divided.
    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    /// Names of the parts: the ends of their queues' names.
    pub(in crate::engine) fn parts(&self) -> &[String] {
        &self.parts
    }

    /// Class of messages that name none, if the queue is divided by class.
    pub(in crate::engine) fn classes(&self) -> Option<Class> {
        self.classes
    }

    /// The queue for a message of this lane; what needs no order may go anywhere.
    pub(in crate::engine) fn target(&self, message: &Message, lane: Lane) -> String {
        let number = match lane {
            Lane::Numbered(number) => number,
            Lane::Free => 0,
        };
        let (block, blocks) = match self.classes {
            Some(default) => {
                let class = Labels::of(message).class_or(default);
                (class as usize, Class::ALL.len())
            }
            None => (0, 1),
        };
        let users = (self.parts.len() / blocks).max(1);
        let part = usize::try_from(number % users as u64)
            .ok()
            .and_then(|k| self.parts.get(block * users + k));
        part.map_or_else(|| self.queue.clone(), |part| queue_of(&self.queue, part))
    }
}

/// `t.inbound.p0–p7`, `t.outbound.interactive–bulk`.
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
    use crate::conformance::stand_in::resource;
    use crate::message::UserMessage;
    use serde_json::json;
    use std::collections::BTreeMap;
    use vumi_api::{Flow, OrderingMode};

    fn plan(settings: serde_json::Value, flow: Flow) -> Plan {
        let mut spec = json!({"telnet": {"port": 9000}, "transportName": "t"});
        let settings = settings.as_object().cloned().unwrap_or_default();
        spec.as_object_mut().unwrap().extend(settings);
        let manifest = json!({"kind": "Transport", "metadata": {"name": "t"}, "spec": spec});
        Plan::of(&resource(&manifest).unwrap(), &Port::new("t", flow))
    }

    fn divided(partitions: u16) -> serde_json::Value {
        json!({"mode": "perUser", "partitions": partitions})
    }

    fn target(plan: &Plan, user: &str) -> String {
        let message: Message = UserMessage::new("sms", Some("555"), Some(user)).into();
        let lane = LaneChooser::new(OrderingMode::PerUser).lane(Flow::Inbound, &message);
        plan.target(&message, lane)
    }

    /// Other processes, and versions to come, must choose the same.
    #[test]
    fn a_user_has_the_same_partition_everywhere() {
        let plan = plan(json!({"ordering": divided(8)}), Flow::Inbound);
        assert_eq!(target(&plan, "+27820001111"), "t.inbound.p0");
        assert_eq!(target(&plan, "27820001111"), "t.inbound.p0");
        assert_eq!(target(&plan, "27820001112"), target(&plan, "+27820001112"));
        assert_eq!(range(&plan), "t.inbound.p0–p7");
    }

    #[test]
    fn users_spread_over_all_partitions() {
        let plan = plan(json!({"ordering": divided(8)}), Flow::Inbound);
        let mut users: BTreeMap<String, usize> = BTreeMap::new();
        for n in 0..8000 {
            *users
                .entry(target(&plan, &format!("2782{n:07}")))
                .or_default() += 1;
        }
        assert_eq!(users.len(), 8);
        assert!(users.values().all(|n| (850..1150).contains(n)), "{users:?}");
    }

    fn classed(plan: &Plan, user: &str, class: Option<&str>) -> String {
        let mut message = UserMessage::new("sms", Some(user), Some("555"));
        if let Some(class) = class {
            let metadata = message.helper_metadata_mut();
            metadata.insert("class".into(), class.into());
        }
        let message: Message = message.into();
        let lane = LaneChooser::new(OrderingMode::PerUser).lane(Flow::Outbound, &message);
        plan.target(&message, lane)
    }

    #[test]
    fn a_message_goes_to_its_class_and_the_partition_of_its_user() {
        let whole = plan(json!({"classes": {}}), Flow::Outbound);
        assert_eq!(whole.parts(), ["interactive", "transactional", "bulk"]);
        assert_eq!(classed(&whole, "1", Some("bulk")), "t.outbound.bulk");
        let default = "t.outbound.transactional";
        assert_eq!(classed(&whole, "1", None), default);
        assert_eq!(classed(&whole, "1", Some("urgent")), default);
        let both = json!({"classes": {"default": "bulk"}, "ordering": divided(8)});
        let both = plan(both, Flow::Outbound);
        assert_eq!(both.parts().len(), 24);
        let user = "+27820001111";
        assert_eq!(classed(&both, user, None), "t.outbound.bulk.p0");
        let interactive = classed(&both, user, Some("interactive"));
        assert_eq!(interactive, "t.outbound.interactive.p0");
        let inbound = plan(json!({"classes": {}}), Flow::Inbound);
        assert!(inbound.parts().is_empty(), "only what is sent has classes");
    }

    #[test]
    fn classes_of_the_same_users_are_one_unit() {
        assert_eq!(unit_of("interactive.p3"), unit_of("bulk.p3"));
        assert_eq!(unit_of("p3"), "p3");
        assert_eq!(unit_of("bulk"), unit_of("interactive"));
        assert_ne!(unit_of("bulk.p3"), unit_of("bulk.p4"));
    }

    #[test]
    fn parts_are_known_by_their_names() {
        for part in ["p0", "p17", "bulk", "interactive.p3"] {
            assert!(is_part(part), "{part}");
        }
        for other in ["p", "px", "parked", "layout", "p1.bulk", "bulk.p", "fence"] {
            assert!(!is_part(other), "{other}");
        }
        assert_eq!(
            (unit_of("bulk.p2"), unit_of("p2"), unit_of("bulk")),
            ("p2", "p2", "")
        );
    }
}
