//! When a scheduled message is due: once, or again and again by Vumi's rules for recurring schedules. Pure, in UTC.

use serde_json::Value;
use time::{Date, OffsetDateTime, Time};

/// Latest moment that is accepted: the end of year 9999, in seconds since 1970.
const LAST: f64 = 253_402_300_799.0;
/// A rule that names a day at all names one within so many days: two months without a 31st are never neighbours.
const FAR: i64 = 62;

/// What `helper_metadata.schedule` of a message says.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// Once, at this moment: seconds since 1970.
    Once(f64),
    /// Again and again.
    Recurring {
        /// Days on which it happens.
        days: Days,
        /// Time of the day, UTC.
        time: Time,
        /// Last moment at which it may happen: seconds since 1970.
        until: Option<f64>,
    },
}

/// Days of a recurring schedule. Sets of days are bits: bit 1 is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Days {
    /// Every day.
    Daily,
    /// Days of the month, 1 to 31; months without such a day are left out.
    OfMonth(u32),
    /// Days of the week, 1 (Monday) to 7 (Sunday).
    OfWeek(u32),
    /// Never.
    Never,
}

impl Schedule {
    /// Reads `{at}` or `{recurring, time, days, until?}`; what is wrong, in one sentence without content.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let fields = value.as_object().ok_or("schedule is not an object")?;
        if let Some(unknown) = fields
            .keys()
            .find(|key| !["at", "recurring", "time", "days", "until"].contains(&key.as_str()))
        {
            let known: String = unknown.chars().take(40).collect();
            return Err(format!("schedule has no field {known:?}"));
        }
        let moment = |key: &str| match fields.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(at) if (0.0..=LAST).contains(&at) => Ok(Some(at)),
                _ => Err(format!(
                    "schedule.{key} is not a number of seconds since 1970"
                )),
            },
        };
        let (at, until) = (moment("at")?, moment("until")?);
        let Some(recurring) = fields.get("recurring") else {
            return match (at, fields.len()) {
                (Some(at), 1) => Ok(Self::Once(at)),
                (Some(_), _) => {
                    Err("schedule.at stands alone: time, days and until belong to recurring".into())
                }
                (None, _) => Err("schedule has neither at nor recurring".into()),
            };
        };
        if at.is_some() {
            return Err("schedule has both at and recurring".into());
        }
        let days = |last| days(fields.get("days"), last);
        let days = match recurring.as_str() {
            Some("daily") => Days::Daily,
            Some("day_of_month") => Days::OfMonth(days(31)?),
            Some("day_of_week") => Days::OfWeek(days(7)?),
            Some("never") => Days::Never,
            _ => {
                return Err(
                    "schedule.recurring is none of daily, day_of_month, day_of_week, never".into(),
                );
            }
        };
        let time = match (days, fields.get("time")) {
            (Days::Never, None) => Time::MIDNIGHT,
            (_, time) => clock(time).ok_or("schedule.time is not a time of the day HH:MM:SS")?,
        };
        Ok(Self::Recurring { days, time, until })
    }

    /// The first moment after `then` (seconds since 1970) at which it happens; none if it does not happen any more.
    pub fn after(&self, then: f64) -> Option<f64> {
        match self {
            Self::Once(at) => (*at > then).then_some(*at),
            Self::Recurring { days, time, until } => {
                let start = OffsetDateTime::from_unix_timestamp(then.floor() as i64).ok()?;
                let first = start.date();
                (0..=FAR)
                    .filter_map(|n| first.checked_add(time::Duration::days(n)))
                    .filter(|day| days.have(*day))
                    .map(|day| day.with_time(*time).assume_utc().unix_timestamp() as f64)
                    .find(|at| *at > then)
                    .filter(|at| until.is_none_or(|until| *at <= until))
            }
        }
    }
}

impl Days {
    fn have(self, day: Date) -> bool {
        match self {
            Days::Daily => true,
            Days::OfMonth(days) => days & (1 << day.day()) != 0,
            Days::OfWeek(days) => days & (1 << day.weekday().number_from_monday()) != 0,
            Days::Never => false,
        }
    }
}

/// `1, 15 31` as bits; each from 1 to `last`.
fn days(value: Option<&Value>, last: u32) -> Result<u32, String> {
    let bad = || format!("schedule.days is not a list of numbers from 1 to {last}");
    let text = value.and_then(Value::as_str).ok_or_else(bad)?;
    let numbers = text.split([',', ' ']).filter(|part| !part.is_empty());
    let mut days = 0;
    for number in numbers {
        let day: u32 = number.parse().map_err(|_| bad())?;
        if !(1..=last).contains(&day) {
            return Err(bad());
        }
        days |= 1 << day;
    }
    match days {
        0 => Err(bad()),
        days => Ok(days),
    }
}

fn clock(value: Option<&Value>) -> Option<Time> {
    let mut parts = value?.as_str()?.split(':').map(|part| match part.len() {
        1 | 2 => part.parse::<u8>().ok(),
        _ => None,
    });
    let time = Time::from_hms(parts.next()??, parts.next()??, parts.next()??).ok()?;
    parts.next().is_none().then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(text: &str) -> f64 {
        let time: crate::message::Timestamp = text.parse().unwrap();
        time.epoch()
    }

    fn after(schedule: Value, then: &str) -> Option<f64> {
        Schedule::parse(&schedule).unwrap().after(at(then))
    }

    /// Each row: schedule, from when, the next moment (empty: never).
    #[test]
    fn the_next_moment_of_each_rule() {
        let daily = json!({"recurring": "daily", "time": "12:30:00"});
        let month = |days| json!({"recurring": "day_of_month", "time": "00:00:05", "days": days});
        let week = |days| json!({"recurring": "day_of_week", "time": "08:00:00", "days": days});
        let table = [
            (daily.clone(), "2024-03-05 12:29:59", "2024-03-05 12:30:00"),
            (daily.clone(), "2024-03-05 12:30:00", "2024-03-06 12:30:00"),
            (
                daily.clone(),
                "2024-03-05 12:29:59.9",
                "2024-03-05 12:30:00",
            ),
            (daily.clone(), "2024-12-31 13:00:00", "2025-01-01 12:30:00"),
            (month("31"), "2024-03-31 00:00:05", "2024-05-31 00:00:05"),
            (month("29"), "2023-02-01 00:00:00", "2023-03-29 00:00:05"),
            (month("29"), "2024-02-01 00:00:00", "2024-02-29 00:00:05"),
            (month("1, 15"), "2024-03-02 00:00:00", "2024-03-15 00:00:05"),
            (month("15 1"), "2024-03-16 00:00:00", "2024-04-01 00:00:05"),
            // 2024-03-05 is a Tuesday.
            (week("2"), "2024-03-05 07:59:59", "2024-03-05 08:00:00"),
            (week("2"), "2024-03-05 08:00:00", "2024-03-12 08:00:00"),
            (week("1,7"), "2024-03-05 08:00:00", "2024-03-10 08:00:00"),
            (json!({"recurring": "never"}), "2024-03-05 08:00:00", ""),
            (
                json!({"at": at("2024-03-05 08:00:00")}),
                "2024-03-05 07:00:00",
                "2024-03-05 08:00:00",
            ),
            (
                json!({"at": at("2024-03-05 08:00:00")}),
                "2024-03-05 08:00:00",
                "",
            ),
        ];
        for (schedule, then, next) in table {
            let expected = (!next.is_empty()).then(|| at(next));
            assert_eq!(
                after(schedule.clone(), then),
                expected,
                "{schedule} after {then}"
            );
        }
    }

    #[test]
    fn nothing_happens_after_the_end() {
        let until = |end: &str| {
            let schedule = json!({"recurring": "daily", "time": "12:00:00", "until": at(end)});
            after(schedule, "2024-03-05 11:00:00")
        };
        assert_eq!(
            until("2024-03-05 12:00:00"),
            Some(at("2024-03-05 12:00:00"))
        );
        assert_eq!(until("2024-03-05 11:59:59"), None);
    }

    #[test]
    fn bad_fields_are_named() {
        let table = [
            (json!("daily"), "not an object"),
            (json!({}), "neither at nor recurring"),
            (json!({"at": "2024-03-05 12:00:00"}), "schedule.at"),
            (json!({"at": -1}), "schedule.at"),
            (json!({"at": 1e300}), "schedule.at"),
            (json!({"at": 1, "until": 2}), "stands alone"),
            (
                json!({"at": 1, "recurring": "daily"}),
                "both at and recurring",
            ),
            (
                json!({"recurring": "hourly", "time": "12:00:00"}),
                "schedule.recurring",
            ),
            (json!({"recurring": "daily"}), "schedule.time"),
            (
                json!({"recurring": "daily", "time": "24:00:00"}),
                "schedule.time",
            ),
            (
                json!({"recurring": "daily", "time": "12:00"}),
                "schedule.time",
            ),
            (
                json!({"recurring": "daily", "time": "12:00:00:00"}),
                "schedule.time",
            ),
            (
                json!({"recurring": "day_of_week", "time": "1:2:3", "days": "8"}),
                "schedule.days",
            ),
            (
                json!({"recurring": "day_of_week", "time": "1:2:3", "days": ""}),
                "schedule.days",
            ),
            (
                json!({"recurring": "day_of_month", "time": "1:2:3", "days": "0"}),
                "schedule.days",
            ),
            (
                json!({"recurring": "day_of_month", "time": "1:2:3"}),
                "schedule.days",
            ),
            (
                json!({"recurring": "daily", "time": "1:2:3", "until": null}),
                "schedule.until",
            ),
            (json!({"at": 1, "zone": "CET"}), "no field"),
        ];
        for (schedule, expected) in table {
            let error = Schedule::parse(&schedule).unwrap_err();
            assert!(error.contains(expected), "{schedule}: {error}");
        }
    }
}
