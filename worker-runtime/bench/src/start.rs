//! Start, memory and rebuild: what one worker costs before it does anything.

use crate::AnyError;
use crate::process::{until_ready, vumi_run};
use crate::report::{Report, median};
use std::time::{Duration, Instant};
use vumi_testkit::free_port;

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

/// Editing one transport's body against checking its whole family anew, in a copy of the source tree.
async fn rebuild(report: &mut Report) -> Result<(), AnyError> {
    const FILE: &str = "worker-runtime/transports/chat/src/telnet.rs";
    if !std::path::Path::new(FILE).exists() {
        report.row(
            "rebuild after editing one transport",
            "not in the source tree".into(),
            "≤ ¼",
            None,
        );
        return Ok(());
    }
    let copy = tempfile::tempdir_in("target")?;
    // Whatever is a member of the workspace, but what was built.
    let parts = std::fs::read_dir(".")?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .filter(|name| !matches!(name, Ok(name) if name == "target" || name == ".git"))
        .collect::<Result<Vec<_>, _>>()?;
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args(parts)
        .arg(copy.path())
        .status()?;
    if !copied.success() {
        return Err("the source tree could not be copied".into());
    }
    // Dependencies are those of the tree itself: what is measured is our own code.
    let target = std::fs::canonicalize("target")?;
    let cargo = |arguments: &[&str]| -> Result<f64, AnyError> {
        let begin = Instant::now();
        let status = std::process::Command::new("cargo")
            .args(arguments)
            .args(["-q", "-p", "vumi-transports-chat"])
            .current_dir(copy.path())
            .env("CARGO_TARGET_DIR", &target)
            .status()?;
        if status.success() {
            Ok(begin.elapsed().as_secs_f64())
        } else {
            Err(format!("cargo {arguments:?} failed").into())
        }
    };
    let file = copy.path().join(FILE);
    let text = std::fs::read_to_string(&file)?;
    cargo(&["check"])?;
    let (mut edits, mut full) = (Vec::new(), Vec::new());
    for n in 0..5 {
        std::fs::write(&file, format!("{text}\n// edit {n}\n"))?;
        edits.push(cargo(&["check"])?);
        cargo(&["clean"])?;
        full.push(cargo(&["check"])?);
    }
    let (edits, full) = (median(edits), median(full));
    let ratio = edits.value / full.value;
    report.row(
        "rebuild after editing one transport × full check of its family",
        format!("{ratio:.2}; {edits} s against {full} s"),
        "≤ 0.25",
        Some(ratio <= 0.25),
    );
    Ok(())
}
