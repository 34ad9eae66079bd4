//! Phone numbers by the numbering plans of their countries (ITU-T E.164): one spelling per person, so that nobody is two
//! people. By the crate phonenumber, which has the plans of Google's libphonenumber.

use phonenumber::country::Id;
use phonenumber::{Mode, parse};

/// Numbers of so many digits at most are short codes: they belong to no plan.
const SHORT: usize = 6;

/// Why a number has no one spelling. Says nothing of the number itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclear {
    /// The region is none.
    Region,
    /// It cannot be read as a number of any plan.
    Unreadable,
    /// It is read, but no such number is given to anybody.
    NotGiven,
}

impl std::fmt::Display for Unclear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unclear::Region => "there is no country of this code",
            Unclear::Unreadable => "a number cannot be read",
            Unclear::NotGiven => "a number belongs to no numbering plan",
        })
    }
}

/// A number as `+27821234567`. `region` (ISO 3166, `ZA`) is the country of numbers that name none; a short code stays as
/// it is.
///
/// # Errors
/// The number is no number of that country, nor of another one that it names.
pub fn normalised(number: &str, region: &str) -> Result<String, Unclear> {
    let region: Id = region.parse().map_err(|_| Unclear::Region)?;
    let digits = number.chars().filter(char::is_ascii_digit).count();
    if digits <= SHORT && !number.trim_start().starts_with('+') {
        return Ok(number.to_owned());
    }
    let read = |text: &str| {
        let known = parse(Some(region), text).map_err(|_| Unclear::Unreadable)?;
        match known.is_valid() {
            true => Ok(known.format().mode(Mode::E164).to_string()),
            false => Err(Unclear::NotGiven),
        }
    };
    // Many networks write the country code without anything before it.
    read(number).or_else(|error| {
        let bare = number.trim();
        let international = bare.strip_prefix("00").unwrap_or(bare);
        match international.starts_with('+') {
            true => Err(error),
            false => read(&format!("+{international}")).map_err(|_| error),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_number_is_the_same_number() {
        for spelling in [
            "+27821234567",
            "27821234567",
            "0027821234567",
            "0821234567",
            "082 123 4567",
            "+27 (82) 123-4567",
        ] {
            let number = normalised(spelling, "ZA");
            assert_eq!(number.as_deref(), Ok("+27821234567"), "{spelling}");
        }
        // A number of another country, as the network of this one writes it.
        assert_eq!(
            normalised("254722000000", "ZA").as_deref(),
            Ok("+254722000000")
        );
        assert_eq!(
            normalised("0722000000", "KE").as_deref(),
            Ok("+254722000000")
        );
    }

    #[test]
    fn what_is_no_number_is_said_to_be_none() {
        assert_eq!(
            normalised("12345", "ZA").as_deref(),
            Ok("12345"),
            "a short code"
        );
        assert_eq!(
            normalised("Vodacom", "ZA").as_deref(),
            Ok("Vodacom"),
            "no digits"
        );
        for wrong in ["+27999", "99999999999999999", "082123456789"] {
            assert!(normalised(wrong, "ZA").is_err(), "{wrong}");
        }
        assert_eq!(normalised("0821234567", "XX"), Err(Unclear::Region));
    }
}
