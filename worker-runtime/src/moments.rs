//! Moments and lengths of time on the command line: milliseconds since 1970 as people write and read them.

use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;

const WRITTEN: &[BorrowedFormatItem<'static>] = time::macros::format_description!(
    "[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]"
);

/// Now, in milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// As `2024-03-05 14:07:09.123`, in UTC.
pub fn shown(millis: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .ok()
        .and_then(|moment| moment.format(WRITTEN).ok())
        .unwrap_or_else(|| format!("{millis} ms"))
}

/// Reads `2024-03-05T14:07:09Z`, with any offset.
pub fn read(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a time; write e.g. 2024-03-05T14:07:09Z");
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong())?;
    u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_with_any_offset_and_shown_in_utc() {
        let millis = read("2024-03-05T16:07:09.123+02:00").unwrap();
        assert_eq!(shown(millis), "2024-03-05 14:07:09.123");
        assert_eq!(read("2024-03-05T14:07:09Z").unwrap(), millis - 123);
        for wrong in ["yesterday", "2024-03-05", "1969-12-31T23:59:59Z"] {
            assert!(read(wrong).unwrap_err().contains(wrong));
        }
    }
}
