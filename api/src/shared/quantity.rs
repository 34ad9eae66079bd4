//! Durations and sizes as strings, one Rust type each: `30s`, `1m30s`, `10Mi`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A length of time: one or more numbers with a unit of `ms`, `s`, `m` or `h`, e.g. `30s`, `1m30s`. No days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub std::time::Duration);

/// Pattern of a duration, as the CRD states it (K20).
pub const DURATION_PATTERN: &str = "^([0-9]+(ms|s|m|h))+$";
/// Pattern of a size in bytes, as the CRD states it.
pub const SIZE_PATTERN: &str = "^[0-9]+(Ki|Mi|Gi)?$";

/// Units as people write them → how often which of ours. Kubernetes knows no days (K20).
const TIMES: [(&[&str], u64, &str); 6] = [
    (&["ms", "msec", "millis", "milliseconds"], 1, "ms"),
    (&["", "s", "sec", "secs", "second", "seconds"], 1, "s"),
    (&["m", "min", "mins", "minute", "minutes"], 1, "m"),
    (&["h", "hr", "hrs", "hour", "hours"], 1, "h"),
    (&["d", "day", "days"], 24, "h"),
    (&["w", "week", "weeks"], 7 * 24, "h"),
];
const BYTES: [(&[&str], u64, &str); 4] = [
    (&["b", "byte", "bytes"], 1, ""),
    (&["k", "kb", "ki", "kib"], 1, "Ki"),
    (&["m", "mb", "mi", "mib"], 1, "Mi"),
    (&["g", "gb", "gi", "gib"], 1, "Gi"),
];

/// What one number with a unit of another fashion may mean.
fn meant(text: &str, units: &[(&[&str], u64, &str)]) -> Option<String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let number: u64 = number.parse().ok()?;
    let unit = unit.trim().to_lowercase();
    let known = units
        .iter()
        .find(|(names, ..)| names.contains(&unit.as_str()));
    let (_, factor, ours) = known?;
    Some(format!("{}{ours}", number.checked_mul(*factor)?))
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || match meant(text, &TIMES) {
            Some(meant) => format!("{text:?} is not a duration; write {meant}"),
            None => format!("{text:?} is not a duration; write e.g. 500ms, 30s, 1m30s or 2h"),
        };
        if text.is_empty() || text.len() > 20 {
            return Err(bad());
        }
        let mut rest = text;
        let mut millis: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = &rest[digits..];
            let (factor, len) = if rest.starts_with("ms") {
                (1, 2)
            } else if rest.starts_with('s') {
                (1_000, 1)
            } else if rest.starts_with('m') {
                (60_000, 1)
            } else if rest.starts_with('h') {
                (3_600_000, 1)
            } else {
                return Err(bad());
            };
            rest = &rest[len..];
            // What the pattern allows is always read; such lengths of time have no end anyway.
            millis = millis.saturating_add(number.saturating_mul(factor));
        }
        Ok(Self(std::time::Duration::from_millis(millis)))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_millis();
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if left >= size {
                write!(f, "{}{unit}", left / size)?;
                left %= size;
            }
        }
        Ok(())
    }
}

/// A number of bytes: a whole number, optionally with `Ki`, `Mi` or `Gi`, e.g. `1Mi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || match meant(text, &BYTES) {
            Some(meant) => format!("{text:?} is not a size; write {meant}"),
            None => format!("{text:?} is not a size; write e.g. 65536, 64Ki or 1Mi"),
        };
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        if text.len() > 20 {
            return Err(bad());
        }
        let number: u128 = text[..end].parse().map_err(|_| bad())?;
        let factor: u128 = match &text[end..] {
            "" => 1,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            _ => return Err(bad()),
        };
        Ok(Self(u64::try_from(number * factor).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in [("Gi", 1u64 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}", self.0)
    }
}

macro_rules! text_quantity {
    ($type:ident, $pattern:expr, $description:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "pattern": $pattern,
                    "maxLength": 20,
                    "description": $description
                })
            }
        }
    };
}

text_quantity!(
    Duration,
    DURATION_PATTERN,
    "A duration such as 500ms, 30s or 1m30s."
);
text_quantity!(
    Size,
    SIZE_PATTERN,
    "A number of bytes such as 65536, 64Ki or 1Mi."
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_fashions_are_refused_with_what_to_write() {
        for (text, write) in [
            ("72", "write 72s"),
            ("3d", "write 72h"),
            ("2 weeks", "write 336h"),
            ("30 S", "write 30s"),
            ("5min", "write 5m"),
            ("1.5h", "write e.g. 500ms"),
            ("soon", "write e.g. 500ms"),
        ] {
            let error = text.parse::<Duration>().unwrap_err();
            assert!(error.contains(write), "{error}");
        }
        for (text, write) in [
            ("10MB", "write 10Mi"),
            ("64k", "write 64Ki"),
            ("512 bytes", "write 512"),
            ("big", "write e.g. 65536"),
        ] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(error.contains(write), "{error}");
        }
    }
}
