//! Hops over RabbitMQ: a worker process and the bare loop, alternating, on equal queues of the same broker.

use crate::AnyError;
use crate::process::{Measured, spawn, this_program, vumi_run};
use crate::report::{Median, Report, median};
use async_trait::async_trait;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vumi_api::dispatchers::Simple;
use vumi_core::broker::amqp::{AmqpBroker, AmqpConfig};
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::message::UserMessage;
use vumi_core::worker::{Input, Output, Registration, Worker, WorkerContext, WorkerType};
use vumi_testkit::rabbitmq::{RabbitMq, Version};

const DISPATCHER: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Dispatcher\nmetadata: {name: hop}\nspec:\n  simple: {transports: [bench_in], exposed: [bench_out]}\n  backlogLimit: 10000000\n";
const ECHO: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: hop}\nspec:\n  echo: {}\n  transportName: bench_in\n  backlogLimit: 10000000\n";
const DIVIDED: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: hop}\nspec:\n  echo: {}\n  transportName: bench_in\n  ordering: {mode: perUser, partitions: 8}\n  backlogLimit: 10000000\n";

/// User messages of 600 bytes from 1000 users, one after the other.
pub fn bodies(count: u32) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| {
            let mut message =
                UserMessage::new("sms", Some("12345"), Some(&format!("+2772{:07}", n % 1000)));
            message.set_transport_name("bench_in");
            message.set_content(Some(""));
            let padding = 600usize.saturating_sub(message.encode().len());
            message.set_content(Some(&"x".repeat(padding)));
            message.encode().to_vec()
        })
        .collect()
}

struct Rig {
    broker: RabbitMq,
    channel: Channel,
    bodies: Vec<Vec<u8>>,
}

struct Run {
    rate: f64,
    cpu_micros: f64,
    rss: f64,
}

impl Rig {
    async fn new(messages: u32) -> Result<Self, AnyError> {
        let broker = RabbitMq::start(Version::V4_0).await?;
        let connection =
            Connection::connect(&broker.url("/"), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
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
        for queue in ["bench_in.inbound", "bench_in.outbound", "bench_out.inbound"] {
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
            bodies: bodies(messages),
        })
    }

    async fn publish(&self, bodies: &[Vec<u8>]) -> Result<(), AnyError> {
        let mut confirms = Vec::with_capacity(bodies.len());
        for body in bodies {
            confirms.push(
                self.channel
                    .basic_publish(
                        "vumi".into(),
                        "bench_in.inbound".into(),
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

    async fn ready(&self, queue: &str) -> Result<u32, AnyError> {
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

    async fn clear(&self) -> Result<(), AnyError> {
        for queue in ["bench_in.inbound", "bench_in.outbound", "bench_out.inbound"] {
            self.channel
                .queue_purge(queue.into(), QueuePurgeOptions::default())
                .await?;
        }
        Ok(())
    }

    fn bare(&self, output: &str) -> Result<Measured, AnyError> {
        let url = self.broker.url("/");
        spawn(
            &this_program()?,
            &[
                "bare",
                "--url",
                &url,
                "--input",
                "bench_in.inbound",
                "--output",
                output,
            ],
            None,
        )
    }

    fn worker(&self, manifest: &str) -> Result<Measured, AnyError> {
        let url = self.broker.url("/");
        Ok(vumi_run(manifest, &["--broker", &url, "--admin", "none"])?.0)
    }

    /// Throughput: the queue is filled first; the time runs from the first tenth of the outputs to the last.
    async fn throughput(
        &self,
        process: Measured,
        output: &str,
        expect: u32,
    ) -> Result<Run, AnyError> {
        let (mut begin, deadline) = (None, Instant::now() + Duration::from_secs(120));
        loop {
            let ready = self.ready(output).await?;
            if begin.is_none() && ready >= expect / 10 {
                begin = Some((Instant::now(), process.cpu(), ready));
            }
            if ready >= expect {
                break;
            }
            if Instant::now() > deadline {
                return Err(
                    format!("only {ready} of {expect} messages arrived in {output}").into(),
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (at, cpu, already) = begin.ok_or("no output was seen")?;
        let moved = f64::from(expect - already);
        let run = Run {
            rate: moved / at.elapsed().as_secs_f64(),
            cpu_micros: (process.cpu() - cpu) * 1e6 / moved,
            rss: process.rss(),
        };
        process.stop().await;
        Ok(run)
    }

    async fn filled(
        &self,
        process: impl FnOnce() -> Result<Measured, AnyError>,
        output: &str,
    ) -> Result<Run, AnyError> {
        self.clear().await?;
        self.publish(&self.bodies).await?;
        self.throughput(process()?, output, u32::try_from(self.bodies.len())?)
            .await
    }

    /// Throughput of a worker that runs already: the time runs from the first message published to the last output.
    async fn fed(&self, process: Measured, output: &str) -> Result<Run, AnyError> {
        self.clear().await?;
        let deadline = Instant::now() + Duration::from_secs(120);
        let arrived = async |count: usize| {
            while (self.ready(output).await? as usize) < count {
                if Instant::now() > deadline {
                    return Err(AnyError::from(format!("{count} messages never arrived")));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        self.publish(&self.bodies[..1]).await?;
        arrived(1).await?;
        let (begin, cpu) = (Instant::now(), process.cpu());
        self.publish(&self.bodies).await?;
        arrived(self.bodies.len() + 1).await?;
        let moved = self.bodies.len() as f64;
        let run = Run {
            rate: moved / begin.elapsed().as_secs_f64(),
            cpu_micros: (process.cpu() - cpu) * 1e6 / moved,
            rss: process.rss(),
        };
        process.stop().await;
        Ok(run)
    }

    /// One message at a time: microseconds from publish to arrival, sorted.
    async fn one_by_one(
        &self,
        process: Measured,
        output: &str,
        count: usize,
    ) -> Result<Vec<f64>, AnyError> {
        use futures::StreamExt;
        self.clear().await?;
        let mut arrivals = self
            .channel
            .basic_consume(
                output.into(),
                "arrivals".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let mut times = Vec::with_capacity(count);
        for (n, body) in self.bodies.iter().cycle().take(count + 50).enumerate() {
            let begin = Instant::now();
            self.publish(std::slice::from_ref(body)).await?;
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

/// The rows of this file; returns the rate of the dispatcher hop.
pub async fn rows(report: &mut Report, runs: usize, messages: u32) -> Result<f64, AnyError> {
    let mut dispatcher = f64::NAN;
    let rig = Rig::new(messages).await?;
    for (name, manifest, output) in [
        ("`simple` dispatcher hop", DISPATCHER, "bench_out.inbound"),
        ("`echo` hop", ECHO, "bench_in.outbound"),
    ] {
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            bare.push(rig.filled(|| rig.bare(output), output).await?);
            ours.push(rig.filled(|| rig.worker(manifest), output).await?);
        }
        compare(report, name, &bare, &ours);
        if manifest == DISPATCHER {
            dispatcher = median(ours.iter().map(|r| r.rate).collect()).value;
        }
    }

    let count = 2000;
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let bare = rig
            .one_by_one(rig.bare("bench_out.inbound")?, "bench_out.inbound", count)
            .await?;
        let ours = rig
            .one_by_one(rig.worker(DISPATCHER)?, "bench_out.inbound", count)
            .await?;
        p50.push((bare[count / 2], ours[count / 2]));
        p99.push((bare[count * 99 / 100], ours[count * 99 / 100]));
    }
    let ratio =
        |pairs: &[(f64, f64)]| median(pairs.iter().map(|(bare, ours)| ours / bare).collect());
    let ours = median(p50.iter().map(|p| p.1).collect());
    let r = ratio(&p50);
    report.row(
        "one message at a time, p50, × bare",
        format!("{r}; {ours} µs"),
        "≤ 1.3",
        Some(r.value <= 1.3),
    );
    let late = median(p99.iter().map(|p| p.1).collect());
    let share = late.value / ours.value;
    report.row(
        "one message at a time, p99",
        format!("{late} µs = {share:.1} × p50; × bare {}", ratio(&p99)),
        "≤ 4 × p50",
        Some(share <= 4.0),
    );

    one_lane_held(report, &rig, runs).await?;
    partitions(report, &rig, runs).await?;
    Ok(dispatcher)
}

fn compare(report: &mut Report, name: &str, bare: &[Run], ours: &[Run]) {
    let of = |runs: &[Run], value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
    let ratio: Median = median(
        ours.iter()
            .zip(bare)
            .map(|(o, b)| o.rate / b.rate)
            .collect(),
    );
    let cpu: Median = median(
        ours.iter()
            .zip(bare)
            .map(|(o, b)| o.cpu_micros / b.cpu_micros)
            .collect(),
    );
    let rates = format!(
        "{ratio}; {} against {} msg/s",
        of(ours, |r| r.rate),
        of(bare, |r| r.rate)
    );
    report.row(
        &format!("{name}, rate × bare (RabbitMQ 4.0, process)"),
        rates,
        "≥ 0.9",
        Some(ratio.value >= 0.9),
    );
    let micros = format!(
        "{cpu}; {} against {} µs/message",
        of(ours, |r| r.cpu_micros),
        of(bare, |r| r.cpu_micros)
    );
    report.row(
        &format!("{name}, worker CPU × bare"),
        micros,
        "≤ 1.5",
        Some(cpu.value <= 1.5),
    );
    report.row(
        &format!("{name}, RSS under load"),
        format!("{} MiB", of(ours, |r| r.rss)),
        "reported",
        None,
    );
}

/// The same application with its queue divided into partitions, which adds a hop, and without.
async fn partitions(report: &mut Report, rig: &Rig, runs: usize) -> Result<(), AnyError> {
    let output = "bench_in.outbound";
    let (mut whole, mut divided) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        whole.push(rig.fed(rig.worker(ECHO)?, output).await?);
        divided.push(rig.fed(rig.worker(DIVIDED)?, output).await?);
    }
    let ratio = |value: fn(&Run) -> f64| {
        let pairs = divided.iter().zip(&whole);
        median(pairs.map(|(d, w)| value(d) / value(w)).collect())
    };
    let of = |runs: &[Run], value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
    report.row(
        "`echo` hop with 8 partitions in one process, rate × without",
        format!(
            "{}; {} against {} msg/s",
            ratio(|r| r.rate),
            of(&divided, |r| r.rate),
            of(&whole, |r| r.rate)
        ),
        "reported",
        None,
    );
    report.row(
        "`echo` hop with 8 partitions in one process, worker CPU × without",
        format!(
            "{}; {} against {} µs/message",
            ratio(|r| r.cpu_micros),
            of(&divided, |r| r.cpu_micros),
            of(&whole, |r| r.cpu_micros)
        ),
        "reported",
        None,
    );
    Ok(())
}

/// Throughput of the others while the first user's message is held in its lane, against the same worker holding none.
async fn one_lane_held(report: &mut Report, rig: &Rig, runs: usize) -> Result<(), AnyError> {
    let url = rig.broker.url("/");
    let output = "bench_out.inbound";
    let held = UserMessage::new("sms", Some("12345"), Some("held"));
    let mut ratios = Vec::new();
    for _ in 0..runs {
        let start = || spawn(&this_program()?, &["held", "--url", &url], None);
        let free = rig.filled(start, output).await?;
        rig.clear().await?;
        rig.publish(&[held.encode().to_vec()]).await?;
        rig.publish(&rig.bodies).await?;
        let with = rig
            .throughput(start()?, output, u32::try_from(rig.bodies.len())?)
            .await?;
        ratios.push(with.rate / free.rate);
    }
    let ratio = median(ratios);
    report.row(
        "one lane held, rate of the others × normal",
        ratio.to_string(),
        "≥ 0.9",
        Some(ratio.value >= 0.9),
    );
    Ok(())
}

#[derive(clap::Args)]
pub struct HeldOptions {
    #[arg(long)]
    url: String,
}

/// A dispatcher that never finishes a message of user `held`.
struct Holding;

#[async_trait]
impl WorkerType for Holding {
    type Config = Simple;

    async fn build(_: Simple, _: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        Ok(Arc::new(Holding))
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: DISPATCHER,
            peer: None,
        }
    }
}

#[async_trait]
impl Worker for Holding {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        if let vumi_core::message::Message::User(message) = &input.message
            && message.from_addr() == Some("held")
        {
            std::future::pending::<()>().await;
        }
        let port = vumi_api::Port::new("bench_out", input.port.flow);
        Ok(vec![Output::new(port, input.message)])
    }
}

/// Runs the holding worker on the engine until it is killed.
pub async fn run_held(options: HeldOptions) -> Result<(), AnyError> {
    let broker = AmqpBroker::connect(AmqpConfig::from_url(&options.url)?);
    let _running =
        crate::embedded::start_worker(&Registration::of::<Holding>(), DISPATCHER, broker).await?;
    std::future::pending().await
}
