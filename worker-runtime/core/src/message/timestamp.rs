//! Vumi's timestamps: UTC, `2024-03-05 14:07:09.000123`, always six digits when written; read as both generations do.

use std::fmt;
use std::str::FromStr;
use time::{OffsetDateTime, PrimitiveDateTime, format_description::BorrowedFormatItem};

/// A moment in UTC with microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(PrimitiveDateTime);

const WRITTEN: &[BorrowedFormatItem<'static>] = time::macros::format_description!(
    "[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]"
);
const READ: &[BorrowedFormatItem<'static>] = time::macros::format_description!(
    "[year]-[month padding:none]-[day padding:none] [hour padding:none]:[minute padding:none]:[second padding:none][optional [.[subsecond digits:1+]]]"
);

impl Timestamp {
    /// Now.
    pub fn now() -> Self {
        let now = OffsetDateTime::from(crate::clock::now());
        Self(PrimitiveDateTime::new(now.date(), now.time()))
    }

    /// Seconds since 1970, with fraction.
    pub fn epoch(self) -> f64 {
        self.0.assume_utc().unix_timestamp_nanos() as f64 / 1e9
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(WRITTEN).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let trimmed = text.strip_suffix('Z').unwrap_or(text);
        let spaced = trimmed.split_whitespace().collect::<Vec<_>>().join(" ");
        PrimitiveDateTime::parse(&spaced, READ)
            .map(Self)
            .map_err(|e| format!("{text:?} is not a timestamp: {e}"))
    }
}
