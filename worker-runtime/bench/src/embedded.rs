//! Hops on the embedded broker, one row per durability: publish, dispatcher, output queue, in one process.

use crate::AnyError;
use crate::process::this_program;
use crate::report::{Report, median};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vumi_core::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use vumi_core::broker::{Broker, Publication, PublicationClass};
use vumi_core::engine::{self, Environment, RunningWorker};
use vumi_core::worker::Registration;

const DISPATCHER: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Dispatcher\nmetadata: {name: hop}\nspec:\n  simple: {transports: [bench_in], exposed: [bench_out]}\n  backlogLimit: 10000000\n";

#[derive(clap::Args)]
pub struct Options {
    #[arg(long)]
    durability: String,
    #[arg(long)]
    messages: u32,
}

/// One run; prints the rate.
pub async fn run(options: Options) -> Result<(), AnyError> {
    let folder = tempfile::tempdir()?;
    let state = (options.durability != "memory").then(|| folder.path().to_owned());
    let sync = options.durability == "host";
    let broker: Arc<dyn Broker> = EmbeddedBroker::open(EmbeddedOptions { state, sync })?;
    let mut receipts = Vec::new();
    for body in crate::hop::bodies(options.messages) {
        let publication = Publication {
            exchange: vumi_core::broker::EXCHANGE.into(),
            routing_key: "bench_in.inbound".into(),
            body: body.into(),
            message_id: None,
            class: PublicationClass::Data,
        };
        receipts.push(broker.publish(publication).await);
    }
    for receipt in receipts {
        receipt.confirmation().await;
    }
    let begin = Instant::now();
    let simple = vumi_dispatchers::WORKERS
        .iter()
        .find(|row| row.type_name == "simple")
        .ok_or("no dispatcher `simple`")?;
    let worker = start_worker(simple, DISPATCHER, Arc::clone(&broker)).await?;
    loop {
        let depth = broker
            .depth("bench_out.inbound")
            .await
            .map_err(|e| e.to_string())?;
        if depth.is_some_and(|d| d.ready >= options.messages) {
            break;
        }
        if begin.elapsed() > Duration::from_secs(120) {
            return Err("messages did not arrive within 120 s".into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!(
        "{}",
        f64::from(options.messages) / begin.elapsed().as_secs_f64()
    );
    drop(worker);
    Ok(())
}

/// The rows of this file.
pub async fn rows(report: &mut Report, runs: usize, messages: u32) -> Result<(), AnyError> {
    for durability in ["memory", "process", "host"] {
        let mut rates = Vec::new();
        for _ in 0..runs {
            let output = tokio::process::Command::new(this_program()?)
                .args([
                    "embedded",
                    "--durability",
                    durability,
                    "--messages",
                    &messages.to_string(),
                ])
                .output()
                .await?;
            let text = String::from_utf8_lossy(&output.stdout);
            rates.push(text.trim().parse().map_err(|_| {
                format!(
                    "embedded hop failed: {}",
                    String::from_utf8_lossy(&output.stderr)
                )
            })?);
        }
        let rate = median(rates);
        report.row(
            &format!("embedded hop, {durability}"),
            format!("{rate} msg/s"),
            "see the RabbitMQ hop",
            None,
        );
    }
    Ok(())
}

/// Runs one worker of a manifest on a broker, in this process.
pub async fn start_worker(
    registration: &Registration,
    manifest: &str,
    broker: Arc<dyn Broker>,
) -> Result<RunningWorker, AnyError> {
    let manifests = vumi_api::manifest::load(
        &[("bench.yaml".into(), manifest.into())],
        vumi_api::manifest::Target::Local,
    );
    let loaded = manifests
        .resources
        .into_iter()
        .next()
        .ok_or("the manifest is not valid")?;
    let environment = Environment {
        broker,
        secrets: Arc::default(),
        listeners: Arc::default(),
        telemetry: Arc::default(),
        instance: "bench".into(),
        system_id: "global".into(),
    };
    let built = engine::build(registration, Arc::new(loaded.resource), environment)
        .await
        .map_err(|e| e.to_string())?;
    Ok(built.start().await)
}
