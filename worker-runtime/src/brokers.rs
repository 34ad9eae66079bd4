//! Which broker each worker uses: one for all by `--broker`, else what its manifest names, else the default of the
//! command. Several workers on one broker share its connections.

use crate::error::CliError;
use crate::patience;
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vumi_api::Resource;
use vumi_api::shared::BrokerRef;
use vumi_core::broker::amqp::{AmqpBroker, AmqpConfig};
use vumi_core::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use vumi_core::broker::{Broker, LinkState};
use vumi_core::error::WorkError;
use vumi_core::secrets::Secrets;
use vumi_core::supervisor::services::BrokerSource;

/// Which broker workers use.
#[derive(Clone)]
pub enum Choice {
    /// This one, whatever manifests say.
    Url(Url),
    /// What the manifest names, else the one inside this process.
    Embedded(EmbeddedOptions),
    /// What the manifest names, else the Secret `vumi-broker`.
    Secret,
}

/// A broker by its address.
#[derive(Clone)]
pub struct Url {
    /// `amqp://…` or `amqps://…`, with credentials: never printed.
    pub url: String,
    /// PEM file of a private certificate authority.
    pub authority: Option<PathBuf>,
}

impl Url {
    /// How it is reached.
    pub fn config(&self) -> Result<AmqpConfig, WorkError> {
        let config = AmqpConfig::from_url(&self.url)?;
        Ok(match &self.authority {
            Some(path) => config.with_ca_file(path),
            None => config,
        })
    }

    /// Whether it can be used at all, before anything is asked of it.
    fn check(&self) -> Result<AmqpConfig, CliError> {
        check_authority("--broker-ca", self.authority.as_deref())?;
        Ok(self.config()?)
    }

    /// Connects to it.
    pub fn open(&self) -> Result<Arc<dyn Broker>, CliError> {
        Ok(AmqpBroker::connect(self.check()?))
    }
}

/// A file that a flag names must hold a certificate authority: without it no connection will ever come about.
pub fn check_authority(flag: &str, file: Option<&Path>) -> Result<(), CliError> {
    let Some(file) = file else {
        return Ok(());
    };
    let place = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        let error = CliError::unreadable(file.display(), &error);
        CliError::environment(format!("{flag}: {error}"))
    })?;
    match text.contains("-----BEGIN CERTIFICATE-----") {
        true => Ok(()),
        false => Err(CliError::validation(format!(
            "{flag} {place} holds no certificate: it must be a PEM file, with -----BEGIN CERTIFICATE-----"
        ))),
    }
}

/// A broker that cannot be reached is said after a few seconds, not waited for.
pub async fn connected(broker: &Arc<dyn Broker>) -> Result<(), CliError> {
    let mut link = broker.link();
    let up = link.wait_for(|state| {
        matches!(
            state,
            LinkState::Up { .. } | LinkState::Connecting { refused: true, .. }
        )
    });
    let says = |_: Duration| format!("waiting for {} (10 s at most)", broker.describe());
    let up = tokio::time::timeout(Duration::from_secs(10), up);
    let state = match patience::told(says, up).await {
        Ok(Ok(state)) => state.clone(),
        _ => broker.link().borrow().clone(),
    };
    match state {
        LinkState::Up { .. } => Ok(()),
        LinkState::Connecting { error, .. } => Err(CliError::environment(format!(
            "{}: {}",
            broker.describe(),
            error.unwrap_or_else(|| "no answer within 10 s".into())
        ))),
        other => Err(CliError::environment(format!(
            "{}: {other:?}",
            broker.describe()
        ))),
    }
}

/// The brokers of a process, by what its workers name.
pub struct Brokers {
    choice: Choice,
    secrets: Arc<Secrets>,
    name: String,
    /// The embedded broker, opened when the process starts so that a state folder that is in use ends it.
    ready: Mutex<Option<Arc<dyn Broker>>>,
}

/// What one worker uses.
enum Used<'a> {
    Url(&'a Url),
    Embedded(&'a EmbeddedOptions),
    Secret(BrokerRef),
}

impl Brokers {
    /// Opens what can be opened without knowing any worker, and checks what was given.
    pub fn new(choice: Choice, secrets: Arc<Secrets>, process: &str) -> Result<Self, CliError> {
        let ready = match &choice {
            Choice::Embedded(options) => Some(EmbeddedBroker::open(options.clone())?),
            Choice::Url(url) => {
                url.check()?;
                None
            }
            Choice::Secret => None,
        };
        Ok(Self {
            choice,
            secrets,
            name: format!("vumi {process}"),
            ready: Mutex::new(ready),
        })
    }

    /// How the RabbitMQ of a worker is reached; none for one that uses the broker inside the process.
    pub fn config(&self, resource: &Resource) -> Result<Option<AmqpConfig>, WorkError> {
        Ok(match self.used(resource) {
            Used::Url(url) => Some(url.config()?),
            Used::Secret(named) => Some(AmqpConfig::from_secret(Arc::clone(&self.secrets), &named)),
            Used::Embedded(_) => None,
        })
    }

    fn used(&self, resource: &Resource) -> Used<'_> {
        match (&self.choice, resource.settings().broker) {
            (Choice::Url(url), _) => Used::Url(url),
            (_, Some(named)) => Used::Secret(named),
            (Choice::Embedded(options), None) => Used::Embedded(options),
            (Choice::Secret, None) => Used::Secret(BrokerRef::usual()),
        }
    }
}

#[async_trait]
impl BrokerSource for Brokers {
    fn identity(&self, resource: &Resource) -> Result<String, WorkError> {
        match self.used(resource) {
            Used::Url(url) => Ok(url.config()?.identity()?.to_string()),
            Used::Embedded(_) => Ok("embedded".into()),
            Used::Secret(named) => {
                let name = &named.secret_ref.name;
                let config = AmqpConfig::from_secret(Arc::clone(&self.secrets), &named);
                let identity = config.identity().map_err(|error| WorkError {
                    text: format!(
                        "broker: {}; the Secret needs connection_string, or host, username and password",
                        error.text
                    ),
                    ..error
                })?;
                // Two Secrets for one address may hold users with different rights.
                Ok(format!("{identity} (Secret {name})"))
            }
        }
    }

    async fn open(&self, resource: &Resource) -> Result<Arc<dyn Broker>, WorkError> {
        let config = match self.used(resource) {
            Used::Url(url) => url.config()?,
            Used::Secret(named) => AmqpConfig::from_secret(Arc::clone(&self.secrets), &named),
            Used::Embedded(options) => {
                let ready = {
                    let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
                    ready.take()
                };
                return match ready {
                    Some(broker) => Ok(broker),
                    // It was closed because no worker used it.
                    None => EmbeddedBroker::open(options.clone()),
                };
            }
        };
        Ok(AmqpBroker::connect(config.with_name(&self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use vumi_api::Target;
    use vumi_api::manifest::load;
    use vumi_core::codes;

    fn resource(broker: &str) -> Resource {
        let text = format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {{name: e}}\nspec: {{echo: {{}}, transportName: t{broker}}}\n"
        );
        let manifests = load(&[("e.yaml", text)], Target::Local);
        assert!(!manifests.has_errors(), "{:?}", manifests.findings);
        manifests.resources[0].resource.clone()
    }

    fn secrets(url: &str) -> Arc<Secrets> {
        let keys = BTreeMap::from([("connection_string".to_owned(), url.to_owned())]);
        let names = ["vumi-broker", "mine"].map(|name| (name.to_owned(), keys.clone()));
        Arc::new(Secrets::new(BTreeMap::from(names), None))
    }

    const MINE: &str = ", broker: {secretRef: {name: mine}}";

    #[test]
    fn what_a_worker_uses_depends_on_flag_manifest_and_command() {
        let secrets = secrets("amqp://u:hunter2@rabbit:5672/v");
        let url = Url {
            url: "amqp://u:hunter2@other".into(),
            authority: None,
        };
        let rabbit = "amqp://rabbit:5672/v";
        for (choice, plain, named) in [
            (
                Choice::Embedded(EmbeddedOptions::default()),
                "embedded".to_owned(),
                format!("{rabbit} (Secret mine)"),
            ),
            (
                Choice::Secret,
                format!("{rabbit} (Secret vumi-broker)"),
                format!("{rabbit} (Secret mine)"),
            ),
            (
                Choice::Url(url),
                "amqp://other:5672//".to_owned(),
                "amqp://other:5672//".to_owned(),
            ),
        ] {
            let brokers = Brokers::new(choice, Arc::clone(&secrets), "test").unwrap();
            assert_eq!(brokers.identity(&resource("")).unwrap(), plain);
            assert_eq!(brokers.identity(&resource(MINE)).unwrap(), named);
        }
    }

    #[test]
    fn a_rotated_password_or_user_is_the_same_broker_and_an_address_is_not() {
        let secrets = secrets("amqp://u:old@rabbit");
        let brokers = Brokers::new(Choice::Secret, Arc::clone(&secrets), "test").unwrap();
        let before = brokers.identity(&resource("")).unwrap();
        let rotate = |url: &str| {
            let keys = BTreeMap::from([("connection_string".to_owned(), url.to_owned())]);
            secrets.replace(BTreeMap::from([("vumi-broker".to_owned(), keys)]));
        };
        rotate("amqp://v:new@rabbit");
        assert_eq!(brokers.identity(&resource("")).unwrap(), before);
        rotate("amqp://v:new@rabbit-2");
        assert_ne!(brokers.identity(&resource("")).unwrap(), before);
        secrets.replace(BTreeMap::new());
        let error = brokers.identity(&resource("")).unwrap_err();
        assert_eq!(error.code, codes::SECRET_MISSING);
        assert!(error.text.contains("vumi-broker"), "{error}");
    }

    #[test]
    fn a_bad_url_is_refused_at_once_and_not_repeated() {
        let url = Url {
            url: "http://u:hunter2@h".into(),
            authority: None,
        };
        let error = Brokers::new(Choice::Url(url), Arc::default(), "test")
            .err()
            .unwrap();
        assert_eq!(error.code, CliError::VALIDATION);
        assert!(!error.text.contains("hunter2"), "{error}");
        assert!(!error.text.contains("vumi lint"), "{error}");
    }

    #[test]
    fn an_authority_that_is_missing_or_none_is_said_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let url = |file: &str| Url {
            url: "amqps://u:p@h".into(),
            authority: Some(folder.path().join(file)),
        };
        let refused = |file: &str| {
            let brokers = Brokers::new(Choice::Url(url(file)), Arc::default(), "test");
            brokers.err().expect(file)
        };
        let error = refused("absent.pem");
        assert_eq!(error.code, CliError::ENVIRONMENT);
        assert!(error.text.contains("absent.pem"), "{error}");
        std::fs::write(folder.path().join("notes.pem"), "notes").unwrap();
        let error = refused("notes.pem");
        assert_eq!(error.code, CliError::VALIDATION);
        assert!(error.text.contains("no certificate"), "{error}");
    }
}
