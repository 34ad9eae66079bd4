//! The table of what Vumi had, as data.

use super::shapes::Shape;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use vumi_api::manifest::{self, Target};

/// Keys by name.
pub(super) type Keys = BTreeMap<String, Rule>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) channels: BTreeMap<String, String>,
    pub(super) channel: Keys,
    pub(super) common: Keys,
    pub(super) http: Keys,
    pub(super) workers: Vec<Row>,
    pub(super) middleware: Vec<Row>,
    pub(super) program: Keys,
}

/// One class, as a worker type or a middleware.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) classes: Vec<String>,
    /// Values of `router_class`, where that decides.
    #[serde(default)]
    pub(super) router: Vec<String>,
    #[serde(default)]
    pub(super) kind: String,
    #[serde(rename = "type")]
    pub(super) key: String,
    /// The example that describes it, for a `genericHttp`, and what stands in place of its settings.
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) settings: BTreeMap<String, String>,
    /// What stands under the type whatever the configuration says, so that it does as the class did.
    #[serde(default)]
    pub(super) fixed: Option<Value>,
    #[serde(default)]
    pub(super) http: bool,
    #[serde(default)]
    pub(super) keys: Keys,
}

/// What becomes of a key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(default)]
    pub(super) to: String,
    #[serde(default, rename = "as")]
    pub(super) shape: Shape,
    pub(super) drop: Option<String>,
    pub(super) lost: Option<String>,
    pub(super) unless: Option<Value>,
    /// Another key, without which Vumi did not heed this one.
    pub(super) beside: Option<String>,
}

/// The table. That it can be read is tested.
pub(super) static TABLE: LazyLock<Table> = LazyLock::new(|| {
    #[allow(clippy::expect_used)] // a file of ours, which a test reads
    serde_yaml::from_str(include_str!("table.yaml")).expect("the table can be read")
});

/// Examples that describe a provider.
const DESCRIPTIONS: [(&str, &str); 2] = [
    (
        "airtel",
        include_str!("../../../../examples/generic-http/airtel.yaml"),
    ),
    (
        "apposit",
        include_str!("../../../../examples/generic-http/apposit.yaml"),
    ),
];

impl Row {
    /// What stands under the type before any key is converted.
    pub(super) fn base(&self) -> Value {
        let wanted = |(name, _): &&(&str, &str)| self.description.as_deref() == Some(*name);
        let Some(example) = DESCRIPTIONS.iter().find(wanted) else {
            return self.fixed.clone().unwrap_or_else(|| json!({}));
        };
        let manifests = manifest::load(&[*example], Target::Local);
        let mut described = manifests.resources.iter().find_map(|loaded| {
            let transport = loaded.resource.transport()?;
            transport.generic_http.clone()
        });
        if let Some(described) = &mut described {
            described.secrets = None;
            described.settings = (!self.settings.is_empty()).then(|| self.settings.clone());
        }
        serde_json::to_value(described).unwrap_or_default()
    }

    /// The row of a worker with this class and configuration.
    pub(super) fn of(class: &str, config: &serde_json::Map<String, Value>) -> Option<&'static Row> {
        let router = config.get("router_class").and_then(Value::as_str);
        TABLE.workers.iter().find(|row| {
            let is_router = |name: &str| row.router.iter().any(|router| router == name);
            row.classes.iter().any(|name| name == class)
                && (row.router.is_empty() || router.is_some_and(is_router))
        })
    }

    /// The rule for a key.
    pub(super) fn rule(&self, key: &str) -> Option<&'static Rule>
    where
        Self: 'static,
    {
        let own = TABLE
            .workers
            .iter()
            .chain(&TABLE.middleware)
            .find(|row| std::ptr::eq(*row, self))
            .and_then(|row| row.keys.get(key));
        let http = self.http.then(|| TABLE.http.get(key)).flatten();
        let common = || match self.kind.as_str() {
            "" => None,
            "Dispatcher" if key == "transport_name" => None,
            _ => TABLE.common.get(key),
        };
        own.or(http).or_else(common)
    }
}
