//! The words that Vumi's YAML (1.1) reads as true or false and YAML 1.2, in which files are read here, as texts.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

/// What Vumi read in an unquoted word, as YAML 1.2 writes it.
fn meaning(word: &str) -> Option<&'static str> {
    match word {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some("true"),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some("false"),
        _ => None,
    }
}

/// The configuration with each of these words, where it is an unquoted value, as YAML 1.2 writes it. Keys stay: no worker of
/// Vumi looks one up that is true or false, so whoever wrote it meant the word. So do numbers that were octal or in sixties:
/// where Vumi wants a text it refuses a number, and where it wants a number they are hardly meant.
pub(super) fn in_yaml_1_2(text: &str) -> Result<String, ScanError> {
    let text = text.trim_start_matches('\u{feff}');
    let places: Vec<usize> = text.char_indices().map(|(place, _)| place).collect();
    let (mut made, mut copied) = (String::new(), 0);
    // The collections around a place; of a mapping, whether a key comes next.
    let mut around: Vec<Option<bool>> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event?;
        let is_node = matches!(
            event,
            Event::Scalar(..)
                | Event::Alias(..)
                | Event::SequenceStart(..)
                | Event::MappingStart(..)
        );
        let mut is_key = false;
        if is_node && let Some(Some(next)) = around.last_mut() {
            is_key = *next;
            *next = !is_key;
        }
        match event {
            Event::SequenceStart(..) => around.push(None),
            Event::MappingStart(..) => around.push(Some(true)),
            Event::SequenceEnd | Event::MappingEnd => {
                around.pop();
            }
            Event::Scalar(word, ScalarStyle::Plain, _, None) if !is_key => {
                // By its end: an anchor may stand before it. Places are counted in characters.
                let start = span.end.index().checked_sub(word.len());
                let place = start.and_then(|start| places.get(start).copied());
                if let (Some(meaning), Some(place)) = (meaning(&word), place)
                    && text[place..].starts_with(&*word)
                {
                    made.push_str(&text[copied..place]);
                    made.push_str(meaning);
                    copied = place + word.len();
                }
            }
            _ => {}
        }
    }
    made.push_str(&text[copied..]);
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unquoted_values_alone_are_read_as_vumi_does() {
        for (old, new) in [
            (
                "a: no\nb: Yes # no\nc: OFF\r\nd: on",
                "a: false\nb: true # no\nc: false\r\nd: true",
            ),
            (
                "{ä: no, b: [yes, 'no', \"off\", nO]}",
                "{ä: false, b: [true, 'no', \"off\", nO]}",
            ),
            ("no: off\n? on\n: no\n", "no: false\n? on\n: false\n"),
            ("a: &x no\nb: *x\nc: no\n", "a: &x false\nb: *x\nc: false\n"),
            (
                "a: !!str no\nb: !include no\nc: yes",
                "a: !!str no\nb: !include no\nc: true",
            ),
            (
                "a: |\n  no\nb: no way\nc: y\nd:\n- - no\n  - e: on",
                "a: |\n  no\nb: no way\nc: y\nd:\n- - false\n  - e: true",
            ),
            ("\u{feff}a: no", "a: false"),
            (
                "a: 0123\nb: 1:30\nc: true\nd:\n",
                "a: 0123\nb: 1:30\nc: true\nd:\n",
            ),
            ("", ""),
        ] {
            assert_eq!(in_yaml_1_2(old).unwrap(), new, "{old:?}");
        }
        assert!(in_yaml_1_2("a: [no\nb: }").is_err());
    }
}
