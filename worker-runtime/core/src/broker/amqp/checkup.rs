//! A look at a RabbitMQ before workers depend on it: who answers, what its queues are, what we may do there. Nothing is
//! left behind but an empty exchange that every worker declares.

use super::config::AmqpConfig;
use super::dial;
use super::errors::Trouble;
use super::profile::{self, Profile};
use super::topology::{declare_exchange, declare_queue, depth, short};
use crate::broker::{EXCHANGE, QueueSpec};
use crate::checkup::{Finding, Level};
use crate::message::random_id;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection};
use std::time::Duration;

/// A broker that is well confirms within milliseconds.
const CONFIRMED: Duration = Duration::from_secs(5);

/// Looks at a broker, and at queues that workers consume there.
pub async fn checkup(config: &AmqpConfig, queues: &[String]) -> Vec<Finding> {
    let about = format!("broker {}", config.describe());
    let endpoint = match config.resolve() {
        Ok(endpoint) => endpoint,
        Err(error) => {
            return vec![Finding::new(
                Level::Problem,
                &about,
                error.text,
                error.code.fix,
            )];
        }
    };
    let connection = match dial::connect(endpoint, "vumi doctor".into()).await {
        Ok(connection) => connection,
        Err(failure) => {
            let fix = match failure.refused {
                true => {
                    "Check user, password and virtual host: `rabbitmqctl list_users`, `list_vhosts`, `list_permissions -p VHOST`."
                }
                false => {
                    "Check host, port and TLS, and that RabbitMQ runs: `rabbitmq-diagnostics ping`."
                }
            };
            return vec![Finding::new(Level::Problem, &about, failure.text, fix)];
        }
    };
    let mut found = Vec::new();
    let server = match config.resolve() {
        Ok(endpoint) => dial::server(endpoint).await,
        Err(_) => None,
    };
    found.push(version(
        &about,
        server.as_ref().map(|server| server.version.as_str()),
        config.profile(),
    ));
    let look = Look {
        connection: &connection,
        profile: config.profile(),
        about: &about,
    };
    found.extend(look.vhost().await);
    found.extend(look.rights().await);
    for queue in queues {
        found.extend(look.queue(queue).await);
    }
    let _ = connection
        .close(200, short("done").unwrap_or_default())
        .await;
    found
}

fn version(about: &str, server: Option<&str>, wanted: Profile) -> Finding {
    let Some(server) = server else {
        return Finding::new(
            Level::Note,
            about,
            "it does not say what it is",
            "Only RabbitMQ is tested: 3.10 and 4.0.",
        );
    };
    if let Err(error) = profile::check_server(wanted, server) {
        return Finding::new(Level::Problem, about, error.text, error.code.fix);
    }
    let numbers = server.rsplit(' ').next().unwrap_or_default();
    let mut numbers = numbers.split('.').map_while(|n| n.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let durability = profile::durability(wanted, dial::durability(server)).as_str();
    let says = format!(
        "{server}, profile {}, durability {durability}",
        wanted.as_str()
    );
    match (server.starts_with("RabbitMQ "), major, minor) {
        (true, 4.., _) => Finding::new(
            Level::Good,
            about,
            says,
            "Workers of Vumi 0.6 need --specfile amqp-spec-0-9.xml here, and what they publish is then lost with the broker.",
        ),
        (true, 3, 10..) => Finding::good(about, says),
        _ => Finding::new(
            Level::Warning,
            about,
            format!("{says}; it is not tested"),
            "Use RabbitMQ 3.10 or later.",
        ),
    }
}

/// One connection, looked at channel by channel: an error ends a channel.
struct Look<'a> {
    connection: &'a Connection,
    profile: Profile,
    about: &'a str,
}

impl Look<'_> {
    async fn channel(&self) -> Result<Channel, Trouble> {
        let opened = self.connection.create_channel().await;
        opened.map_err(|error| Trouble::of(&error))
    }

    /// What a queue without arguments becomes here: Vumi's workers declare theirs so (R1).
    async fn vhost(&self) -> Vec<Finding> {
        match self.default_type().await {
            Ok("classic") => vec![Finding::good(
                self.about,
                "queues without arguments are classic, as Vumi's workers expect",
            )],
            Ok(_) if self.profile == Profile::Quorum => vec![Finding::good(
                self.about,
                "queues without arguments are not classic, and this profile does not depend on it",
            )],
            Ok(other) => vec![Finding::new(
                Level::Warning,
                self.about,
                format!(
                    "queues without arguments are {other} here; a queue that a worker of Vumi declares first is one that we cannot read"
                ),
                "Use a virtual host whose default queue type is classic: `rabbitmqctl add_vhost NAME --default-queue-type classic`.",
            )],
            // The rights are said below.
            Err(_) => Vec::new(),
        }
    }

    async fn default_type(&self) -> Result<&'static str, Trouble> {
        let trouble = |error: lapin::Error| Trouble::of(&error);
        let channel = self.channel().await?;
        let name = short(&format!("vumi.doctor.{}", random_id())).map_err(trouble)?;
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(name.clone(), options, FieldTable::default())
            .await
            .map_err(trouble)?;
        let mut classic = FieldTable::default();
        classic.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("classic".into()),
        );
        let again = channel.queue_declare(name.clone(), options, classic).await;
        // A mismatch has ended the channel.
        let remover = self.channel().await?;
        let removed = remover
            .queue_delete(name, QueueDeleteOptions::default())
            .await;
        removed.map_err(trouble)?;
        match again.map_err(trouble) {
            Ok(_) => Ok("classic"),
            Err(Trouble::Differs(_)) => Ok("quorum or streams"),
            Err(other) => Err(other),
        }
    }

    /// Declares, binds, publishes with a confirmation, and gets it back: all that a worker does.
    async fn rights(&self) -> Vec<Finding> {
        match tokio::time::timeout(CONFIRMED, self.round_trip()).await {
            Ok(Ok(())) => vec![Finding::good(
                self.about,
                "we may declare, publish and consume, and a message is confirmed and comes back",
            )],
            Ok(Err(Trouble::Denied(said))) => vec![Finding::new(
                Level::Problem,
                self.about,
                said,
                "Give the user configure, write and read rights in this virtual host: `rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'`.",
            )],
            Ok(Err(other)) => vec![Finding::new(
                Level::Problem,
                self.about,
                sentence(other),
                "Look at the broker's log.",
            )],
            Err(_) => vec![Finding::new(
                Level::Problem,
                self.about,
                format!(
                    "a message is not confirmed within {} s",
                    CONFIRMED.as_secs()
                ),
                "Look for memory and disk alarms: `rabbitmq-diagnostics alarms`.",
            )],
        }
    }

    async fn round_trip(&self) -> Result<(), Trouble> {
        let trouble = |error: lapin::Error| Trouble::of(&error);
        let channel = self.channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(trouble)?;
        declare_exchange(&channel, EXCHANGE)
            .await
            .map_err(trouble)?;
        let name = short(&format!("vumi.doctor.{}", random_id())).map_err(trouble)?;
        let exchange = short(EXCHANGE).map_err(trouble)?;
        let alone = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let none = FieldTable::default();
        channel
            .queue_declare(name.clone(), alone, none.clone())
            .await
            .map_err(trouble)?;
        let bind = QueueBindOptions::default();
        channel
            .queue_bind(name.clone(), exchange.clone(), name.clone(), bind, none)
            .await
            .map_err(trouble)?;
        let publish = BasicPublishOptions::default();
        channel
            .basic_publish(
                exchange,
                name.clone(),
                publish,
                b"{}",
                BasicProperties::default(),
            )
            .await
            .map_err(trouble)?
            .await
            .map_err(trouble)?;
        let get = BasicGetOptions { no_ack: true };
        match channel.basic_get(name, get).await.map_err(trouble)? {
            Some(_) => Ok(()),
            None => Err(Trouble::Lost("a message did not come back".into())),
        }
    }

    /// Whether a queue is as workers declare it, and somebody reads it. A queue that is not there is not made.
    async fn queue(&self, queue: &str) -> Vec<Finding> {
        let about = format!("queue {queue}");
        let looked = async {
            let channel = self.channel().await?;
            let seen = depth(&channel, queue).await?;
            let channel = self.channel().await?;
            declare_queue(&channel, self.profile, &QueueSpec::Data(queue.to_owned())).await?;
            Ok::<_, Trouble>(seen)
        };
        let finding = match looked.await {
            Ok(seen) if seen.consumers == 0 && seen.ready > 0 => Finding::new(
                Level::Warning,
                &about,
                format!("{} messages wait and nobody reads them", seen.ready),
                "Start the worker that consumes it.",
            ),
            Ok(seen) => Finding::good(
                &about,
                format!("{} messages wait, {} consumers", seen.ready, seen.consumers),
            ),
            Err(Trouble::Missing(_)) => Finding::new(
                Level::Note,
                &about,
                "it is not there yet",
                "The worker that consumes it declares it when it starts.",
            ),
            Err(Trouble::Held(_)) => Finding::good(&about, "one consumer holds it"),
            Err(Trouble::Differs(said)) => Finding::new(
                Level::Problem,
                &about,
                said,
                "Move its messages away and delete it, or use another virtual host; see docs/brokers.md.",
            ),
            Err(Trouble::Denied(said)) => Finding::new(
                Level::Problem,
                &about,
                said,
                "Give the user configure, write and read rights to it.",
            ),
            Err(other) => Finding::new(
                Level::Problem,
                &about,
                sentence(other),
                "Look at the broker's log, and whether all nodes of the cluster run.",
            ),
        };
        vec![finding]
    }
}

fn sentence(trouble: Trouble) -> String {
    match trouble {
        Trouble::Lost(text)
        | Trouble::Missing(text)
        | Trouble::Held(text)
        | Trouble::Down(text)
        | Trouble::Differs(text)
        | Trouble::Denied(text) => text,
        Trouble::FenceIgnored => "an exclusive consumer was not exclusive".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_judged() {
        let level = |server: Option<&str>, profile| version("b", server, profile).level;
        assert_eq!(level(Some("RabbitMQ 4.0.5"), Profile::Vumi), Level::Good);
        assert_eq!(level(Some("RabbitMQ 3.10.8"), Profile::Vumi), Level::Good);
        assert_eq!(
            level(Some("RabbitMQ 3.10.8"), Profile::Quorum),
            Level::Problem
        );
        assert_eq!(level(Some("RabbitMQ 3.8.9"), Profile::Vumi), Level::Warning);
        assert_eq!(level(Some("LavinMQ 2.0.0"), Profile::Vumi), Level::Warning);
        assert_eq!(level(None, Profile::Vumi), Level::Note);
    }
}
