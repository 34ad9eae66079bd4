//! What ran under Vumi: configurations, supervisord files, Junebug's channels.

mod supervisord;
mod words;

use super::Arguments;
use super::table::TABLE;
use crate::error::CliError;
use serde_json::{Map, Value};
use std::io::Read;
use std::path::{Path, PathBuf};

/// One worker.
#[derive(Debug)]
pub(super) struct Found {
    /// False for what is said about a whole file.
    pub(super) is_worker: bool,
    /// Where it was found, for people.
    pub(super) from: String,
    /// What its resource may be called.
    pub(super) name: String,
    /// Its class; empty for what is no worker.
    pub(super) class: String,
    pub(super) config: Map<String, Value>,
    /// Options of the process: the broker, …
    pub(super) options: Map<String, Value>,
    /// What has no counterpart.
    pub(super) lost: Vec<String>,
    /// What is not needed, and why.
    pub(super) dropped: Vec<String>,
    /// Whether a file that it names cannot be read; which is in `lost`.
    pub(super) is_unreadable: bool,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            is_worker: true,
            from: String::new(),
            name: String::new(),
            class: String::new(),
            config: Map::new(),
            options: Map::new(),
            lost: Vec::new(),
            dropped: Vec::new(),
            is_unreadable: false,
        }
    }
}

/// Everything that the arguments name.
pub(super) fn read(arguments: &Arguments) -> Result<Vec<Found>, CliError> {
    let mut found = Vec::new();
    if let Some(class) = &arguments.worker_class {
        let mut worker = Found {
            from: "command line".into(),
            name: class_name(class),
            class: class.clone(),
            ..Found::default()
        };
        if let [_, _, ..] = arguments.files.as_slice() {
            return Err(CliError::validation(
                "one --worker-class takes one configuration file",
            ));
        }
        if let Some(file) = arguments.files.first() {
            worker.from = file.display().to_string();
            worker.name = stem(file);
            worker.config = mapping(configuration(file)?, file)?;
        }
        for option in &arguments.set_option {
            set_option(&mut worker.config, option);
        }
        worker.name = arguments.name.clone().unwrap_or(worker.name);
        found.extend(children(worker));
        return Ok(found);
    }
    for file in &arguments.files {
        found.extend(one_file(file)?);
    }
    Ok(found)
}

fn one_file(file: &Path) -> Result<Vec<Found>, CliError> {
    let text = text(file)?;
    // A section of a supervisord file begins as a list does.
    match (
        text.trim_start().chars().next(),
        serde_json::from_str(&text),
    ) {
        (Some('{' | '['), Ok(value)) => return channels(&value, file),
        (Some('{'), Err(e)) => {
            let text = format!("{} is no JSON: {e}", file.display());
            return Err(CliError::validation(text));
        }
        _ => {}
    }
    let is_ini = |line: &str| line.trim_start().starts_with('[') && !line.contains(',');
    if text.lines().any(is_ini) {
        let found = supervisord::read(&text, file)?;
        return Ok(found.into_iter().flat_map(children).collect());
    }
    Err(CliError::validation(format!(
        "{} is neither a supervisord file nor a Junebug channel; if it is the configuration of a worker, say which with --worker-class",
        file.display()
    )))
}

/// Reads a file, or standard input.
fn text(file: &Path) -> Result<String, CliError> {
    let read = match file.to_str() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        _ => std::fs::read_to_string(file),
    };
    read.map_err(|error| CliError::unreadable(file.display(), &error))
}

/// A configuration in YAML, with Vumi's tag `!include`.
fn configuration(file: &Path) -> Result<Value, CliError> {
    included(file, 0)
}

fn included(file: &Path, depth: usize) -> Result<Value, CliError> {
    const DEEPEST: usize = 20;
    if depth > DEEPEST {
        return Err(CliError::validation(format!(
            "{} includes itself",
            file.display()
        )));
    }
    let wrong = |why: String| CliError::validation(format!("{} is no YAML: {why}", file.display()));
    let text = words::in_yaml_1_2(&text(file)?).map_err(|e| wrong(e.to_string()))?;
    let value: serde_yaml::Value = serde_yaml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    plain(value, file, depth)
}

fn plain(value: serde_yaml::Value, file: &Path, depth: usize) -> Result<Value, CliError> {
    use serde_yaml::Value as Yaml;
    Ok(match value {
        Yaml::Tagged(tagged) if tagged.tag == "include" => {
            let name = tagged.value.as_str().unwrap_or_default();
            let folder = file.parent().unwrap_or(Path::new(""));
            included(&folder.join(name), depth + 1)?
        }
        Yaml::Tagged(tagged) => plain(tagged.value, file, depth)?,
        Yaml::Mapping(map) => {
            let mut object = Map::new();
            for (key, value) in map {
                let key = match key {
                    Yaml::String(key) => key,
                    other => plain(other, file, depth)?.to_string(),
                };
                object.insert(key, plain(value, file, depth)?);
            }
            object.into()
        }
        Yaml::Sequence(list) => {
            let list = list.into_iter().map(|value| plain(value, file, depth));
            Value::Array(list.collect::<Result<_, _>>()?)
        }
        other => serde_json::to_value(other)
            .map_err(|e| CliError::validation(format!("{}: {e}", file.display())))?,
    })
}

fn mapping(value: Value, file: &Path) -> Result<Map<String, Value>, CliError> {
    match value {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err(CliError::validation(format!(
            "{} holds no mapping",
            file.display()
        ))),
    }
}

/// As Vumi: split at the first colon, always a text.
fn set_option(config: &mut Map<String, Value>, option: &str) {
    let (key, value) = option.split_once(':').unwrap_or((option, ""));
    config.insert(key.to_owned(), value.into());
}

fn class_name(class: &str) -> String {
    class.rsplit('.').next().unwrap_or_default().to_owned()
}

fn stem(file: &Path) -> String {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    stem.filter(|stem| *stem != "-")
        .unwrap_or("worker")
        .to_owned()
}

/// The workers of a multi-worker; else the worker itself.
fn children(worker: Found) -> Vec<Found> {
    if class_name(&worker.class) != "MultiWorker" {
        return vec![worker];
    }
    let object = |name: &str| match worker.config.get(name) {
        Some(Value::Object(map)) => map.clone(),
        _ => Map::new(),
    };
    let (workers, defaults) = (object("workers"), object("defaults"));
    let own = ["workers", "defaults", "worker_name"];
    let mut lost = worker.lost.clone();
    lost.extend(worker.config.keys().filter_map(|key| {
        let known = own.contains(&key.as_str()) || workers.contains_key(key);
        (!known)
            .then(|| format!("{key} is not converted: no worker of the multi-worker has this name"))
    }));
    let mut found: Vec<Found> = workers
        .iter()
        .map(|(name, class)| {
            let mut config = defaults.clone();
            config.extend(object(name));
            Found {
                from: format!("{}, {name}", worker.from),
                name: name.clone(),
                class: class.as_str().unwrap_or_default().to_owned(),
                config,
                options: worker.options.clone(),
                ..Found::default()
            }
        })
        .collect();
    match found.first_mut() {
        Some(first) => first.lost.extend(lost),
        None => found.push(Found {
            from: worker.from,
            lost: vec!["the multi-worker has no workers".into()],
            ..Found::default()
        }),
    }
    found
}

/// Channels as Junebug's API gives them: one, several, or an answer with them in it.
fn channels(value: &Value, file: &Path) -> Result<Vec<Found>, CliError> {
    let value = match value.get("result") {
        Some(result) if value.get("type").is_none() => result,
        _ => value,
    };
    let list = match value {
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    };
    let channels = list.into_iter().map(|channel| {
        let object = channel
            .as_object()
            .filter(|channel| channel.contains_key("type"));
        object
            .map(|channel| self::channel(channel, file))
            .ok_or_else(|| {
                CliError::validation(format!(
                    "{} holds something that is no Junebug channel: it has no type",
                    file.display()
                ))
            })
    });
    channels.collect()
}

fn channel(channel: &Map<String, Value>, file: &Path) -> Found {
    let text = |name: &str| channel.get(name).and_then(Value::as_str);
    let kind = text("type").unwrap_or_default();
    let id = text("id");
    let mut found = Found {
        from: format!("{}, channel {}", file.display(), id.unwrap_or(kind)),
        name: text("label").or(id).unwrap_or(kind).to_owned(),
        ..Found::default()
    };
    match TABLE.channels.get(kind) {
        Some(class) => found.class.clone_from(class),
        None => found.lost.push(format!(
            "channels of type {kind} have no counterpart in this version"
        )),
    }
    if let Some(Value::Object(config)) = channel.get("config") {
        found.config.clone_from(config);
    }
    // The channel's id is the name of its queues, whatever its configuration says.
    if let Some(id) = id {
        found.config.insert("transport_name".into(), id.into());
    }
    for (key, value) in channel {
        match TABLE.channel.get(key).map(|rule| rule.drop.as_deref()) {
            _ if value.is_null() => {}
            Some(Some("")) => {}
            Some(why) => found
                .dropped
                .push(format!("{key}: {}", why.unwrap_or_default())),
            None => found.lost.push(format!(
                "{key} is not converted: it belongs to Junebug, not to the transport"
            )),
        }
    }
    found
}

/// A path below a folder, unless it is a whole one.
fn below(folder: &Path, path: &str) -> PathBuf {
    folder.join(path)
}
