//! Numbers by their form alone. No numbering plan is asked: stores are searched by what comes out, so it must be the same
//! for every way to write a number, whatever its country, and stay the same when a plan changes.

use std::borrow::Cow;
use std::net::Ipv4Addr;

/// Fewest digits of a text with spaces, dashes, dots or brackets that is read as a phone number.
const SHORTEST: usize = 7;
/// Most digits of an international number (E.164).
pub(crate) const LONGEST: usize = 15;

/// One text for every way to write an address. `+27 82 123-4567`, `0027 (0)82 123 4567` and `27821234567` are one person.
/// What is no phone number stays as it is, without space around it.
pub(crate) fn by_form(address: &str) -> Cow<'_, str> {
    let bare = without_plus(address.trim());
    match bare.bytes().all(|byte| byte.is_ascii_digit()) {
        true => without_exit(bare).into(),
        false => number(address.trim()).map_or(bare.into(), Cow::from),
    }
}

/// An address without the plus sign of an international number.
pub(crate) fn without_plus(address: &str) -> &str {
    match address.strip_prefix('+') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => rest,
        _ => address,
    }
}

/// An international number without the 00 that is dialled before it in most countries.
fn without_exit(number: &str) -> &str {
    match number.strip_prefix("00") {
        Some(rest) if !rest.starts_with('0') && (SHORTEST + 1..=LONGEST).contains(&rest.len()) => {
            rest
        }
        _ => number,
    }
}

/// The digits of a phone number that is written with more than digits; none if it is something else.
fn number(address: &str) -> Option<String> {
    // Two of them would be one number without their dots.
    if address.parse::<Ipv4Addr>().is_ok() {
        return None;
    }
    // A zero in brackets is dialled inside the country only.
    let abroad = address.starts_with('+') || address.starts_with("00");
    let address = match abroad {
        true => Cow::from(address.replacen("(0)", "", 1)),
        false => address.into(),
    };
    let mut plain = String::with_capacity(LONGEST + 2);
    for letter in address.strip_prefix('+').unwrap_or(&address).chars() {
        match letter {
            '0'..='9' => plain.push(letter),
            '-' | '.' | '/' | '(' | ')' | '\u{2010}'..='\u{2015}' | '\u{2212}' => {}
            space if space.is_whitespace() => {}
            _ => return None,
        }
    }
    let number = without_exit(&plain);
    (SHORTEST..=LONGEST)
        .contains(&number.len())
        .then(|| number.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_is_one_person_however_it_is_written() {
        for written in [
            "27821234567",
            "+27821234567",
            " +27 82 123 4567 ",
            "+27-82-123-4567",
            "+27.82.123.4567",
            "+27 (82) 123/4567",
            "+27 (0)82 123 4567",
            "+27(0)821234567",
            "0027821234567",
            "00 27 82 123 4567",
            "0027 (0)82 123 4567",
            "27\u{a0}82\u{a0}123\u{2011}4567",
        ] {
            assert_eq!(by_form(written), "27821234567", "{written}");
        }
        assert_eq!(by_form("082 123 4567"), "0821234567", "no country");
        assert_eq!(by_form("(0)82 123 4567"), "0821234567");
    }

    #[test]
    fn what_is_no_number_stays_as_it_is() {
        for address in [
            "user@example.net/phone-2",
            "127.0.0.1",
            "127.0.0.1:4711",
            "12-34",
            "1234-5678-9012-3456",
            "*120*8864#",
            "00123",
            "0012345",
            "-",
            "",
        ] {
            assert_eq!(by_form(address), address);
        }
        assert_eq!(by_form("+123"), "123", "a short code");
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(address in "[+0-9 ().a-]{0,24}") {
            let once = by_form(&address).into_owned();
            prop_assert_eq!(by_form(&once), once.as_str());
        }

        #[test]
        fn punctuation_makes_nobody_another_person(
            number in "[1-9][0-9]{8,14}", seams in proptest::collection::vec((0usize..15, "[ .()-]"), 0..6)
        ) {
            let mut written = number.clone();
            for (at, seam) in seams {
                written.insert_str(at.min(written.len()), &seam);
            }
            prop_assume!(!written.contains("(0)") && written.parse::<Ipv4Addr>().is_err());
            for spelling in [format!("+{written}"), format!("00{written}"), written] {
                prop_assert_eq!(by_form(&spelling), by_form(&number), "{}", spelling);
            }
        }
    }
}
