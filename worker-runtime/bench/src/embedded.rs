//! The embedded broker, one row per durability, each run in a process of its own: a dispatcher hop (publish, dispatcher,
//! output queue), and the broker alone (publish, deliver, acknowledge). CPU is the whole process: broker and worker.

use crate::AnyError;
use crate::process::{own_cpu, this_program};
use crate::report::{Report, median};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vumi_core::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use vumi_core::broker::{
    Access, Broker, Confirmation, Publication, PublicationClass, QueueSpec, Receipt, Subscribe,
};
use vumi_core::engine::{self, Environment, RunningWorker};
use vumi_core::worker::Registration;

const DISPATCHER: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Dispatcher\nmetadata: {name: hop}\nspec:\n  simple: {transports: [bench_in], exposed: [bench_out]}\n  backlogLimit: 10000000\n";
const INPUT: &str = "bench_in.inbound";
const OUTPUT: &str = "bench_out.inbound";
/// More messages than over RabbitMQ, so that a run lasts long enough to measure.
const FACTOR: u32 = 5;

#[derive(clap::Args)]
pub struct Options {
    #[arg(long)]
    durability: String,
    #[arg(long)]
    messages: u32,
    /// Without a dispatcher.
    #[arg(long)]
    alone: bool,
}

/// One run; prints messages per second and CPU microseconds per message.
pub async fn run(options: Options) -> Result<(), AnyError> {
    // Beside the program, which is on a disk: temporary folders may be memory, where a sync costs nothing.
    let program = this_program()?;
    let folder = tempfile::tempdir_in(program.parent().ok_or("the program has no folder")?)?;
    let broker: Arc<dyn Broker> = EmbeddedBroker::open(EmbeddedOptions {
        state: (options.durability != "memory").then(|| folder.path().join("state")),
        sync: options.durability == "host",
        // What is measured is the flow, not the limit.
        memory_limit: Some(8 << 30),
    })?;
    if broker.durability().as_str() != options.durability {
        return Err(format!("there is no durability {:?}", options.durability).into());
    }
    let (rate, micros) = if options.alone {
        alone(&broker, options.messages).await?
    } else {
        hop(&broker, options.messages).await?
    };
    println!("{rate} {micros}");
    broker.close(Duration::from_secs(10)).await;
    Ok(())
}

async fn publish(broker: &Arc<dyn Broker>, body: Vec<u8>) -> Receipt {
    let publication = Publication {
        exchange: vumi_core::broker::EXCHANGE.into(),
        routing_key: INPUT.into(),
        body: body.into(),
        message_id: None,
        class: PublicationClass::Data,
    };
    broker.publish(publication).await
}

async fn confirmed(receipts: Vec<Receipt>) -> Result<(), AnyError> {
    for receipt in receipts {
        match receipt.confirmation().await {
            Confirmation::Confirmed => {}
            other => return Err(format!("a message was not confirmed: {other:?}").into()),
        }
    }
    Ok(())
}

/// The queue is filled first; the time runs from the first tenth of the outputs to the last.
async fn hop(broker: &Arc<dyn Broker>, messages: u32) -> Result<(f64, f64), AnyError> {
    let mut receipts = Vec::new();
    for body in crate::rig::bodies(messages) {
        receipts.push(publish(broker, body).await);
    }
    confirmed(receipts).await?;
    let simple = vumi_dispatchers::WORKERS
        .iter()
        .find(|row| row.type_name == "simple")
        .ok_or("no dispatcher `simple`")?;
    let worker = start_worker(simple, DISPATCHER, Arc::clone(broker)).await?;
    let (mut begin, deadline) = (None, Instant::now() + Duration::from_secs(120));
    loop {
        let ready = broker.ready(OUTPUT).await?;
        if begin.is_none() && ready >= messages / 10 {
            begin = Some((Instant::now(), own_cpu(), ready));
        }
        if ready >= messages {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("only {ready} of {messages} messages arrived").into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (at, cpu, already) = begin.ok_or("no output was seen")?;
    let moved = f64::from(messages - already);
    let result = (
        moved / at.elapsed().as_secs_f64(),
        (own_cpu() - cpu) * 1e6 / moved,
    );
    worker.stop(engine::StopLimits::default()).await;
    Ok(result)
}

/// Publishing and consuming at the same time, until every message is confirmed, delivered and acknowledged.
async fn alone(broker: &Arc<dyn Broker>, messages: u32) -> Result<(f64, f64), AnyError> {
    let prefetch = 200;
    let mut subscription = broker
        .subscribe(Subscribe {
            queue: QueueSpec::Data(INPUT.into()),
            prefetch,
            access: Access::Fenced,
            tag: "bench".into(),
        })
        .await;
    let bodies = crate::rig::bodies(messages);
    let (begin, cpu) = (Instant::now(), own_cpu());
    let publisher = Arc::clone(broker);
    let publishing = tokio::spawn(async move {
        let mut receipts = Vec::with_capacity(bodies.len());
        for body in bodies {
            receipts.push(publish(&publisher, body).await);
        }
        confirmed(receipts).await
    });
    for n in 1..=messages {
        let delivery = subscription
            .deliveries
            .recv()
            .await
            .ok_or("the consumer ended")?;
        if n % u32::from(prefetch / 4) == 0 || n == messages {
            subscription
                .acker
                .ack(delivery.generation, delivery.tag, true);
        }
    }
    publishing.await??;
    let moved = f64::from(messages);
    Ok((
        moved / begin.elapsed().as_secs_f64(),
        (own_cpu() - cpu) * 1e6 / moved,
    ))
}

/// The rows of this file; returns the rate of a hop in memory and with a state folder.
pub async fn rows(report: &mut Report, runs: usize, messages: u32) -> Result<(f64, f64), AnyError> {
    let (mut memory, mut process) = (f64::NAN, f64::NAN);
    for (what, alone) in [("embedded hop", false), ("embedded broker alone", true)] {
        for durability in ["memory", "process", "host"] {
            let (mut rates, mut micros) = (Vec::new(), Vec::new());
            for _ in 0..runs {
                let (rate, cpu) = child(durability, messages * FACTOR, alone).await?;
                rates.push(rate);
                micros.push(cpu);
            }
            let rate = median(rates);
            match (alone, durability) {
                (false, "memory") => memory = rate.value,
                (false, "process") => process = rate.value,
                _ => {}
            }
            report.row(
                &format!("{what}, durability `{durability}`"),
                format!(
                    "{rate} msg/s; {} CPU µs/message, whole process",
                    median(micros)
                ),
                "reported",
                None,
            );
        }
    }
    Ok((memory, process))
}

async fn child(durability: &str, messages: u32, alone: bool) -> Result<(f64, f64), AnyError> {
    let mut command = tokio::process::Command::new(this_program()?);
    command
        .args(["embedded", "--durability", durability])
        .args(["--messages", &messages.to_string()]);
    if alone {
        command.arg("--alone");
    }
    let output = command.kill_on_drop(true).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text
        .trim()
        .split_once(' ')
        .and_then(|(rate, micros)| Some((rate.parse().ok()?, micros.parse().ok()?)));
    numbers.ok_or_else(|| {
        let why = String::from_utf8_lossy(&output.stderr);
        format!("embedded broker, {durability}: {why}").into()
    })
}

/// Runs one worker of a manifest on a broker, in this process.
pub async fn start_worker(
    registration: &Registration,
    manifest: &str,
    broker: Arc<dyn Broker>,
) -> Result<RunningWorker, AnyError> {
    let manifests = vumi_api::manifest::load(
        &[("bench.yaml", manifest)],
        vumi_api::manifest::Target::Local,
    );
    let loaded = manifests
        .resources
        .into_iter()
        .next()
        .ok_or("the manifest is not valid")?;
    let environment = Environment {
        broker,
        state: None,
        secrets: Arc::default(),
        listeners: Arc::default(),
        outside: Default::default(),
        telemetry: Arc::default(),
        instance: "bench".into(),
        system_id: "global".into(),
    };
    let built = engine::build(registration, Arc::new(loaded.resource), environment)
        .await
        .map_err(|e| e.to_string())?;
    Ok(built.start().await)
}
