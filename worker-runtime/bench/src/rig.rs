//! What hops are measured with: a RabbitMQ, equal queues on it, messages, and how a worker process is timed on them.

use crate::AnyError;
use crate::process::{Measured, spawn, this_program, vumi_worker};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use std::time::{Duration, Instant};
use vumi_core::message::UserMessage;
use vumi_testkit::rabbitmq::{RabbitMq, Version};

pub const DISPATCHER: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Dispatcher\nmetadata: {name: hop}\nspec:\n  simple: {transports: [bench_in], exposed: [bench_out]}\n  backlogLimit: 10000000\n";
pub const ECHO: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: hop}\nspec:\n  echo: {}\n  transportName: bench_in\n  backlogLimit: 10000000\n";

const QUEUES: [&str; 8] = [
    "bench_in.inbound",
    "bench_in.outbound",
    "bench_in.event",
    "bench_out.inbound",
    "divided_in.inbound",
    "divided_in.outbound",
    "classes_in.outbound",
    "classes_in.event",
];

/// From which queue to which one, and how many messages each message becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub input: &'static str,
    pub output: &'static str,
    pub outputs: u32,
}

/// The way of a dispatcher.
pub const DISPATCHED: Way = Way {
    input: "bench_in.inbound",
    output: "bench_out.inbound",
    outputs: 1,
};
/// The way of an application.
pub const ANSWERED: Way = Way {
    input: "bench_in.inbound",
    output: "bench_in.outbound",
    outputs: 1,
};
/// The way of an application with partitions, which a queue remembers.
pub const DIVIDED: Way = Way {
    input: "divided_in.inbound",
    output: "divided_in.outbound",
    outputs: 1,
};
/// The way of a transport: an ack and a delivery report.
pub const SENT: Way = Way {
    input: "bench_in.outbound",
    output: "bench_in.event",
    outputs: 2,
};

/// The way of a transport whose queue is divided by class.
pub const CLASSED: Way = Way {
    input: "classes_in.outbound",
    output: "classes_in.event",
    outputs: 2,
};

/// A user message of 600 bytes.
pub fn message(to: &str, from: &str) -> UserMessage {
    let mut message = UserMessage::new("sms", Some(to), Some(from));
    message.set_transport_name("bench_in");
    message.set_content(Some(""));
    let padding = 600usize.saturating_sub(message.encode().len());
    message.set_content(Some(&"x".repeat(padding)));
    message
}

/// The address of a user.
pub fn user(number: u32) -> String {
    format!("+2772{number:07}")
}

/// Messages from 1000 users, one after the other.
pub fn bodies(count: u32) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| message("12345", &user(n % 1000)).encode().to_vec())
        .collect()
}

/// Messages for 1000 users, one after the other.
fn replies(count: u32) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| message(&user(n % 1000), "12345").encode().to_vec())
        .collect()
}

/// A run that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(180);

/// A channel of its own, in confirm mode.
pub async fn channel(url: &str) -> Result<Channel, AnyError> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}

/// A RabbitMQ with queues.
pub struct Rig {
    broker: RabbitMq,
    channel: Channel,
    inbound: Vec<Vec<u8>>,
    outbound: Vec<Vec<u8>>,
}

/// What one run showed.
pub struct Run {
    /// Messages per second.
    pub rate: f64,
    /// CPU time of the worker per message.
    pub cpu_micros: f64,
    /// Its memory at the end, in MiB.
    pub rss: f64,
}

impl Rig {
    /// A broker, and queues on its first virtual host.
    pub async fn new(messages: u32) -> Result<Self, AnyError> {
        let broker = RabbitMq::start(Version::V4_0).await?;
        let channel = channel(&broker.url("/")).await?;
        channel
            .exchange_declare(
                "vumi".into(),
                ExchangeKind::Direct,
                ExchangeDeclareOptions {
                    durable: true,
                    ..ExchangeDeclareOptions::default()
                },
                FieldTable::default(),
            )
            .await?;
        for queue in QUEUES {
            let mut arguments = FieldTable::default();
            arguments.insert(
                "x-queue-type".into(),
                AMQPValue::LongString("classic".into()),
            );
            channel
                .queue_declare(
                    queue.into(),
                    QueueDeclareOptions {
                        durable: true,
                        ..QueueDeclareOptions::default()
                    },
                    arguments,
                )
                .await?;
            channel
                .queue_bind(
                    queue.into(),
                    "vumi".into(),
                    queue.into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await?;
        }
        Ok(Self {
            broker,
            channel,
            inbound: bodies(messages),
            outbound: replies(messages),
        })
    }

    /// The broker.
    pub fn broker(&self) -> &RabbitMq {
        &self.broker
    }

    /// URL of the virtual host with the queues.
    pub fn url(&self) -> String {
        self.broker.url("/")
    }

    /// Messages per run.
    pub fn messages(&self) -> u32 {
        self.inbound.len() as u32
    }

    /// What goes this way.
    pub fn bodies(&self, way: Way) -> &[Vec<u8>] {
        match way.input.ends_with(".outbound") {
            true => &self.outbound,
            false => &self.inbound,
        }
    }

    /// Publishes and waits until the broker has everything.
    pub async fn publish(&self, queue: &str, bodies: &[Vec<u8>]) -> Result<(), AnyError> {
        let mut confirms = Vec::with_capacity(bodies.len());
        for body in bodies {
            confirms.push(
                self.channel
                    .basic_publish(
                        "vumi".into(),
                        queue.into(),
                        BasicPublishOptions::default(),
                        body,
                        BasicProperties::default().with_delivery_mode(2),
                    )
                    .await?,
            );
        }
        for confirm in confirms {
            confirm.await?;
        }
        Ok(())
    }

    /// Messages ready in a queue.
    pub async fn ready(&self, queue: &str) -> Result<u32, AnyError> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        Ok(self
            .channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await?
            .message_count())
    }

    /// Empties the queues.
    pub async fn clear(&self) -> Result<(), AnyError> {
        for queue in QUEUES {
            self.channel
                .queue_purge(queue.into(), QueuePurgeOptions::default())
                .await?;
        }
        Ok(())
    }

    /// The bare loop.
    pub fn bare(&self, way: Way) -> Result<Measured, AnyError> {
        let url = self.url();
        spawn(
            &this_program()?,
            &[
                "bare", "--url", &url, "--input", way.input, "--output", way.output,
            ],
            None,
        )
    }

    /// A worker as a pod has it: without a state store, if `more` names none.
    pub fn worker(&self, manifest: &str, more: &[&str]) -> Result<Measured, AnyError> {
        let url = self.url();
        let arguments = [&["--broker", &url, "--admin", "none"], more].concat();
        vumi_worker(manifest, &arguments)
    }

    /// Throughput: the queue is filled first; the time runs from the first tenth of the outputs to the last.
    /// `messages` of them; the process ends.
    pub async fn throughput(
        &self,
        process: Measured,
        way: Way,
        messages: u32,
    ) -> Result<Run, AnyError> {
        let expect = messages * way.outputs;
        let (mut begin, deadline) = (None, Instant::now() + PATIENCE);
        loop {
            let ready = self.ready(way.output).await?;
            if begin.is_none() && ready >= expect / 10 {
                begin = Some((Instant::now(), process.cpu(), ready));
            }
            if ready >= expect {
                break;
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "only {ready} of {expect} messages arrived in {}",
                    way.output
                )
                .into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (at, cpu, already) = begin.ok_or("no output was seen")?;
        let moved = f64::from(expect - already) / f64::from(way.outputs);
        let run = Run {
            rate: moved / at.elapsed().as_secs_f64(),
            cpu_micros: (process.cpu() - cpu) * 1e6 / moved,
            rss: process.rss(),
        };
        process.stop().await;
        Ok(run)
    }

    /// Throughput of a worker that finds the queue full.
    pub async fn filled(
        &self,
        process: impl FnOnce() -> Result<Measured, AnyError>,
        way: Way,
    ) -> Result<Run, AnyError> {
        self.clear().await?;
        self.publish(way.input, self.bodies(way)).await?;
        self.throughput(process()?, way, self.messages()).await
    }

    /// Throughput of a worker that runs already: the time runs from the first message published to the last output.
    pub async fn fed(&self, process: Measured, way: Way) -> Result<Run, AnyError> {
        self.clear().await?;
        let deadline = Instant::now() + PATIENCE;
        let arrived = async |count: u32| {
            while self.ready(way.output).await? < count * way.outputs {
                if Instant::now() > deadline {
                    return Err(AnyError::from(format!("{count} messages never arrived")));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        self.publish(way.input, &self.bodies(way)[..1]).await?;
        arrived(1).await?;
        let (begin, cpu) = (Instant::now(), process.cpu());
        self.publish(way.input, self.bodies(way)).await?;
        arrived(self.messages() + 1).await?;
        let moved = f64::from(self.messages());
        let run = Run {
            rate: moved / begin.elapsed().as_secs_f64(),
            cpu_micros: (process.cpu() - cpu) * 1e6 / moved,
            rss: process.rss(),
        };
        process.stop().await;
        Ok(run)
    }

    /// One message at a time: microseconds from publish to arrival, sorted.
    pub async fn one_by_one(
        &self,
        process: Measured,
        way: Way,
        count: usize,
    ) -> Result<Vec<f64>, AnyError> {
        use futures::StreamExt;
        self.clear().await?;
        let mut arrivals = self
            .channel
            .basic_consume(
                way.output.into(),
                "arrivals".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let mut times = Vec::with_capacity(count);
        for (n, body) in self.bodies(way).iter().cycle().take(count + 50).enumerate() {
            let begin = Instant::now();
            self.publish(way.input, std::slice::from_ref(body)).await?;
            let arrival = tokio::time::timeout(Duration::from_secs(20), arrivals.next())
                .await
                .map_err(|_| "a message did not arrive within 20 s")?
                .ok_or("consumer ended")??;
            if n >= 50 {
                times.push(begin.elapsed().as_secs_f64() * 1e6);
            }
            arrival.ack(BasicAckOptions::default()).await?;
        }
        self.channel
            .basic_cancel("arrivals".into(), Default::default())
            .await?;
        process.stop().await;
        times.sort_by(f64::total_cmp);
        Ok(times)
    }
}
