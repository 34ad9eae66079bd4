//! What templates have values for.

use std::collections::BTreeMap;
use std::sync::Arc;
use vumi_api::SecretValue;
use vumi_api::template::{Value, of_json};
use vumi_api::transports::GenericHttp;
use vumi_api::transports::generic_http::MESSAGE_FIELDS;
use vumi_core::error::WorkError;
use vumi_core::message::UserMessage;
use vumi_core::worker::WorkerContext;

/// Names with values.
#[derive(Clone, Default)]
pub(super) struct Scope(BTreeMap<&'static str, Value>);

impl Scope {
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    pub(super) fn with_message(self, message: &UserMessage) -> Self {
        let field = |name: &&'static str| {
            let value = message.field(name);
            (*name, value.map_or_else(|| Value::from(()), of_json))
        };
        let fields: Vec<_> = MESSAGE_FIELDS.iter().map(field).collect();
        self.with("message", Value::from_pairs(fields))
    }

    /// As templates take it.
    pub(super) fn value(&self) -> Value {
        Value::from_pairs(self.0.iter().map(|(name, value)| (*name, value.clone())))
    }
}

/// Settings and secrets. Secrets are read when they are used, so that a rotated one takes effect.
pub(super) struct Config {
    settings: BTreeMap<String, String>,
    secrets: BTreeMap<String, SecretValue>,
    pub(super) cx: Arc<WorkerContext>,
}

impl Config {
    pub(super) fn new(provider: &GenericHttp, cx: Arc<WorkerContext>) -> Self {
        Self {
            settings: provider.settings.clone().unwrap_or_default(),
            secrets: provider.secrets.clone().unwrap_or_default(),
            cx,
        }
    }

    /// What stands under `config`.
    ///
    /// # Errors
    /// A secret is not there.
    pub(super) fn value(&self) -> Result<Value, WorkError> {
        let mut all: Vec<(&str, Value)> = Vec::new();
        for (name, text) in &self.settings {
            all.push((name, text.as_str().into()));
        }
        for (name, secret) in &self.secrets {
            all.push((name, self.cx.secrets().resolve(secret)?.into()));
        }
        Ok(Value::from_pairs(all))
    }

    /// A scope with nothing else.
    pub(super) fn scope(&self) -> Result<Scope, WorkError> {
        Ok(Scope::default().with("config", self.value()?))
    }
}
