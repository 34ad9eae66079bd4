//! Child processes under measurement: CPU time, memory, manifests in a temporary folder, killed when dropped.

use crate::AnyError;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// A running child.
pub struct Measured {
    child: Child,
    id: u32,
    folders: Vec<tempfile::TempDir>,
}

impl Measured {
    /// Keeps a folder until it is gone.
    pub fn keeping(mut self, folder: tempfile::TempDir) -> Self {
        self.folders.push(folder);
        self
    }

    /// CPU seconds used so far, user and system.
    pub fn cpu(&self) -> f64 {
        cpu_of(&self.id.to_string())
    }

    /// Resident memory in MiB.
    pub fn rss(&self) -> f64 {
        self.memory("VmRSS:")
    }

    /// The most resident memory that it ever had, in MiB.
    pub fn peak(&self) -> f64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, of: &str) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.id)).unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix(of))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|kib| kib.parse::<f64>().ok())
            .map_or(f64::NAN, |kib| kib / 1024.0)
    }

    /// Sends it a signal: `STOP` holds its connections and does nothing, `TERM` asks it to end.
    pub async fn signal(&self, name: &str) -> Result<(), AnyError> {
        let id = self.id.to_string();
        let status = Command::new("/bin/sh")
            .args(["-c", "kill -\"$1\" \"$0\"", &id, name])
            .status()
            .await?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("a process does not take signal {name}").into()),
        }
    }

    /// Kills it and waits until it is gone.
    pub async fn stop(mut self) {
        let _ = self.child.kill().await;
    }
}

/// CPU seconds of this process so far, user and system.
pub fn own_cpu() -> f64 {
    cpu_of("self")
}

fn cpu_of(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|t| t.parse::<f64>().ok())
        .sum();
    // Linux shows clock ticks of 1/100 s to programs on every architecture we build for.
    ticks / 100.0
}

/// This program, for its own parts.
pub fn this_program() -> Result<PathBuf, AnyError> {
    Ok(std::env::current_exe()?)
}

/// The `vumi` binary beside this one.
pub fn vumi() -> Result<PathBuf, AnyError> {
    beside("vumi")
}

/// A binary beside this one, named as its package.
pub fn beside(name: &str) -> Result<PathBuf, AnyError> {
    let path = this_program()?.with_file_name(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!(
            "{} is missing: cargo build --release -p {name}",
            path.display()
        )
        .into())
    }
}

/// Starts a program.
pub fn spawn(
    program: &Path,
    arguments: &[&str],
    folder: Option<tempfile::TempDir>,
) -> Result<Measured, AnyError> {
    spawn_with(program, arguments, &[], folder)
}

/// Starts a program with more variables in its environment.
pub fn spawn_with(
    program: &Path,
    arguments: &[&str],
    variables: &[(&str, &std::ffi::OsStr)],
    folder: Option<tempfile::TempDir>,
) -> Result<Measured, AnyError> {
    let log = std::env::var_os("VUMI_BENCH_LOG").is_some();
    let child = Command::new(program)
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(if log { Stdio::inherit() } else { Stdio::null() })
        .kill_on_drop(true)
        .spawn()?;
    let id = child.id().ok_or("the child ended at once")?;
    Ok(Measured {
        child,
        id,
        folders: folder.into_iter().collect(),
    })
}

/// `vumi run` on manifests, with further arguments.
pub fn vumi_run(manifests: &str, more: &[&str]) -> Result<(Measured, PathBuf), AnyError> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("campaign.yaml");
    std::fs::write(&file, manifests)?;
    let text = file.to_str().ok_or("temporary folder is not UTF-8")?;
    let mut arguments = vec!["run", "-f", text, "--log-level", "warn"];
    arguments.extend_from_slice(more);
    Ok((spawn(&vumi()?, &arguments, Some(folder))?, file))
}

/// `vumi worker` on a manifest, with further arguments: without a state store, if they name none.
pub fn vumi_worker(manifest: &str, more: &[&str]) -> Result<Measured, AnyError> {
    let folder = tempfile::tempdir()?;
    let manifests = folder.path().join("manifests");
    std::fs::create_dir(&manifests)?;
    std::fs::write(manifests.join("worker.yaml"), manifest)?;
    let path = |path: PathBuf| path.to_str().map(str::to_owned);
    let not_text = "temporary folder is not UTF-8";
    let manifests = path(manifests).ok_or(not_text)?;
    let secrets = path(folder.path().join("secrets")).ok_or(not_text)?;
    let mut arguments = vec!["worker", "--manifests", &manifests, "--secrets", &secrets];
    arguments.extend_from_slice(&["--log-level", "warn"]);
    arguments.extend_from_slice(more);
    spawn(&vumi()?, &arguments, Some(folder))
}

/// Waits until `GET path` on the port answers 200.
pub async fn until_ready(port: u16, path: &str) -> Result<(), AnyError> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for _ in 0..10_000 {
        if let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            let mut answer = Vec::new();
            if stream.write_all(request.as_bytes()).await.is_ok()
                && stream.read_to_end(&mut answer).await.is_ok()
                && answer.starts_with(b"HTTP/1.1 200")
            {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Err(format!("port {port} {path} did not become ready").into())
}
