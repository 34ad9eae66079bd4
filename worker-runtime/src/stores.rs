//! Which state store each worker uses: one for all by `--redis`, else what its manifest names, else the default of the
//! command.

use crate::brokers::check_authority;
use crate::error::CliError;
use async_trait::async_trait;
use std::path::PathBuf;
use std::sync::Arc;
use vumi_api::Resource;
use vumi_api::shared::state::DEFAULT_STATE_SECRET;
use vumi_api::shared::{RedisRef, SecretRef, StateRef};
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::secrets::Secrets;
use vumi_core::state::StateStore;
use vumi_core::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use vumi_core::state::redis::{RedisConfig, RedisStore};
use vumi_core::supervisor::services::StateSource;

/// Keys of a Secret by which it is known to hold the address of a Redis.
const ADDRESS_KEYS: [&str; 3] = ["connection_string", "host", "sentinels"];

/// Which store workers use.
#[derive(Clone)]
pub enum Choice {
    /// This Redis, whatever manifests say.
    Url(RedisUrl),
    /// What the manifest names; for `volume`, and where it names nothing, the one inside this process.
    Embedded(EmbeddedStoreOptions),
    /// What the manifest names, else the Secret `vumi-redis` if there is one. For `volume` the folder, if one was given.
    Secret(Option<PathBuf>),
}

/// A Redis by its address.
#[derive(Clone)]
pub struct RedisUrl {
    /// `redis://…` or `rediss://…`, with credentials: never printed.
    pub url: String,
    /// PEM file of a private certificate authority.
    pub authority: Option<PathBuf>,
    /// What all keys begin with.
    pub prefix: Option<String>,
    /// What stands after the prefix.
    pub separator: Option<String>,
}

/// With what keys begin with, as far as it is said.
fn keyed(mut config: RedisConfig, prefix: Option<&str>, separator: Option<&str>) -> RedisConfig {
    if let Some(prefix) = prefix {
        config = config.with_key_prefix(prefix);
    }
    if let Some(separator) = separator {
        config = config.with_key_separator(separator);
    }
    config
}

impl RedisUrl {
    /// How it is reached.
    pub fn config(&self) -> Result<RedisConfig, WorkError> {
        let mut config = RedisConfig::from_url(&self.url)?;
        if let Some(path) = &self.authority {
            config = config.with_ca_file(path);
        }
        Ok(keyed(
            config,
            self.prefix.as_deref(),
            self.separator.as_deref(),
        ))
    }

    /// Whether it can be used at all, before anything is asked of it.
    fn check(&self) -> Result<RedisConfig, CliError> {
        check_authority("--redis-ca", self.authority.as_deref())?;
        Ok(self.config()?)
    }

    /// Connects to it.
    pub fn open(&self) -> Result<Arc<dyn StateStore>, CliError> {
        Ok(RedisStore::open(self.check()?))
    }
}

/// The state stores of a process, by what its workers name.
pub struct Stores {
    choice: Choice,
    secrets: Arc<Secrets>,
    name: String,
}

/// What one worker uses.
enum Used {
    Nothing,
    Redis(Box<RedisConfig>),
    Embedded(EmbeddedStoreOptions),
}

impl Stores {
    /// Checks what was given.
    pub fn new(choice: Choice, secrets: Arc<Secrets>, process: &str) -> Result<Self, CliError> {
        if let Choice::Url(url) = &choice {
            url.check()?;
        }
        Ok(Self {
            choice,
            secrets,
            name: format!("vumi {process}"),
        })
    }

    /// How the Redis of a worker is reached; none for one that uses another store, or none.
    pub fn config(&self, resource: &Resource) -> Result<Option<RedisConfig>, WorkError> {
        Ok(match self.used(resource)? {
            Used::Redis(config) => Some(*config),
            Used::Embedded(_) | Used::Nothing => None,
        })
    }

    fn used(&self, resource: &Resource) -> Result<Used, WorkError> {
        let named = resource.settings().state;
        Ok(match (&self.choice, named) {
            (Choice::Url(url), _) => Used::Redis(Box::new(url.config()?)),
            (
                _,
                Some(StateRef {
                    redis: Some(redis), ..
                }),
            ) => Used::Redis(Box::new(self.redis(&redis))),
            (Choice::Embedded(options), _) => Used::Embedded(options.clone()),
            (Choice::Secret(Some(folder)), Some(_)) => Used::Embedded(EmbeddedStoreOptions {
                folder: Some(folder.join("store")),
                sync: false,
            }),
            (Choice::Secret(None), Some(_)) => {
                return Err(WorkError::new(
                    ErrorClass::Config,
                    codes::STATE_NONE,
                    "state.volume needs a folder that outlives the process: give --state DIR",
                ));
            }
            (Choice::Secret(_), None) if self.has_default() => {
                Used::Redis(Box::new(self.redis(&RedisRef {
                    secret_ref: SecretRef {
                        name: DEFAULT_STATE_SECRET.into(),
                    },
                    key_prefix: None,
                    key_separator: None,
                    tls: None,
                })))
            }
            (Choice::Secret(_), None) => Used::Nothing,
        })
    }

    fn has_default(&self) -> bool {
        ADDRESS_KEYS
            .iter()
            .any(|key| self.secrets.get(DEFAULT_STATE_SECRET, key).is_some())
    }

    fn redis(&self, named: &RedisRef) -> RedisConfig {
        let config = RedisConfig::from_secret(Arc::clone(&self.secrets), &named.secret_ref.name);
        let (prefix, separator) = (&named.key_prefix, &named.key_separator);
        let mut config = keyed(config, prefix.as_deref(), separator.as_deref());
        if let Some(tls) = &named.tls {
            config = match &tls.ca_secret_ref {
                Some(ca) => config.with_ca_secret(Arc::clone(&self.secrets), &ca.name),
                None => config.with_tls(),
            };
        }
        config
    }
}

#[async_trait]
impl StateSource for Stores {
    fn identity(&self, resource: &Resource) -> Result<Option<String>, WorkError> {
        Ok(match self.used(resource)? {
            Used::Nothing => None,
            Used::Embedded(EmbeddedStoreOptions { folder, .. }) => Some(match folder {
                Some(folder) => format!("embedded {}", folder.display()),
                None => "embedded".into(),
            }),
            Used::Redis(config) => {
                let identity = config.identity().map_err(|error| WorkError {
                    text: format!(
                        "state: {}; the Secret needs connection_string, or host, or sentinels and masterName",
                        error.text
                    ),
                    ..error
                })?;
                // Two prefixes are two stores.
                Some(format!("{identity} {}", identity.root))
            }
        })
    }

    async fn open(&self, resource: &Resource) -> Result<Arc<dyn StateStore>, WorkError> {
        match self.used(resource)? {
            Used::Redis(config) => Ok(RedisStore::open(config.with_name(&self.name))),
            Used::Embedded(options) => {
                let opened = tokio::task::spawn_blocking(|| EmbeddedStore::open(options)).await;
                let store = opened.map_err(|error| {
                    let text = format!("opening the state store failed: {error}");
                    WorkError::new(ErrorClass::Bug, codes::BUG_ENDED, text)
                })??;
                Ok(store)
            }
            Used::Nothing => Err(WorkError::new(
                ErrorClass::Config,
                codes::STATE_NONE,
                format!("{} has no state store", resource.key()),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use vumi_api::Target;
    use vumi_api::manifest::load;

    fn resource(state: &str) -> Resource {
        let text = format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {{name: e}}\nspec: {{echo: {{}}, transportName: t{state}}}\n"
        );
        let manifests = load(&[("e.yaml", text)], Target::Local);
        assert!(!manifests.has_errors(), "{:?}", manifests.findings);
        manifests.resources[0].resource.clone()
    }

    fn secrets(names: &[&str], url: &str) -> BTreeMap<String, BTreeMap<String, String>> {
        let keys = BTreeMap::from([("connection_string".to_owned(), url.to_owned())]);
        let names = names.iter().map(|name| ((*name).to_owned(), keys.clone()));
        names.collect()
    }

    const MINE: &str = ", state: {redis: {secretRef: {name: mine}}}";
    const VOLUME: &str = ", state: {volume: {}}";

    #[test]
    fn what_a_worker_uses_depends_on_flag_manifest_and_command() {
        let documents = secrets(&["vumi-redis", "mine"], "redis://u:hunter2@redis/1");
        let secrets = Arc::new(Secrets::new(documents, None));
        let redis = || Some("redis://redis:6379/1 vumi:".to_owned());
        let other = || Some("redis://other:6379/0 mine-".to_owned());
        let folder = PathBuf::from("/data");
        let local = EmbeddedStoreOptions {
            folder: Some("/data/store".into()),
            sync: true,
        };
        let disk = || Some("embedded /data/store".to_owned());
        let url = RedisUrl {
            url: "redis://u:hunter2@other".into(),
            authority: None,
            prefix: Some("mine".into()),
            separator: Some("-".into()),
        };
        for (choice, plain, named, volume) in [
            (Choice::Embedded(local), disk(), redis(), disk()),
            (
                Choice::Embedded(EmbeddedStoreOptions::default()),
                Some("embedded".into()),
                redis(),
                Some("embedded".into()),
            ),
            (Choice::Secret(Some(folder)), redis(), redis(), disk()),
            (Choice::Url(url), other(), other(), other()),
        ] {
            let stores = Stores::new(choice, Arc::clone(&secrets), "test").unwrap();
            assert_eq!(stores.identity(&resource("")).unwrap(), plain);
            assert_eq!(stores.identity(&resource(MINE)).unwrap(), named);
            assert_eq!(stores.identity(&resource(VOLUME)).unwrap(), volume);
        }
    }

    #[test]
    fn a_pod_without_a_secret_has_no_store_and_a_volume_needs_a_folder() {
        let secrets = Arc::new(Secrets::default());
        let stores = Stores::new(Choice::Secret(None), Arc::clone(&secrets), "test").unwrap();
        assert_eq!(stores.identity(&resource("")).unwrap(), None);
        let error = stores.identity(&resource(VOLUME)).unwrap_err();
        assert_eq!(error.code, codes::STATE_NONE);
        let error = stores.identity(&resource(MINE)).unwrap_err();
        assert_eq!(error.code, codes::SECRET_MISSING);
        assert!(error.text.contains("mine"), "{error}");
    }

    #[test]
    fn a_rotated_password_is_the_same_store_and_another_address_or_prefix_is_not() {
        let at = |url: &str| secrets(&["mine"], url);
        let secrets = Arc::new(Secrets::new(at("redis://:old@redis"), None));
        let stores = Stores::new(Choice::Secret(None), Arc::clone(&secrets), "test").unwrap();
        let identity = |state: &str| stores.identity(&resource(state)).unwrap();
        let before = identity(MINE);
        secrets.replace(at("redis://u:new@redis"));
        assert_eq!(identity(MINE), before);
        let prefixed = ", state: {redis: {secretRef: {name: mine}, keyPrefix: other}}";
        assert_ne!(identity(prefixed), before);
        let separated =
            ", state: {redis: {secretRef: {name: mine}, keyPrefix: vumi, keySeparator: '/'}}";
        assert_eq!(
            identity(separated),
            Some("redis://redis:6379/0 vumi/".into())
        );
        secrets.replace(at("redis://u:new@redis-2"));
        assert_ne!(identity(MINE), before);
    }

    #[test]
    fn a_bad_url_is_refused_at_once_and_not_repeated() {
        let url = RedisUrl {
            url: "http://u:hunter2@h".into(),
            authority: None,
            prefix: None,
            separator: None,
        };
        let error = Stores::new(Choice::Url(url), Arc::default(), "test")
            .err()
            .unwrap();
        assert_eq!(error.code, CliError::VALIDATION);
        assert!(!error.text.contains("hunter2"), "{error}");
    }
}
