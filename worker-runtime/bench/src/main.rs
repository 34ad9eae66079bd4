//! `make bench` and `make bench-operator`: what Vumi's runtime costs beside a bare client that gives the same guarantees, measured in one run.
//! Prints a table of ratios, medians of alternating runs with their spread, and CPU per message.

mod bare;
mod embedded;
mod guarantees;
mod hop;
mod http;
mod inject;
mod operator;
mod process;
mod relay;
mod replay;
mod report;
mod rig;
mod start;
mod takeover;
mod wrk;

use clap::{Parser, Subcommand};
use report::Report;
use std::path::PathBuf;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(
    about = "Benchmarks of the worker runtime",
    after_help = "Example: vumi-bench --runs 7 --write docs/performance.md"
)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Alternating runs per row; the median is reported.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Messages per run and row.
    #[arg(long, default_value_t = 20_000)]
    messages: u32,
    /// Only parts whose name contains this text: start, embedded, http, python, hop, relay, inject, guarantees.
    #[arg(long)]
    only: Option<String>,
    /// Replace the measured table in this Markdown file (between its two marker lines).
    #[arg(long)]
    write: Option<PathBuf>,
}

/// The operator; and parts that run as processes of their own, so that their CPU time is theirs alone.
#[derive(Subcommand)]
enum Part {
    /// The baseline: consume, publish, confirm, acknowledge in batches.
    #[command(hide = true)]
    Bare(bare::Options),
    /// A worker whose handler holds one user's message for ever.
    #[command(hide = true)]
    Held(hop::HeldOptions),
    /// The operator before a real API server: `make bench-operator`.
    Operator(operator::Options),
    /// A dispatcher hop on the embedded broker.
    #[command(hide = true)]
    Embedded(embedded::Options),
}

fn main() -> Result<(), AnyError> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match arguments.part {
            Some(Part::Bare(options)) => bare::run(options).await,
            Some(Part::Held(options)) => hop::run_held(options).await,
            Some(Part::Embedded(options)) => embedded::run(options).await,
            Some(Part::Operator(options)) => operator::run(options).await,
            None => measure(arguments).await,
        }
    })
}

async fn measure(arguments: Arguments) -> Result<(), AnyError> {
    let wanted = |name: &str| {
        arguments
            .only
            .as_deref()
            .is_none_or(|only| name.contains(only))
    };
    let mut report = Report::new(&format!(
        "Medians with (smallest–largest of how many runs); where a baseline is named, runs alternate with it. {} messages of 600 bytes per run.",
        arguments.messages
    ));
    if wanted("start") {
        start::rows(&mut report).await?;
    }
    let mut embedded = None;
    if wanted("embedded") {
        embedded = Some(embedded::rows(&mut report, arguments.runs, arguments.messages).await?);
    }
    if wanted("http") {
        http::rows(&mut report).await?;
    }
    if wanted("python") {
        http::against_python(&mut report, arguments.runs).await?;
    }
    if wanted("hop") {
        let rabbitmq = hop::rows(&mut report, arguments.runs, arguments.messages).await?;
        if let Some((memory, process)) = embedded {
            compare(&mut report, "memory", memory / rabbitmq, 5.0);
            compare(&mut report, "process", process / rabbitmq, 1.0);
        }
    }
    if wanted("relay") {
        relay::rows(&mut report, arguments.runs, arguments.messages).await?;
    }
    if wanted("inject") {
        inject::rows(&mut report, arguments.runs, arguments.messages).await?;
    }
    if wanted("guarantees") {
        guarantees::rows(&mut report, arguments.runs, arguments.messages).await?;
    }
    let table = report.to_markdown();
    println!("{table}");
    if let Some(path) = arguments.write {
        report::write_between_markers(&path, "measured", &table)?;
        println!("written to {}", path.display());
    }
    Ok(())
}

/// A hop on the embedded broker against the same worker's hop over RabbitMQ.
fn compare(report: &mut Report, durability: &str, ratio: f64, least: f64) {
    report.row(
        &format!("embedded hop, durability `{durability}` × RabbitMQ 4.0 hop (process)"),
        format!("{ratio:.1}"),
        &format!("≥ {least}"),
        Some(ratio >= least),
    );
}
