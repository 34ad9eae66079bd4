//! Hops over RabbitMQ: a worker process and the bare loop, alternating, on equal queues of the same broker.

use crate::AnyError;
use crate::process::{spawn, this_program};
use crate::report::{Median, Report, median};
use crate::rig::{ANSWERED, DISPATCHED, DISPATCHER, ECHO, Rig, Run};
use async_trait::async_trait;
use std::sync::Arc;
use vumi_api::dispatchers::Simple;
use vumi_core::broker::amqp::{AmqpBroker, AmqpConfig};
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::message::UserMessage;
use vumi_core::worker::{Input, Output, Registration, Worker, WorkerContext, WorkerType};

/// The rows of this file; returns the rate of the dispatcher hop.
pub async fn rows(report: &mut Report, runs: usize, messages: u32) -> Result<f64, AnyError> {
    let mut dispatcher = f64::NAN;
    let rig = Rig::new(messages).await?;
    for (name, manifest, way) in [
        ("`simple` dispatcher hop", DISPATCHER, DISPATCHED),
        ("`echo` hop", ECHO, ANSWERED),
    ] {
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            bare.push(rig.filled(|| rig.bare(way), way).await?);
            ours.push(rig.filled(|| rig.worker(manifest, &[]), way).await?);
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
            .one_by_one(rig.bare(DISPATCHED)?, DISPATCHED, count)
            .await?;
        let ours = rig
            .one_by_one(rig.worker(DISPATCHER, &[])?, DISPATCHED, count)
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

/// Throughput of the others while the first user's message is held in its lane, against the same worker holding none.
async fn one_lane_held(report: &mut Report, rig: &Rig, runs: usize) -> Result<(), AnyError> {
    let (url, way) = (rig.url(), DISPATCHED);
    let held = UserMessage::new("sms", Some("12345"), Some("held"));
    let mut ratios = Vec::new();
    for _ in 0..runs {
        let start = || spawn(&this_program()?, &["held", "--url", &url], None);
        let free = rig.filled(start, way).await?;
        rig.clear().await?;
        rig.publish(way.input, &[held.encode().to_vec()]).await?;
        rig.publish(way.input, rig.bodies(way)).await?;
        let with = rig.throughput(start()?, way, rig.messages()).await?;
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
