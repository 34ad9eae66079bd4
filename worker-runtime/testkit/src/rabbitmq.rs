//! A real RabbitMQ for one test or one test binary: own ports, own node name, own Erlang port mapper, own folder.
//! It ends with its owner: a small launcher kills it when the pipe to the test process closes, however that happens.

mod tls;

use crate::free_port;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Versions that tests run against; `scripts/rabbitmq install` provides both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// 3.10, as Debian 12 ships it.
    V3_10,
    /// 4.0, as Debian 13 ships it.
    V4_0,
}

impl Version {
    /// As in `scripts/rabbitmq path VERSION`.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V3_10 => "3.10",
            Version::V4_0 => "4.0",
        }
    }
}

/// Why a broker could not be started or told something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to start; what `scripts/rabbitmq` said.
    #[error("{0}")]
    NotInstalled(String),
    /// A file, process or socket failed.
    #[error("{0}: {1}")]
    Io(&'static str, #[source] std::io::Error),
    /// It did not start, or a command failed; with what it said.
    #[error("{0}")]
    Failed(String),
}

/// What is unusual about the broker.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Also listen for TLS, with a certificate of a private authority made for this broker.
    pub tls: bool,
    /// Close channels that hold a delivery longer than this. RabbitMQ looks once per channel tick, which is shortened
    /// to a fifth of it.
    pub consumer_timeout: Option<Duration>,
}

/// A running RabbitMQ. Dropping it kills it and removes its folder.
pub struct RabbitMq {
    version: Version,
    options: Options,
    software: PathBuf,
    folder: TempDir,
    ports: Ports,
    port_mapper: Option<Child>,
    broker: Option<Child>,
}

#[derive(Clone, Copy)]
struct Ports {
    amqp: u16,
    tls: u16,
    distribution: u16,
    mapper: u16,
}

impl Ports {
    fn pick() -> Result<Self, Error> {
        let port = || free_port().map_err(|e| Error::Io("no free port", e));
        Ok(Self {
            amqp: port()?,
            tls: port()?,
            distribution: port()?,
            mapper: port()?,
        })
    }
}

/// Runs a command in the background until standard input ends, that is until the test process is gone or lets go. First
/// argument: folder; second: file in it for the process id; third: `last` waits for the broker and removes the folder.
const LAUNCHER: &str = r#"folder=$1; file=$2; order=$3; shift 3
"$@" </dev/null & pid=$!
echo $pid >"$folder/$file"
cat >/dev/null
kill -9 $pid; wait $pid
if [ "$order" = last ]; then
  while kill -0 "$(cat "$folder/broker.pid")"; do sleep 0.05; done 2>/dev/null
  rm -rf "$folder"
fi"#;
const NODE: &str = "rabbit@localhost";
const COOKIE: &str = "testkit";
/// Erlang takes seconds to start where several brokers share two cores.
const START: Duration = Duration::from_secs(90);

impl RabbitMq {
    /// Starts a broker with default options and waits until it serves AMQP.
    pub async fn start(version: Version) -> Result<Self, Error> {
        Self::start_with(version, Options::default()).await
    }

    /// Starts a broker and waits until it serves AMQP.
    pub async fn start_with(version: Version, options: Options) -> Result<Self, Error> {
        let software = software(version)?;
        let mut last = None;
        // A port that was free may be taken by another test before the broker listens: start over with others.
        for _ in 0..3 {
            let folder = tempfile::Builder::new()
                .prefix("vumi-rabbitmq-")
                .tempdir()
                .map_err(|e| Error::Io("no temporary folder", e))?;
            let mut broker = Self {
                version,
                options: options.clone(),
                software: software.clone(),
                folder,
                ports: Ports::pick()?,
                port_mapper: None,
                broker: None,
            };
            broker.configure().await?;
            match broker.run().await {
                Ok(()) => return Ok(broker),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Failed("RabbitMQ was not started".into())))
    }

    /// Like [`RabbitMq::start_with`] for a test: none, said loudly and counted, if nothing is installed.
    ///
    /// # Panics
    /// If it is installed and does not start.
    pub async fn start_or_skip(version: Version, options: Options) -> Option<Self> {
        match Self::start_with(version, options).await {
            Ok(broker) => Some(broker),
            Err(Error::NotInstalled(reason)) => {
                crate::skip(&reason);
                None
            }
            Err(error) => panic!("RabbitMQ {} does not start: {error}", version.as_str()),
        }
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Port of plain AMQP on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// Port of AMQP over TLS; the certificate names `localhost` and 127.0.0.1. Only with [`Options::tls`].
    pub fn tls_port(&self) -> u16 {
        self.ports.tls
    }

    /// The authority (PEM file) that signed the certificate. Only with [`Options::tls`].
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("tls/ca.pem")
    }

    /// URL of a virtual host as user `guest`.
    pub fn url(&self, vhost: &str) -> String {
        self.url_as("guest", "guest", vhost)
    }

    /// URL of a virtual host as another user.
    pub fn url_as(&self, user: &str, password: &str, vhost: &str) -> String {
        let vhost = vhost.replace('/', "%2f");
        format!(
            "amqp://{user}:{password}@127.0.0.1:{}/{vhost}",
            self.ports.amqp
        )
    }

    /// Adds a virtual host that `guest` may use, and sets its default queue type (4.0 only; 3.10 has none).
    pub async fn add_vhost(
        &self,
        name: &str,
        default_queue_type: Option<&str>,
    ) -> Result<(), Error> {
        let metadata = match default_queue_type {
            Some(kind) if self.version == Version::V4_0 => {
                format!(
                    "#{{default_queue_type => <<\"{kind}\">>, description => <<>>, tags => []}}"
                )
            }
            _ => "#{description => <<>>, tags => []}".into(),
        };
        self.eval(&format!(
            "ok = rabbit_vhost:add(<<\"{name}\">>, {metadata}, <<\"testkit\">>), \
             ok = rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, <<\"{name}\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"testkit\">>)"
        ))
        .await?;
        Ok(())
    }

    /// Runs `rabbitmqctl` and returns what it printed. Takes a second or two; [`RabbitMq::eval`] takes milliseconds.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String, Error> {
        let program = self.sbin()?.join("rabbitmqctl");
        self.output(
            self.command(&program)
                .arg("-n")
                .arg(NODE)
                .arg("-q")
                .args(arguments),
        )
        .await
    }

    /// Evaluates Erlang expressions inside the broker and returns the printed result.
    pub async fn eval(&self, expressions: &str) -> Result<String, Error> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.eval_once(expressions).await {
                // Under load the broker is sometimes too slow for erl_call's own patience.
                Err(Error::Failed(why))
                    if why.contains("failed to connect to node") && Instant::now() < deadline =>
                {
                    sleep(Duration::from_millis(200)).await;
                }
                answer => return answer,
            }
        }
    }

    async fn eval_once(&self, expressions: &str) -> Result<String, Error> {
        let program = self.erlang().join("erl_call");
        let mut command = self.command(&program);
        command
            .args(["-n", NODE, "-c", COOKIE, "-e"])
            .stdin(Stdio::piped());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Error::Io("erl_call cannot be started", e))?;
        if let Some(mut input) = child.stdin.take() {
            // It reads only once it is connected; if it gives up before, its answer says why.
            let _ = input
                .write_all(format!("{expressions}.\n").as_bytes())
                .await;
        }
        let output = timeout(Duration::from_secs(60), child.wait_with_output())
            .await
            .map_err(|_| Error::Failed("the broker did not answer erl_call within 60 s".into()))?
            .map_err(|e| Error::Io("erl_call", e))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match said.strip_prefix("{ok, ").and_then(|s| s.strip_suffix('}')) {
            Some(value) if output.status.success() => Ok(value.to_owned()),
            _ => Err(Error::Failed(format!(
                "erl_call failed: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            ))),
        }
    }

    /// Closes every client connection from the broker's side.
    pub async fn close_connections(&self) -> Result<(), Error> {
        self.eval("[rabbit_networking:close_connection(P, \"closed by the test\") || P <- rabbit_networking:connections()], ok")
            .await?;
        Ok(())
    }

    /// Raises or clears the memory alarm: with it, the broker reads nothing from connections that publish.
    pub async fn memory_alarm(&self, raised: bool) -> Result<(), Error> {
        let watermark = if raised { "0.000001" } else { "0.6" };
        self.eval(&format!(
            "vm_memory_monitor:set_vm_memory_high_watermark({watermark})"
        ))
        .await?;
        Ok(())
    }

    /// Stops the broker in order; its data stays.
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.signal("TERM").await
    }

    /// Kills the broker; its data stays as it is. A queue declared in the last two seconds may be forgotten by 3.10.
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.signal("KILL").await
    }

    /// Starts the broker again on the same ports and data.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.run().await
    }

    /// The end of the broker's log, for a failing test.
    pub fn log(&self) -> String {
        let log =
            std::fs::read_to_string(self.folder.path().join("output.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    fn erlang(&self) -> PathBuf {
        self.software.join("usr/lib/erlang/bin")
    }

    fn sbin(&self) -> Result<PathBuf, Error> {
        let library = self.software.join("usr/lib/rabbitmq/lib");
        let entries = std::fs::read_dir(&library).map_err(|e| Error::Io("RabbitMQ's folder", e))?;
        entries
            .flatten()
            .map(|entry| entry.path().join("sbin"))
            .find(|path| path.is_dir())
            .ok_or_else(|| Error::Failed(format!("no RabbitMQ in {}", library.display())))
    }

    async fn configure(&self) -> Result<(), Error> {
        let folder = self.folder.path();
        let mut conf = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\ndisk_free_limit.absolute = 1MB\nlog.file = false\nlog.console = true\nlog.console.level = info\n",
            self.ports.amqp
        );
        if self.options.tls {
            tls::make_certificates(&folder.join("tls")).await?;
            let tls = folder.join("tls").display().to_string();
            conf.push_str(&format!(
                "listeners.ssl.1 = 127.0.0.1:{}\nssl_options.cacertfile = {tls}/ca.pem\nssl_options.certfile = {tls}/server.pem\nssl_options.keyfile = {tls}/server.key\nssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n",
                self.ports.tls
            ));
        }
        let write = |name: &str, content: &str| {
            std::fs::write(folder.join(name), content)
                .map_err(|e| Error::Io("writing the broker's config", e))
        };
        write("rabbitmq.conf", &conf)?;
        // Here and not in rabbitmq.conf, where 3.10 does not know the tick.
        let advanced = self.options.consumer_timeout.map_or("[].".into(), |limit| {
            let limit = limit.as_millis();
            let tick = limit / 5;
            format!(
                "[{{rabbit, [{{consumer_timeout, {limit}}}, {{channel_tick_interval, {tick}}}]}}]."
            )
        });
        write("advanced.config", &advanced)?;
        write("enabled_plugins", "[].")?;
        write(".erlang.cookie", COOKIE)?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(folder.join(".erlang.cookie"), private)
            .map_err(|e| Error::Io("the Erlang cookie", e))
    }

    fn command(&self, program: &Path) -> Command {
        let folder = self.folder.path();
        let path = format!(
            "{}:{}",
            self.erlang().display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let mut command = Command::new(program);
        command
            .env("PATH", path)
            .env("HOME", folder)
            .env("LANG", "C.UTF-8")
            .env("ERL_EPMD_PORT", self.ports.mapper.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", NODE)
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
            .env("RABBITMQ_MNESIA_DIR", folder.join("data/node"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env(
                "RABBITMQ_ADVANCED_CONFIG_FILE",
                folder.join("advanced.config"),
            )
            .env("RABBITMQ_CONF_ENV_FILE", folder.join("none"))
            .env(
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                folder.join("enabled_plugins"),
            )
            .env("RABBITMQ_GENERATED_CONFIG_DIR", folder.join("generated"))
            // Makes the start script exec Erlang, so that the launcher's child is the broker itself.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }

    /// Starts `program` under the launcher.
    fn launch(
        &self,
        program: &Path,
        arguments: &[&str],
        file: &str,
        order: &str,
    ) -> Result<Child, Error> {
        let folder = self.folder.path();
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(folder.join("output.log"))
            .map_err(|e| Error::Io("the broker's log", e))?;
        let errors = log
            .try_clone()
            .map_err(|e| Error::Io("the broker's log", e))?;
        let _ = std::fs::remove_file(folder.join(file));
        self.command(Path::new("/bin/sh"))
            .args(["-c", LAUNCHER, "launcher"])
            .arg(folder)
            .args([file, order])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C in a terminal reaches the test, and through its end the launcher.
            .process_group(0)
            .spawn()
            .map_err(|e| Error::Io("the broker cannot be started", e))
    }

    async fn run(&mut self) -> Result<(), Error> {
        if self.port_mapper.is_none() {
            let port = self.ports.mapper.to_string();
            let mapper = self.launch(
                &self.erlang().join("epmd"),
                &["-port", &port],
                "epmd.pid",
                "last",
            )?;
            self.port_mapper = Some(mapper);
            self.answers(self.ports.mapper, None).await?;
        }
        let program = self.sbin()?.join("rabbitmq-server");
        self.broker = Some(self.launch(&program, &[], "broker.pid", "first")?);
        self.answers(self.ports.amqp, Some(b"AMQP\x00\x00\x09\x01"))
            .await
    }

    /// Waits until something listens on `port` and answers `greeting`.
    async fn answers(&self, port: u16, greeting: Option<&[u8]>) -> Result<(), Error> {
        let deadline = Instant::now() + START;
        loop {
            let attempt = async {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
                if let Some(greeting) = greeting {
                    stream.write_all(greeting).await?;
                    stream.read_u8().await?;
                }
                Ok::<_, std::io::Error>(())
            };
            if let Ok(Ok(())) = timeout(Duration::from_secs(5), attempt).await {
                return Ok(());
            }
            let dead = greeting.is_some() && !self.alive().await;
            if dead || Instant::now() > deadline {
                return Err(Error::Failed(format!(
                    "RabbitMQ {} does not answer on port {port}:\n{}",
                    self.version.as_str(),
                    self.log()
                )));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn pid(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.folder.path().join("broker.pid")).ok()?;
        text.trim().parse().ok()
    }

    async fn alive(&self) -> bool {
        // Not yet written means still starting.
        match self.pid() {
            Some(pid) => send_signal("0", pid).await,
            None => true,
        }
    }

    async fn signal(&mut self, signal: &str) -> Result<(), Error> {
        let Some(mut launcher) = self.broker.take() else {
            return Ok(());
        };
        if let Some(pid) = self.pid() {
            send_signal(signal, pid).await;
            let deadline = Instant::now() + Duration::from_secs(60);
            // A killed child stays visible until the launcher reaps it, so ask whether it still listens.
            while TcpStream::connect(("127.0.0.1", self.ports.amqp))
                .await
                .is_ok()
                || is_running(pid)
            {
                if Instant::now() > deadline {
                    return Err(Error::Failed(format!(
                        "RabbitMQ does not stop:\n{}",
                        self.log()
                    )));
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        drop(launcher.stdin.take());
        let _ = timeout(Duration::from_secs(20), launcher.wait()).await;
        Ok(())
    }

    async fn output(&self, command: &mut Command) -> Result<String, Error> {
        let output = timeout(Duration::from_secs(60), command.kill_on_drop(true).output())
            .await
            .map_err(|_| Error::Failed("rabbitmqctl did not end within 60 s".into()))?
            .map_err(|e| Error::Io("rabbitmqctl cannot be started", e))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Failed(format!(
            "rabbitmqctl failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )))
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        for mut launcher in [self.broker.take(), self.port_mapper.take()]
            .into_iter()
            .flatten()
        {
            drop(launcher.stdin.take());
            // The folder goes next, so wait until nobody writes there any more; SIGKILL takes no time.
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while let Ok(None) = launcher.try_wait() {
                if std::time::Instant::now() > deadline {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Where a version is unpacked, as `scripts/rabbitmq` knows it.
fn software(version: Version) -> Result<PathBuf, Error> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/rabbitmq");
    let output = std::process::Command::new(&script)
        .args(["path", version.as_str()])
        .output()
        .map_err(|e| Error::NotInstalled(format!("{} cannot be run: {e}", script.display())))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::NotInstalled(said.trim().to_owned()))
}

async fn send_signal(signal: &str, pid: u32) -> bool {
    Command::new("/bin/sh")
        .args(["-c", "kill -\"$0\" \"$1\"", signal, &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .await
        .is_ok_and(|status| status.success())
}

/// Whether a process exists and is not a zombie.
fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}
