//! The fence: who may consume, enforced by the broker and proved by a probe (R1, R2).
//! The classic profile takes the consumer exclusively; a quorum profile would add its own variant here (S1).

use super::errors::Trouble;
use super::topology::short;
use crate::broker::Access;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};

/// How a consumer is kept alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    /// Not at all: competing consumers.
    Open,
    /// `exclusive` on a classic queue.
    ExclusiveConsumer,
}

impl From<Access> for Fence {
    fn from(access: Access) -> Self {
        match access {
            Access::Shared => Fence::Open,
            Access::Fenced => Fence::ExclusiveConsumer,
        }
    }
}

impl Fence {
    /// Starts consuming behind the fence. [`Trouble::Held`] means that another holder lives; the broker has then closed
    /// the channel.
    pub(super) async fn consume(
        self,
        connection: &Connection,
        channel: &Channel,
        queue: &str,
        tag: &str,
    ) -> Result<Consumer, Trouble> {
        match self {
            Fence::Open => start(channel, queue, tag, BasicConsumeOptions::default())
                .await
                .map_err(|e| Trouble::of(&e)),
            Fence::ExclusiveConsumer => {
                let consumer = exclusive(channel, queue, tag).await?;
                probe(connection, queue, tag).await?;
                Ok(consumer)
            }
        }
    }
}

/// An exclusive consumer without the probe: for looking at a queue, where a fence that is none does no harm.
pub(super) async fn exclusive(
    channel: &Channel,
    queue: &str,
    tag: &str,
) -> Result<Consumer, Trouble> {
    let options = BasicConsumeOptions {
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    start(channel, queue, tag, options)
        .await
        .map_err(|e| Trouble::of(&e))
}

/// A second consumer must be refused. If it is not, it takes at most one message, which returns when its channel
/// closes.
async fn probe(connection: &Connection, queue: &str, tag: &str) -> Result<(), Trouble> {
    let tried = async {
        let spare = connection.create_channel().await?;
        spare.basic_qos(1, BasicQosOptions::default()).await?;
        let consumer = start(
            &spare,
            queue,
            &format!("{tag} (probe)"),
            BasicConsumeOptions::default(),
        )
        .await?;
        spare.close(200, "probe".into()).await?;
        drop(consumer);
        Ok(())
    };
    match tried.await.map_err(|e: lapin::Error| Trouble::of(&e)) {
        Ok(()) => Err(Trouble::FenceIgnored),
        Err(Trouble::Held(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

pub(super) async fn start(
    channel: &Channel,
    queue: &str,
    tag: &str,
    options: BasicConsumeOptions,
) -> lapin::Result<Consumer> {
    // Shown by the broker's tools only, so a long one may be cut.
    let cut = (0..=tag.len().min(255)).rfind(|n| tag.is_char_boundary(*n));
    channel
        .basic_consume(
            short(queue)?,
            short(&tag[..cut.unwrap_or(0)])?,
            options,
            FieldTable::default(),
        )
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::ConnectionProperties;
    use lapin::options::QueueDeclareOptions;
    use lapin::types::AMQPValue;
    use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};

    async fn declare(channel: &Channel, queue: &str, kind: &str) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        channel
            .queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments)
            .await
            .unwrap();
    }

    /// A quorum queue takes a second consumer beside an exclusive one (R1). Our own declaration would refuse such a
    /// queue before, so here it is made by hand.
    #[tokio::test]
    async fn a_fence_that_the_broker_ignores_is_refused() {
        for version in [Version::V3_10, Version::V4_0] {
            let Some(server) = RabbitMq::start_or_skip(version, Options::default()).await else {
                return;
            };
            let url = server.url("/");
            let connection = Connection::connect(&url, ConnectionProperties::default())
                .await
                .unwrap();
            for (kind, held) in [("classic", true), ("quorum", false)] {
                let channel = connection.create_channel().await.unwrap();
                declare(&channel, kind, kind).await;
                let fence = Fence::from(Access::Fenced);
                let taken = fence.consume(&connection, &channel, kind, "test").await;
                match taken {
                    Ok(_) => assert!(held, "{kind} on {version:?}"),
                    Err(trouble) => {
                        assert!(!held, "{kind} on {version:?}: {trouble:?}");
                        assert_eq!(trouble, Trouble::FenceIgnored);
                    }
                }
            }
        }
    }
}
