//! What has changed between two statuses, for events: each with its reason.

use super::{IN_THE_WAY, Status};
use crate::reasons::Reason;
use vumi_api::{Condition, ConditionType, Truth};

/// Something that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Whether it is bad news: an event of type `Warning`, else `Normal`.
    pub warning: bool,
    /// `reason` of the event.
    pub reason: String,
    /// Its note.
    pub message: String,
}

/// What has changed from `before` to `after`, in the order of the conditions. What several conditions say for one reason is told
/// once, by the one that asks for most.
pub fn edges(before: &Status, after: &Status) -> Vec<Edge> {
    use ConditionType as T;
    let mut edges: Vec<Edge> = Vec::new();
    let mut add = |kind: ConditionType, edge: Edge| {
        let same = edges.iter_mut().find(|told| told.reason == edge.reason);
        match same {
            Some(told) if edge.warning && (!told.warning || kind == ConditionType::Stalled) => {
                *told = edge;
            }
            Some(_) => {}
            None => edges.push(edge),
        }
    };
    for kind in ConditionType::ALL {
        let (old, new) = (before.condition(*kind), after.condition(*kind));
        let sign = |condition: &Condition| (condition.status, condition.reason.clone());
        if old.map(sign) == new.map(sign) {
            continue;
        }
        // That all is well from the beginning is said by Ready.
        let of_a_part = [
            T::LinkUp,
            T::BacklogKnown,
            T::StateHealthy,
            T::CredentialsValid,
        ];
        match (old, new) {
            (None, Some(condition)) if of_a_part.contains(kind) && !is_bad(*kind, condition) => {}
            (_, Some(condition)) => add(
                *kind,
                Edge {
                    warning: is_bad(*kind, condition),
                    reason: condition.reason.clone(),
                    message: format!("{kind}: {}", condition.message, kind = kind.as_str()),
                },
            ),
            // Ready says what became of a roll.
            (Some(_), None) if *kind == ConditionType::Reconciling => {}
            (Some(condition), None) if is_bad(*kind, condition) => add(
                *kind,
                Edge {
                    warning: false,
                    reason: condition.reason.clone(),
                    message: format!("{} is over: {}", kind.as_str(), condition.message),
                },
            ),
            _ => {}
        }
    }
    match (&before.autoscaling, &after.autoscaling) {
        (old, Some(new)) if old.as_ref() != Some(new) => edges.push(Edge {
            warning: [Reason::WokenBlind, Reason::AtMaximum]
                .iter()
                .any(|reason| new.reason == reason.as_str()),
            reason: new.reason.clone(),
            message: new.message.clone(),
        }),
        (Some(old), None) => edges.push(Edge {
            warning: false,
            reason: Reason::AutoscalingRemoved.as_str().to_owned(),
            message: format!(
                "autoscaling was removed: in a moment spec.replicas decides, where there were {} pods",
                old.desired_replicas
            ),
        }),
        _ => {}
    }
    edges
}

fn is_bad(kind: ConditionType, condition: &Condition) -> bool {
    use ConditionType as T;
    match kind {
        T::Ready | T::LinkUp | T::BacklogKnown | T::StateHealthy | T::CredentialsValid => {
            condition.status != Truth::True
                && condition.reason != Reason::Starting.as_str()
                && condition.reason != Reason::RollingOut.as_str()
        }
        T::Reconciling => IN_THE_WAY
            .iter()
            .any(|reason| condition.reason == reason.as_str()),
        T::UpdateAvailable => false,
        T::Stalled
        | T::Paused
        | T::BacklogFull
        | T::NoConsumer
        | T::ForeignConsumer
        | T::TrafficStalled => true,
    }
}
