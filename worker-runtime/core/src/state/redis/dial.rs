//! One attempt to connect: the server or the master that the sentinels know, TLS (rustls, ring), and what is asked of a
//! Redis before it may keep anything: no Cluster, a version that has what the scripts use, and what a write survives.

use super::config::{Credentials, Endpoint, Place, RedisConfig};
use super::errors::{Trouble, unreachable};
use crate::broker::Durability;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::speech::{self, Heard, Protocol};
use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo, RedisResult, TlsCertificates, TlsMode,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::HashMap;
use std::time::Duration;

/// RESP: an inline command, answered with a status or an error.
const RESP: Protocol = Protocol {
    hello: b"PING\r\n",
    answers: &[b"+", b"-"],
};

/// A server that accepts the connection and then says nothing is given up after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Commands that wait inside the process for the socket.
const QUEUED: usize = 1024;
/// First version with all that the scripts use (`ZADD … LT`).
const LEAST: (u32, u32) = (6, 2);

/// What answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// `7.0.15`.
    pub(super) version: String,
    /// What a write survives.
    pub(super) durability: Durability,
    /// Why that is less, or less certain, than one might think.
    pub(super) doubt: Option<String>,
}

/// Connects once.
pub(super) async fn connect(
    config: &RedisConfig,
) -> Result<(MultiplexedConnection, Server), WorkError> {
    let endpoint = config.resolve()?;
    let certificates = trust(&endpoint)?;
    let connecting = async {
        let mut connection = open(&endpoint, certificates)
            .await
            .map_err(|e| Trouble::while_connecting(&e))?;
        let server = examine(&mut connection, config.name()).await?;
        Ok((connection, server))
    };
    let connecting = speech::connected(connecting, other_speech(&endpoint));
    match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(done) => done,
        Err(_) => Err(unreachable(&format!(
            "no answer within {} s",
            PATIENCE.as_secs()
        ))),
    }
}

/// Why there will be no connection, if the port speaks TLS and we do not, or the other way round.
async fn other_speech(endpoint: &Endpoint) -> Option<WorkError> {
    let Place::Server(host, port) = &endpoint.place else {
        return None;
    };
    match (speech::heard(host, *port, &RESP).await?, endpoint.encrypted) {
        (Heard::Tls, false) => Some(unreachable(&format!(
            "port {port} speaks TLS: write rediss://…, or set state.redis.tls, or name the port without TLS"
        ))),
        (Heard::Plain, true) => Some(unreachable(&format!(
            "port {port} does not speak TLS: name the TLS port, or write redis://… and leave out state.redis.tls and --redis-ca"
        ))),
        _ => None,
    }
}

async fn open(
    endpoint: &Endpoint,
    certificates: Option<TlsCertificates>,
) -> RedisResult<MultiplexedConnection> {
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        // Every operation has a deadline of its own.
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUED);
    match &endpoint.place {
        Place::Server(host, port) => {
            let info = endpoint
                .address(host, *port)
                .into_connection_info()?
                .set_redis_settings(endpoint.info());
            let client = match certificates {
                Some(certificates) => Client::build_with_tls(info, certificates)?,
                None => Client::open(info)?,
            };
            client
                .get_multiplexed_async_connection_with_config(&settings)
                .await
        }
        Place::Sentinels(sentinels, master) => {
            let addresses = sentinels.iter().map(|(h, p)| endpoint.address(h, *p));
            let mut builder =
                SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
                    .set_client_to_redis_db(endpoint.db);
            let Credentials { username, password } = &endpoint.credentials;
            if let Some(username) = username {
                builder = builder.set_client_to_redis_username(username);
            }
            if let Some(password) = password {
                builder = builder.set_client_to_redis_password(password);
            }
            let Credentials { username, password } = &endpoint.sentinel_credentials;
            if let Some(username) = username {
                builder = builder.set_client_to_sentinel_username(username);
            }
            if let Some(password) = password {
                builder = builder.set_client_to_sentinel_password(password);
            }
            if endpoint.encrypted {
                builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
            }
            if let Some(certificates) = certificates {
                builder = builder
                    .set_client_to_redis_certificates(certificates.clone())
                    .set_client_to_sentinel_certificates(certificates);
            }
            builder
                .build()?
                .get_async_connection_with_config(&settings)
                .await
        }
    }
}

fn trust(endpoint: &Endpoint) -> Result<Option<TlsCertificates>, WorkError> {
    let Some(pem) = &endpoint.authority else {
        return Ok(None);
    };
    let untrusted = |text: String| WorkError::new(ErrorClass::Config, codes::CONFIG_ADDRESS, text);
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| untrusted(format!("the certificate authority is not PEM: {e}")))?;
    if certificates.is_empty() {
        return Err(untrusted(
            "the certificate authority holds no certificate".into(),
        ));
    }
    Ok(Some(TlsCertificates {
        client_tls: None,
        root_cert: Some(pem.clone().into_bytes()),
    }))
}

async fn examine(connection: &mut MultiplexedConnection, name: &str) -> Result<Server, WorkError> {
    // A name is a convenience: some managed servers refuse it.
    let named = redis::cmd("CLIENT")
        .arg("SETNAME")
        .arg(name)
        .exec_async(connection)
        .await;
    if let Err(error) = named
        && error.is_unrecoverable_error()
    {
        return Err(Trouble::while_connecting(&error));
    }
    // One that still reads its data tells about itself, and does nothing else.
    redis::cmd("PING")
        .exec_async(connection)
        .await
        .map_err(|e| Trouble::while_connecting(&e))?;
    let info: String = redis::cmd("INFO")
        .query_async(connection)
        .await
        .map_err(|e| Trouble::while_connecting(&e))?;
    let mut told = Told::new(&info);
    for setting in ["appendonly", "appendfsync", "maxmemory", "maxmemory-policy"] {
        // Managed servers often forbid CONFIG; then INFO must do.
        let value: RedisResult<Vec<String>> = redis::cmd("CONFIG")
            .arg("GET")
            .arg(setting)
            .query_async(connection)
            .await;
        match value {
            Ok(pair) => {
                if let [_, value] = pair.as_slice() {
                    told.settings.insert(setting, value.clone());
                }
            }
            Err(error) if error.is_unrecoverable_error() => {
                return Err(Trouble::while_connecting(&error));
            }
            Err(_) => {}
        }
    }
    told.judge()
}

/// What a server says about itself.
struct Told<'a> {
    info: HashMap<&'a str, &'a str>,
    settings: HashMap<&'static str, String>,
}

impl<'a> Told<'a> {
    fn new(info: &'a str) -> Self {
        Self {
            info: info
                .lines()
                .filter_map(|line| line.trim_end().split_once(':'))
                .collect(),
            settings: HashMap::new(),
        }
    }

    fn info(&self, name: &str) -> &'a str {
        self.info.get(name).copied().unwrap_or_default()
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    fn judge(&self) -> Result<Server, WorkError> {
        let refused = |code, text: String| Err(WorkError::new(ErrorClass::Config, code, text));
        if self.info("cluster_enabled") == "1" || self.info("redis_mode") == "cluster" {
            return refused(
                codes::STATE_CLUSTER,
                "this Redis runs in Cluster mode, which cannot hold what belongs together".into(),
            );
        }
        let version = self.info("redis_version");
        let mut numbers = version.split('.').map_while(|n| n.parse::<u32>().ok());
        let (major, minor) = (numbers.next(), numbers.next());
        if (major.unwrap_or(0), minor.unwrap_or(0)) < LEAST {
            let (major, minor) = LEAST;
            return refused(
                codes::STATE_VERSION,
                format!("this Redis has version {version:?}; {major}.{minor} or later is needed"),
            );
        }
        if self.info("role") == "slave" {
            return Err(unreachable("this server is a replica and takes no writes"));
        }
        let (durability, doubt) = self.durability();
        Ok(Server {
            version: version.to_owned(),
            durability,
            doubt,
        })
    }

    /// R16: `always` survives power loss, `everysec` the end of the process, and less survives nothing.
    fn durability(&self) -> (Durability, Option<String>) {
        let policy = self
            .setting("maxmemory-policy")
            .unwrap_or(self.info("maxmemory_policy"));
        let limit = self.setting("maxmemory").unwrap_or(self.info("maxmemory"));
        if !matches!(policy, "" | "noeviction") && !matches!(limit, "" | "0") {
            return (
                Durability::Memory,
                Some(format!(
                    "maxmemory-policy is {policy}: keys vanish when memory is full; set noeviction"
                )),
            );
        }
        let on = match self.setting("appendonly") {
            Some(setting) => setting == "yes",
            None => self.info("aof_enabled") == "1",
        };
        if !on {
            return (
                Durability::Memory,
                Some("appendonly is off: what was written since the last snapshot is lost".into()),
            );
        }
        match self.setting("appendfsync") {
            Some("always") => (Durability::Host, None),
            Some("everysec") => (Durability::Process, None),
            Some(other) => (
                Durability::Memory,
                Some(format!("appendfsync is {other}: set everysec or always")),
            ),
            None => (
                Durability::Process,
                Some("CONFIG is forbidden, so appendfsync is unknown; taken for everysec".into()),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(info: &str, settings: &[(&'static str, &str)]) -> Result<Server, WorkError> {
        let mut told = Told::new(info);
        told.settings = settings.iter().map(|(k, v)| (*k, v.to_string())).collect();
        told.judge()
    }

    #[test]
    fn what_a_write_survives() {
        let plain = "# Server\r\nredis_version:6.2.0\r\nrole:master\r\n";
        for (settings, durability, doubts) in [
            (&[("appendonly", "no")][..], Durability::Memory, true),
            (
                &[("appendonly", "yes"), ("appendfsync", "no")],
                Durability::Memory,
                true,
            ),
            (
                &[("appendonly", "yes"), ("appendfsync", "everysec")],
                Durability::Process,
                false,
            ),
            (
                &[("appendonly", "yes"), ("appendfsync", "always")],
                Durability::Host,
                false,
            ),
        ] {
            let server = judged(plain, settings).unwrap();
            assert_eq!(server.durability, durability, "{settings:?}");
            assert_eq!(server.doubt.is_some(), doubts, "{settings:?}");
        }
        let managed =
            format!("{plain}aof_enabled:1\r\nmaxmemory:100\r\nmaxmemory_policy:noeviction\r\n");
        let server = judged(&managed, &[]).unwrap();
        assert_eq!(server.durability, Durability::Process);
        assert!(server.doubt.unwrap().contains("appendfsync is unknown"));
        let evicting = managed.replace("noeviction", "allkeys-lru");
        let server = judged(
            &evicting,
            &[("appendonly", "yes"), ("appendfsync", "always")],
        )
        .unwrap();
        assert_eq!(server.durability, Durability::Memory);
        assert!(server.doubt.unwrap().contains("allkeys-lru"));
        let unlimited = evicting.replace("maxmemory:100", "maxmemory:0");
        assert_eq!(
            judged(&unlimited, &[]).unwrap().durability,
            Durability::Process
        );
    }

    #[test]
    fn what_is_refused() {
        for (info, code) in [
            (
                "redis_version:7.0.1\r\ncluster_enabled:1\r\n",
                codes::STATE_CLUSTER,
            ),
            ("redis_version:6.0.16\r\n", codes::STATE_VERSION),
            ("", codes::STATE_VERSION),
            (
                "redis_version:7.0.1\r\nrole:slave\r\n",
                codes::STATE_UNREACHABLE,
            ),
        ] {
            assert_eq!(judged(info, &[]).unwrap_err().code, code, "{info}");
        }
    }
}
