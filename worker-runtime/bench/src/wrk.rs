//! What `wrk` sees of a listening worker with 20 connections.

use crate::AnyError;
use crate::process::Measured;

const SCRIPT: &str = include_str!("../baseline/requests.lua");

/// One run.
pub struct Load {
    /// Requests per second.
    pub rate: f64,
    /// CPU time of the processes that were asked, per request.
    pub cpu_micros: f64,
    /// As `wrk` prints it, such as `1.68ms`.
    pub p50: String,
    pub p99: String,
    /// What it said of connections that failed and answers that are no 2xx.
    pub errors: Option<String>,
}

/// Asks for `path`, which has a query, for so many seconds; `ids` begins the id of each request.
pub async fn load(
    processes: &[&Measured],
    port: u16,
    path: &str,
    ids: Option<&str>,
    seconds: u32,
) -> Result<Load, AnyError> {
    let script = tempfile::NamedTempFile::new()?;
    std::fs::write(script.path(), SCRIPT)?;
    let used = || processes.iter().map(|process| process.cpu()).sum::<f64>();
    let before = used();
    let output = tokio::process::Command::new("wrk")
        .args(["-t1", "-c20", &format!("-d{seconds}s"), "--latency", "-s"])
        .arg(script.path())
        .arg(format!("http://127.0.0.1:{port}{path}"))
        .args(ids.iter().flat_map(|ids| ["--", ids]))
        .output()
        .await
        .map_err(|e| format!("wrk: {e} (make bench installs it)"))?;
    let used = used() - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let field = |name: &str| {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(name));
        let found = found.map(|found| found.trim().to_owned());
        found.ok_or_else(|| format!("wrk said no {name}: {text}"))
    };
    let requests = text.lines().find(|line| line.contains(" requests in "));
    let requests = requests.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    let requests = requests.ok_or_else(|| format!("wrk said: {text}"))?;
    let failed = |line: &&str| line.contains("Non-2xx") || line.contains("Socket errors");
    Ok(Load {
        rate: field("Requests/sec:")?.parse()?,
        cpu_micros: used * 1e6 / requests,
        p50: field("50%")?,
        p99: field("99%")?,
        errors: text.lines().find(failed).map(|line| line.trim().to_owned()),
    })
}

impl Load {
    /// How much later the slowest hundredth is than the median.
    pub fn spread(&self) -> f64 {
        micros(&self.p99) / micros(&self.p50)
    }

    /// The median in milliseconds.
    pub fn median_millis(&self) -> f64 {
        micros(&self.p50) / 1e3
    }
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
