//! The processes of one broker: Erlang's port mapper and the broker itself, each under a launcher that ends it with its
//! owner.

use super::{Error, RabbitMq};
use crate::free_port;
use crate::launcher::{self, end, is_running, send_signal};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Erlang takes seconds to start where several brokers share two cores.
const START: Duration = Duration::from_secs(90);

impl RabbitMq {
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

    pub(super) fn command(&self, program: &Path) -> Command {
        let folder = &self.home;
        let mut command = self.mapper.command(program, folder);
        command
            .env("RABBITMQ_NODENAME", &self.node)
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
            .env("RUNNING_UNDER_SYSTEMD", "true");
        command
    }

    pub(super) async fn run(&mut self) -> Result<(), Error> {
        let program = self.mapper.sbin()?.join("rabbitmq-server");
        let command = self.command(&program);
        let launched = launcher::launch(command, &self.home, "broker.pid", "first");
        self.broker = Some(launched.map_err(|e| Error::Io("the broker cannot be started", e))?);
        self.answers().await
    }

    /// Waits until it serves AMQP.
    async fn answers(&self) -> Result<(), Error> {
        let deadline = Instant::now() + START;
        while !answers(self.ports.amqp, Some(b"AMQP\x00\x00\x09\x01")).await {
            if !self.alive().await || Instant::now() > deadline {
                return Err(Error::Failed(format!(
                    "RabbitMQ {} does not answer on port {}:\n{}",
                    self.version.as_str(),
                    self.ports.amqp,
                    self.log()
                )));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        launcher::pid(&self.home, "broker.pid")
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
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        if let Some(launcher) = self.broker.take() {
            end(launcher);
        }
    }
}

/// Erlang's port mapper of one broker or of the nodes of a cluster, and the folder that holds all of them.
pub(super) struct Mapper {
    port: u16,
    software: PathBuf,
    launcher: Option<Child>,
    folder: TempDir,
}

impl Mapper {
    pub(super) async fn start(software: PathBuf) -> Result<Arc<Self>, Error> {
        let folder = tempfile::Builder::new()
            .prefix("vumi-rabbitmq-")
            .tempdir()
            .map_err(|e| Error::Io("no temporary folder", e))?;
        let port = free_port().map_err(|e| Error::Io("no free port", e))?;
        let mut mapper = Self {
            port,
            software,
            launcher: None,
            folder,
        };
        let program = mapper.erlang().join("epmd");
        let home = mapper.folder.path();
        let mut command = mapper.command(&program, home);
        command.arg("-port").arg(port.to_string());
        let launched = launcher::launch(command, home, "epmd.pid", "last");
        mapper.launcher = Some(launched.map_err(|e| Error::Io("Erlang's port mapper", e))?);
        let deadline = Instant::now() + START;
        while !answers(port, None).await {
            if Instant::now() > deadline {
                return Err(Error::Failed("Erlang's port mapper does not start".into()));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(Arc::new(mapper))
    }

    /// A new folder for a node.
    pub(super) fn home(&self, name: &str) -> Result<PathBuf, Error> {
        let home = self.folder.path().join(name);
        std::fs::create_dir_all(&home).map_err(|e| Error::Io("a folder for the broker", e))?;
        Ok(home)
    }

    pub(super) fn erlang(&self) -> PathBuf {
        self.software.join("usr/lib/erlang/bin")
    }

    pub(super) fn sbin(&self) -> Result<PathBuf, Error> {
        let library = self.software.join("usr/lib/rabbitmq/lib");
        let entries = std::fs::read_dir(&library).map_err(|e| Error::Io("RabbitMQ's folder", e))?;
        entries
            .flatten()
            .map(|entry| entry.path().join("sbin"))
            .find(|path| path.is_dir())
            .ok_or_else(|| Error::Failed(format!("no RabbitMQ in {}", library.display())))
    }

    /// A command in the surroundings of Erlang, standing in `folder`.
    fn command(&self, program: &Path, folder: &Path) -> Command {
        let path = format!(
            "{}:{}",
            self.erlang().display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let mut command = Command::new(program);
        command
            .env("PATH", path)
            // What Erlang writes where it stands, it writes there.
            .current_dir(folder)
            .env("ERL_CRASH_DUMP", folder.join("erl_crash.dump"))
            .env("HOME", folder)
            .env("LANG", "C.UTF-8")
            .env("ERL_EPMD_PORT", self.port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        if let Some(launcher) = self.launcher.take() {
            end(launcher);
        }
    }
}

/// Whether something listens on `port` and answers `greeting`.
async fn answers(port: u16, greeting: Option<&[u8]>) -> bool {
    let attempt = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        if let Some(greeting) = greeting {
            stream.write_all(greeting).await?;
            stream.read_u8().await?;
        }
        Ok::<_, std::io::Error>(())
    };
    matches!(timeout(Duration::from_secs(5), attempt).await, Ok(Ok(())))
}
