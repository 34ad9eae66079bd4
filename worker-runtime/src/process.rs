//! A process that runs workers, as `vumi run` and `vumi worker` share it: runtime, supervisor, admin port, control socket,
//! signals, and the end.

use crate::brokers::{Brokers, Choice, Url};
use crate::error::CliError;
use crate::manifests::Services;
use crate::registry;
use crate::stores::{self, RedisUrl, Stores};
use clap::builder::NonEmptyStringValueParser;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use vumi_api::Severity;
use vumi_core::admin::{self, AdminServer};
use vumi_core::engine::StopLimits;
use vumi_core::logging::{self, LogFormat};
use vumi_core::secrets::Secrets;
use vumi_core::supervisor::control::{ControlSocket, runtime_folder, socket_path};
use vumi_core::supervisor::engine::Registered;
use vumi_core::supervisor::{Options, Restart, Supervisor};
use vumi_core::telemetry::Telemetry;

/// Arguments that every process that runs workers takes.
#[derive(clap::Args, Debug)]
pub struct Common {
    /// Address for health checks and metrics, or none [default: 127.0.0.1:9464 for run, 0.0.0.0:9464 for worker]
    #[arg(long, value_name = "ADDRESS|none")]
    pub admin: Option<Admin>,
    /// Broker and store of all workers.
    #[command(flatten)]
    pub backing: Backing,
    /// Name of this process: of its control socket, for `vumi status --name` [default: from the path]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// How long requests and sessions that wait for a reply may take when their worker stops
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    pub drain: vumi_api::shared::Duration,
    /// `system_id` of the heartbeats [default: VUMI_SYSTEM_ID, else global]
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub system_id: Option<String>,
    /// Shape of the log on standard error: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, or by part as in vumi_core=debug,info [default: VUMI_LOG, else info]
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
}

/// Broker and store for all workers, whatever their manifests say.
#[derive(clap::Args, Debug)]
pub struct Backing {
    /// RabbitMQ for all workers, whatever their manifests say: amqp://user:password@host:5672/vhost, or amqps://…; also
    /// in VUMI_BROKER_URL, which keeps the password out of the process list. ?profile=quorum at the end for quorum queues
    #[arg(long, value_name = "URL")]
    pub broker: Option<String>,
    /// PEM file of the private certificate authority of that RabbitMQ
    #[arg(long, value_name = "FILE")]
    pub broker_ca: Option<PathBuf>,
    /// Redis for the state of all workers, whatever their manifests say: redis://user:password@host:6379/db, or rediss://…;
    /// also in VUMI_REDIS_URL, which keeps the password out of the process list
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// PEM file of the private certificate authority of that Redis
    #[arg(long, value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,
    /// What all keys in that Redis begin with [default: vumi]
    #[arg(long, value_name = "PREFIX")]
    pub redis_prefix: Option<String>,
    /// What stands between that prefix and the rest of a key, as Vumi's key_separator [default: :]
    #[arg(long, value_name = "TEXT")]
    pub redis_separator: Option<String>,
}

impl Backing {
    /// The broker of all workers, if the flag or the environment names one.
    ///
    /// # Errors
    /// A flag that says more of it, and it is not named.
    pub fn broker(&self) -> Result<Option<Url>, CliError> {
        let url = self.broker.clone().or_else(|| variable("VUMI_BROKER_URL"));
        needs("--broker-ca", &self.broker_ca, "--broker", &url)?;
        Ok(url.map(|url| Url {
            url,
            authority: self.broker_ca.clone(),
        }))
    }

    /// The Redis of all workers, if the flag or the environment names one.
    ///
    /// # Errors
    /// As [`Self::broker`].
    pub fn redis(&self) -> Result<Option<RedisUrl>, CliError> {
        let url = self.redis.clone().or_else(|| variable("VUMI_REDIS_URL"));
        needs("--redis-ca", &self.redis_ca, "--redis", &url)?;
        needs("--redis-prefix", &self.redis_prefix, "--redis", &url)?;
        needs("--redis-separator", &self.redis_separator, "--redis", &url)?;
        Ok(url.map(|url| RedisUrl {
            url,
            authority: self.redis_ca.clone(),
            prefix: self.redis_prefix.clone(),
            separator: self.redis_separator.clone(),
        }))
    }

    /// What manifests must name themselves, and how bad it is if they name what is not there.
    ///
    /// # Errors
    /// As [`Self::broker`].
    pub fn services(&self) -> Result<Services, CliError> {
        Ok(Services {
            brokers: self.broker()?.is_none().then_some(Severity::Error),
            stores: self.redis()?.is_none().then_some(Severity::Error),
        })
    }
}

/// Where the admin server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// On this address.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl std::str::FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Admin::Off);
        }
        // A port alone, or `:9464`, is of this machine only.
        let port = text.strip_prefix(':').unwrap_or(text).parse::<u16>();
        if let Ok(port) = port {
            return Ok(Admin::At(([127, 0, 0, 1], port).into()));
        }
        text.parse().map(Admin::At).map_err(|_| {
            format!("{text:?} is not an address; write e.g. 127.0.0.1:9464, [::]:9464 or none")
        })
    }
}

/// What differs between the commands.
pub struct Setup {
    /// Name, if `--name` gives none.
    pub default_name: String,
    /// Admin address, if `--admin` gives none.
    pub default_admin: SocketAddr,
    /// A default admin port that is taken is an error: a kubelet asks there.
    pub admin_required: bool,
    /// State folder.
    pub state: Option<PathBuf>,
    /// Which broker, if `--broker` gives none.
    pub broker: Choice,
    /// Which state store, if `--redis` gives none.
    pub store: stores::Choice,
    /// Secrets.
    pub secrets: Arc<Secrets>,
}

/// A process with its doors open and no workers yet.
pub struct Process {
    /// Runs the workers.
    pub supervisor: Arc<Supervisor>,
    /// Name of the process.
    pub name: String,
    /// Admin address, if there is one.
    pub admin: Option<SocketAddr>,
    /// Control socket, if there is one.
    pub socket: Option<PathBuf>,
    sign: Option<PathBuf>,
    interrupt: Signal,
    terminate: Signal,
}

/// Starts the log. First thing of a command.
pub fn start_log(arguments: &Common) -> Result<(), CliError> {
    logging::start(arguments.log_format, arguments.log_level.as_deref())
        .map_err(CliError::validation)
}

/// Runs a future on a small runtime of its own; what it leaves running is given up.
pub fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .map_err(|e| CliError::environment(format!("the runtime does not start: {e}")))?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// A name made from the first path of a campaign: of its directory, or of its file.
pub fn name_of(paths: &[PathBuf]) -> String {
    let first = paths.first().map(PathBuf::as_path);
    let whole = first.and_then(|path| std::fs::canonicalize(path).ok());
    whole
        .as_deref()
        .and_then(Path::file_stem)
        .map_or_else(|| "vumi".into(), |name| name.to_string_lossy().into_owned())
}

impl Process {
    /// Opens the doors.
    pub async fn open(arguments: &Common, setup: Setup) -> Result<Self, CliError> {
        let listen =
            |kind| signal(kind).map_err(|e| CliError::environment(format!("signals: {e}")));
        let (interrupt, terminate) = (
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
        );
        let name = arguments.name.clone().unwrap_or(setup.default_name);
        let choice = arguments.backing.broker()?;
        let choice = choice.map_or(setup.broker, Choice::Url);
        let brokers = Brokers::new(choice, Arc::clone(&setup.secrets), &name)?;
        let store = arguments.backing.redis()?;
        let store = store.map_or(setup.store, stores::Choice::Url);
        let stores = Stores::new(store, Arc::clone(&setup.secrets), &name)?;
        let supervisor = Supervisor::new(
            Registered::new(registry::all()),
            brokers,
            stores,
            setup.secrets,
            Arc::new(Telemetry::new()),
            Options {
                instance: instance(),
                system_id: arguments
                    .system_id
                    .clone()
                    .or_else(|| variable("VUMI_SYSTEM_ID"))
                    .unwrap_or_else(|| "global".into()),
                limits: StopLimits {
                    drain: arguments.drain.0,
                    ..StopLimits::default()
                },
                restart: Restart::default(),
                recheck: Duration::from_secs(2),
                outside: Default::default(),
                sweep: Duration::from_secs(60),
            },
        );
        let admin = open_admin(
            arguments.admin,
            setup.default_admin,
            setup.admin_required,
            &supervisor,
        )
        .await?;
        let asked_for = arguments.name.is_some() || setup.state.is_some();
        let in_state = setup.state.is_some();
        let folder = setup.state.unwrap_or_else(runtime_folder);
        let (name, socket) = open_socket(&folder, name, asked_for, &supervisor).await?;
        let sign = match (&socket, in_state) {
            (Some(socket), true) => sign(socket, &name),
            _ => None,
        };
        Ok(Self {
            supervisor,
            name,
            admin,
            socket,
            sign,
            interrupt,
            terminate,
        })
    }

    /// Waits for the first signal that ends the process, and gives its number.
    pub async fn ended(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }

    /// Stops all workers in two stages; a second signal ends the process at once.
    pub async fn shut_down(mut self, signal: u8) -> CliError {
        tracing::info!(
            signal,
            "stopping: nothing new is taken, and what is in hand or waits for its answer is finished; a second signal ends the process at once"
        );
        let supervisor = Arc::clone(&self.supervisor);
        let again = tokio::select! {
            () = supervisor.shutdown() => None,
            again = self.ended() => Some(again),
        };
        for path in self.socket.iter().chain(&self.sign) {
            let _ = std::fs::remove_file(path);
        }
        match again {
            None => {
                tracing::info!("stopped");
                CliError::signal(signal)
            }
            Some(again) => {
                tracing::warn!("ended before everything was finished");
                CliError::signal(again)
            }
        }
    }
}

/// A flag that says more of another one is a slip without it.
fn needs<T, U>(flag: &str, given: &Option<T>, of: &str, there: &Option<U>) -> Result<(), CliError> {
    match given.is_some() && there.is_none() {
        true => Err(CliError::validation(format!(
            "{flag} belongs to {of}, which is not given: manifests name their own"
        ))),
        false => Ok(()),
    }
}

/// A variable of the environment that says something.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Host and process: in a pod its name, which is unique on the broker.
fn instance() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| variable("HOSTNAME"))
        .unwrap_or_else(|| "localhost".into());
    format!("{}-{}", host.trim(), std::process::id())
}

async fn open_admin(
    wanted: Option<Admin>,
    default: SocketAddr,
    strict: bool,
    supervisor: &Arc<Supervisor>,
) -> Result<Option<SocketAddr>, CliError> {
    let (address, must) = match wanted {
        Some(Admin::Off) => return Ok(None),
        Some(Admin::At(address)) => (address, true),
        None => (default, strict),
    };
    let server = match AdminServer::bind(address).await {
        Ok(server) => server,
        Err(error) if must => {
            return Err(CliError::environment(format!(
                "admin server: cannot listen on {address}: {error}; choose another with --admin, or --admin none"
            )));
        }
        Err(error) => {
            tracing::warn!(%address, %error, "no health checks and metrics: the default admin port is taken; choose another with --admin");
            return Ok(None);
        }
    };
    let address = server.local_addr().unwrap_or(address);
    tokio::spawn(server.serve(Arc::clone(supervisor)));
    Ok(Some(address))
}

/// Opens the control socket; with the name that it got.
async fn open_socket(
    folder: &Path,
    mut name: String,
    asked_for: bool,
    supervisor: &Arc<Supervisor>,
) -> Result<(String, Option<PathBuf>), CliError> {
    let mut opened = ControlSocket::open(&socket_path(folder, &name)).await;
    if opened.is_err() && !asked_for {
        // Another process of a campaign with this name; nobody said that there may be one only.
        name = format!("{name}-{}", std::process::id());
        opened = ControlSocket::open(&socket_path(folder, &name)).await;
    }
    let socket = match opened {
        Ok(socket) => socket,
        // It says itself what to do: what helps those who ask a process does not help one that starts.
        Err(error) if asked_for => return Err(CliError::environment(error.text)),
        Err(error) => {
            tracing::warn!(%error, "no control socket; `vumi status` cannot reach this process");
            return Ok((name, None));
        }
    };
    let path = socket.path().to_owned();
    let (supervisor, served) = (Arc::clone(supervisor), name.clone());
    tokio::spawn(async move {
        let version = env!("CARGO_PKG_VERSION");
        socket.serve(supervisor, served, version).await;
    });
    Ok((name, Some(path)))
}

/// A link in the user's runtime directory to a control socket in a state folder, so that `vumi status` finds the process
/// without being told the folder. A convenience: where it cannot be made, there is none.
fn sign(socket: &Path, name: &str) -> Option<PathBuf> {
    let folder = runtime_folder();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .ok()?;
    let owner = |path: &Path| std::fs::metadata(path).map(|about| about.uid()).ok();
    let link = socket_path(&folder, name);
    let taken = std::os::unix::net::UnixStream::connect(&link).is_ok();
    if taken || owner(&folder)? != owner(socket)? {
        return None;
    }
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(std::fs::canonicalize(socket).ok()?, &link).ok()?;
    Some(link)
}

/// The default admin address of a pod: all of its addresses.
pub const POD_ADMIN: ([u8; 4], u16) = ([0, 0, 0, 0], admin::PORT);

/// The default admin address on a laptop: this machine only.
pub const LOCAL_ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], admin::PORT);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_addresses() {
        for (text, expected) in [
            ("none", Some(Admin::Off)),
            ("9000", Some(Admin::At(([127, 0, 0, 1], 9000).into()))),
            (":9000", Some(Admin::At(([127, 0, 0, 1], 9000).into()))),
            ("0.0.0.0:9464", Some(Admin::At(POD_ADMIN.into()))),
            ("[::1]:1", "[::1]:1".parse().ok().map(Admin::At)),
            ("off", None),
            ("localhost:9464", None),
        ] {
            assert_eq!(text.parse::<Admin>().ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_process_is_named_after_its_campaign() {
        let folder = tempfile::tempdir().unwrap();
        let campaign = folder.path().join("my-campaign");
        std::fs::create_dir(&campaign).unwrap();
        std::fs::write(campaign.join("telnet.yaml"), "").unwrap();
        assert_eq!(name_of(&[campaign.join(".")]), "my-campaign");
        assert_eq!(name_of(&[campaign.join("telnet.yaml")]), "telnet");
        assert_eq!(name_of(&[PathBuf::from("-")]), "vumi");
    }
}
