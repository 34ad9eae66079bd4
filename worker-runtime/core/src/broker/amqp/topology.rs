//! Declarations (R1, R12): direct durable exchanges, and durable queues bound by their own name, with the arguments of
//! the profile. Those of profile `vumi` equal Vumi's own.

use super::channels::OpenChannel;
use super::errors::Trouble;
use super::profile::{self, Profile};
use crate::broker::{EXCHANGE, QueueDepth, QueueSpec};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use std::io;
use std::time::Duration;

/// A broker that is well answers within milliseconds.
const ANSWER: Duration = Duration::from_secs(4);

/// AMQP's short string; an error where lapin would panic.
pub(super) fn short(text: &str) -> lapin::Result<ShortString> {
    ShortString::try_new(text).map_err(|_| {
        let error = format!("a name of {} bytes is longer than AMQP's 255", text.len());
        io::Error::new(io::ErrorKind::InvalidInput, error).into()
    })
}

/// A direct, durable exchange.
pub(super) async fn declare_exchange(channel: &Channel, exchange: &str) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(
            short(exchange)?,
            ExchangeKind::Direct,
            options,
            FieldTable::default(),
        )
        .await
}

/// A queue of ours and its bindings, as the profile wants it.
pub(super) async fn declare_queue(
    channel: &Channel,
    profile: Profile,
    queue: &QueueSpec,
) -> Result<(), Trouble> {
    let declaring = declare_and_bind(channel, profile, queue);
    match answered(queue.name(), declaring).await {
        Err(Trouble::Differs(said)) => Err(Trouble::Differs(profile::differs(profile, &said))),
        declared => declared,
    }
}

/// The same on the channel that is going to read the queue, and says so when it does: `channel.unread(None)`.
pub(super) async fn declare_to_read(
    channel: &OpenChannel,
    profile: Profile,
    queue: &QueueSpec,
) -> Result<(), Trouble> {
    if is_ours_alone(queue) {
        let name = short(queue.name()).map_err(|e| Trouble::of(&e))?;
        channel.unread(Some(name));
    }
    declare_queue(channel, profile, queue).await
}

/// Whether only this connection has the queue, and it ends with its last consumer.
pub(super) fn is_ours_alone(queue: &QueueSpec) -> bool {
    match queue {
        QueueSpec::Data(_) | QueueSpec::Parking(_) => false,
        QueueSpec::Reply(_) | QueueSpec::Copy { .. } | QueueSpec::Tap { .. } => true,
    }
}

/// The answer to a question about a queue. RabbitMQ says nothing for a minute where the queue's node is away, and that is
/// worth knowing earlier.
async fn answered<T>(
    queue: &str,
    asking: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(ANSWER, asking).await {
        Ok(answer) => answer.map_err(|e| Trouble::of(&e)),
        Err(_) => Err(Trouble::Down(format!(
            "the broker says nothing about queue {queue:?} for {} s: the node that has it is away",
            ANSWER.as_secs()
        ))),
    }
}

async fn declare_and_bind(
    channel: &Channel,
    profile: Profile,
    queue: &QueueSpec,
) -> lapin::Result<()> {
    let ours_alone = is_ours_alone(queue);
    let options = QueueDeclareOptions {
        durable: !ours_alone,
        exclusive: ours_alone,
        auto_delete: ours_alone,
        ..QueueDeclareOptions::default()
    };
    let arguments = profile::arguments(profile, queue);
    channel
        .queue_declare(short(queue.name())?, options, arguments)
        .await?;
    match queue {
        QueueSpec::Data(name) => {
            declare_exchange(channel, EXCHANGE).await?;
            bind(channel, name, EXCHANGE, name).await
        }
        QueueSpec::Copy {
            name,
            exchange,
            keys,
        } => {
            declare_exchange(channel, exchange).await?;
            for key in keys {
                bind(channel, name, exchange, key).await?;
            }
            Ok(())
        }
        // It is bound later.
        QueueSpec::Tap { .. } => declare_exchange(channel, EXCHANGE).await,
        QueueSpec::Parking(_) | QueueSpec::Reply(_) => Ok(()),
    }
}

pub(super) async fn unbind(
    channel: &Channel,
    queue: &str,
    exchange: &str,
    key: &str,
) -> lapin::Result<()> {
    let (queue, exchange, key) = (short(queue)?, short(exchange)?, short(key)?);
    channel
        .queue_unbind(queue, exchange, key, FieldTable::default())
        .await
}

pub(super) async fn bind(
    channel: &Channel,
    queue: &str,
    exchange: &str,
    key: &str,
) -> lapin::Result<()> {
    channel
        .queue_bind(
            short(queue)?,
            short(exchange)?,
            short(key)?,
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
}

/// Ready messages and consumers, by a passive declaration; a missing queue closes the channel with 404.
pub(super) async fn depth(channel: &Channel, queue: &str) -> Result<QueueDepth, Trouble> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let asking = async {
        channel
            .queue_declare(short(queue)?, options, FieldTable::default())
            .await
    };
    let answer = answered(queue, asking).await?;
    Ok(QueueDepth {
        ready: answer.message_count(),
        consumers: answer.consumer_count(),
    })
}
