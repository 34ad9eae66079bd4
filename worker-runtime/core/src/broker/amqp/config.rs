//! Where the broker is and who we are there: a URL, or a Secret that is read anew at every attempt to connect, so that
//! rotated credentials take effect without a restart. Nothing here prints a password.

use super::profile::Profile;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::secrets::Secrets;
use lapin::uri::{AMQPScheme, AMQPUri};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vumi_api::shared::BrokerRef;

/// Seconds between heartbeats: a frozen holder of a fence is noticed after three (R2).
const HEARTBEAT: u16 = 10;
/// A holder of a queue that says nothing for so long is none of ours (S16).
const HOLDER_SILENCE: Duration = Duration::from_secs(180);
/// Largest frame. lapin keeps buffers of 32 frames in each direction, so this bounds them to 1 MiB.
const FRAME_MAX: u32 = 32 * 1024;
const PLAIN_PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;

/// How to reach one virtual host of one RabbitMQ.
#[derive(Clone)]
pub struct AmqpConfig {
    address: Address,
    vhost: Option<String>,
    encrypted: bool,
    profile: Profile,
    authority: Authority,
    heartbeat: u16,
    holder_silence: Duration,
    name: String,
    domain: Option<String>,
    through: Option<u16>,
}

#[derive(Clone)]
enum Address {
    Url(AMQPUri),
    Secret(Arc<Secrets>, String),
}

#[derive(Clone)]
enum Authority {
    System,
    File(PathBuf),
    Secret(Arc<Secrets>, String),
}

/// What one attempt to connect uses. Has no `Debug`: it holds the password.
pub(super) struct Endpoint {
    pub(super) uri: AMQPUri,
    /// PEM of a private authority; none trusts the system's.
    pub(super) authority: Option<String>,
    through: Option<u16>,
}

/// Which virtual host of which broker it is, whoever asks: a rotated user or password leaves it as it is (K9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whether the connection is encrypted.
    pub encrypted: bool,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Virtual host.
    pub vhost: String,
    /// How its queues are declared.
    pub profile: Profile,
}

impl Identity {
    /// Host, port and virtual host, for people: `rabbitmq:5672/campaign`.
    pub fn shown(&self) -> String {
        let vhost = self.vhost.trim_start_matches('/');
        format!("{}:{}/{vhost}", self.host, self.port)
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            host, port, vhost, ..
        } = self;
        let scheme = if self.encrypted { "amqps" } else { "amqp" };
        write!(f, "{scheme}://{host}:{port}/{vhost}")?;
        match self.profile {
            Profile::Vumi => Ok(()),
            other => write!(f, "?profile={}", other.as_str()),
        }
    }
}

impl Endpoint {
    /// The address without the password, for people.
    pub(super) fn describe(&self) -> String {
        shown(&self.uri)
    }

    /// Where the connection is opened. The certificate is that of [`Self::uri`] all the same.
    pub(super) fn door(&self) -> AMQPUri {
        let mut uri = self.uri.clone();
        if let Some(port) = self.through {
            uri.authority.host = "127.0.0.1".into();
            uri.authority.port = port;
        }
        uri
    }
}

fn shown(uri: &AMQPUri) -> String {
    let AMQPUri {
        scheme,
        authority,
        vhost,
        ..
    } = uri;
    let user = &authority.userinfo.username;
    let (host, port) = (&authority.host, authority.port);
    format!("{scheme}://{user}@{host}:{port}/{vhost}")
}

impl std::fmt::Debug for AmqpConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

impl AmqpConfig {
    /// From `amqp://user:password@host:port/vhost` or `amqps://…`; parts left out are RabbitMQ's defaults. An empty
    /// path is the vhost `/`, and a slash inside the vhost may be written as it is or as `%2f`. `?profile=quorum` at the
    /// end is what `broker.profile` is in a manifest.
    pub fn from_url(url: &str) -> Result<Self, WorkError> {
        let (url, profile) = split_profile(url)?;
        let config = Self::new(Address::Url(parse(&url, "the broker's URL")?));
        Ok(config.with_profile(profile.unwrap_or_default()))
    }

    /// From a resource's `broker`: its Secret holds `connection_string`, or `host`, `port`, `username`, `password` and
    /// optionally `vhost`, as the RabbitMQ cluster operator writes it. A Secret that is missing or wrong is no error
    /// here but a state of the connection, because it may come later.
    pub fn from_secret(secrets: Arc<Secrets>, broker: &BrokerRef) -> Self {
        let name = broker.secret_ref.name.clone();
        let mut config = Self::new(Address::Secret(Arc::clone(&secrets), name));
        config.vhost = broker.vhost.clone();
        config.profile = broker.profile.unwrap_or_default();
        if let Some(tls) = &broker.tls {
            config.encrypted = true;
            if let Some(ca) = &tls.ca_secret_ref {
                config.authority = Authority::Secret(secrets, ca.name.clone());
            }
        }
        config
    }

    /// What a resource of this namespace means by its `broker`, for whoever is not in one of its pods: a host without dots is a
    /// Service of that namespace.
    pub fn of_namespace(secrets: Arc<Secrets>, broker: &BrokerRef, namespace: &str) -> Self {
        Self::from_secret(secrets, broker).within(format!("{namespace}.svc"))
    }

    fn new(address: Address) -> Self {
        Self {
            address,
            vhost: None,
            encrypted: false,
            profile: Profile::default(),
            authority: Authority::System,
            heartbeat: HEARTBEAT,
            holder_silence: HOLDER_SILENCE,
            name: format!("vumi {}", std::process::id()),
            domain: None,
            through: None,
        }
    }

    /// How queues are declared and fenced; default `vumi`.
    pub fn with_profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    pub(super) fn profile(&self) -> Profile {
        self.profile
    }

    /// Trusts only the authority in this PEM file, and encrypts.
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.authority = Authority::File(path.into());
        self.encrypted = true;
        self
    }

    /// Seconds between heartbeats; default 10. The connection is given up after two without a sign of life.
    pub fn with_heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = u16::try_from(interval.as_secs().max(1)).unwrap_or(u16::MAX);
        self
    }

    /// How long the holder of a queue may say nothing before a standby takes it for a stranger; default 3 minutes, and
    /// the same for everyone on the broker.
    pub fn with_holder_silence(mut self, silence: Duration) -> Self {
        self.holder_silence = silence.max(Duration::from_millis(100));
        self
    }

    pub(super) fn holder_silence(&self) -> Duration {
        self.holder_silence
    }

    /// Name that the broker's tools show for the connections.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Looks for a host whose name has no dots in this domain: as somebody else, who lives there, means it.
    fn within(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Connects to this port of this machine, which leads to the broker that is meant: it is that one's certificate that counts.
    pub fn through(mut self, port: u16) -> Self {
        self.through = Some(port);
        self
    }

    /// User and password, for what else the broker serves. Never to be printed.
    ///
    /// # Errors
    /// The Secret is missing or wrong.
    pub fn credentials(&self) -> Result<(String, String), WorkError> {
        let user = self.locate()?.authority.userinfo;
        Ok((user.username, user.password))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The broker that is meant now.
    ///
    /// # Errors
    /// The Secret is missing or wrong.
    pub fn identity(&self) -> Result<Identity, WorkError> {
        let uri = self.locate()?;
        Ok(Identity {
            encrypted: uri.scheme == AMQPScheme::AMQPS,
            host: uri.authority.host,
            port: uri.authority.port,
            vhost: uri.vhost,
            profile: self.profile,
        })
    }

    /// The address as it is written now, without the password, for people.
    pub(super) fn describe(&self) -> String {
        match (self.locate(), &self.address) {
            (Ok(uri), _) => shown(&uri),
            (Err(_), Address::Secret(_, name)) => format!("amqp (Secret {name:?})"),
            (Err(_), Address::Url(_)) => "amqp".into(),
        }
    }

    /// Address, credentials and trust as they are now.
    pub(super) fn resolve(&self) -> Result<Endpoint, WorkError> {
        let uri = self.locate()?;
        let authority = match &self.authority {
            _ if uri.scheme == AMQPScheme::AMQP => None,
            Authority::System => None,
            Authority::File(path) => Some(
                std::fs::read_to_string(path)
                    .map_err(|e| missing(format!("{} cannot be read: {e}", path.display())))?,
            ),
            Authority::Secret(secrets, name) => Some(secrets.required(name, "ca.crt")?),
        };
        Ok(Endpoint {
            uri,
            authority,
            through: self.through,
        })
    }

    fn locate(&self) -> Result<AMQPUri, WorkError> {
        let mut uri = match &self.address {
            Address::Url(uri) => uri.clone(),
            Address::Secret(secrets, name) => from_layout(secrets, name)?,
        };
        if let Some(vhost) = &self.vhost {
            uri.vhost.clone_from(vhost);
        }
        if self.encrypted && uri.scheme == AMQPScheme::AMQP {
            uri.scheme = AMQPScheme::AMQPS;
            // The cluster operator's Secret names the plain port although TLS is on as well.
            if uri.authority.port == PLAIN_PORT {
                uri.authority.port = TLS_PORT;
            }
        }
        if let Some(domain) = &self.domain {
            let host = &mut uri.authority.host;
            if !host.contains(['.', ':']) && host != "localhost" {
                *host = format!("{host}.{domain}");
            }
        }
        uri.query.heartbeat.get_or_insert(self.heartbeat);
        uri.query.frame_max.get_or_insert(FRAME_MAX);
        Ok(uri)
    }
}

fn from_layout(secrets: &Secrets, name: &str) -> Result<AMQPUri, WorkError> {
    let mut uri = match secrets.get(name, "connection_string") {
        Some(url) => {
            let place = format!("Secret {name:?}, key \"connection_string\"");
            if let (_, Some(_)) = split_profile(&url)? {
                let text = format!("{place} names a profile: that is said in broker.profile");
                return Err(invalid(text));
            }
            parse(&url, &place)?
        }
        None => {
            let mut uri = AMQPUri::default();
            uri.authority.host = secrets.required(name, "host").map_err(|mut error| {
                let keys = "; the Secret of a broker has connection_string, or host, username and password";
                error.text += keys;
                error
            })?;
            uri.authority.userinfo.username = secrets.required(name, "username")?;
            uri.authority.userinfo.password = secrets.required(name, "password")?;
            uri.authority.port = match secrets.get(name, "port") {
                None => PLAIN_PORT,
                Some(port) => port.trim().parse().map_err(|_| {
                    invalid(format!(
                        "Secret {name:?}, key \"port\" is not a port number"
                    ))
                })?,
            };
            uri
        }
    };
    if let Some(vhost) = secrets.get(name, "vhost") {
        uri.vhost = vhost;
    }
    Ok(uri)
}

/// What a broker's URL may say after its `?`: the profile, and what the client knows.
const PARAMETERS: [&str; 6] = [
    PROFILE,
    "heartbeat",
    "frame_max",
    "channel_max",
    "connection_timeout",
    "auth_mechanism",
];
const PROFILE: &str = "profile";

/// Takes `profile=…` out of a URL's query, which the client would not know. What nobody knows, it would pass over.
fn split_profile(url: &str) -> Result<(String, Option<Profile>), WorkError> {
    let Some((rest, query)) = url.trim().split_once('?') else {
        return Ok((url.to_owned(), None));
    };
    if query.contains('@') {
        // A password with a question mark that is not written as %3F; nothing of it is repeated.
        return Err(invalid(
            "the broker's URL has a `?` before its host; in a password it is written %3F".into(),
        ));
    }
    let mut found = None;
    let mut others = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if !PARAMETERS.contains(&name) {
            let help = match vumi_api::names::nearest(name, PARAMETERS) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("there are: {}", PARAMETERS.join(", ")),
            };
            return Err(invalid(format!(
                "the broker's URL has the unknown parameter {name:?}; {help}"
            )));
        }
        if name != PROFILE {
            others.push(parameter);
            continue;
        }
        let Some(profile) = Profile::ALL.into_iter().find(|p| p.as_str() == value) else {
            let text = "the broker's URL names an unknown profile: vumi and quorum exist";
            return Err(invalid(text.into()));
        };
        found = Some(profile);
    }
    let query = match others.is_empty() {
        true => String::new(),
        false => format!("?{}", others.join("&")),
    };
    Ok((format!("{rest}{query}"), found))
}

fn parse(url: &str, place: &str) -> Result<AMQPUri, WorkError> {
    let authority = url
        .split("://")
        .nth(1)
        .and_then(|rest| rest.split('/').next());
    let host = authority
        .and_then(|a| a.rsplit('@').next())
        .unwrap_or_default();
    let wrong = || {
        // Not the parser's words: they repeat the URL, and with it the password.
        match host.rsplit_once(':') {
            Some((_, port)) if port.parse::<u64>().is_ok_and(|port| port > 65535) => {
                invalid(format!("{place} has the port {port}; the largest is 65535"))
            }
            _ => invalid(format!(
                "{place} is not of the form amqp://user:password@host:port/vhost"
            )),
        }
    };
    let mut uri: AMQPUri = url.trim().parse().map_err(|_| wrong())?;
    if uri.vhost.is_empty() {
        uri.vhost = "/".into();
    }
    // The parser knows no IPv6 addresses and would take its default host instead.
    if let Some((address, _)) = host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        uri.authority.host = address.to_owned();
    }
    Ok(uri)
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
    use vumi_api::shared::{ClientTls, SecretRef};

    fn secrets(pairs: &[(&str, &str)]) -> Arc<Secrets> {
        let values = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let documents = BTreeMap::from([("broker".to_owned(), values.collect())]);
        Arc::new(Secrets::new(documents, None))
    }

    fn reference() -> BrokerRef {
        BrokerRef {
            secret_ref: SecretRef {
                name: "broker".into(),
            },
            vhost: None,
            management: None,
            profile: None,
            tls: None,
        }
    }

    #[test]
    fn urls() {
        for (url, shown) in [
            ("amqp://u:secret@h:1/%2fdevelop", "amqp://u@h:1//develop"),
            ("amqp://u:secret@h//develop", "amqp://u@h:5672//develop"),
            ("amqps://u:secret@h", "amqps://u@h:5671//"),
            ("amqp://u:secret@h/", "amqp://u@h:5672//"),
            ("amqp://u:secret@[::1]:7/v", "amqp://u@::1:7/v"),
            ("amqp://127.0.0.1", "amqp://guest@127.0.0.1:5672//"),
        ] {
            let config = AmqpConfig::from_url(url).unwrap();
            assert_eq!(config.describe(), shown);
            assert!(!format!("{config:?}").contains("secret"));
        }
        let wrong = AmqpConfig::from_url("http://u:secret@h").unwrap_err();
        assert!(!wrong.text.contains("secret"), "{wrong}");
    }

    #[test]
    fn a_door_on_this_machine_leads_to_the_broker_that_is_meant() {
        let config = AmqpConfig::from_url("amqps://u:p@rabbit.campaign.svc/v").unwrap();
        let meant = config.identity().unwrap();
        let through = config.through(7);
        assert_eq!(through.identity().unwrap(), meant);
        let endpoint = through.resolve().unwrap();
        assert_eq!(endpoint.uri.authority.host, "rabbit.campaign.svc");
        let door = endpoint.door().authority;
        assert_eq!((door.host.as_str(), door.port), ("127.0.0.1", 7));
    }

    #[test]
    fn a_broker_is_the_same_for_every_user() {
        let of = |url: &str| AmqpConfig::from_url(url).unwrap().identity().unwrap();
        assert_eq!(of("amqp://u:p@h/v"), of("amqp://other:secret@h:5672/v"));
        for other in [
            "amqps://u:p@h:5672/v",
            "amqp://u:p@i/v",
            "amqp://h:1/v",
            "amqp://h",
        ] {
            assert_ne!(of("amqp://u:p@h/v"), of(other));
        }
        assert_eq!(of("amqps://u:p@h").to_string(), "amqps://h:5671//");
    }

    #[test]
    fn profiles_of_urls_and_secrets() {
        let profile = |url: &str| AmqpConfig::from_url(url).map(|config| config.profile());
        assert_eq!(profile("amqp://h/v").unwrap(), Profile::Vumi);
        assert_eq!(profile("amqp://h/v?profile=vumi").unwrap(), Profile::Vumi);
        let both = AmqpConfig::from_url("amqp://h/v?heartbeat=7&profile=quorum").unwrap();
        assert_eq!(both.profile(), Profile::Quorum);
        assert_eq!(both.resolve().unwrap().uri.query.heartbeat, Some(7));
        let shown = both.identity().unwrap().to_string();
        assert_eq!(shown, "amqp://h:5672/v?profile=quorum");
        let wrong = profile("amqp://u:secret@h/v?profile=mirrored").unwrap_err();
        assert!(wrong.text.contains("quorum") && !wrong.text.contains("secret"));
        for (url, said) in [
            (
                "amqp://h/v?profil=quorum",
                "\"profil\"; did you mean profile?",
            ),
            (
                "amqp://h/v?heartbeat=7&verify=no",
                "\"verify\"; there are: profile, ",
            ),
            ("amqp://u:se?cret=1@h/v", "in a password it is written %3F"),
            (
                "amqp://h:99999/v",
                "has the port 99999; the largest is 65535",
            ),
        ] {
            let text = profile(url).unwrap_err().text;
            assert!(text.contains(said) && !text.contains("cret"), "{text}");
        }

        let of = |url: &str, profile| {
            let broker = BrokerRef {
                profile,
                ..reference()
            };
            AmqpConfig::from_secret(secrets(&[("connection_string", url)]), &broker)
        };
        let quorum = of("amqp://h/v", Some(Profile::Quorum));
        assert_eq!(quorum.profile(), Profile::Quorum);
        let classic = of("amqp://h/v", None).identity().unwrap();
        assert_ne!(quorum.identity().unwrap(), classic);
        let error = of("amqp://h/v?profile=quorum", None).identity();
        assert!(error.unwrap_err().text.contains("broker.profile"));
    }

    #[test]
    fn secret_layouts() {
        let operator = secrets(&[
            ("connection_string", "amqp://u:p@h:5672/"),
            ("host", "other"),
            ("username", "other"),
        ]);
        let config = AmqpConfig::from_secret(operator.clone(), &reference());
        assert_eq!(config.describe(), "amqp://u@h:5672//");
        let mut encrypted = reference();
        encrypted.vhost = Some("mine".into());
        encrypted.tls = Some(ClientTls {
            ca_secret_ref: None,
        });
        let config = AmqpConfig::from_secret(operator, &encrypted);
        assert_eq!(config.describe(), "amqps://u@h:5671/mine");

        let parts = secrets(&[
            ("host", "h"),
            ("port", "7"),
            ("username", "u"),
            ("password", "p@/:"),
            ("vhost", "/develop"),
        ]);
        let config = AmqpConfig::from_secret(parts, &reference());
        assert_eq!(config.describe(), "amqp://u@h:7//develop");
        let endpoint = config.resolve().unwrap();
        assert_eq!(endpoint.uri.authority.userinfo.password, "p@/:");
        assert_eq!(endpoint.uri.query.heartbeat, Some(10));
    }

    #[test]
    fn a_short_name_means_a_host_of_somebody_elses_domain() {
        let host = |url: &str| {
            let config = AmqpConfig::from_url(url).unwrap().within("campaign.svc");
            config.identity().unwrap().host
        };
        assert_eq!(host("amqp://rabbitmq"), "rabbitmq.campaign.svc");
        for whole in ["rabbitmq.other", "127.0.0.1", "localhost"] {
            assert_eq!(host(&format!("amqp://{whole}")), whole);
        }
        assert_eq!(host("amqp://[::1]"), "::1");
        let parts = secrets(&[("host", "rabbitmq"), ("username", "u"), ("password", "p")]);
        let config = AmqpConfig::of_namespace(parts, &reference(), "campaign");
        let shown = config.identity().unwrap().shown();
        assert!(shown.starts_with("rabbitmq.campaign.svc:5672/"), "{shown}");
        let config = AmqpConfig::from_url("amqp://u:p@h").unwrap();
        assert_eq!(config.credentials().unwrap(), ("u".into(), "p".into()));
    }

    #[test]
    fn what_is_missing_is_named() {
        let config = AmqpConfig::from_secret(secrets(&[("host", "h")]), &reference());
        let error = config.resolve().err().unwrap();
        assert_eq!(error.code, codes::SECRET_MISSING);
        let text = "Secret \"broker\" has no key \"username\": ";
        assert!(error.text.starts_with(text), "{error}");
        assert_eq!(config.describe(), "amqp (Secret \"broker\")");
    }
}
