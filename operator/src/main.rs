//! The `vumi-operator` command.

use clap::Parser;
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use vumi_core::logging;
use vumi_operator::arguments::Arguments;
use vumi_operator::metrics::Metrics;
use vumi_operator::run::Operator;
use vumi_operator::{admin, client};

/// Why the command did not end well: its exit code and a sentence.
struct Failure(u8, String);

fn main() -> ExitCode {
    match start(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, text)) => {
            eprintln!("error: {text}");
            ExitCode::from(code)
        }
    }
}

fn start(arguments: &Arguments) -> Result<(), Failure> {
    let invalid = |text| Failure(2, text);
    logging::start(arguments.log_format, Some(&arguments.log_level)).map_err(invalid)?;
    // What is wrong is said before anything else is tried.
    arguments.options("default").map_err(invalid)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure(3, format!("cannot start: {error}")))?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let environment = |text| Failure(3, text);
    let metrics = Metrics::new();
    let client = client::connect(arguments.deadlines(), metrics.clone());
    let client = client.await.map_err(environment)?;
    let options = arguments.options(client.default_namespace());
    let options = options.map_err(|text| Failure(2, text))?;
    let listener = TcpListener::bind(arguments.admin).await;
    let listener = listener.map_err(|error| {
        environment(format!(
            "cannot listen on {}: {error}; choose another with --admin",
            arguments.admin
        ))
    })?;
    let stop = CancellationToken::new();
    let mut ends = Vec::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let signal = signal(kind).map_err(|error| environment(error.to_string()))?;
        ends.push(signal);
    }
    let told = stop.clone();
    tokio::spawn(async move {
        let any = ends.iter_mut().map(|signal| Box::pin(signal.recv()));
        futures::future::select_all(any).await;
        tracing::info!("stopping");
        told.cancel();
    });
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity = options.identity,
        image = options.settings.image,
        "starting"
    );
    let operator = Operator::new(client, options, metrics.clone());
    let admin = tokio::spawn(admin::serve(listener, operator.health(), metrics));
    let ended = operator.run(stop).await;
    admin.abort();
    ended.map_err(|text| Failure(1, text))?;
    tracing::info!("stopped");
    Ok(())
}
