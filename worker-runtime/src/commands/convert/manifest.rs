//! One worker of Vumi as a manifest.

use super::inputs::Found;
use super::shapes::Shape;
use super::table::{Row, Rule, TABLE};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use vumi_api::manifest::other_reading;

/// The file with all Secrets.
pub(super) const SECRETS: &str = "secrets.yaml";
/// The Secret of the broker that command lines name.
const BROKER: &str = "vumi-broker";
/// Longest name of a resource.
const LONGEST: usize = 40;

/// A manifest.
pub(super) struct Made {
    pub(super) file: String,
    pub(super) text: String,
    /// Secret, key, value.
    pub(super) secrets: Vec<(String, String, String)>,
    /// What has no counterpart.
    pub(super) lost: Vec<String>,
}

/// Names given so far.
#[derive(Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// A name of a resource that is like `wish`, and that no other has.
    fn give(&mut self, wish: &str) -> String {
        let fits = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        };
        let plain: String = wish.chars().map(fits).collect();
        let plain = plain.trim_matches('-');
        let plain = if plain.is_empty() { "worker" } else { plain };
        let plain: String = plain.chars().take(LONGEST - 4).collect();
        let plain = plain.trim_end_matches('-').to_owned();
        let mut name = plain.clone();
        for n in 2.. {
            if self.0.insert(name.clone()) {
                break;
            }
            name = format!("{plain}-{n}");
        }
        name
    }
}

/// What is being made of one worker.
struct Draft<'a> {
    name: String,
    row: &'static Row,
    config: &'a Map<String, Value>,
    spec: Map<String, Value>,
    secrets: Vec<(String, String, String)>,
    lost: Vec<String>,
    /// Not set, and why.
    dropped: Vec<String>,
    /// The Redis manager that `state.redis` is made of.
    redis: Option<&'a Value>,
}

/// The manifest of a worker; why there is none.
pub(super) fn of(found: &Found, beside: bool, names: &mut Names) -> Result<Made, String> {
    let config = &found.config;
    let Some(row) = Row::of(&found.class, config) else {
        let router = config.get("router_class").and_then(Value::as_str);
        let class = match router {
            Some(router) => format!("{} with {router}", found.class),
            None => found.class.clone(),
        };
        return Err(format!(
            "{class} has no counterpart in this version; let it run on, it shares queues with the others"
        ));
    };
    let mut draft = Draft {
        name: names.give(&found.name),
        row,
        config,
        spec: Map::from_iter([(row.key.clone(), row.base())]),
        secrets: Vec::new(),
        lost: Vec::new(),
        dropped: Vec::new(),
        redis: None,
    };
    draft.convert();
    draft.broker(&found.options);
    if beside {
        put(&mut draft.spec, "ordering.mode", "none".into());
    }
    draft.dropped.extend(found.dropped.iter().cloned());
    Ok(draft.finish(found))
}

impl<'a> Draft<'a> {
    fn convert(&mut self) {
        // Settings of middleware stand under its names.
        let instances = instances(self.config);
        for (key, value) in self.config {
            if instances.contains(key.as_str()) {
                continue;
            }
            match self.row.rule(key) {
                Some(rule) => self.apply(rule, key, value),
                None => self.lost.push(format!(
                    "{key} is not converted: {} has no setting for it",
                    self.row.key
                )),
            }
        }
    }

    fn apply(&mut self, rule: &Rule, key: &str, value: &'a Value) {
        let usual = rule.unless.as_ref().is_some_and(|usual| same(usual, value));
        if let Some(why) = &rule.lost {
            if !usual && !value.is_null() {
                self.lost.push(format!("{key} is not converted: {why}"));
            }
            return;
        }
        if let Some(why) = &rule.drop {
            if !why.is_empty() && !usual {
                self.dropped.push(format!("{key}: {why}"));
            }
            return;
        }
        if value.is_null() {
            return;
        }
        if let Some(other) = &rule.beside
            && self.config.get(other).is_none_or(Value::is_null)
        {
            self.lost.push(format!(
                "{key} is not converted: it stands without {other}, and Vumi did not heed it then"
            ));
            return;
        }
        let done = match rule.shape {
            Shape::Secret => rule.shape.read(value).map(|secret| {
                self.secret(key, &secret);
                let reference = json!({"secretKeyRef": {"name": self.name, "key": key}});
                put(&mut self.spec, &rule.to, reference);
            }),
            Shape::Redis => self.redis(&rule.to, value),
            Shape::Accounts => self.accounts(&rule.to, value),
            Shape::Middleware => self.middleware(value),
            shape => shape
                .read(value)
                .map(|value| put(&mut self.spec, &rule.to, value)),
        };
        if let Err(why) = done {
            self.lost.push(format!("{key} is not converted: {why}"));
        }
    }

    fn secret(&mut self, key: &str, value: &Value) {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        self.secrets
            .push((self.name.clone(), key.to_owned(), value));
    }

    /// An account for each sender, as a description finds it under `config`.
    fn accounts(&mut self, to: &str, value: &Value) -> Result<(), String> {
        for (sender, account) in value.as_object().ok_or("it is no mapping")? {
            let account = account.as_object().ok_or("an account is no mapping")?;
            for (key, value) in account {
                let (place, name) = match key.as_str() {
                    "username" => ("settings", format!("username_{sender}")),
                    "service_id" => ("settings", format!("service_{sender}")),
                    "password" => ("secrets", format!("password_{sender}")),
                    _ => {
                        // The sender may be a person's number.
                        self.lost.push(format!(
                            "credentials.….{key} is not converted: an account has no such part"
                        ));
                        continue;
                    }
                };
                let text = Shape::Text.read(value)?;
                let entry = match place {
                    "settings" => text,
                    _ => {
                        let fits = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
                        let key: String = name.chars().filter(fits).collect();
                        self.secret(&key, &text);
                        json!({"secretKeyRef": {"name": self.name, "key": key}})
                    }
                };
                put(
                    &mut self.spec,
                    &format!("{to}.{place}"),
                    json!({name: entry}),
                );
            }
        }
        Ok(())
    }

    fn redis(&mut self, to: &str, value: &'a Value) -> Result<(), String> {
        match self.redis {
            Some(known) if known == value => return Ok(()),
            Some(_) => return Err("a worker has one store, and it has another already".into()),
            None => self.redis = Some(value),
        }
        let options = value.as_object().ok_or("it is no mapping")?;
        let secret = format!("{}-redis", self.name);
        let (mut prefix, mut separator) = (String::new(), None);
        let mut address = Map::from_iter([("host".to_owned(), json!("127.0.0.1"))]);
        for (key, value) in options {
            match (key.as_str(), Shape::Text.read(value)) {
                (_, _) if value.is_null() => {}
                ("host" | "port" | "db" | "password", Ok(text)) => {
                    address.insert(key.clone(), text);
                }
                ("key_prefix", Ok(text)) => prefix = text.as_str().unwrap_or_default().to_owned(),
                ("key_separator", Ok(text)) => separator = Some(text),
                _ => self.lost.push(format!(
                    "redis_manager.{key} is not converted: state.redis has no setting for it"
                )),
            }
        }
        for (key, value) in address {
            let value = value.as_str().unwrap_or_default().to_owned();
            self.secrets.push((secret.clone(), key, value));
        }
        let mut redis = json!({"secretRef": {"name": secret}, "keyPrefix": prefix});
        // Vumi has no use for it either where there is no prefix.
        let used = separator.filter(|text| *text != ":" && !prefix.is_empty());
        if let Some(separator) = used {
            redis["keySeparator"] = separator;
        }
        put(&mut self.spec, to, redis);
        Ok(())
    }

    fn middleware(&mut self, value: &'a Value) -> Result<(), String> {
        let mut items = Vec::new();
        for item in value.as_array().ok_or("it is no list")? {
            let item = item.as_object().filter(|item| item.len() == 1);
            let (name, how) = item
                .and_then(|item| item.iter().next())
                .ok_or("an item must have one name")?;
            let class = how.as_str().or_else(|| how.get("class")?.as_str());
            let class = class.unwrap_or_default();
            let row = TABLE.middleware.iter();
            let Some(row) = { row }.find(|row| row.classes.iter().any(|known| known == class))
            else {
                self.lost.push(format!(
                    "middleware {name} is not converted: {class} has no counterpart in this version"
                ));
                continue;
            };
            let mut made = Map::from_iter([("name".to_owned(), json!(name))]);
            for (theirs, ours) in [
                ("consume_priority", "consumePriority"),
                ("publish_priority", "publishPriority"),
            ] {
                if let Some(priority) = how.get(theirs) {
                    made.insert(ours.into(), Shape::Integer.read(priority)?);
                }
            }
            made.insert(row.key.clone(), json!({}));
            let settings = self.config.get(name).and_then(Value::as_object);
            for (key, value) in settings.into_iter().flatten() {
                match row.rule(key) {
                    Some(rule) if rule.drop.is_some() => {
                        let why = rule.drop.as_deref().unwrap_or_default();
                        self.dropped.push(format!("{name}.{key}: {why}"));
                    }
                    Some(rule) if rule.shape == Shape::Redis => {
                        if let Err(why) = self.redis(&rule.to, value) {
                            self.lost
                                .push(format!("{name}.{key} is not converted: {why}"));
                        }
                    }
                    Some(rule) => match rule.shape.read(value) {
                        Ok(value) => put(&mut made, &rule.to, value),
                        Err(why) => self
                            .lost
                            .push(format!("{name}.{key} is not converted: {why}")),
                    },
                    None => self.lost.push(format!(
                        "{name}.{key} is not converted: {} has no setting for it",
                        row.key
                    )),
                }
            }
            items.push(Value::Object(made));
        }
        self.spec.insert("middleware".into(), items.into());
        Ok(())
    }

    /// The broker of a command line.
    fn broker(&mut self, options: &Map<String, Value>) {
        let mut address = Vec::new();
        for (key, value) in options {
            let text = Shape::Text.read(value);
            let text = text.ok().and_then(|text| text.as_str().map(str::to_owned));
            match (key.as_str(), text) {
                ("hostname", Some(text)) => address.push(("host", text)),
                ("port", Some(text)) => address.push(("port", text)),
                ("username", Some(text)) => address.push(("username", text)),
                ("password", Some(text)) => address.push(("password", text)),
                ("vhost", Some(text)) => put(&mut self.spec, "broker.vhost", text.into()),
                ("specfile", _) => self.dropped.push("specfile: AMQP 0-9-1 is spoken".into()),
                ("sentry", _) => self
                    .lost
                    .push("--sentry is not converted: errors are logged and counted".into()),
                ("system-id", _) => self.dropped.push("system-id: give it to `vumi run`".into()),
                ("maxthreads", _) => self
                    .dropped
                    .push("maxthreads: threads are the runtime's".into()),
                (key, _) => self
                    .lost
                    .push(format!("--{key} is not converted: nothing has its meaning")),
            }
        }
        if address.is_empty() && !options.contains_key("vhost") {
            return;
        }
        // What Vumi takes for granted.
        for (key, usual) in [
            ("host", "127.0.0.1"),
            ("port", "5672"),
            ("username", "vumi"),
            ("password", "vumi"),
        ] {
            if !address.iter().any(|(given, _)| *given == key) {
                address.push((key, usual.to_owned()));
            }
        }
        if !options.contains_key("vhost") {
            put(&mut self.spec, "broker.vhost", "/develop".into());
        }
        put(&mut self.spec, "broker.secretRef.name", BROKER.into());
        let secrets = address.into_iter();
        self.secrets
            .extend(secrets.map(|(key, value)| (BROKER.into(), key.into(), value)));
    }

    fn finish(mut self, found: &Found) -> Made {
        // What is confidential now is no setting any more.
        if let Some(Value::Object(described)) = self.spec.get_mut("genericHttp") {
            let secrets = described.get("secrets").and_then(Value::as_object);
            let names: Vec<String> = secrets.into_iter().flat_map(Map::keys).cloned().collect();
            if let Some(Value::Object(settings)) = described.get_mut("settings") {
                settings.retain(|name, _| !names.contains(name));
            }
        }
        let manifest = json!({
            "apiVersion": "vumi.dev/v1alpha1",
            "kind": self.row.kind,
            "metadata": {"name": self.name},
            "spec": self.spec,
        });
        let mut text = format!("# From {}: {}\n", found.from, found.class);
        for lost in &self.lost {
            text.push_str(&format!("# {lost}\n"));
        }
        for dropped in &self.dropped {
            text.push_str(&format!("# Not needed: {dropped}\n"));
        }
        text.push_str(&yaml(&manifest));
        Made {
            file: format!("{}.yaml", self.name),
            text,
            secrets: self.secrets,
            lost: self.lost,
        }
    }
}

/// Names of the instances of middleware.
fn instances(config: &Map<String, Value>) -> BTreeSet<&str> {
    let list = config.get("middleware").and_then(Value::as_array);
    let items = list.into_iter().flatten().filter_map(Value::as_object);
    items
        .flat_map(|item| item.keys().map(String::as_str))
        .collect()
}

/// Whether two values are the same to Vumi: `5`, `5.0` and `"5"` are.
fn same(one: &Value, other: &Value) -> bool {
    let text = |value: &Value| {
        Shape::Text
            .read(value)
            .ok()?
            .as_str()
            .map(str::to_lowercase)
    };
    let number = |value: &Value| text(value)?.parse::<f64>().ok();
    match (number(one), number(other)) {
        (Some(one), Some(other)) => one == other,
        _ => text(one).is_some() && text(one) == text(other),
    }
}

/// Sets what stands at a dotted path; a mapping joins what is there.
fn put(spec: &mut Map<String, Value>, path: &str, value: Value) {
    let (key, rest) = match path.split_once('.') {
        Some((key, rest)) => (key, Some(rest)),
        None => (path, None),
    };
    let entry = spec.entry(key).or_insert(Value::Null);
    match (rest, value) {
        (Some(rest), value) => {
            if !entry.is_object() {
                *entry = json!({});
            }
            if let Some(map) = entry.as_object_mut() {
                put(map, rest, value);
            }
        }
        (None, Value::Object(map)) if entry.is_object() => {
            for (key, value) in map {
                if let Some(entry) = entry.as_object_mut() {
                    entry.insert(key, value);
                }
            }
        }
        (None, value) => *entry = value,
    }
}

/// The Secrets, one document each.
pub(super) fn secrets(values: Vec<(String, String, String)>) -> String {
    let mut all: Vec<(String, Map<String, Value>)> = Vec::new();
    for (name, key, value) in values {
        let place = all.iter().position(|(known, _)| *known == name);
        let place = place.unwrap_or_else(|| {
            all.push((name, Map::new()));
            all.len() - 1
        });
        all[place].1.insert(key, value.into());
    }
    let documents = all.into_iter().map(|(name, data)| {
        yaml(&json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": data,
        }))
    });
    documents.collect::<Vec<_>>().join("---\n")
}

fn yaml(value: &Value) -> String {
    let mut words = BTreeSet::new();
    let text = serde_yaml::to_string(&plain(value, &mut words));
    let text = text.unwrap_or_else(|_| format!("{value}\n"));
    words.into_iter().fold(text, |text, word| {
        text.replace(&marked(word), &format!("'{word}'"))
    })
}

/// A text that must stand in quotes: the writer knows no other readers than itself.
fn marked(word: &str) -> String {
    format!("in-quotes-{word}-in-quotes")
}

/// Numbers of JSON are kept as they are written, which the writer of YAML does not know. `words` are texts that other
/// readers of YAML would take for something else.
fn plain<'v>(value: &'v Value, words: &mut BTreeSet<&'v str>) -> serde_yaml::Value {
    match value {
        Value::Null => serde_yaml::Value::Null,
        Value::Bool(set) => (*set).into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.to_string().into(),
        },
        Value::String(text) if other_reading(text).is_some() => {
            words.insert(text);
            marked(text).into()
        }
        Value::String(text) => text.as_str().into(),
        Value::Array(list) => {
            let items = list.iter().map(|item| plain(item, words));
            items.collect::<Vec<_>>().into()
        }
        Value::Object(map) => {
            let entries = map.iter();
            let entries = entries.map(|(key, value)| (key.as_str().into(), plain(value, words)));
            serde_yaml::Value::Mapping(entries.collect())
        }
    }
}
