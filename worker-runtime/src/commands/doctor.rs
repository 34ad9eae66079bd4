//! `vumi doctor`: whether the broker, the state store and the machine are as a campaign needs them, and what to do.

mod endpoints;

use crate::brokers::{self, Brokers, Url};
use crate::commands::status::{ONCE, ask_all, counted, live_sockets, stem};
use crate::error::CliError;
use crate::manifests;
use crate::output::Format;
use crate::process::{self, Backing};
use crate::stores::{self, RedisUrl, Stores};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use vumi_api::{Resource, Severity, Target};
use vumi_cli::findings;
use vumi_core::broker::amqp::{self, AmqpConfig};
use vumi_core::broker::embedded::EmbeddedOptions;
use vumi_core::checkup::{Finding, Level};
use vumi_core::secrets::Secrets;
use vumi_core::state::embedded::EmbeddedStoreOptions;
use vumi_core::state::redis::{self, RedisConfig};
use vumi_core::supervisor::control::runtime_folder;
use vumi_core::supervisor::plan::shown_address;
use vumi_core::supervisor::status::ProcessStatus;

/// Fewer open files than this end soon where every user has a connection.
const FILES: u64 = 4096;

/// Arguments of `vumi doctor`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi doctor
  vumi doctor -f campaign/ --secrets ~/campaign-secrets
  vumi doctor -f campaign/ --broker amqp://guest:guest@localhost/ --redis redis://localhost/
  vumi doctor --broker amqp://localhost/ --format json | jq '.[] | select(.level != \"good\")'

Looked at are: the manifests; each broker (who answers, its version, the type of queues without arguments, whether we may
declare, publish and consume, and each queue that workers read); each Redis (version, what a write survives, rights, clock);
where httpRelay, mediafone and the send.url of descriptions call (name, connection and TLS; nothing is asked there); ports, open
files and running processes of this machine. On a broker a queue of its own is made and removed; queues of workers that are not
there are not made. RabbitMQ does not tell its time, so only a Redis's clock is compared.
Exit codes: 0 no problems (warnings allowed) · 1 problems · 2 an option is not valid · 3 a path cannot be read.")]
pub struct Arguments {
    /// Files or directories (their .yaml and .yml files) of the campaign
    #[arg(short, long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// Directory with one folder per Secret and one file per key
    #[arg(long, value_name = "DIR")]
    pub secrets: Option<PathBuf>,
    /// Broker and store of all workers.
    #[command(flatten)]
    pub backing: Backing,
    /// How findings are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// Looks at everything, and says what it found.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let (resources, documents, mut found) = match arguments.files.is_empty() {
        true => (Vec::new(), BTreeMap::new(), Vec::new()),
        false => read(arguments)?,
    };
    let secrets = Arc::new(Secrets::new(documents, arguments.secrets.clone()));
    let targets = Targets::of(arguments, &secrets)?;
    let findings = process::block_on(async {
        let (processes, silent) = processes().await;
        found.extend(targets.brokers(&resources).await);
        found.extend(targets.stores(&resources).await);
        found.extend(endpoints::look(&resources, &secrets).await);
        found.extend(silent);
        found.extend(machine(&resources, &processes));
        if arguments.files.is_empty() && targets.broker.is_none() && targets.redis.is_none() {
            found.push(Finding::new(
                Level::Note,
                "what was not looked at",
                "no campaign, no broker and no state store was named",
                "Give -f DIR, --broker URL and --redis URL as you give them to `vumi run`.",
            ));
        }
        Ok(found)
    })?;
    findings::tell(&findings, arguments.format)
}

type Read = (
    Vec<Resource>,
    BTreeMap<String, BTreeMap<String, String>>,
    Vec<Finding>,
);

/// The manifests, and how they are.
fn read(arguments: &Arguments) -> Result<Read, CliError> {
    let services = arguments.backing.services()?;
    let read = manifests::campaign(
        &arguments.files,
        Target::Local,
        arguments.secrets.as_deref(),
        services,
    )?;
    let about = "manifests";
    let mut found: Vec<Finding> = read
        .manifests
        .findings
        .iter()
        .map(|finding| {
            let level = match finding.severity {
                Severity::Error => Level::Problem,
                _ => Level::Warning,
            };
            let fix = "`vumi lint` shows all; `vumi explain CODE` says more.";
            Finding::new(level, about, finding.to_string(), fix)
        })
        .collect();
    let resources: Vec<Resource> = read
        .manifests
        .resources
        .iter()
        .map(|loaded| loaded.resource.clone())
        .collect();
    if found.is_empty() {
        let workers = counted(resources.len(), "worker");
        let says = format!("{workers}, nothing found wrong");
        found.push(Finding::good(about, says));
    }
    Ok((resources, read.documents, found))
}

/// Which brokers and stores are meant.
struct Targets {
    brokers: Brokers,
    stores: Stores,
    broker: Option<Url>,
    redis: Option<RedisUrl>,
}

impl Targets {
    fn of(arguments: &Arguments, secrets: &Arc<Secrets>) -> Result<Self, CliError> {
        let broker = arguments.backing.broker()?;
        let redis = arguments.backing.redis()?;
        let choice = match &broker {
            Some(url) => brokers::Choice::Url(url.clone()),
            None => brokers::Choice::Embedded(EmbeddedOptions::default()),
        };
        let brokers = Brokers::new(choice, Arc::clone(secrets), "doctor")?;
        let choice = match &redis {
            Some(url) => stores::Choice::Url(url.clone()),
            None => stores::Choice::Embedded(EmbeddedStoreOptions::default()),
        };
        let stores = Stores::new(choice, Arc::clone(secrets), "doctor")?;
        Ok(Self {
            brokers,
            stores,
            broker,
            redis,
        })
    }

    /// Each broker once, with the queues that are consumed there.
    async fn brokers(&self, resources: &[Resource]) -> Vec<Finding> {
        let mut meant: BTreeMap<String, (AmqpConfig, BTreeSet<String>)> = BTreeMap::new();
        let mut found = Vec::new();
        let mut inside = 0;
        if let Some(url) = &self.broker
            && let Ok(config) = url.config()
        {
            meant.insert(format!("{config:?}"), (config, BTreeSet::new()));
        }
        for resource in resources {
            let config = match self.brokers.config(resource) {
                Ok(Some(config)) => config,
                Ok(None) => {
                    inside += 1;
                    continue;
                }
                Err(error) => {
                    let about = resource.key();
                    found.push(Finding::new(
                        Level::Problem,
                        &about,
                        error.text,
                        error.code.fix,
                    ));
                    continue;
                }
            };
            let key = format!("{config:?}");
            let (_, queues) = meant.entry(key).or_insert((config, BTreeSet::new()));
            let topology = resource.topology();
            let ports = topology.intake.iter().chain(&topology.replies);
            queues.extend(ports.map(|port| port.queue()));
        }
        for (config, queues) in meant.values() {
            let queues: Vec<String> = queues.iter().cloned().collect();
            found.extend(amqp::checkup(config, &queues).await);
        }
        if inside > 0 {
            found.push(Finding::new(
                Level::Note,
                "broker inside the process",
                format!(
                    "{} on it: messages end with the process unless --state DIR keeps them",
                    counted(inside, "worker")
                ),
                "Give --broker URL, or spec.broker, for RabbitMQ.",
            ));
        }
        found
    }

    /// Each Redis once.
    async fn stores(&self, resources: &[Resource]) -> Vec<Finding> {
        let mut meant: BTreeMap<String, RedisConfig> = BTreeMap::new();
        let mut found = Vec::new();
        if let Some(url) = &self.redis
            && let Ok(config) = url.config()
        {
            meant.insert(format!("{config:?}"), config);
        }
        for resource in resources {
            match self.stores.config(resource) {
                Ok(Some(config)) => {
                    meant.insert(format!("{config:?}"), config);
                }
                Ok(None) => {}
                Err(error) => {
                    let about = resource.key();
                    found.push(Finding::new(
                        Level::Problem,
                        &about,
                        error.text,
                        error.code.fix,
                    ));
                }
            }
        }
        for config in meant.values() {
            found.extend(redis::checkup(config).await);
        }
        found
    }
}

/// States of the processes of this user, and what is to be said of those that tell none.
async fn processes() -> (Vec<ProcessStatus>, Vec<Finding>) {
    let (mut statuses, mut silent) = (Vec::new(), Vec::new());
    let sockets = live_sockets(&runtime_folder());
    for (socket, answer) in sockets.iter().zip(ask_all(&sockets, ONCE).await) {
        let (says, fix) = match answer.map(|answer| answer.map(serde_json::from_value)) {
            Some(Ok(Ok(status))) => {
                statuses.push(status);
                continue;
            }
            Some(Ok(Err(_))) => (
                "it runs another version, whose state cannot be read here",
                "Ask with the version that it runs, or start it again with this one.",
            ),
            Some(Err(_)) | None => (
                "it does not answer",
                "If it is stopped (`ps` shows T), let it go on with `kill -CONT`; if it is busy, ask again.",
            ),
        };
        let about = format!("process {}", stem(socket));
        silent.push(Finding::new(Level::Warning, &about, says, fix));
    }
    (statuses, silent)
}

/// What of this machine a campaign needs.
fn machine(resources: &[Resource], processes: &[ProcessStatus]) -> Vec<Finding> {
    let mut found = Vec::new();
    for status in processes {
        let about = format!("process {}", status.name);
        let before = found.len();
        if let Some(problem) = &status.problem {
            let says = format!("its manifests as they are now are not applied: {problem}");
            found.push(Finding::new(
                Level::Problem,
                &about,
                says,
                "Correct the manifests.",
            ));
        }
        for worker in status.workers.iter().filter(|worker| !worker.ready) {
            let says = format!("{} is {}: {}", worker.worker, worker.state, worker.why);
            found.push(Finding::new(
                Level::Problem,
                &about,
                says,
                "`vumi status` shows more.",
            ));
        }
        if before == found.len() {
            let says = match status.workers.len() {
                1 => "its worker is ready".to_owned(),
                all => format!("all {all} workers are ready"),
            };
            found.push(Finding::good(&about, says));
        }
    }
    let ours = |address: &String| {
        let workers = processes.iter().flat_map(|status| &status.workers);
        workers
            .flat_map(|worker| &worker.listens)
            .any(|known| known == address)
    };
    let addresses: BTreeSet<(String, u16)> = resources
        .iter()
        .flat_map(|resource| resource.topology().listens)
        .collect();
    for (host, port) in addresses {
        let address = shown_address(&(host.clone(), port));
        let about = format!("address {address}");
        found.push(match TcpListener::bind((host.as_str(), port)) {
            Ok(_) => Finding::good(&about, "it is free"),
            Err(_) if ours(&address) => Finding::good(&about, "a running campaign listens there"),
            Err(error) => Finding::new(
                Level::Problem,
                &about,
                format!("a worker cannot listen there: {error}"),
                "Stop what uses it (`ss -ltnp` shows it), or choose another port.",
            ),
        });
    }
    found.extend(open_files());
    found
}

/// How many files and connections a process of this user may have open.
fn open_files() -> Option<Finding> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    let soft = line.split_whitespace().nth(3)?;
    let about = "this machine";
    Some(match soft.parse::<u64>() {
        Ok(limit) if limit < FILES => Finding::new(
            Level::Warning,
            about,
            format!("a process may have {limit} files and connections open"),
            "Raise it for whoever starts vumi: `ulimit -n 65536`, or LimitNOFILE in a systemd unit.",
        ),
        _ => Finding::good(
            about,
            format!("a process may have {soft} files and connections open"),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resource(port: u16) -> Resource {
        let text = format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: t}}\nspec: {{telnet: {{host: 127.0.0.1, port: {port}}}}}\n"
        );
        let manifests = vumi_api::manifest::load(&[("t.yaml", text)], Target::Local);
        manifests.resources[0].resource.clone()
    }

    #[test]
    fn a_port_is_free_ours_or_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let level = |processes: &[ProcessStatus]| {
            let found = machine(&[resource(port)], processes);
            let about = format!("address 127.0.0.1:{port}");
            found
                .iter()
                .find(|finding| finding.about == about)
                .unwrap()
                .level
        };
        assert_eq!(level(&[]), Level::Problem);
        let status = serde_json::from_value(json!({
            "name": "a", "pid": 1, "version": "1", "brokers": [], "workers": [{
                "worker": "transport/t", "type": "telnet", "ready": true, "state": "running", "why": "",
                "listens": [format!("127.0.0.1:{port}")], "queues": [], "link": "up", "durability": "memory",
                "components": [], "received": 0, "done": 0, "retried": 0, "parked": 0, "returned": 0, "inFlight": 0, "since": 0,
            }],
        }))
        .unwrap();
        assert_eq!(level(&[status]), Level::Good);
        drop(taken);
        assert_eq!(level(&[]), Level::Good);
    }

    #[test]
    fn the_table_says_what_to_do_and_counts() {
        let found = [
            Finding::good("a", "it is well"),
            Finding::new(Level::Problem, "b", "it is not", "Do this."),
        ];
        assert_eq!(
            findings::table(&found),
            "ok    a: it is well\nFAIL  b: it is not\n       Do this.\n2 looked at: 1 problem, 0 warnings\n"
        );
    }
}
