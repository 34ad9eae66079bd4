//! `make bench-operator`: the operator before a real API server with its etcd, and a real RabbitMQ. There is no kubelet: the
//! resources are scaled to zero, so that the operator alone works.

use crate::AnyError;
use crate::process::{Measured, beside, spawn_with};
use crate::report::{Report, write_between_markers};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vumi_api::Kind;
use vumi_api::crds::API_VERSION;
use vumi_testkit::kubernetes::ApiServer;
use vumi_testkit::rabbitmq::{Options as Broker, RabbitMq, Version};

/// Namespace of the resources.
const NAMESPACE: &str = "bench";
/// Kinds of the resources.
const KINDS: [Kind; 3] = [Kind::Transport, Kind::Application, Kind::Dispatcher];
/// Requests at one time that make resources.
const AT_ONCE: usize = 16;
/// With nothing written for so long, everything is told that there is to tell.
const CALM: Duration = Duration::from_secs(30);
/// How long anything may take at most.
const PATIENCE: Duration = Duration::from_secs(900);
/// Between two looks at what is awaited.
const LOOK: Duration = Duration::from_millis(20);

/// What is measured, and for how long.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// How many resources; several numbers are measured one after the other
    #[arg(long, value_delimiter = ',', default_value = "1000,5000")]
    resources: Vec<usize>,
    /// For so many seconds it is counted what is written while nothing happens
    #[arg(long, default_value_t = 300)]
    idle: u64,
    /// Replace the table of the operator in this Markdown file (between its two marker lines)
    #[arg(long)]
    write: Option<PathBuf>,
}

/// The verdict over a size or a time. An unoptimized build, beside which other things run in CI, is not judged by it.
fn met(holds: bool) -> Option<bool> {
    (!cfg!(debug_assertions)).then_some(holds)
}

/// Measures and prints the table. A budget that is not met is an error, after that.
pub async fn run(options: Options) -> Result<(), AnyError> {
    let broker = Broker {
        management: true,
        ..Broker::default()
    };
    let Some(rabbit) = RabbitMq::start_or_skip(Version::V4_0, broker).await else {
        return Err("RabbitMQ 4.0 is not installed: run scripts/setup test".into());
    };
    let mut report = Report::new(&format!(
        "API server, etcd, RabbitMQ and operator share it. One run; idle for {} s.",
        options.idle
    ));
    for count in &options.resources {
        let bench = Bench::start(&rabbit, *count).await?;
        bench.measure(&mut report, options.idle).await?;
    }
    let table = report.to_markdown();
    println!("{table}");
    if let Some(path) = options.write {
        write_between_markers(&path, "operator", &table)?;
        println!("written to {}", path.display());
    }
    report.all_met()
}

/// A resource without pods, and its kind. As in clusters of users, they are of several types, and differ in names, ports and
/// texts.
fn resource(number: usize, management: &str) -> (Kind, Value) {
    let here = format!("transport-{number}");
    let port = 10_000 + number;
    let (kind, name, mut spec) = match number % 6 {
        0 => (
            Kind::Application,
            "echo",
            json!({"echo": {}, "transportName": here}),
        ),
        1 => (
            Kind::Transport,
            "telnet",
            json!({"telnet": {"port": port}, "transportName": here}),
        ),
        2 => (
            Kind::Application,
            "static-reply",
            json!({"staticReply": {"text": format!("Clinic {number} is open from 8 to 16.")}, "transportName": here}),
        ),
        3 => (
            Kind::Transport,
            "http-rpc",
            json!({"httpRpc": {}, "http": {"port": port}, "transportName": here}),
        ),
        4 => (
            Kind::Dispatcher,
            "simple",
            json!({"simple": {"transports": [here], "exposed": [format!("application-{number}")]}}),
        ),
        _ => (
            Kind::Application,
            "http-relay",
            json!({"httpRelay": {"url": format!("https://campaigns.example/{number}")}, "transportName": here}),
        ),
    };
    spec["replicas"] = json!(0);
    spec["broker"] = json!({
        "secretRef": {"name": "vumi-broker"},
        "management": {"url": management},
    });
    let object = json!({
        "apiVersion": API_VERSION,
        "kind": kind.as_str(),
        "metadata": {"name": format!("{name}-{number}")},
        "spec": spec,
    });
    (kind, object)
}

fn place(kind: Kind) -> String {
    format!(
        "/apis/{API_VERSION}/namespaces/{NAMESPACE}/{}",
        kind.plural()
    )
}

/// One API server and the operators before it.
struct Bench {
    _server: ApiServer,
    client: kube::Client,
    folder: tempfile::TempDir,
    count: usize,
}

/// An operator, and the port of its metrics.
struct Operator {
    process: Measured,
    port: u16,
    began: Instant,
}

impl Bench {
    async fn start(rabbit: &RabbitMq, count: usize) -> Result<Self, AnyError> {
        let server = tokio::task::spawn_blocking(ApiServer::start).await??;
        let folder = tempfile::tempdir()?;
        std::fs::write(
            folder.path().join("kubeconfig"),
            server.kubeconfig(NAMESPACE),
        )?;
        for definition in vumi_api::crds::crds() {
            server.establish(&definition)?;
        }
        for object in [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
            json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "vumi-broker", "namespace": NAMESPACE},
                "stringData": {"connection_string": rabbit.url("/")},
            }),
        ] {
            let (status, answer) = server.apply_object(&object)?;
            if status >= 300 {
                return Err(format!("{object}: {status} {}", answer["message"]).into());
            }
        }
        let mut config = kube::Config::new(server.url().parse()?);
        config.accept_invalid_certs = true;
        config.auth_info.token = Some(server.token().to_owned().into());
        let client = kube::Client::try_from(config)?;
        let bench = Self {
            _server: server,
            client,
            folder,
            count,
        };
        bench.make(rabbit).await?;
        Ok(bench)
    }

    /// Makes the resources.
    async fn make(&self, rabbit: &RabbitMq) -> Result<(), AnyError> {
        let management = rabbit.management_url();
        let made = stream::iter(0..self.count).map(|number| {
            let (kind, object) = resource(number, &management);
            let path = place(kind);
            let request = http::Request::post(&path)
                .header("content-type", "application/json")
                .body(object.to_string().into_bytes());
            let client = self.client.clone();
            async move {
                client.request_text(request?).await?;
                Ok::<_, AnyError>(())
            }
        });
        made.buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        eprintln!("{} resources are there", self.count);
        Ok(())
    }

    /// Starts an operator of its own lease.
    fn operator(&self, lease: &str, watched: &str) -> Result<Operator, AnyError> {
        let port = vumi_testkit::free_port()?;
        let kubeconfig = self.folder.path().join("kubeconfig");
        let admin = format!("127.0.0.1:{port}");
        let arguments = [
            "--admin",
            &admin,
            "--lease-namespace",
            NAMESPACE,
            "--lease-name",
            lease,
            "--namespace",
            watched,
            "--log-level",
            "warn",
        ];
        let began = Instant::now();
        let process = spawn_with(
            &beside("vumi-operator")?,
            &arguments,
            &[("KUBECONFIG", kubeconfig.as_os_str())],
            None,
        )?;
        Ok(Operator {
            process,
            port,
            began,
        })
    }

    async fn measure(&self, report: &mut Report, idle: u64) -> Result<(), AnyError> {
        let count = self.count;
        let what = |text: &str| format!("{count} resources: {text}");
        // One that has nothing to do, since nothing is in that namespace.
        let empty = self.operator("empty", "default")?;
        empty.until("lead", |m| m.leads()).await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let rss = empty.process.rss();
        empty.process.stop().await;
        report.row(
            "an operator without resources, RSS",
            format!("{rss:.1} MiB"),
            "≤ 25 MB",
            met(rss * 1.048_576 <= 25.0),
        );

        let first = self.operator("vumi-operator", NAMESPACE)?;
        let wanted = count as f64;
        first
            .until("write all statuses", |m| {
                m.sum("vumi_operator_writes_total", &["reason=\"status\""]) >= wanted
            })
            .await?;
        // So many writes may be two for one resource and none for another.
        while let Err(missing) = self.all_are_told().await {
            if first.began.elapsed() > PATIENCE {
                return Err(missing);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let converged = first.began.elapsed().as_secs_f64();
        let budget = count <= 1000;
        report.row(
            &what("from exec until all statuses are written"),
            format!("{converged:.1} s"),
            if budget { "≤ 30 s" } else { "reported" },
            met(converged <= 30.0).filter(|_| budget),
        );
        first.calm().await?;
        let metrics = first.metrics().await?;
        let calls = metrics.sum("vumi_operator_api_calls_total", &[]);
        report.row(
            &what("calls to the API server for each, from exec on until nothing is left to tell"),
            format!(
                "{:.2}, of these {:.2} writes",
                calls / wanted,
                metrics.writes() / wanted
            ),
            "reported",
            None,
        );
        let before = metrics.writes();
        tokio::time::sleep(Duration::from_secs(idle)).await;
        let metrics = first.metrics().await?;
        let written = metrics.writes() - before;
        report.row(
            &what(&format!(
                "writes in {idle} s in which nothing happens, the Lease excepted"
            )),
            format!("{written}"),
            "0",
            Some(written == 0.0),
        );
        let rss = first.process.rss();
        report.row(
            &what("RSS after that"),
            format!("{rss:.1} MiB"),
            "≤ 60 MB",
            met(rss * 1.048_576 <= 60.0),
        );
        report.row(
            &what("the most RSS until then"),
            format!("{:.1} MiB", first.process.peak()),
            "reported",
            None,
        );
        self.failover(report, first).await
    }

    /// Every resource has a status of its last edit, and is ready with no pods.
    async fn all_are_told(&self) -> Result<(), AnyError> {
        let mut told = 0;
        for kind in KINDS {
            told += self.are_told(kind).await?;
        }
        match told == self.count {
            true => Ok(()),
            false => Err(format!("{told} of {} resources are there", self.count).into()),
        }
    }

    /// How many resources of a kind there are; an error if one is not told.
    async fn are_told(&self, kind: Kind) -> Result<usize, AnyError> {
        let mut next = String::new();
        let mut told = 0;
        loop {
            let path = format!("{}?limit=500{next}", place(kind));
            let request = http::Request::get(&path).body(Vec::new())?;
            let page: Value = self.client.request(request).await?;
            for one in page["items"].as_array().into_iter().flatten() {
                let conditions = one["status"]["conditions"].as_array();
                let mut conditions = conditions.into_iter().flatten();
                let ready = conditions.find(|condition| condition["type"] == "Ready");
                let is = one["status"]["observedGeneration"] == one["metadata"]["generation"]
                    && ready.is_some_and(|ready| {
                        ready["status"] == "True" && ready["reason"] == "ScaledToZero"
                    });
                if !is {
                    let name = &one["metadata"]["name"];
                    return Err(format!("{name} is not told: {}", one["status"]).into());
                }
                told += 1;
            }
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => next = format!("&continue={token}"),
                _ => return Ok(told),
            }
        }
    }

    /// How long nobody leads after the leader was killed, and after it was told to stop.
    async fn failover(&self, report: &mut Report, leader: Operator) -> Result<(), AnyError> {
        let count = self.count;
        let second = self.operator("vumi-operator", NAMESPACE)?;
        second.until("stand by", Metrics::synced).await?;
        let took = leader.replaced("KILL", &second).await?;
        report.row(
            &format!("{count} resources: from kill -9 of the leader until the other leads"),
            format!("{took:.1} s"),
            "≤ 20 s",
            met(took <= 20.0),
        );
        let third = self.operator("vumi-operator", NAMESPACE)?;
        third.until("stand by", Metrics::synced).await?;
        let took = second.replaced("TERM", &third).await?;
        report.row(
            &format!("{count} resources: from SIGTERM to the leader until the other leads"),
            format!("{took:.2} s"),
            "≤ 1 s",
            met(took <= 1.0),
        );
        third.process.stop().await;
        Ok(())
    }
}

impl Operator {
    /// Ends it with a signal. Returns the seconds from that until the other one leads.
    async fn replaced(self, signal: &str, by: &Operator) -> Result<f64, AnyError> {
        let began = Instant::now();
        self.process.signal(signal).await?;
        by.until("lead", |m| m.leads()).await?;
        let took = began.elapsed().as_secs_f64();
        self.process.stop().await;
        Ok(took)
    }

    async fn metrics(&self) -> Result<Metrics, AnyError> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await?;
        let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(Metrics(answer))
    }

    /// Waits until its metrics say something.
    async fn until(&self, what: &str, holds: impl Fn(&Metrics) -> bool) -> Result<(), AnyError> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            // It may not listen yet.
            if let Ok(metrics) = self.metrics().await
                && holds(&metrics)
            {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(format!(
            "the operator did not {what} within {} s; VUMI_BENCH_LOG=1 shows its log",
            PATIENCE.as_secs()
        )
        .into())
    }

    /// Waits until nothing is written any more.
    async fn calm(&self) -> Result<(), AnyError> {
        let deadline = Instant::now() + PATIENCE;
        let (mut written, mut since) = (f64::NAN, Instant::now());
        while Instant::now() < deadline {
            let now = self.metrics().await?.writes();
            if now != written {
                (written, since) = (now, Instant::now());
            }
            if since.elapsed() >= CALM {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Err(format!("the operator still writes after {} s", PATIENCE.as_secs()).into())
    }
}

/// What an operator says of itself, in Prometheus' text format.
struct Metrics(String);

impl Metrics {
    /// The sum of all series of a name that have these labels.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let mut sum = 0.0;
        for line in self.0.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let (own, of) = series.split_once('{').unwrap_or((series, ""));
            if own == name && labels.iter().all(|label| of.contains(label)) {
                sum += value.parse::<f64>().unwrap_or(0.0);
            }
        }
        sum
    }

    /// Calls that wrote something, those for the Lease excepted.
    fn writes(&self) -> f64 {
        let verbs = ["create", "patch", "delete", "other"];
        let all = verbs.map(|verb| {
            let verb = format!("verb=\"{verb}\"");
            let calls = "vumi_operator_api_calls_total";
            self.sum(calls, &[&verb]) - self.sum(calls, &[&verb, "resource=\"leases\""])
        });
        all.iter().sum()
    }

    fn leads(&self) -> bool {
        self.sum("vumi_operator_leading", &[]) == 1.0
    }

    fn synced(&self) -> bool {
        self.sum("vumi_operator_synced", &[]) == 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_is_no_write() {
        let metrics = Metrics(
            "vumi_operator_api_calls_total{code=\"200\",resource=\"leases\",verb=\"patch\"} 7\n\
             vumi_operator_api_calls_total{code=\"200\",resource=\"events\",verb=\"create\"} 2\n\
             vumi_operator_api_calls_total{code=\"200\",resource=\"pods\",verb=\"list\"} 5\n\
             vumi_operator_leading 1\n"
                .into(),
        );
        assert_eq!(metrics.writes(), 2.0);
        assert_eq!(metrics.sum("vumi_operator_api_calls_total", &[]), 14.0);
        assert!(metrics.leads() && !metrics.synced());
    }
}
