//! Phone numbers. [`normalised`] and [`written`] go by the numbering plans of the countries (ITU-T E.164): a number gets one
//! spelling where it comes in, and the provider's where it goes out, so that nobody is two people; [`Numbers`] does
//! both for a transport, and says what becomes of one that is unclear. By the crate phonenumber,
//! which has the plans of Google's libphonenumber. [`by_form`] asks no plan, and serves to compare what is there.

mod edge;
mod form;

pub use edge::{Came, Numbers};
pub(crate) use form::{LONGEST, by_form, without_plus};

use phonenumber::country::Id;
use phonenumber::{Mode, PhoneNumber, parse};
use vumi_api::transports::generic_http::NumberForm;

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
    /// It is one number of that country and another one of the world.
    Ambiguous,
    /// It is of another country than those that can be written so.
    Abroad,
}

impl std::fmt::Display for Unclear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unclear::Region => "there is no country of this code",
            Unclear::Unreadable => "a number cannot be read",
            Unclear::NotGiven => "a number belongs to no numbering plan",
            Unclear::Ambiguous => {
                "a number can be read in two ways: inside the country, and with a country code"
            }
            Unclear::Abroad => "a number of another country has no form inside this one",
        })
    }
}

/// A number as `+27821234567`. `region` (ISO 3166, `ZA`) is the country of numbers that name none; a short code, and a name
/// without digits, stay as they are.
///
/// # Errors
/// The number is no number of that country, nor of another one that it names, or it can be read as both.
pub fn normalised(number: &str, region: &str) -> Result<String, Unclear> {
    let region = region_of(region)?;
    match digits(number).len() <= SHORT && !number.trim_start().starts_with('+') {
        true => Ok(number.to_owned()),
        false => read(number, region).map(|number| plus(&number)),
    }
}

/// A number as a provider wants it. `region` as for [`normalised`]; a short code stays as it is.
///
/// # Errors
/// As [`normalised`]; a text that is no number, and a number that cannot be written so.
pub fn written(number: &str, region: &str, form: NumberForm) -> Result<String, Unclear> {
    let region = region_of(region)?;
    let bare = number.trim();
    if !bare.is_empty() && bare.len() <= SHORT && bare.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(bare.to_owned());
    }
    let number = read(bare, region)?;
    match form {
        NumberForm::E164 => Ok(plus(&number)),
        NumberForm::Digits => Ok(digits(&plus(&number))),
        NumberForm::National if number.country().id() == Some(region) => Ok(inside(&number)),
        NumberForm::National => Err(Unclear::Abroad),
    }
}

fn region_of(code: &str) -> Result<Id, Unclear> {
    code.parse().map_err(|_| Unclear::Region)
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

fn plus(number: &PhoneNumber) -> String {
    number.format().mode(Mode::E164).to_string()
}

/// As it is dialled inside its country.
fn inside(number: &PhoneNumber) -> String {
    digits(&number.format().mode(Mode::National).to_string())
}

fn read(number: &str, region: Id) -> Result<PhoneNumber, Unclear> {
    let known = |text: &str| {
        let known = parse(Some(region), text).map_err(|_| Unclear::Unreadable)?;
        known.is_valid().then_some(known).ok_or(Unclear::NotGiven)
    };
    let bare = number.trim();
    if bare.starts_with('+') {
        return known(bare);
    }
    // Many networks write the country code without anything before it.
    let abroad = known(&format!("+{}", bare.strip_prefix("00").unwrap_or(bare)));
    match (known(bare), abroad) {
        // One that is written as people of the country write it is theirs.
        (Ok(home), Ok(abroad)) if plus(&home) != plus(&abroad) => {
            match inside(&home) == digits(bare) {
                true => Ok(home),
                false => Err(Unclear::Ambiguous),
            }
        }
        (Ok(number), _) | (Err(_), Ok(number)) => Ok(number),
        (Err(unclear), Err(_)) => Err(unclear),
    }
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
        // 604 is also Malaysia and Penang, but nobody in Canada writes it so.
        assert_eq!(
            normalised("6045550123", "CA").as_deref(),
            Ok("+16045550123")
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

    #[test]
    fn a_number_that_is_two_is_neither() {
        // East London without the zero that is dialled there, or Vienna without a plus.
        let both = "431234567";
        assert_eq!(normalised(both, "ZA"), Err(Unclear::Ambiguous));
        let out = written(both, "ZA", NumberForm::Digits);
        assert_eq!(out, Err(Unclear::Ambiguous));
        let clear = |spelling| normalised(spelling, "ZA");
        assert_eq!(clear("0431234567").as_deref(), Ok("+27431234567"));
        assert_eq!(clear("+431234567").as_deref(), Ok("+431234567"));
    }

    #[test]
    fn a_number_goes_out_as_the_provider_wants_it() {
        for (form, expected) in [
            (NumberForm::E164, "+27821234567"),
            (NumberForm::Digits, "27821234567"),
            (NumberForm::National, "0821234567"),
        ] {
            for spelling in ["+27821234567", "27821234567", "0821234567"] {
                let out = written(spelling, "ZA", form);
                assert_eq!(out.as_deref(), Ok(expected), "{spelling}");
            }
            assert_eq!(written("80110", "ZA", form).as_deref(), Ok("80110"));
            for (wrong, why) in [
                ("Vodacom", Unclear::Unreadable),
                ("", Unclear::Unreadable),
                ("+279", Unclear::Unreadable),
                ("+27999999999", Unclear::NotGiven),
            ] {
                assert_eq!(written(wrong, "ZA", form), Err(why), "{wrong}");
            }
        }
        let abroad = "+254722000000";
        assert_eq!(
            written(abroad, "ZA", NumberForm::Digits).as_deref(),
            Ok("254722000000")
        );
        assert_eq!(
            written(abroad, "ZA", NumberForm::National),
            Err(Unclear::Abroad)
        );
    }
}
