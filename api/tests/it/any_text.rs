//! Text of any kind: the reader never panics, places lie inside the file, and what the patterns allow is readable.

use proptest::prelude::*;
use vumi_api::manifest::{campaign_findings, load};
use vumi_api::shared::quantity::{DURATION_PATTERN, SIZE_PATTERN};
use vumi_api::{Duration, Size, Target};

fn read(text: &str) {
    for target in [Target::Local, Target::Cluster] {
        let read = load(&[("f.yaml", text)], target);
        let lines = text.split(['\n', '\r']).count() + 1;
        for finding in read.findings.iter().chain(&campaign_findings(&read)) {
            assert!(finding.line <= lines, "{finding} in {lines} lines");
            assert!(!finding.to_string().is_empty());
        }
    }
}

/// Pieces of manifests, in an order of their own.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "apiVersion: vumi.dev/v1alpha1\n",
        "kind: Transport\n",
        "kind: Secret\n",
        "metadata: {name: t}\n",
        "spec:\n",
        "  telnet: {port: 9010}\n",
        "  telnet:\n",
        "    port: 1\n",
        "- ",
        "? ",
        ": ",
        "&a ",
        "*a ",
        "<<: *a\n",
        "|\n",
        ">-\n",
        "[",
        "]",
        "{",
        "}",
        "'",
        "\"",
        "# c\n",
        "---\n",
        "...\n",
        "\t",
        "  ",
        "\n",
        "\r\n",
        "☃",
        "\u{0}",
        "!!str ",
        "%YAML 1.2\n",
        "0x1",
        "-.inf",
        "99999999999999999999",
        "~",
        ", ",
        "data: {a: b}\n",
        "  http: {auth: {password: {value: x}}}\n",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// The pattern as a strategy for strings, which takes no anchors.
fn unanchored(pattern: &'static str) -> &'static str {
    pattern.trim_start_matches('^').trim_end_matches('$')
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn arbitrary_text(text in any::<String>()) {
        read(&text);
    }

    #[test]
    fn pieces_of_manifests(text in pieces()) {
        read(&text);
    }

    #[test]
    fn examples_with_a_part_cut_out_or_put_in(
        index in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
        length in 0usize..40,
        put in "[ -~\\n☃]{0,12}",
    ) {
        let examples = crate::examples();
        let text = &examples[index.index(examples.len())].1;
        let chars: Vec<char> = text.chars().collect();
        let from = from.index(chars.len());
        let to = (from + length).min(chars.len());
        let changed: String = chars[..from].iter().copied().chain(put.chars()).chain(chars[to..].iter().copied()).collect();
        read(&changed);
    }

    #[test]
    fn every_duration_of_the_pattern_is_read_and_written(text in prop_oneof!["([0-9]{1,4}(ms|s|m|h)){1,3}", "[0-9]{1,18}(ms|s|m|h)"]) {
        prop_assert!(regex::Regex::new(DURATION_PATTERN).unwrap().is_match(&text));
        let duration: Duration = text.parse().unwrap();
        // Written shortest; a length beyond the number's range is written as the longest there is.
        let again = duration.to_string();
        if again.len() <= 20 {
            prop_assert_eq!(again.parse::<Duration>().unwrap(), duration);
        }
    }

    #[test]
    fn every_size_of_the_pattern_is_read_and_written(text in unanchored(SIZE_PATTERN)) {
        prop_assume!(text.len() <= 20);
        let size: Size = text.parse().unwrap();
        prop_assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
    }

    #[test]
    fn other_text_is_no_duration(text in "[0-9a-z .+-]{0,8}") {
        let fits = text.len() <= 20 && regex_fits(&text);
        prop_assert_eq!(text.parse::<Duration>().is_ok(), fits, "{}", text);
    }
}

/// The duration pattern by hand: numbers with units, nothing else.
fn regex_fits(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.chars().take_while(char::is_ascii_digit).count();
        if digits == 0 {
            return false;
        }
        let unit = ["ms", "s", "m", "h"]
            .iter()
            .find(|u| rest[digits..].starts_with(**u));
        let Some(unit) = unit else { return false };
        rest = &rest[digits + unit.len()..];
    }
    !text.is_empty()
}
