//! Where Redis is and who we are there: a URL, or a Secret that is read anew at every attempt to connect, so that
//! rotated credentials take effect without a restart. Nothing here prints a password.

use super::keys::Keys;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::secrets::Secrets;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use std::path::PathBuf;
use std::sync::Arc;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// Keys begin with it where nothing else is said.
const PREFIX: &str = "vumi";
const FORM: &str = "redis://user:password@host:port/db";

/// How to reach one database of one Redis, and under which prefix the keys are.
#[derive(Clone)]
pub struct RedisConfig {
    address: Address,
    encrypted: bool,
    authority: Authority,
    prefix: String,
    separator: String,
    name: String,
}

#[derive(Clone)]
enum Address {
    Url(Endpoint),
    Secret(Arc<Secrets>, String),
}

#[derive(Clone)]
enum Authority {
    System,
    File(PathBuf),
    Secret(Arc<Secrets>, String),
}

/// Who we are. Has no `Debug`: it holds the password.
#[derive(Clone, Default)]
pub(super) struct Credentials {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

/// What one attempt to connect uses. Has no `Debug`: it holds the password.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) place: Place,
    pub(super) db: i64,
    pub(super) encrypted: bool,
    pub(super) credentials: Credentials,
    /// Towards the sentinels.
    pub(super) sentinel_credentials: Credentials,
    /// PEM of a private authority; none trusts the system's.
    pub(super) authority: Option<String>,
}

/// Where a Redis is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Host name or address, and port.
    Server(String, u16),
    /// The master of this name, known to these sentinels.
    Sentinels(Vec<(String, u16)>, String),
}

/// Which database of which Redis it is, whoever asks: a rotated user or password leaves it as it is (K9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whether the connection is encrypted.
    pub encrypted: bool,
    /// Server or sentinels.
    pub place: Place,
    /// Number of the database.
    pub db: i64,
    /// What all keys begin with, separator included.
    pub root: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Server(host, port) => write!(f, "{host}:{port}"),
            Place::Sentinels(sentinels, master) => {
                let sentinels: Vec<_> = sentinels.iter().map(|(h, p)| format!("{h}:{p}")).collect();
                write!(f, "{master}@{}", sentinels.join(","))
            }
        }
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.encrypted { "rediss" } else { "redis" };
        write!(f, "{scheme}://{}/{}", self.place, self.db)
    }
}

impl std::fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

impl RedisConfig {
    /// From `redis://user:password@host:port/db` or `rediss://…`; parts left out are Redis's defaults.
    ///
    /// # Errors
    /// It has another form.
    pub fn from_url(url: &str) -> Result<Self, WorkError> {
        Ok(Self::new(Address::Url(parse(url, "the URL of Redis")?)))
    }

    /// From a Secret that holds `connection_string`, or `host` and optionally `port`, `username`, `password`, `db`; or,
    /// in place of `host` and `port`, `sentinels` (`host:port`, separated by commas) and `masterName`, and if the
    /// sentinels ask for it, `sentinelUsername` and `sentinelPassword`. A Secret that is missing or wrong is no error
    /// here but a state of the connection, because it may come later.
    pub fn from_secret(secrets: Arc<Secrets>, name: &str) -> Self {
        Self::new(Address::Secret(secrets, name.to_owned()))
    }

    fn new(address: Address) -> Self {
        Self {
            address,
            encrypted: false,
            authority: Authority::System,
            prefix: PREFIX.into(),
            separator: ":".into(),
            name: format!("vumi-{}", std::process::id()),
        }
    }

    /// Encrypts, whatever the address says.
    pub fn with_tls(mut self) -> Self {
        self.encrypted = true;
        self
    }

    /// Trusts only the authority in this PEM file, and encrypts.
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.authority = Authority::File(path.into());
        self.with_tls()
    }

    /// Trusts only the authority under `ca.crt` of this Secret, and encrypts.
    pub fn with_ca_secret(mut self, secrets: Arc<Secrets>, name: &str) -> Self {
        self.authority = Authority::Secret(secrets, name.to_owned());
        self.with_tls()
    }

    /// What all keys begin with; default `vumi`. Vumi's `key_prefix`; empty as where Vumi has none.
    pub fn with_key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What stands between the prefix and the key; default `:`. Vumi's `key_separator`.
    pub fn with_key_separator(mut self, separator: impl Into<String>) -> Self {
        self.separator = separator.into();
        self
    }

    /// Name that `CLIENT LIST` shows for the connection; characters that Redis refuses become `-`.
    pub fn with_name(mut self, name: &str) -> Self {
        let shown = |c: char| if c.is_ascii_graphic() { c } else { '-' };
        self.name = name.chars().map(shown).collect();
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn keys(&self) -> Keys {
        Keys::new(&self.prefix, &self.separator)
    }

    /// The database that is meant now.
    ///
    /// # Errors
    /// The Secret is missing or wrong.
    pub fn identity(&self) -> Result<Identity, WorkError> {
        let Endpoint {
            place,
            db,
            encrypted,
            ..
        } = self.locate()?;
        Ok(Identity {
            encrypted,
            place,
            db,
            root: self.keys().root().to_owned(),
        })
    }

    /// The address as it is written now, without user and password, for people.
    pub(super) fn describe(&self) -> String {
        match (self.locate(), &self.address) {
            (Ok(endpoint), _) => format!("redis {}/{}", endpoint.place, endpoint.db),
            (Err(_), Address::Secret(_, name)) => format!("redis (Secret {name:?})"),
            (Err(_), Address::Url(_)) => "redis".into(),
        }
    }

    /// Address, credentials and trust as they are now.
    pub(super) fn resolve(&self) -> Result<Endpoint, WorkError> {
        let mut endpoint = self.locate()?;
        endpoint.authority = match &self.authority {
            _ if !endpoint.encrypted => None,
            Authority::System => None,
            Authority::File(path) => Some(
                std::fs::read_to_string(path)
                    .map_err(|e| missing(format!("{} cannot be read: {e}", path.display())))?,
            ),
            Authority::Secret(secrets, name) => Some(secrets.required(name, "ca.crt")?),
        };
        Ok(endpoint)
    }

    fn locate(&self) -> Result<Endpoint, WorkError> {
        let mut endpoint = match &self.address {
            Address::Url(endpoint) => endpoint.clone(),
            Address::Secret(secrets, name) => from_layout(secrets, name)?,
        };
        endpoint.encrypted |= self.encrypted;
        Ok(endpoint)
    }
}

impl Endpoint {
    /// Who we are there, and the database.
    pub(super) fn info(&self) -> RedisConnectionInfo {
        with_credentials(RedisConnectionInfo::default(), &self.credentials).set_db(self.db)
    }

    /// A server or sentinel of this Redis: encrypted or not, all alike.
    pub(super) fn address(&self, host: &str, port: u16) -> ConnectionAddr {
        if self.encrypted {
            ConnectionAddr::TcpTls {
                host: host.to_owned(),
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host.to_owned(), port)
        }
    }
}

fn with_credentials(info: RedisConnectionInfo, credentials: &Credentials) -> RedisConnectionInfo {
    let info = match &credentials.username {
        Some(username) => info.set_username(username),
        None => info,
    };
    match &credentials.password {
        Some(password) => info.set_password(password),
        None => info,
    }
}

fn from_layout(secrets: &Secrets, name: &str) -> Result<Endpoint, WorkError> {
    let get = |key: &str| secrets.get(name, key).filter(|value| !value.is_empty());
    if let Some(url) = get("connection_string") {
        return parse(&url, &format!("Secret {name:?}, key \"connection_string\""));
    }
    let wrong =
        |key: &str, what: &str| invalid(format!("Secret {name:?}, key {key:?} is not {what}"));
    let place = match get("sentinels") {
        Some(list) => {
            let sentinels: Option<Vec<_>> = list.split(',').map(sentinel).collect();
            Place::Sentinels(
                sentinels
                    .ok_or_else(|| wrong("sentinels", "a list such as host:26379,host:26379"))?,
                secrets.required(name, "masterName")?,
            )
        }
        None => {
            let host = secrets.required(name, "host").map_err(|mut error| {
                error.text +=
                    "; the Secret of a state store has connection_string, host or sentinels";
                error
            })?;
            let port = match get("port") {
                None => PORT,
                Some(port) => port
                    .trim()
                    .parse()
                    .map_err(|_| wrong("port", "a port number"))?,
            };
            Place::Server(host, port)
        }
    };
    let db = match get("db") {
        None => 0,
        Some(db) => db
            .trim()
            .parse::<u16>()
            .map_err(|_| wrong("db", "the number of a database"))?,
    };
    Ok(Endpoint {
        place,
        db: db.into(),
        encrypted: false,
        credentials: Credentials {
            username: get("username"),
            password: get("password"),
        },
        sentinel_credentials: Credentials {
            username: get("sentinelUsername"),
            password: get("sentinelPassword"),
        },
        authority: None,
    })
}

fn sentinel(text: &str) -> Option<(String, u16)> {
    let text = text.trim();
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address has colons of its own.
        Some((host, port)) if !host.contains(':') || host.starts_with('[') => {
            (host, port.parse().ok()?)
        }
        _ => (text, SENTINEL_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

fn parse(url: &str, place: &str) -> Result<Endpoint, WorkError> {
    // Not the parser's words: they may repeat the URL, and with it the password.
    let wrong = || invalid(format!("{place} is not of the form {FORM}"));
    if url.contains(['?', '#']) {
        // What follows would be passed over, or what stands before it taken for the host.
        return Err(invalid(format!(
            "{place} has a `?` or `#`: it takes no parameters, and in a password they are written %3F and %23"
        )));
    }
    let info: ConnectionInfo = url.trim().into_connection_info().map_err(|_| wrong())?;
    let (place, encrypted) = match info.addr() {
        ConnectionAddr::Tcp(host, port) => (Place::Server(host.clone(), *port), false),
        ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            ..
        } => (Place::Server(host.clone(), *port), true),
        _ => return Err(wrong()),
    };
    let who = info.redis_settings();
    Ok(Endpoint {
        place,
        db: who.db(),
        encrypted,
        credentials: Credentials {
            username: who.username().map(str::to_owned),
            password: who.password().map(str::to_owned),
        },
        sentinel_credentials: Credentials::default(),
        authority: None,
    })
}

fn missing(text: String) -> WorkError {
    WorkError::new(ErrorClass::Config, codes::SECRET_MISSING, text)
}

fn invalid(text: String) -> WorkError {
    WorkError::new(ErrorClass::Config, codes::CONFIG_ADDRESS, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn secrets(pairs: &[(&str, &str)]) -> Arc<Secrets> {
        let values = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let documents = BTreeMap::from([("redis".to_owned(), values.collect())]);
        Arc::new(Secrets::new(documents, None))
    }

    fn of(pairs: &[(&str, &str)]) -> RedisConfig {
        RedisConfig::from_secret(secrets(pairs), "redis")
    }

    #[test]
    fn urls() {
        for (url, shown, identity) in [
            ("redis://h", "redis h:6379/0", "redis://h:6379/0"),
            ("redis://u:hush@h:1/3", "redis h:1/3", "redis://h:1/3"),
            ("rediss://:hush@h", "redis h:6379/0", "rediss://h:6379/0"),
            (
                "redis://:hush@[::1]:7/1",
                "redis ::1:7/1",
                "redis://::1:7/1",
            ),
        ] {
            let config = RedisConfig::from_url(url).unwrap();
            assert_eq!(config.describe(), shown);
            assert_eq!(config.identity().unwrap().to_string(), identity);
            assert!(!format!("{config:?}").contains("hush"));
        }
        for url in [
            "amqp://u:hush@h",
            "redis://u:hush@h/x",
            "rediss://u:hush@h/#insecure",
            "unix:///hush",
            "redis://u:hush?@h",
            "redis://u:1#hush@h",
        ] {
            let wrong = RedisConfig::from_url(url).unwrap_err();
            assert!(!wrong.text.contains("hush"), "{wrong}");
        }
        let wrong = RedisConfig::from_url("redis://h/0?timeout=5").unwrap_err();
        assert!(wrong.text.contains("takes no parameters"), "{wrong}");
    }

    #[test]
    fn secret_layouts() {
        let config = of(&[("connection_string", "redis://u:p@h/2"), ("host", "other")]);
        assert_eq!(config.describe(), "redis h:6379/2");
        let parts = of(&[
            ("host", "h"),
            ("port", "7"),
            ("username", "u"),
            ("password", "p@/:"),
            ("db", "4"),
        ]);
        assert_eq!(parts.describe(), "redis h:7/4");
        let endpoint = parts.with_tls().resolve().unwrap();
        assert_eq!(endpoint.credentials.password.as_deref(), Some("p@/:"));
        assert!(endpoint.encrypted);
        let sentinels = of(&[
            ("sentinels", "a:1, b,[::1]:3"),
            ("masterName", "main"),
            ("password", "p"),
        ]);
        assert_eq!(sentinels.describe(), "redis main@a:1,b:26379,::1:3/0");
    }

    #[test]
    fn a_database_is_the_same_for_every_user() {
        let identity = |url: &str| RedisConfig::from_url(url).unwrap().identity().unwrap();
        assert_eq!(identity("redis://u:p@h/1"), identity("redis://:q@h:6379/1"));
        for other in [
            "rediss://h/1",
            "redis://h/2",
            "redis://i/1",
            "redis://h:1/1",
        ] {
            assert_ne!(identity("redis://h/1"), identity(other));
        }
        let prefixed = RedisConfig::from_url("redis://h/1")
            .unwrap()
            .with_key_prefix("x");
        assert_ne!(identity("redis://h/1"), prefixed.identity().unwrap());
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = of(&[("port", "1")]).resolve().err().unwrap();
        assert_eq!(error.code, codes::SECRET_MISSING);
        let text = "Secret \"redis\" has no key \"host\": ";
        assert!(error.text.starts_with(text), "{error}");
        let error = of(&[("host", "h"), ("port", "x")]).resolve().err().unwrap();
        assert_eq!(
            error.text,
            "Secret \"redis\", key \"port\" is not a port number"
        );
        assert_eq!(of(&[]).describe(), "redis (Secret \"redis\")");
    }
}
