//! Start, memory and rebuild: what one worker costs before it does anything.

use crate::AnyError;
use crate::process::{free_port, until_ready, vumi_run};
use crate::report::{Report, median};
use std::time::{Duration, Instant};

const ECHO: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: echo}\nspec:\n  echo: {}\n  transportName: bench\n";

/// The rows of this file.
pub async fn rows(report: &mut Report) -> Result<(), AnyError> {
    let (mut ready, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        let port = free_port()?;
        let begin = Instant::now();
        let (process, _) = vumi_run(ECHO, &["--admin", &format!("127.0.0.1:{port}")])?;
        until_ready(port, "/readyz").await?;
        ready.push(begin.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_secs(1)).await;
        idle.push(process.rss());
        process.stop().await;
    }
    let ready = median(ready);
    report.row(
        "exec to ready (embedded broker)",
        format!("{ready} ms"),
        "≤ 100 ms",
        Some(ready.value <= 100.0),
    );
    let idle = median(idle);
    report.row(
        "one idle worker, RSS",
        format!("{idle} MiB"),
        "≤ 15 MB",
        Some(idle.value <= 14.3),
    );
    let size = std::fs::metadata(crate::process::vumi()?)?.len() as f64 / 1e6;
    report.row(
        "binary, stripped",
        format!("{size:.1} MB"),
        "≤ 30 MB",
        Some(size <= 30.0),
    );
    rebuild(report).await
}

/// Editing one transport's body against checking its whole family anew, when run inside the source tree.
async fn rebuild(report: &mut Report) -> Result<(), AnyError> {
    let file = std::path::Path::new("worker-runtime/transports/chat/src/telnet.rs");
    if !file.exists() {
        report.row(
            "rebuild after editing one transport",
            "not in the source tree".into(),
            "≤ ¼",
            None,
        );
        return Ok(());
    }
    let check = || -> Result<f64, AnyError> {
        let begin = Instant::now();
        let status = std::process::Command::new("cargo")
            .args(["check", "-q", "-p", "vumi-transports-chat"])
            .status()?;
        if status.success() {
            Ok(begin.elapsed().as_secs_f64())
        } else {
            Err("cargo check failed".into())
        }
    };
    let text = std::fs::read_to_string(file)?;
    check()?;
    let mut edits = Vec::new();
    for n in 0..3 {
        std::fs::write(file, format!("{text}\n// edit {n}\n"))?;
        edits.push(check());
    }
    std::fs::write(file, &text)?;
    let edits = median(edits.into_iter().collect::<Result<Vec<_>, _>>()?);
    std::process::Command::new("cargo")
        .args(["clean", "-q", "-p", "vumi-transports-chat"])
        .status()?;
    let full = check()?;
    let ratio = edits.value / full;
    report.row(
        "rebuild after editing one transport × full check of its family",
        format!("{ratio:.2}; {edits} s against {full:.2} s"),
        "≤ 0.25",
        Some(ratio <= 0.25),
    );
    Ok(())
}
