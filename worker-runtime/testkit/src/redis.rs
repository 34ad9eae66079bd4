//! A real Redis for one test: own port, own folder, and if wanted a password, TLS, Cluster mode or sentinels beside it.
//! It ends with its owner: a small launcher kills it when the pipe to the test process closes, however that happens.

use crate::launcher::{self, is_running, send_signal};
use crate::{certificates, free_port};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Redis starts in milliseconds; machines that run tests are busy.
const START: Duration = Duration::from_secs(60);
const SERVER: &str = "redis-server";
const PID: &str = "redis.pid";
const MASTER: &str = "main";

/// Why a Redis could not be started or told something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `redis-server`.
    #[error("redis-server is not installed: run scripts/setup test")]
    NotInstalled,
    /// A file, process or socket failed.
    #[error("{0}: {1}")]
    Io(&'static str, #[source] std::io::Error),
    /// It did not start, or a command failed; with what it said.
    #[error("{0}")]
    Failed(String),
}

/// When the append-only file is brought to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Append {
    /// There is none.
    #[default]
    Off,
    /// Whenever the system likes.
    No,
    /// Once a second.
    EverySec,
    /// Before each answer.
    Always,
}

/// What is unusual about the server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The append-only file.
    pub append: Append,
    /// Password of the user `default`.
    pub password: Option<String>,
    /// Listen for TLS alone, with a certificate of a private authority made for this server.
    pub tls: bool,
    /// Cluster mode.
    pub cluster: bool,
    /// Further lines of its configuration.
    pub lines: Vec<String>,
}

/// A running Redis. Dropping it kills it and removes its folder.
pub struct Redis {
    options: Options,
    mode: &'static str,
    port: u16,
    folder: TempDir,
    launcher: Option<Child>,
}

impl Redis {
    /// Starts a server and waits until it answers.
    pub async fn start(options: Options) -> Result<Self, Error> {
        Self::start_as(options, "").await
    }

    /// Like [`Redis::start`] for a test: none, said loudly and counted, if nothing is installed.
    ///
    /// # Panics
    /// If it is installed and does not start.
    pub async fn start_or_skip(options: Options) -> Option<Self> {
        skipped(Self::start(options).await)
    }

    async fn start_as(options: Options, mode: &'static str) -> Result<Self, Error> {
        let mut last = None;
        // A port that was free may be taken by another test before the server listens: start over with another one.
        for _ in 0..3 {
            let folder = tempfile::Builder::new()
                .prefix("vumi-redis-")
                .tempdir()
                .map_err(|e| Error::Io("no temporary folder", e))?;
            if options.tls {
                certificates::make(&folder.path().join("tls"))
                    .await
                    .map_err(|e| Error::Failed(e.to_string()))?;
            }
            let mut redis = Self {
                port: free_port().map_err(|e| Error::Io("no free port", e))?,
                options: options.clone(),
                mode,
                folder,
                launcher: None,
            };
            redis.configure()?;
            match redis.run().await {
                Ok(()) => return Ok(redis),
                Err(Error::NotInstalled) => return Err(Error::NotInstalled),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Failed("Redis was not started".into())))
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// URL of a database as user `default`.
    pub fn url(&self, db: u16) -> String {
        let scheme = if self.options.tls { "rediss" } else { "redis" };
        let password = self.options.password.as_ref();
        let who = password.map_or(String::new(), |password| format!(":{password}@"));
        format!("{scheme}://{who}localhost:{}/{db}", self.port)
    }

    /// The authority (PEM file) that signed the certificate. Only with [`Options::tls`].
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("tls/ca.pem")
    }

    /// Stops the server in order; its data stays.
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.end("TERM").await
    }

    /// Kills the server; its data stays as it is.
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.end("KILL").await
    }

    /// Starts the server again on the same port and data.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.run().await
    }

    /// Stops the server's clock, as it were: it holds its connections and does nothing.
    pub async fn freeze(&self) -> Result<(), Error> {
        self.signal("STOP").await
    }

    /// Lets a frozen server go on.
    pub async fn thaw(&self) -> Result<(), Error> {
        self.signal("CONT").await
    }

    /// Runs `redis-cli` with one command in database 0, as user `default`; what it printed, without the last line end.
    pub async fn cli(&self, arguments: &[&str]) -> Result<String, Error> {
        let mut command = Command::new("redis-cli");
        command.args([
            "-h",
            "localhost",
            "-p",
            &self.port.to_string(),
            "--no-auth-warning",
        ]);
        if let Some(password) = &self.options.password {
            command.env("REDISCLI_AUTH", password);
        }
        if self.options.tls {
            command.arg("--tls").arg("--cacert").arg(self.ca_file());
        }
        // A frozen server never answers.
        let output = timeout(START, command.args(arguments).kill_on_drop(true).output())
            .await
            .map_err(|_| Error::Failed(format!("redis-cli {arguments:?} gets no answer")))?
            .map_err(|e| Error::Io("redis-cli cannot be started", e))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(Error::Failed(format!("redis-cli: {said}{errors}")));
        }
        Ok(said.trim_end_matches('\n').to_owned())
    }

    /// The files to which it appends what is written, with their sizes now.
    pub fn append_files(&self) -> std::io::Result<Vec<(PathBuf, u64)>> {
        let mut found = Vec::new();
        // Since version 7 they have a folder of their own.
        for folder in [
            self.folder.path().to_owned(),
            self.folder.path().join("appendonlydir"),
        ] {
            if !folder.is_dir() {
                continue;
            }
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.extension().is_some_and(|end| end == "aof") {
                    let size = std::fs::metadata(&path)?.len();
                    found.push((path, size));
                }
            }
        }
        Ok(found)
    }

    /// The end of the server's log, for a failing test.
    pub fn log(&self) -> String {
        launcher::log(self.folder.path())
    }

    fn configure(&self) -> Result<(), Error> {
        let folder = self.folder.path().display();
        let mut conf =
            format!("bind 127.0.0.1\ndir {folder}\nsave \"\"\ndaemonize no\nprotected-mode no\n");
        let mut line = |text: String| {
            conf.push_str(&text);
            conf.push('\n');
        };
        match self.options.tls {
            false => line(format!("port {}", self.port)),
            true => line(format!(
                "port 0\ntls-port {}\ntls-auth-clients no\ntls-cert-file {folder}/tls/server.pem\n\
                 tls-key-file {folder}/tls/server.key\ntls-ca-cert-file {folder}/tls/ca.pem",
                self.port
            )),
        }
        match self.options.append {
            Append::Off => {}
            Append::No => line("appendonly yes\nappendfsync no".into()),
            Append::EverySec => line("appendonly yes\nappendfsync everysec".into()),
            Append::Always => line("appendonly yes\nappendfsync always".into()),
        }
        if let Some(password) = &self.options.password {
            line(format!("requirepass {password}"));
        }
        if self.options.cluster {
            line("cluster-enabled yes".into());
        }
        for text in &self.options.lines {
            line(text.clone());
        }
        std::fs::write(self.folder.path().join("redis.conf"), conf)
            .map_err(|e| Error::Io("writing the server's config", e))
    }

    async fn run(&mut self) -> Result<(), Error> {
        if !installed().await {
            return Err(Error::NotInstalled);
        }
        let folder = self.folder.path();
        let mut command = Command::new(SERVER);
        command.arg(folder.join("redis.conf"));
        if !self.mode.is_empty() {
            command.arg(self.mode);
        }
        let launched = launcher::launch(command, folder, PID, "alone");
        self.launcher = Some(launched.map_err(|e| Error::Io("Redis cannot be started", e))?);
        let deadline = Instant::now() + START;
        loop {
            let answer = self.cli(&["ping"]).await;
            if answer.as_deref().is_ok_and(|answer| answer == "PONG") {
                return Ok(());
            }
            // Not yet written means still starting.
            let dead = self.pid().is_some_and(|pid| !is_running(pid));
            if dead || Instant::now() > deadline {
                return Err(Error::Failed(format!(
                    "Redis does not answer on port {}: {answer:?}\n{}",
                    self.port,
                    self.log()
                )));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn pid(&self) -> Option<u32> {
        launcher::pid(self.folder.path(), PID)
    }

    async fn signal(&self, signal: &str) -> Result<(), Error> {
        match self.pid() {
            Some(pid) if send_signal(signal, pid).await => Ok(()),
            _ => Err(Error::Failed("Redis does not run".into())),
        }
    }

    async fn end(&mut self, signal: &str) -> Result<(), Error> {
        let Some(mut launcher) = self.launcher.take() else {
            return Ok(());
        };
        if let Some(pid) = self.pid() {
            send_signal(signal, pid).await;
            let deadline = Instant::now() + START;
            while is_running(pid) {
                if Instant::now() > deadline {
                    return Err(Error::Failed(format!(
                        "Redis does not stop:\n{}",
                        self.log()
                    )));
                }
                sleep(Duration::from_millis(5)).await;
            }
        }
        if let Some(mut told) = launcher.stdin.take() {
            let _ = told.write_all(b"keep").await;
        }
        let _ = timeout(START, launcher.wait()).await;
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(launcher) = self.launcher.take() {
            launcher::end(launcher);
        }
    }
}

/// A master, a replica and three sentinels that watch them.
pub struct Sentinels {
    /// The two servers; the first is the master at the beginning.
    pub servers: [Redis; 2],
    sentinels: Vec<Redis>,
}

impl Sentinels {
    /// Starts all five and waits until the sentinels know each other and the replica. Servers are alike.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let master = Redis::start(options.clone()).await?;
        let port = master.port();
        let mut replica = options.clone();
        replica.lines.push(format!("replicaof 127.0.0.1 {port}"));
        if let Some(password) = &options.password {
            replica.lines.push(format!("masterauth {password}"));
        }
        let replica = Redis::start(replica).await?;
        if let Some(password) = &options.password {
            master
                .cli(&["config", "set", "masterauth", password])
                .await?;
        }
        let mut lines = vec![
            format!("sentinel monitor {MASTER} 127.0.0.1 {port} 2"),
            format!("sentinel down-after-milliseconds {MASTER} 1500"),
            format!("sentinel failover-timeout {MASTER} 10000"),
        ];
        if let Some(password) = &options.password {
            lines.push(format!("sentinel auth-pass {MASTER} {password}"));
        }
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let options = Options {
                lines: lines.clone(),
                ..Options::default()
            };
            sentinels.push(Redis::start_as(options, "--sentinel").await?);
        }
        let started = Self {
            servers: [master, replica],
            sentinels,
        };
        started.know_each_other().await?;
        Ok(started)
    }

    /// Like [`Sentinels::start`] for a test: none, said loudly and counted, if nothing is installed.
    ///
    /// # Panics
    /// If it is installed and does not start.
    pub async fn start_or_skip(options: Options) -> Option<Self> {
        skipped(Self::start(options).await)
    }

    /// `host:port` of each sentinel, separated by commas.
    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port()))
            .collect();
        addresses.join(",")
    }

    /// Name of the master.
    pub fn master_name(&self) -> &'static str {
        MASTER
    }

    /// The port of the master as the first sentinel knows it.
    pub async fn master_port(&self) -> Result<u16, Error> {
        let answer = self.sentinels[0]
            .cli(&["sentinel", "get-master-addr-by-name", MASTER])
            .await?;
        let port = answer.lines().last().and_then(|port| port.parse().ok());
        port.ok_or_else(|| Error::Failed(format!("no master: {answer}")))
    }

    async fn know_each_other(&self) -> Result<(), Error> {
        let deadline = Instant::now() + START;
        for sentinel in &self.sentinels {
            loop {
                let told = sentinel.cli(&["sentinel", "master", MASTER]).await?;
                let lines: Vec<&str> = told.lines().collect();
                let value = |name: &str| {
                    let at = lines.iter().position(|line| *line == name);
                    at.and_then(|at| lines.get(at + 1))
                        .copied()
                        .unwrap_or_default()
                };
                if value("num-slaves") == "1" && value("num-other-sentinels") == "2" {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(Error::Failed(format!("sentinels are apart:\n{told}")));
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }
}

fn skipped<T>(started: Result<T, Error>) -> Option<T> {
    match started {
        Ok(started) => Some(started),
        Err(error @ Error::NotInstalled) => {
            crate::skip(&error.to_string());
            None
        }
        Err(error) => panic!("Redis does not start: {error}"),
    }
}

async fn installed() -> bool {
    let version = Command::new(SERVER).arg("--version").output().await;
    version.is_ok_and(|output| output.status.success())
}
