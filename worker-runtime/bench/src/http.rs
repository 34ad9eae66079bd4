//! HTTP round trips through `httpApi` and `echo`, and what a reload costs the callers.

use crate::AnyError;
use crate::process::{free_port, until_ready, vumi_run};
use crate::report::Report;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn campaign(port: u16, text: &str) -> String {
    format!(
        "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: bench}}\nspec:\n  httpApi:\n    replyExpected: true\n    fieldDefaults: {{to_addr: \"{text}\"}}\n  http: {{host: 127.0.0.1, port: {port}, path: /rpc}}\n---\napiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {{name: echo}}\nspec:\n  echo: {{}}\n  transportName: bench\n"
    )
}

/// The rows of this file.
pub async fn rows(report: &mut Report) -> Result<(), AnyError> {
    let port = free_port()?;
    let (process, file) = vumi_run(&campaign(port, "1"), &["--admin", "none"])?;
    until_ready(port, "/health").await?;
    let url = format!("http://127.0.0.1:{port}/rpc?content=hello&from_addr=27820000001");
    let output = tokio::process::Command::new("wrk")
        .args(["-t1", "-c20", "-d5s", "--latency", &url])
        .output()
        .await
        .map_err(|e| format!("wrk: {e} (make bench installs it)"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let field = |name: &str| {
        text.lines()
            .find_map(|line| {
                line.trim()
                    .strip_prefix(name)
                    .map(str::trim)
                    .map(str::to_owned)
            })
            .unwrap_or_else(|| "?".into())
    };
    let (p50, p99) = (field("50%"), field("99%"));
    let ratio = micros(&p99) / micros(&p50);
    report.row(
        "HTTP round trip through `echo`, 20 connections (embedded, memory)",
        format!(
            "{} requests/s; p50 {p50}, p99 {p99} = {ratio:.1} × p50",
            field("Requests/sec:")
        ),
        "p99 ≤ 4 × p50",
        Some(ratio <= 4.0),
    );
    let refused = text
        .lines()
        .find(|l| l.contains("Non-2xx") || l.contains("Socket errors"));
    report.row(
        "HTTP round trip, errors",
        refused.unwrap_or("none").trim().to_owned(),
        "none",
        Some(refused.is_none()),
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

fn micros(text: &str) -> f64 {
    let end = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().unwrap_or(f64::NAN);
    match &text[end..] {
        "s" => number * 1e6,
        "ms" => number * 1e3,
        _ => number,
    }
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
