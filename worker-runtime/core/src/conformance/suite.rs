//! Runs the cases: every worker type, every broker, each on a fresh bench, several at a time.

use super::cases::{CASES, Case, Subject};
use super::far_end::be_patient;
use super::inside::Inside;
use super::rig::{MARK, Rig, WITHOUT_REPLIES};
use super::waivers::{WAIVERS, Waiver};
use crate::broker::Broker;
use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use crate::message::Message;
use crate::worker::Registration;
use async_trait::async_trait;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Longest time of one case.
const CASE_LIMIT: Duration = Duration::from_secs(180);
/// Cases that run at the same time: they wait more than they work.
const AT_ONCE: usize = 6;

/// Where the suite gets brokers from.
#[async_trait]
pub trait BrokerSource: Sync {
    /// Name in findings.
    fn name(&self) -> &str;
    /// A connection to a broker. Cases may share one: each has queues of its own.
    async fn open(&self) -> Result<Arc<dyn Broker>, String>;
    /// A case has passed, and nobody needs the queues that have `part` in their names. Brokers become slow with the
    /// thousands that a whole suite makes.
    async fn delete_queues(&self, _part: &str) -> Result<(), String> {
        Ok(())
    }
}

/// The embedded broker, in memory.
pub struct Embedded;

#[async_trait]
impl BrokerSource for Embedded {
    fn name(&self) -> &str {
        "embedded"
    }

    async fn open(&self) -> Result<Arc<dyn Broker>, String> {
        EmbeddedBroker::open(EmbeddedOptions::default()).map_err(|e| e.to_string())
    }
}

/// Demands every case of every worker type, on the embedded broker.
///
/// # Panics
/// If a case fails, or a waiver is no longer needed; the text lists all of them.
pub fn check(registrations: &[Registration]) {
    check_on(registrations, &[&Embedded]);
}

/// Demands every case of every worker type on each of `brokers`; of those, what `VUMI_CONFORMANCE` is a part of the name of
/// (`echo / freeze`), while somebody looks for an error.
///
/// # Panics
/// If a case fails, or a waiver is no longer needed; the text lists all of them.
pub fn check_on(registrations: &[Registration], brokers: &[&dyn BrokerSource]) {
    let findings = findings(registrations, brokers, None);
    assert!(
        findings.is_empty(),
        "{} findings of the conformance suite:\n{}",
        findings.len(),
        findings.join("\n")
    );
}

struct Job<'a> {
    registration: &'a Registration,
    broker: &'a dyn BrokerSource,
    case: &'static Case,
    patience: Option<Duration>,
}

/// What the cases find. They wait for `patience`, or as long as a busy machine may need.
pub(super) fn findings(
    registrations: &[Registration],
    brokers: &[&dyn BrokerSource],
    patience: Option<Duration>,
) -> Vec<String> {
    let only = std::env::var("VUMI_CONFORMANCE").unwrap_or_default();
    let mut jobs = VecDeque::new();
    for registration in registrations {
        let subject = Subject::of(registration);
        let named = |case: &&Case| {
            let name = format!("{} / {}", registration.type_name, case.name);
            name.contains(&only)
        };
        let cases = CASES.iter().filter(|case| (case.applies)(&subject));
        for case in cases.filter(named) {
            for &broker in brokers {
                jobs.push_back(Job {
                    registration,
                    broker,
                    case,
                    patience,
                });
            }
        }
    }
    let jobs = Mutex::new(jobs);
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(job) = next(&jobs) {
                    if let Some(finding) = job.finding() {
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        found.push(finding);
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort();
    found
}

fn next<'a>(jobs: &Mutex<VecDeque<Job<'a>>>) -> Option<Job<'a>> {
    let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
    jobs.pop_front()
}

impl Job<'_> {
    fn finding(&self) -> Option<String> {
        let (type_name, case) = (self.registration.type_name, self.case.name);
        let place = format!("{type_name} / {case} on {}", self.broker.name());
        let waiver = WAIVERS
            .iter()
            .find(|w| w.worker_type == type_name && w.case == case);
        match (self.run(), waiver) {
            (Ok(()), None) | (Err(_), Some(_)) => None,
            (Err(what), None) => Some(format!("{place}: {what}")),
            (Ok(()), Some(Waiver { reason, .. })) => Some(format!(
                "{place}: passes, so its waiver ({reason}) is stale: remove it"
            )),
        }
    }

    /// One case, on its own thread and runtime, so that every log line in it is its own.
    fn run(&self) -> Result<(), String> {
        be_patient(self.patience);
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("info,vumi=debug"))
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        let ran = tracing::subscriber::with_default(subscriber, || {
            let ran = runtime.block_on(async {
                match tokio::time::timeout(CASE_LIMIT, self.case_on_bench()).await {
                    Ok(ran) => ran,
                    Err(_) => Err(format!("did not end within {CASE_LIMIT:?}")),
                }
            });
            runtime.shutdown_timeout(Duration::from_secs(2));
            ran
        });
        match ran {
            Ok(private) => log.demand_silence_about(&private),
            Err(what) => Err(format!("{what}{}", log.tail())),
        }
    }

    /// Runs the case; what its log must not hold.
    async fn case_on_bench(&self) -> Result<Vec<String>, String> {
        let broker = self.broker.open().await?;
        let mut rig = Rig::<Inside>::start(self.registration, Arc::clone(&broker)).await?;
        (self.case.run)(&mut rig).await?;
        let mut private = vec![MARK.to_owned(), "+27829000".to_owned()];
        private.extend(secrets(&rig.under.document));
        for seen in rig.far_end.seen() {
            if let Message::User(message) = &seen.message {
                let user = match seen.port.flow {
                    vumi_api::Flow::Outbound => message.to_addr(),
                    _ => message.from_addr(),
                };
                let covered = |address: &&str| private.iter().any(|word| address.contains(word));
                let user = user.filter(|address| address.len() > 6 && !covered(address));
                let user = user.map(str::to_owned);
                private.extend(user);
            }
        }
        if rig.under.worker.is_some() {
            rig.settle().await?;
            demand_silence(&rig.shown(), &private)?;
            rig.stop(WITHOUT_REPLIES).await?;
        }
        demand_silence(&rig.shown(), &private)?;
        let part = rig.under.suffix.clone();
        drop(rig);
        broker.close(Duration::from_secs(2)).await;
        self.broker.delete_queues(&part).await?;
        Ok(private)
    }
}

/// Plain secret values in a manifest: `{value: …}` without anything beside it.
fn secrets(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(map) => match (map.len(), map.get("value")) {
            (1, Some(serde_json::Value::String(secret))) => vec![secret.clone()],
            _ => map.values().flat_map(secrets).collect(),
        },
        serde_json::Value::Array(list) => list.iter().flat_map(secrets).collect(),
        _ => Vec::new(),
    }
}

/// Demands that nothing of what is `shown` holds one of these words.
fn demand_silence(shown: &[(&str, String)], private: &[String]) -> Result<(), String> {
    for (what, text) in shown {
        if let Some(word) = private.iter().find(|word| text.contains(word.as_str())) {
            let line = text.lines().find(|line| line.contains(word.as_str()));
            let line = line.unwrap_or_default().replace(word, "<private>");
            let line: String = line.chars().take(600).collect();
            return Err(format!(
                "{what} holds a content, a secret or an address: {line}"
            ));
        }
    }
    Ok(())
}

/// What one case logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn demand_silence_about(&self, private: &[String]) -> Result<(), String> {
        demand_silence(&[("the log", self.text())], private)
    }

    fn tail(&self) -> String {
        let text = self.text();
        let ours = |line: &&str| line.contains(" vumi") && !line.contains(MARK);
        let lines: Vec<&str> = text.lines().filter(ours).collect();
        let from = lines.len().saturating_sub(12);
        lines[from..]
            .iter()
            .map(|line| format!("\n    {line}"))
            .collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
