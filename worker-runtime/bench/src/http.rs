//! HTTP round trips through `httpApi` and `echo`, and what a reload costs the callers.

use crate::AnyError;
use crate::process::{spawn, until_ready, vumi_run, vumi_worker};
use crate::report::{Report, median};
use crate::wrk::{Load, load};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vumi_testkit::rabbitmq::{RabbitMq, Version};
use vumi_testkit::{free_port, python_with};

/// An HTTP API whose requests wait for their replies.
fn transport(port: u16, text: &str) -> String {
    format!(
        "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: bench}}\nspec:\n  httpApi:\n    replyExpected: true\n    fieldDefaults: {{to_addr: \"{text}\"}}\n  http: {{host: 127.0.0.1, port: {port}, path: /rpc}}\n"
    )
}

const ECHO: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: echo}\nspec:\n  echo: {}\n  transportName: bench\n";

/// Both.
fn campaign(port: u16, text: &str) -> String {
    format!("{}---\n{ECHO}", transport(port, text))
}

/// What each request asks for, but for its user.
const ASKED: &str = "/rpc?content=hello";

/// The rows of this file, but for those against Python.
pub async fn rows(report: &mut Report) -> Result<(), AnyError> {
    let port = free_port()?;
    let (process, file) = vumi_run(&campaign(port, "1"), &["--admin", "none"])?;
    until_ready(port, "/health").await?;
    let seen = load(&[&process], port, ASKED, None, 5).await?;
    report.row(
        "HTTP round trip through `echo`, 20 connections (embedded, memory)",
        format!(
            "{:.0} requests/s; p50 {}, p99 {} = {:.1} × p50",
            seen.rate,
            seen.p50,
            seen.p99,
            seen.spread()
        ),
        "p99 ≤ 4 × p50",
        Some(seen.spread() <= 4.0),
    );
    report.row(
        "HTTP round trip, errors",
        seen.errors.clone().unwrap_or_else(|| "none".into()),
        "none",
        Some(seen.errors.is_none()),
    );
    reload(report, port, &file).await?;
    report.row(
        "`vumi run` with two workers, RSS after the load",
        format!("{:.1} MiB", process.rss()),
        "reported",
        None,
    );
    process.stop().await;
    Ok(())
}

/// A transport and an echo in Python, with the guarantees of ours.
const BASELINE: &str = include_str!("../baseline/http_round_trip.py");

/// The same round trip over the same RabbitMQ, by workers in Python and by ours, alternating: those in Python in one process,
/// ours in one each, as pods without a state store.
pub async fn against_python(report: &mut Report, runs: usize) -> Result<(), AnyError> {
    const SECONDS: u32 = 4;
    let python = python_with("pika")
        .ok_or("there is no Python with pika (make bench installs python3-pika)")?;
    let broker = RabbitMq::start(Version::V4_0).await?;
    let url = broker.url("/");
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let port = free_port()?;
        let arguments = ["-c", BASELINE, &url, &port.to_string()];
        let baseline = spawn(&python, &arguments, None)?;
        until_ready(port, "/health").await?;
        theirs.push(load(&[&baseline], port, ASKED, None, SECONDS).await?);
        baseline.stop().await;
        let port = free_port()?;
        let options = ["--broker", &url, "--admin", "none"];
        let transport = vumi_worker(&transport(port, "1"), &options)?;
        let echo = vumi_worker(ECHO, &options)?;
        until_ready(port, "/health").await?;
        ours.push(load(&[&transport, &echo], port, ASKED, None, SECONDS).await?);
        transport.stop().await;
        echo.stop().await;
    }
    if let Some(errors) = theirs
        .iter()
        .chain(&ours)
        .find_map(|run| run.errors.clone())
    {
        return Err(format!("HTTP round trips failed: {errors}").into());
    }
    let ratio = median(
        ours.iter()
            .zip(&theirs)
            .map(|(ours, theirs)| ours.rate / theirs.rate)
            .collect(),
    );
    let rate = |runs: &[Load]| median(runs.iter().map(|run| run.rate).collect());
    report.row(
        "HTTP round trip through `echo`, 20 connections, × Python with asyncio and pika (RabbitMQ 4.0, process)",
        format!("{ratio}; {} against {} requests/s", rate(&ours), rate(&theirs)),
        "≥ 15",
        Some(ratio.value >= 15.0),
    );
    let cpu = |runs: &[Load]| median(runs.iter().map(|run| run.cpu_micros).collect());
    report.row(
        "the same, worker CPU per request",
        format!("{} µs; Python {} µs", cpu(&ours), cpu(&theirs)),
        "reported",
        None,
    );
    let spread = |runs: &[Load]| median(runs.iter().map(Load::spread).collect());
    let millis = |runs: &[Load]| median(runs.iter().map(Load::median_millis).collect());
    let own = spread(&ours);
    report.row(
        "the same, p99 × p50",
        format!(
            "{own}, p50 {} ms; Python {}, p50 {} ms",
            millis(&ours),
            spread(&theirs),
            millis(&theirs)
        ),
        "≤ 4",
        Some(own.value <= 4.0),
    );
    Ok(())
}

/// New connections without pause while the transport's manifest changes: refused ones, and the longest wait.
async fn reload(report: &mut Report, port: u16, file: &std::path::Path) -> Result<(), AnyError> {
    let (mut refused, mut failed, mut asked, mut longest) = (0, 0, 0u32, Duration::ZERO);
    let begin = Instant::now();
    let mut edits = 0u32;
    while begin.elapsed() < Duration::from_secs(6) {
        if begin.elapsed() > Duration::from_secs(u64::from(edits + 1)) && edits < 4 {
            edits += 1;
            std::fs::write(file, campaign(port, &format!("{}", edits + 1)))?;
        }
        let sent = Instant::now();
        asked += 1;
        match request(port).await {
            Ok(true) => longest = longest.max(sent.elapsed()),
            Ok(false) => failed += 1,
            Err(_) => refused += 1,
        }
    }
    report.row(
        "reload of a listening worker, 4 times",
        format!(
            "{refused} refused, {failed} answered 503 of {asked}; longest wait {:.0} ms",
            longest.as_secs_f64() * 1e3
        ),
        "0 refused, pause ≤ 1 s",
        Some(refused == 0 && longest <= Duration::from_secs(1)),
    );
    Ok(())
}

async fn request(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream
        .write_all(b"GET /rpc?content=x&from_addr=1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
