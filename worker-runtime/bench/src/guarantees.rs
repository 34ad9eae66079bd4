//! What each guarantee costs on the hop: one worker with it and the same worker without it, alternating, on the same
//! broker. CPU is the worker's; that of RabbitMQ and Redis comes on top and shows in the rate.

use crate::AnyError;
use crate::process::{Measured, until_ready};
use crate::report::{Report, median};
use crate::rig::{ANSWERED, CLASSED, DIVIDED, ECHO, Rig, Run, SENT, Way};
use crate::wrk::{Load, load};
use std::time::Duration;
use vumi_testkit::free_port;
use vumi_testkit::redis::{Append, Options, Redis};

const DEV_NULL: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: bench-in}\nspec:\n  devNull: {}\n  transportName: bench_in\n  backlogLimit: 10000000\n";
const CLASSES: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: classes-in}\nspec:\n  devNull: {}\n  classes: {}\n  transportName: classes_in\n  backlogLimit: 10000000\n";
const DIVIDED_ECHO: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: hop}\nspec:\n  echo: {}\n  transportName: divided_in\n  ordering: {mode: perUser, partitions: 8}\n  backlogLimit: 10000000\n";
/// What a Redis of these rows survives.
pub const REDIS: &str = "Redis, `appendfsync everysec`";
/// How long an idle worker is watched: a tick of 10 ms is then 0.05 %.
const IDLE: Duration = Duration::from_secs(20);

/// Where a worker keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    None,
    Redis,
    Folder,
}

/// A worker on a hop.
struct Side {
    manifest: &'static str,
    store: Store,
    way: Way,
    /// Whether each message is noted for `vumi why`, where there is a store.
    trail: bool,
}

/// A guarantee, and the hop on which its cost shows.
struct Guarantee {
    what: &'static str,
    without: Side,
    with: Side,
    /// The queue is filled while the worker runs: for workers that need a moment before they consume.
    fed: bool,
    /// Least rate, as a share of that without.
    least: Option<f64>,
    /// Most CPU time of the worker, as a multiple of that without.
    most: Option<f64>,
}

const fn side(manifest: &'static str, store: Store, way: Way) -> Side {
    Side {
        manifest,
        store,
        way,
        trail: true,
    }
}

impl Side {
    const fn without_trail(self) -> Self {
        Self {
            trail: false,
            ..self
        }
    }

    fn manifest(&self) -> String {
        let trail = if self.trail { "" } else { NO_TRAIL };
        format!("{}{trail}", self.manifest)
    }
}

/// At the end of a manifest.
const NO_TRAIL: &str = "  retention: {trail: 0s}\n";

const GUARANTEES: &[Guarantee] = &[
    Guarantee {
        what: "ledger and write-ahead (`retention.trail: 0s`) on a `devNull` hop, Redis",
        without: side(DEV_NULL, Store::None, SENT),
        with: side(DEV_NULL, Store::Redis, SENT).without_trail(),
        fed: false,
        least: Some(0.5),
        most: None,
    },
    Guarantee {
        what: "ledger, write-ahead and trail on a `devNull` hop, Redis",
        without: side(DEV_NULL, Store::None, SENT),
        with: side(DEV_NULL, Store::Redis, SENT),
        fed: false,
        least: Some(0.5),
        most: None,
    },
    Guarantee {
        what: "ledger, write-ahead and trail on a `devNull` hop, `--state` folder",
        without: side(DEV_NULL, Store::None, SENT),
        with: side(DEV_NULL, Store::Folder, SENT),
        fed: false,
        least: None,
        most: None,
    },
    Guarantee {
        what: "idle journal (`retention.trail: 0s`) on an `echo` hop, Redis",
        without: side(ECHO, Store::None, ANSWERED),
        with: side(ECHO, Store::Redis, ANSWERED).without_trail(),
        fed: false,
        least: None,
        most: Some(1.05),
    },
    Guarantee {
        what: "idle journal and trail on an `echo` hop, Redis",
        without: side(ECHO, Store::None, ANSWERED),
        with: side(ECHO, Store::Redis, ANSWERED),
        fed: false,
        least: None,
        most: None,
    },
    Guarantee {
        what: "8 partitions in one process (one hop more) on an `echo` hop",
        without: side(ECHO, Store::None, ANSWERED),
        with: side(DIVIDED_ECHO, Store::None, DIVIDED),
        fed: true,
        least: None,
        most: None,
    },
    Guarantee {
        what: "classes (one hop more) on a `devNull` hop",
        without: side(DEV_NULL, Store::None, SENT),
        with: side(CLASSES, Store::None, CLASSED),
        fed: true,
        least: None,
        most: None,
    },
];

/// The broker and the Redis of these rows.
struct Bench {
    rig: Rig,
    redis: Redis,
}

impl Bench {
    /// A worker whose store is empty.
    async fn start(&self, side: &Side) -> Result<Measured, AnyError> {
        match side.store {
            Store::None => self.rig.worker(&side.manifest(), &[]),
            Store::Redis => {
                self.redis.cli(&["flushall"]).await?;
                self.rig
                    .worker(&side.manifest(), &["--redis", &self.redis.url(0)])
            }
            Store::Folder => in_folder(&self.rig, &side.manifest(), state_folder()?),
        }
    }

    async fn run(&self, side: &Side, guarantee: &Guarantee) -> Result<Run, AnyError> {
        let way = side.way;
        match guarantee.fed {
            true => self.rig.fed(self.start(side).await?, way).await,
            false => {
                self.rig.clear().await?;
                self.rig.publish(way.input, self.rig.bodies(way)).await?;
                let process = self.start(side).await?;
                self.rig.throughput(process, way, self.rig.messages()).await
            }
        }
    }
}

/// A folder on the disk of this program: temporary folders may be memory.
pub fn state_folder() -> Result<tempfile::TempDir, AnyError> {
    let program = crate::process::this_program()?;
    let folder = program.parent().ok_or("the program has no folder")?;
    Ok(tempfile::tempdir_in(folder)?)
}

/// A worker whose store is in a folder.
pub fn in_folder(
    rig: &Rig,
    manifest: &str,
    folder: tempfile::TempDir,
) -> Result<Measured, AnyError> {
    let path = folder.path().to_str().ok_or("a folder is not UTF-8")?;
    let manifest = format!("{manifest}  state: {{volume: {{}}}}\n");
    Ok(rig.worker(&manifest, &["--state", path])?.keeping(folder))
}

/// The rows of this file, and those of what waits and of who takes over.
pub async fn rows(report: &mut Report, runs: usize, messages: u32) -> Result<(), AnyError> {
    let redis = Redis::start(Options {
        append: Append::EverySec,
        ..Options::default()
    });
    let bench = Bench {
        rig: Rig::new(messages).await?,
        redis: redis.await?,
    };
    for guarantee in GUARANTEES {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            without.push(bench.run(&guarantee.without, guarantee).await?);
            with.push(bench.run(&guarantee.with, guarantee).await?);
        }
        compare(report, guarantee, &without, &with);
    }
    for kind in [Asked::Accepted, Asked::Answered] {
        requested(report, &bench, runs, kind).await?;
    }
    idle(report, &bench).await?;
    crate::replay::rows(report, &bench.rig, &bench.redis, messages).await?;
    crate::takeover::rows(report, &bench.rig, runs).await
}

fn compare(report: &mut Report, guarantee: &Guarantee, without: &[Run], with: &[Run]) {
    let ratio = |value: fn(&Run) -> f64| {
        let pairs = with.iter().zip(without);
        median(pairs.map(|(w, o)| value(w) / value(o)).collect())
    };
    let of = |runs: &[Run], value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
    let what = guarantee.what;
    let rate = ratio(|run| run.rate);
    report.row(
        &format!("{what}: rate × without"),
        format!(
            "{rate}; {} against {} msg/s",
            of(with, |run| run.rate),
            of(without, |run| run.rate)
        ),
        &guarantee
            .least
            .map_or("reported".into(), |least| format!("≥ {least}")),
        guarantee.least.map(|least| rate.value >= least),
    );
    let cpu = ratio(|run| run.cpu_micros);
    report.row(
        &format!("{what}: worker CPU × without"),
        format!(
            "{cpu}; {} against {} µs/message",
            of(with, |run| run.cpu_micros),
            of(without, |run| run.cpu_micros)
        ),
        &guarantee
            .most
            .map_or("reported".into(), |most| format!("≤ {most}")),
        guarantee.most.map(|most| cpu.value <= most),
    );
}

/// What requests of `httpApi` with an id each, none of them a repeat, wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// That their message is published: first-seen alone.
    Accepted,
    /// The reply of an application without a store: first-seen for the request, ledger and write-ahead for the reply.
    Answered,
}

impl Asked {
    /// The guarantee, and the hop that has it.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Accepted => (
                "first-seen",
                "of `httpApi` with `idField`, 20 connections, Redis",
            ),
            Self::Answered => (
                "first-seen, ledger and write-ahead",
                "of an HTTP round trip through `echo`, 20 connections, Redis",
            ),
        }
    }
}

/// Such requests without a store, with what is guaranteed alone, and with the trail.
async fn requested(
    report: &mut Report,
    bench: &Bench,
    runs: usize,
    asked: Asked,
) -> Result<(), AnyError> {
    let mut seen = [const { Vec::new() }; 3];
    for run in 0..runs {
        for (side, (store, trail)) in [
            (Store::None, true),
            (Store::Redis, false),
            (Store::Redis, true),
        ]
        .into_iter()
        .enumerate()
        {
            bench.rig.clear().await?;
            seen[side].push(requests(bench, asked, store, trail, run).await?);
        }
    }
    let [without, alone, with_trail] = seen;
    let (guarantee, what) = asked.words();
    for (name, with, budget) in [
        (
            format!("{guarantee} (`retention.trail: 0s`)"),
            alone,
            Some(0.5),
        ),
        (format!("{guarantee}, and trail"), with_trail, None),
    ] {
        let text = |of: fn(&Load) -> f64, unit: &str| {
            let all = |side: &[Load]| side.iter().map(of).collect::<Vec<f64>>();
            let (with, without) = (all(&with), all(&without));
            let pairs = with.iter().zip(&without);
            let ratio = median(pairs.map(|(with, without)| with / without).collect());
            let text = format!(
                "{ratio}; {} against {} {unit}",
                median(with),
                median(without)
            );
            (ratio.value, text)
        };
        let (ratio, rates) = text(|load| load.rate, "requests/s");
        report.row(
            &format!("{name} {what}: rate × without"),
            rates,
            if budget.is_some() {
                "≥ 0.5"
            } else {
                "reported"
            },
            budget.map(|least| ratio >= least),
        );
        let (_, cpu) = text(|load| load.cpu_micros, "µs/request");
        report.row(
            &format!("{name} {what}: worker CPU × without"),
            cpu,
            "reported",
            None,
        );
    }
    Ok(())
}

/// One run of requests.
async fn requests(
    bench: &Bench,
    asked: Asked,
    store: Store,
    trail: bool,
    run: usize,
) -> Result<Load, AnyError> {
    let port = free_port()?;
    let waits = asked == Asked::Answered;
    let trail = if trail { "" } else { NO_TRAIL };
    let manifest = format!(
        "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: bench-in}}\nspec:\n  httpApi: {{idField: id, replyExpected: {waits}}}\n  http: {{host: 127.0.0.1, port: {port}, path: /rpc}}\n  transportName: bench_in\n  backlogLimit: 10000000\n{trail}"
    );
    let redis = bench.redis.url(0);
    let arguments: &[&str] = match store {
        Store::Redis => &["--redis", &redis],
        _ => &[],
    };
    bench.redis.cli(&["flushall"]).await?;
    let process = bench.rig.worker(&manifest, arguments)?;
    let echo = match asked {
        Asked::Accepted => None,
        Asked::Answered => Some(bench.rig.worker(ECHO, &[])?),
    };
    until_ready(port, "/health").await?;
    // It listens before it has reached its store.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let path = "/rpc?content=hello&to_addr=12345";
    let seen = load(&[&process], port, path, Some(&run.to_string()), 5).await?;
    process.stop().await;
    if let Some(echo) = echo {
        echo.stop().await;
    }
    match seen.errors {
        Some(errors) => Err(format!("httpApi refused requests: {errors}").into()),
        None => Ok(seen),
    }
}

/// Workers with nothing to do, beside each other, with a store and without.
async fn idle(report: &mut Report, bench: &Bench) -> Result<(), AnyError> {
    bench.redis.cli(&["flushall"]).await?;
    let echo = |name: &str| ECHO.replace("bench_in", name);
    let redis = bench.redis.url(0);
    let sides = [
        bench
            .rig
            .worker(&echo("idle_redis"), &["--redis", &redis])?,
        in_folder(&bench.rig, &echo("idle_folder"), state_folder()?)?,
        bench.rig.worker(&echo("idle_none"), &[])?,
    ];
    tokio::time::sleep(Duration::from_secs(5)).await;
    let began: Vec<f64> = sides.iter().map(Measured::cpu).collect();
    tokio::time::sleep(IDLE).await;
    let share = |n: usize| (sides[n].cpu() - began[n]) * 100.0 / IDLE.as_secs_f64();
    let (redis, folder, none) = (share(0), share(1), share(2));
    report.row(
        "idle `echo` worker with a journal, CPU of one core",
        format!("Redis {redis:.2} %, `--state` folder {folder:.2} %; without a store {none:.2} %"),
        "< 5 %",
        Some(redis < 5.0 && folder < 5.0),
    );
    let memory = |n: usize| sides[n].rss();
    report.row(
        "idle `echo` worker with a journal, RSS",
        format!(
            "Redis {:.1} MiB, `--state` folder {:.1} MiB; without a store {:.1} MiB",
            memory(0),
            memory(1),
            memory(2)
        ),
        "reported",
        None,
    );
    for side in sides {
        side.stop().await;
    }
    Ok(())
}
