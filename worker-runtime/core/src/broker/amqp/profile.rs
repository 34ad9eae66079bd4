//! The two broker profiles (S1) in one place: with which arguments queues are declared, which fence holds one for a
//! single consumer, and which brokers can do that.

use super::fence::Fence;
use crate::broker::{Access, Durability, QueueSpec};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use lapin::types::{AMQPValue, FieldTable};

pub use vumi_api::shared::BrokerProfile as Profile;

/// First major version whose quorum queues can be told to drop nothing.
const QUORUM_SINCE: u32 = 4;

/// Whether a queue is kept by several nodes. What ends with its connection never is: no broker can do that.
fn is_replicated(profile: Profile, queue: &QueueSpec) -> bool {
    profile == Profile::Quorum && matches!(queue, QueueSpec::Data(_) | QueueSpec::Parking(_))
}

/// The arguments of a queue's declaration: everyone who declares it must give the same.
pub(super) fn arguments(profile: Profile, queue: &QueueSpec) -> FieldTable {
    let mut arguments = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(text.into());
    if is_replicated(profile, queue) {
        arguments.insert("x-queue-type".into(), text("quorum"));
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        // Without it the twentieth return of a message would be its end (R1).
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(-1));
    } else {
        arguments.insert("x-queue-type".into(), text("classic"));
    }
    arguments
}

/// What keeps a queue's consumer alone. A replicated queue sends to one consumer at a time, whoever asks, so those who
/// would compete for it stand by as well.
pub(super) fn fence(profile: Profile, queue: &QueueSpec, access: Access) -> Fence {
    match access {
        _ if is_replicated(profile, queue) => Fence::SingleActiveConsumer,
        Access::Shared => Fence::Open,
        Access::Fenced => Fence::ExclusiveConsumer,
    }
}

/// What a confirmation means on a broker whose classic queues have `classic`: quorum queues sync before they confirm.
pub(super) fn durability(profile: Profile, classic: Durability) -> Durability {
    match profile {
        Profile::Vumi => classic,
        Profile::Quorum => Durability::Host,
    }
}

/// Whether the profile works on this server, e.g. `RabbitMQ 4.0.5`.
///
/// # Errors
/// [`codes::BROKER_TOO_OLD`].
pub(super) fn check_server(profile: Profile, server: &str) -> Result<(), WorkError> {
    let major = server
        .rsplit(' ')
        .next()
        .and_then(|version| version.split('.').next())
        .and_then(|major| major.parse::<u32>().ok());
    match (profile, major) {
        (Profile::Quorum, Some(major)) if major < QUORUM_SINCE => {
            let code = codes::BROKER_TOO_OLD;
            let text = format!(
                "{code}: profile quorum needs RabbitMQ {QUORUM_SINCE}.0 or newer, this is {server}"
            );
            Err(WorkError::new(ErrorClass::Config, code, text))
        }
        _ => Ok(()),
    }
}

/// A queue exists with other properties; `said` are the broker's words, which name queue and virtual host.
pub(super) fn differs(profile: Profile, said: &str) -> String {
    format!(
        "a queue is not as profile {} declares it, and a virtual host serves one profile: {said}",
        profile.as_str()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_outlives_its_connection_is_replicated() {
        let kind = |profile, queue: &QueueSpec| {
            let arguments = arguments(profile, queue);
            match arguments.inner().get("x-queue-type") {
                Some(AMQPValue::LongString(kind)) => (kind.to_string(), arguments.inner().len()),
                other => panic!("{other:?}"),
            }
        };
        for queue in [QueueSpec::Data("q".into()), QueueSpec::Parking("q".into())] {
            assert_eq!(kind(Profile::Vumi, &queue), ("classic".into(), 1));
            assert_eq!(kind(Profile::Quorum, &queue), ("quorum".into(), 3));
            for access in [Access::Shared, Access::Fenced] {
                let fence = fence(Profile::Quorum, &queue, access);
                assert_eq!(fence, Fence::SingleActiveConsumer);
            }
        }
        let reply = QueueSpec::Reply("q".into());
        assert_eq!(kind(Profile::Quorum, &reply), ("classic".into(), 1));
        let open = fence(Profile::Quorum, &reply, Access::Shared);
        assert_eq!(open, Fence::Open);
    }

    #[test]
    fn old_servers_are_refused_for_quorum_only() {
        let refused = |profile, server| check_server(profile, server).err().map(|e| e.code);
        for server in ["RabbitMQ 3.10.8", "RabbitMQ 3.13.7"] {
            assert_eq!(
                refused(Profile::Quorum, server),
                Some(codes::BROKER_TOO_OLD)
            );
            assert_eq!(refused(Profile::Vumi, server), None);
        }
        for server in ["RabbitMQ 4.0.5", "RabbitMQ 5.1.0", "Other"] {
            assert_eq!(refused(Profile::Quorum, server), None);
        }
    }
}
