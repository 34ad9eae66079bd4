//! The nearest valid name for a mistyped one: "did you mean …?".

/// The candidate nearest to `wrong`, if one is near enough to be meant. `http_api`, `HTTPAPI` and `http-api` are as
/// near to `httpApi` as can be; otherwise one slip in three letters is allowed.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| -> String {
        name.chars()
            .filter(|c| c.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .collect()
    };
    let wanted = plain(wrong);
    candidates
        .into_iter()
        .map(|name| (distance(&wanted, &plain(name)), name))
        .filter(|(distance, name)| {
            let letters = wanted.chars().count().max(plain(name).chars().count());
            *distance * 3 <= letters && *distance < wanted.chars().count().max(1)
        })
        // Among equals the one of the same length: `telnet.prot` is nearer to `telnet.port` than to `telnet`.
        .min_by_key(|(distance, name)| (*distance, name.len().abs_diff(wrong.len())))
        .map(|(_, name)| name)
}

/// Slips between two names; a name that is the beginning of the other (`pass` of `password`) counts as one slip.
fn distance(a: &str, b: &str) -> usize {
    let full = strsim::damerau_levenshtein(a, b);
    let prefix = a.len().min(b.len()) >= 3 && (a.starts_with(b) || b.starts_with(a));
    if prefix { full.min(1) } else { full }
}

/// `a, b and c` for sentences.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.as_slice() {
        [] => "none".into(),
        [one] => (*one).into(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_case_and_separators_but_not_other_words() {
        let fields = ["host", "port", "transportName", "httpApi", "password"];
        for (wrong, right) in [
            ("prot", Some("port")),
            ("Port", Some("port")),
            ("http_api", Some("httpApi")),
            ("transport-name", Some("transportName")),
            ("tranportName", Some("transportName")),
            ("pass", Some("password")),
            ("zzz", None),
            ("a", None),
            ("colour", None),
        ] {
            assert_eq!(nearest(wrong, fields), right, "{wrong}");
        }
    }
}
