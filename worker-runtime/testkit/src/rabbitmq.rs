//! A real RabbitMQ for one test or one test binary: own ports, own node name, own Erlang port mapper, own folder.
//! It ends with its owner: a small launcher kills it when the pipe to the test process closes, however that happens.

mod cluster;
mod control;
mod process;

pub use cluster::Cluster;

use crate::{certificates, free_port, launcher};
use process::Mapper;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Child;

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
    /// Also serve the management API.
    pub management: bool,
}

/// A running RabbitMQ. Dropping it kills it and removes its folder.
pub struct RabbitMq {
    version: Version,
    options: Options,
    /// Its Erlang node, `name@localhost`.
    node: String,
    /// Nodes that it forms a cluster with when it first starts, itself among them; none if it stays alone.
    peers: Vec<String>,
    home: PathBuf,
    ports: Ports,
    broker: Option<Child>,
    // Last: its folder holds the others.
    mapper: Arc<Mapper>,
}

#[derive(Clone, Copy)]
struct Ports {
    amqp: u16,
    tls: u16,
    distribution: u16,
    management: u16,
}

impl Ports {
    fn pick() -> Result<Self, Error> {
        let port = || free_port().map_err(|e| Error::Io("no free port", e));
        Ok(Self {
            amqp: port()?,
            tls: port()?,
            distribution: port()?,
            management: port()?,
        })
    }
}

const COOKIE: &str = "testkit";

impl RabbitMq {
    /// Starts a broker with default options and waits until it serves AMQP.
    pub async fn start(version: Version) -> Result<Self, Error> {
        Self::start_with(version, Options::default()).await
    }

    /// Starts a broker and waits until it serves AMQP.
    pub async fn start_with(version: Version, options: Options) -> Result<Self, Error> {
        let mut last = None;
        // A port that was free may be taken by another test before the broker listens: start over with others.
        for _ in 0..3 {
            let mapper = Mapper::start(software(version)?).await?;
            match Self::node(version, &options, &mapper, "rabbit", &[]).await {
                Ok(broker) => return Ok(broker),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Failed("RabbitMQ was not started".into())))
    }

    /// Starts a node of this name under a port mapper; it joins those of the other names as soon as they are there.
    async fn node(
        version: Version,
        options: &Options,
        mapper: &Arc<Mapper>,
        name: &str,
        peers: &[&str],
    ) -> Result<Self, Error> {
        let node = |name: &str| format!("{name}@localhost");
        let mut broker = Self {
            version,
            options: options.clone(),
            node: node(name),
            peers: peers.iter().map(|name| node(name)).collect(),
            home: mapper.home(name)?,
            ports: Ports::pick()?,
            broker: None,
            mapper: Arc::clone(mapper),
        };
        broker.configure().await?;
        broker.run().await?;
        Ok(broker)
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
        self.home.join("tls/ca.pem")
    }

    /// URL of the management API, which answers soon after AMQP does. Only with [`Options::management`].
    pub fn management_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.management)
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

    /// The end of the broker's log, for a failing test.
    pub fn log(&self) -> String {
        launcher::log(&self.home)
    }

    async fn configure(&self) -> Result<(), Error> {
        let folder = &self.home;
        let mut conf = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\ndisk_free_limit.absolute = 1MB\nlog.file = false\nlog.console = true\nlog.console.level = info\n",
            self.ports.amqp
        );
        if !self.peers.is_empty() {
            conf.push_str("cluster_formation.peer_discovery_backend = classic_config\n");
        }
        for (n, peer) in self.peers.iter().enumerate() {
            conf.push_str(&format!(
                "cluster_formation.classic_config.nodes.{} = {peer}\n",
                n + 1
            ));
        }
        if self.options.tls {
            certificates::make(&folder.join("tls"))
                .await
                .map_err(|e| Error::Io("certificates", e))?;
            let tls = folder.join("tls").display().to_string();
            conf.push_str(&format!(
                "listeners.ssl.1 = 127.0.0.1:{}\nssl_options.cacertfile = {tls}/ca.pem\nssl_options.certfile = {tls}/server.pem\nssl_options.keyfile = {tls}/server.key\nssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n",
                self.ports.tls
            ));
        }
        if self.options.management {
            let port = self.ports.management;
            conf.push_str(&format!(
                "management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n"
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
        let plugins = match self.options.management {
            true => "[rabbitmq_management].",
            false => "[].",
        };
        write("enabled_plugins", plugins)?;
        write(".erlang.cookie", COOKIE)?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(folder.join(".erlang.cookie"), private)
            .map_err(|e| Error::Io("the Erlang cookie", e))
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
