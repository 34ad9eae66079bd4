//! Values of Vumi's configurations, as values of manifests.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// How a value is read. Vumi takes a number from a text, and so do these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Shape {
    /// A text.
    #[default]
    Text,
    /// A text in which the old worker filled nothing in.
    FixedText,
    /// A whole number.
    Integer,
    /// True or false; of texts only `false`, `0` and nothing are false.
    Boolean,
    /// A span in seconds.
    Seconds,
    /// A share of one.
    Percent,
    /// A list of texts.
    Texts,
    /// A text for each name.
    Mapping,
    /// A list of texts for each name.
    Lists,
    /// A path in a URL, with or without its first slash.
    Path,
    /// A server's address in the language of Twisted.
    Endpoint,
    /// A level of a log.
    LogLevel,
    /// Rows of a routing table.
    Routes,
    /// A confidential text: a key of a Secret.
    Secret,
    /// `Y` or `N`; read as [`Self::Boolean`].
    YesNo,
    /// What sessions are counted by.
    Namespace,
    /// A user name, a password and a service for each sender.
    Accounts,
    /// Options of a Redis manager: a Secret and a prefix.
    Redis,
    /// The list of middleware.
    Middleware,
}

impl Shape {
    /// The value, or what is wrong with it (without the value itself).
    pub(super) fn read(self, value: &Value) -> Result<Value, String> {
        match self {
            Self::Text | Self::Secret => text(value).map(Value::from),
            Self::FixedText => match text(value)? {
                text if text.contains("{user}") || text.contains("{now}") => {
                    Err("{user} and {now} would be filled in, and were not".into())
                }
                text => Ok(text.into()),
            },
            Self::Integer => {
                let number = text(value)?.trim().parse::<i64>();
                number
                    .map(Value::from)
                    .map_err(|_| "it is no whole number".into())
            }
            Self::Boolean => Ok(match value {
                Value::Bool(set) => *set,
                other => !matches!(
                    text(other)?.trim().to_lowercase().as_str(),
                    "" | "0" | "false"
                ),
            }
            .into()),
            Self::Seconds => match number(value)? {
                seconds if seconds.fract() == 0.0 => Ok(format!("{seconds}s").into()),
                seconds => Ok(format!("{}ms", (seconds * 1000.0).round()).into()),
            },
            Self::Percent => match number(value)? * 100.0 {
                percent if (percent - percent.round()).abs() < 1e-6 => {
                    Ok((percent.round() as i64).into())
                }
                _ => Err("only whole per cent can be said".into()),
            },
            Self::Texts => texts(value).map(Value::from),
            Self::Mapping => each(value, text),
            Self::Lists => each(value, texts),
            Self::Path => Ok(format!("/{}", text(value)?.trim_start_matches('/')).into()),
            Self::Endpoint => endpoint(&text(value)?),
            Self::LogLevel => match text(value)?.as_str() {
                level @ ("debug" | "info") => Ok(level.into()),
                "warning" => Ok("warn".into()),
                _ => Err("the levels are debug, info and warn".into()),
            },
            Self::Routes => routes(value),
            Self::YesNo => Ok(match Self::Boolean.read(value)?.as_bool() {
                Some(true) => "Y".into(),
                _ => "N".into(),
            }),
            Self::Namespace => match text(value)?.as_str() {
                "transport_name" => Ok("transportName".into()),
                "tag" => Ok("tag".into()),
                _ => Err("it is neither transport_name nor tag".into()),
            },
            Self::Redis | Self::Middleware | Self::Accounts => {
                Err("it stands in the wrong place".into())
            }
        }
    }
}

fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(set) => Ok(set.to_string()),
        _ => Err("it is no text".into()),
    }
}

fn number(value: &Value) -> Result<f64, String> {
    let number = text(value)?.trim().parse::<f64>().ok();
    let number = number.filter(|number| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "it is no number".into())
}

fn texts(value: &Value) -> Result<Vec<String>, String> {
    let list = value.as_array().ok_or("it is no list")?;
    list.iter().map(text).collect()
}

fn each<T: Into<Value>>(
    value: &Value,
    read: impl Fn(&Value) -> Result<T, String>,
) -> Result<Value, String> {
    let map = value.as_object().ok_or("it is no mapping")?;
    let read = map
        .iter()
        .map(|(name, value)| Ok((name.clone(), read(value)?.into())));
    read.collect::<Result<Map<_, _>, String>>().map(Value::from)
}

/// `tcp:9010`, `tcp:port=9010:interface=127.0.0.1`.
fn endpoint(text: &str) -> Result<Value, String> {
    let rest = text.strip_prefix("tcp:").ok_or("only tcp is supported")?;
    let mut address = Map::new();
    for part in rest.split(':') {
        match part.split_once('=') {
            None if address.is_empty() => {
                address.insert("port".into(), Shape::Integer.read(&part.into())?);
            }
            Some(("port", port)) => {
                address.insert("port".into(), Shape::Integer.read(&port.into())?);
            }
            Some(("interface", host)) => {
                address.insert("host".into(), host.into());
            }
            _ => return Err("it has a part other than port and interface".into()),
        }
    }
    Ok(address.into())
}

/// Connector → endpoint → `[connector, endpoint]`.
fn routes(value: &Value) -> Result<Value, String> {
    each(value, |rows| {
        each(rows, |row| match texts(row)?.as_slice() {
            [connector, endpoint] => Ok(json!({"connector": connector, "endpoint": endpoint})),
            _ => Err("a row must be [connector, endpoint]".into()),
        })
    })
}
