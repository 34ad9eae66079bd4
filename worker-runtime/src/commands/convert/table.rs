//! The table of what Vumi had, as data.

use super::shapes::Shape;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::LazyLock;

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
    pub(super) unless: Option<Value>,
}

/// The table. That it can be read is tested.
pub(super) static TABLE: LazyLock<Table> = LazyLock::new(|| {
    #[allow(clippy::expect_used)] // a file of ours, which a test reads
    serde_yaml::from_str(include_str!("table.yaml")).expect("the table can be read")
});

impl Row {
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
