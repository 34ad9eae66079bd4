//! What only shows when all manifests are seen together: queues, listeners, order; Secrets are next door.

use super::brokers::{self, Hearing, Key, Named};
use super::finding::{
    Finding, LISTEN_CLASH, NO_CONSUMER, ORDER_BROKEN, QUEUE_CLASH, REPEATS_UNKNOWN, STATE_EXPECTED,
    Severity,
};
use super::{LoadedResource, Manifests, Target, secrets, times};
use crate::names::{listed, nearest};
use crate::resource::Kind;
use crate::shared::state::DEFAULT_STATE_SECRET;
use crate::shared::{OrderingMode, StateNeed};
use crate::topology::{Port, Topology};
use std::collections::{BTreeMap, BTreeSet};

/// Findings about the campaign as a whole. Resources with errors of their own are not part of it, and while there are
/// such resources, missing consumers are not reported.
pub fn campaign_findings(manifests: &Manifests) -> Vec<Finding> {
    let workers = manifests.resources.iter();
    let workers: Vec<Worker<'_>> = workers
        .map(|loaded| Worker::new(loaded, manifests))
        .collect();
    let mut findings = Vec::new();
    queue_clashes(&workers, &mut findings);
    if !manifests.has_errors() {
        missing_consumers(&workers, &mut findings);
    }
    let hearing = workers.iter().map(Worker::hearing);
    findings.extend(brokers::split(&hearing.collect::<Vec<_>>()));
    findings.extend(manifests.resources.iter().flat_map(times::odd));
    if manifests.target == Target::Local {
        listen_clashes(&workers, &mut findings);
        findings.extend(secrets::missing_values(manifests));
    }
    broken_order(&workers, &mut findings);
    if manifests.target == Target::Cluster {
        expected_state(&workers, &mut findings);
    }
    findings
}

/// One worker with what it touches.
struct Worker<'m> {
    loaded: &'m LoadedResource,
    topology: Topology,
    mode: OrderingMode,
    broker: Named,
}

impl<'m> Worker<'m> {
    fn new(loaded: &'m LoadedResource, manifests: &Manifests) -> Self {
        Self {
            broker: Named::of(loaded, manifests),
            loaded,
            topology: loaded.resource.topology(),
            mode: loaded.resource.ordering_mode(),
        }
    }

    fn key(&self) -> String {
        self.loaded.resource.key()
    }

    fn kind(&self) -> Kind {
        self.loaded.resource.kind()
    }

    fn consumes(&self) -> impl Iterator<Item = &Port> {
        self.topology.intake.iter().chain(&self.topology.replies)
    }

    fn hearing(&self) -> Hearing<'_> {
        Hearing {
            loaded: self.loaded,
            broker: &self.broker,
            publishes: &self.topology.publishes,
            consumes: self.consumes().collect(),
        }
    }

    /// The field that makes this worker use `connector`.
    fn connector_path(&self, connector: &str) -> String {
        let worker = self.loaded.resource.worker_type().map_or("", |w| w.key);
        match self.kind() {
            Kind::Transport | Kind::Application => "transportName".into(),
            Kind::Dispatcher | Kind::MetricAggregator => {
                let spec = &self.loaded.document()["spec"][worker];
                ["transports", "exposed"]
                    .iter()
                    .find_map(|list| {
                        let index = spec[*list]
                            .as_array()?
                            .iter()
                            .position(|name| name == connector)?;
                        Some(format!("{worker}.{list}[{index}]"))
                    })
                    .unwrap_or_else(|| worker.to_owned())
            }
        }
    }

    fn finding(
        &self,
        severity: Severity,
        code: &'static str,
        path: &str,
        message: String,
    ) -> Finding {
        self.loaded.finding(severity, code, path, message)
    }
}

fn queue_clashes<'m>(workers: &'m [Worker<'m>], findings: &mut Vec<Finding>) {
    // A queue of the same name on another broker is another queue.
    let mut owners: BTreeMap<(&Key, &Port), &Worker<'_>> = BTreeMap::new();
    // Queues that two workers share, gathered so that a pair of workers is reported once per connector.
    let mut clashes: Vec<Clash<'_>> = Vec::new();
    for second in workers {
        for port in second.consumes() {
            let queue = (&second.broker.key, port);
            let Some(first) = owners.get(&queue).copied() else {
                owners.insert(queue, second);
                continue;
            };
            let connector = port.connector.as_str();
            let same = clashes.iter_mut().find(|c| {
                c.connector == connector
                    && std::ptr::eq(c.first, first)
                    && std::ptr::eq(c.second, second)
            });
            match same {
                Some(clash) => clash.queues.push(port.queue()),
                None => clashes.push(Clash {
                    first,
                    second,
                    connector,
                    queues: vec![port.queue()],
                }),
            }
        }
    }
    for clash in clashes {
        let owner = clash.first.key();
        let names = listed(clash.queues.iter().map(String::as_str));
        let message =
            format!("{names} would be shared with {owner}, each getting a part of the messages");
        let path = clash.second.connector_path(clash.connector);
        let mut finding = clash
            .second
            .finding(Severity::Error, QUEUE_CLASH, &path, message);
        finding.help = Some(format!(
            "give one of them another name, or put a dispatcher between; {owner} is at {}:{}",
            clash.first.loaded.file, clash.first.loaded.line
        ));
        findings.push(finding);
    }
}

/// Two workers that would consume queues of one connector.
struct Clash<'m> {
    first: &'m Worker<'m>,
    second: &'m Worker<'m>,
    connector: &'m str,
    queues: Vec<String>,
}

fn missing_consumers(workers: &[Worker<'_>], findings: &mut Vec<Finding>) {
    let consumed: BTreeSet<&Port> = workers.iter().flat_map(Worker::consumes).collect();
    for worker in workers {
        let mut missing: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for port in &worker.topology.publishes {
            if !consumed.contains(port) {
                missing
                    .entry(&port.connector)
                    .or_default()
                    .push(port.queue());
            }
        }
        for (connector, queues) in missing {
            let path = worker.connector_path(connector);
            let message = format!(
                "no manifest consumes {}",
                listed(queues.iter().map(String::as_str))
            );
            let mut finding = worker.finding(Severity::Warning, NO_CONSUMER, &path, message);
            // Connectors that other workers use in this direction, which a slip may have meant.
            let others = consumed
                .iter()
                .map(|port| port.connector.as_str())
                .filter(|other| *other != connector);
            finding.help = Some(match nearest(connector, others) {
                Some(name) => format!("did you mean {name}?"),
                None => "its messages wait there until a worker is added, or one outside these files reads them".into(),
            });
            findings.push(finding);
        }
    }
}

fn listen_clashes(workers: &[Worker<'_>], findings: &mut Vec<Finding>) {
    let every = |host: &str| matches!(host, "0.0.0.0" | "::" | "[::]");
    let mut open: Vec<(&str, u16, &Worker<'_>)> = Vec::new();
    for worker in workers {
        for (host, port) in &worker.topology.listens {
            let other = open
                .iter()
                .find(|(h, p, _)| p == port && (h == host || every(h) || every(host)));
            if let Some((_, _, first)) = other {
                let message = format!("port {port} of {host} is taken by {}", first.key());
                let path = listen_path(worker);
                let mut finding = worker.finding(Severity::Error, LISTEN_CLASH, &path, message);
                finding.help = Some("choose another port".into());
                findings.push(finding);
            } else {
                open.push((host, *port, worker));
            }
        }
    }
}

fn listen_path(worker: &Worker<'_>) -> String {
    let spec = &worker.loaded.document()["spec"];
    let key = worker.loaded.resource.worker_type().map_or("", |w| w.key);
    match spec[key]["port"].is_null() {
        true => "http.port".into(),
        false => format!("{key}.port"),
    }
}

/// Names the hops that do not keep the order that workers on both sides of them keep (R2). Worker types that keep no
/// order by themselves are ends of a path where order was never promised, so only a written `none` is reported, and a
/// transport whose failed messages come back when somebody else likes.
fn broken_order(workers: &[Worker<'_>], findings: &mut Vec<Finding>) {
    for (index, worker) in workers.iter().enumerate() {
        let own = worker.loaded.resource.worker_type().map(|w| w.ordering);
        let retry = worker.loaded.resource.settings().retry;
        let external = retry.is_some_and(|retry| retry.is_external());
        let (path, what, help) = match worker.mode {
            OrderingMode::None if own != Some(OrderingMode::None) => {
                ("ordering.mode", "keeps no order", "leave ordering out")
            }
            OrderingMode::PerUser | OrderingMode::PerQueue if external => (
                "retry.external",
                "has retries made by a failure worker, which keeps no order",
                "leave external out",
            ),
            _ => continue,
        };
        let reached = reachable(workers, index);
        let ordered = |kind: Kind| {
            reached
                .iter()
                .map(|i| &workers[*i])
                .find(|w| w.kind() == kind && w.mode != OrderingMode::None)
                .map(Worker::key)
        };
        let sides = match worker.kind() {
            Kind::Dispatcher => ordered(Kind::Transport).zip(ordered(Kind::Application)),
            Kind::Transport => ordered(Kind::Application).map(|other| (worker.key(), other)),
            Kind::Application => ordered(Kind::Transport).map(|other| (other, worker.key())),
            Kind::MetricAggregator => None,
        };
        let (message, help) = match sides {
            Some((transport, application)) => (
                format!(
                    "{what}, so the path between {transport} and {application} keeps none either"
                ),
                format!("{help} here, or set ordering to none on the whole path"),
            ),
            // Whoever keeps order at the other end may be in other files, or be Vumi's.
            None if worker.mode != OrderingMode::None => (
                format!("{what}, although this transport keeps it"),
                format!("{help}, or set ordering to none"),
            ),
            None => continue,
        };
        let mut finding = worker.finding(Severity::Warning, ORDER_BROKEN, path, message);
        finding.help = Some(help);
        findings.push(finding);
    }
}

/// Names the workers that need a state store, or do less without one than their manifest says, and leave it to the default,
/// which only the cluster knows. In one process there always is a store.
fn expected_state(workers: &[Worker<'_>], findings: &mut Vec<Finding>) {
    for worker in workers {
        let resource = &worker.loaded.resource;
        if resource.settings().state.is_some() {
            continue;
        }
        let (code, path, message) = match (resource.state_need(), resource.request_ids()) {
            ((StateNeed::None, _), None) => continue,
            ((StateNeed::None, _), Some(path)) => (
                REPEATS_UNKNOWN,
                path,
                format!(
                    "a request that comes again is recognised only with a state store, and this names none: where there is no Secret {DEFAULT_STATE_SECRET} it is another message"
                ),
            ),
            ((_, path), _) => (
                STATE_EXPECTED,
                path,
                format!(
                    "needs a state store and names none: it starts only where there is a Secret {DEFAULT_STATE_SECRET}"
                ),
            ),
        };
        let mut finding = worker.finding(Severity::Warning, code, path, message);
        finding.help =
            Some("name it: state: {redis: {secretRef: {name: …}}} or state: {volume: {}}".into());
        findings.push(finding);
    }
}

/// Workers connected with `start` by queues, through dispatchers of any number.
fn reachable(workers: &[Worker<'_>], start: usize) -> BTreeSet<usize> {
    let touches = |a: &Worker<'_>, b: &Worker<'_>| {
        a.topology
            .publishes
            .iter()
            .any(|port| b.consumes().any(|other| other == port))
            || b.topology
                .publishes
                .iter()
                .any(|port| a.consumes().any(|other| other == port))
    };
    let mut reached = BTreeSet::new();
    let mut next = vec![start];
    while let Some(from) = next.pop() {
        if from != start && workers[from].kind() != Kind::Dispatcher {
            continue;
        }
        for (index, other) in workers.iter().enumerate() {
            if index != start && !reached.contains(&index) && touches(&workers[from], other) {
                reached.insert(index);
                next.push(index);
            }
        }
    }
    reached
}
