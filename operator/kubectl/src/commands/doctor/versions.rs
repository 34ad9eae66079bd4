//! The versions of workers, and whether the operator supports them.

use super::some;
use serde_json::Value;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use vumi_api::{Kind, Status};
use vumi_core::checkup::{Finding, Level};

const ABOUT: &str = "versions of workers";
/// So many minor versions before its own does the operator support (K12).
const BEFORE: u32 = 2;

/// What to do about versions of workers, as their statuses tell them; `operator` is the operator's, where it is known.
pub(super) fn judge(all: &[(Kind, String, &Value)], operator: Option<&str>) -> Vec<Finding> {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, name, object) in all {
        if let Some(version) = Status::of(object).runtime_version {
            versions.entry(version).or_default().push(name.clone());
        }
    }
    let mut found: Vec<Finding> = operator
        .into_iter()
        .flat_map(|operator| outside(&versions, operator))
        .collect();
    let counts: Vec<String> = versions
        .iter()
        .map(|(version, names)| format!("{} of {version}", names.len()))
        .collect();
    match counts.len() {
        0 => {}
        // What is outside is said already.
        1 if !found.is_empty() => {}
        1 => found.push(Finding::good(ABOUT, some(&counts))),
        _ => found.push(Finding::new(
            Level::Note,
            ABOUT,
            some(&counts),
            "A worker takes the operator's version along with its next edit; updatePolicy: Immediate takes it at once.",
        )),
    }
    found
}

/// Warnings about versions that the operator does not support.
fn outside(versions: &BTreeMap<String, Vec<String>>, operator: &str) -> Vec<Finding> {
    let warn = |side: Ordering, word: &str, fix: &str| {
        let those = versions
            .iter()
            .filter(|(version, _)| stands(version, operator) == Some(side))
            .map(|(version, names)| format!("{version} of {}", some(names)));
        let those: Vec<String> = those.collect();
        (!those.is_empty()).then(|| {
            let says = format!(
                "the operator is of version {operator} and supports its own and the {BEFORE} minor versions before; {word} is {}",
                some(&those)
            );
            Finding::new(Level::Warning, ABOUT, says, fix)
        })
    };
    let old = warn(
        Ordering::Less,
        "older",
        "Set updatePolicy: Immediate, which takes the image of the operator's settings at once; if that is the older one, name a newer one there first.",
    );
    let new = warn(
        Ordering::Greater,
        "newer",
        "Upgrade the CRDs, then the operator. If the operator was rolled back for good, updatePolicy: Immediate takes the workers to the image of its settings.",
    );
    old.into_iter().chain(new).collect()
}

/// Whether a worker's version is before, among or after those that an operator supports; None if one of the two is none, as a digest is.
fn stands(worker: &str, operator: &str) -> Option<Ordering> {
    let (worker, operator) = (minor(worker)?, minor(operator)?);
    let oldest = (operator.0, operator.1.saturating_sub(BEFORE));
    Some(match worker {
        worker if worker < oldest => Ordering::Less,
        worker if worker > operator => Ordering::Greater,
        _ => Ordering::Equal,
    })
}

/// Major and minor version of a text such as `1.2.3` or `v1.2.3-rc.1`.
fn minor(version: &str) -> Option<(u32, u32)> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let mut parts = version.splitn(3, '.');
    let numbers = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    // A tag such as 2026.11 is a date.
    parts.next().map(|_| numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_own_and_two_minor_versions_before_are_supported() {
        use Ordering::{Equal, Greater, Less};
        for (worker, operator, stands_there) in [
            ("0.4.0", "0.4.7", Some(Equal)),
            ("0.4.9", "0.4.7", Some(Equal)),
            ("0.2.0", "0.4.7", Some(Equal)),
            ("0.1.9", "0.4.7", Some(Less)),
            ("0.5.0", "0.4.7", Some(Greater)),
            ("0.9.0", "0.10.0", Some(Equal)),
            ("0.10.0", "0.9.0", Some(Greater)),
            // There is none below 0.
            ("0.0.1", "0.1.0", Some(Equal)),
            ("0.9.0", "1.0.0", Some(Less)),
            ("1.0.0", "0.9.0", Some(Greater)),
            ("v0.4.0-rc.1", "0.4.0", Some(Equal)),
            ("sha256:0123456789ab", "0.4.0", None),
            ("latest", "0.4.0", None),
            ("2026.11", "0.4.0", None),
            ("0.4.0", "", None),
        ] {
            assert_eq!(
                stands(worker, operator),
                stands_there,
                "{worker} under {operator}"
            );
        }
    }

    fn judged(versions: &[&str], operator: Option<&str>) -> Vec<(Level, String)> {
        let objects: Vec<Value> = versions
            .iter()
            .map(|version| json!({"status": {"observedGeneration": 1, "runtimeVersion": version}}))
            .collect();
        let named: Vec<(Kind, String, &Value)> = objects
            .iter()
            .enumerate()
            .map(|(at, object)| (Kind::Transport, format!("transport/{at}"), object))
            .collect();
        let found = judge(&named, operator);
        let good = |finding: &Finding| finding.level == Level::Good;
        assert!(found.iter().all(|f| good(f) || !f.fix.is_empty()));
        found.into_iter().map(|f| (f.level, f.says)).collect()
    }

    #[test]
    fn who_is_not_supported_is_named() {
        let found = judged(&["0.1.0", "0.6.0", "0.4.0", "0.1.0"], Some("0.4.0"));
        let levels: Vec<Level> = found.iter().map(|(level, _)| *level).collect();
        assert_eq!(levels, [Level::Warning, Level::Warning, Level::Note]);
        let ends = |at: usize, end: &str| assert!(found[at].1.ends_with(end), "{found:?}");
        ends(0, "older is 0.1.0 of transport/0, transport/3");
        ends(1, "newer is 0.6.0 of transport/1");
        assert_eq!(found[2].1, "2 of 0.1.0, 1 of 0.4.0, 1 of 0.6.0");
    }

    #[test]
    fn one_version_is_good_where_the_operator_supports_it() {
        let good = vec![(Level::Good, "2 of 0.1.0".to_owned())];
        assert_eq!(judged(&["0.1.0", "0.1.0"], Some("0.3.0")), good);
        // Whose version is not known is not judged.
        assert_eq!(judged(&["0.1.0", "0.1.0"], None), good);
        let found = judged(&["0.1.0"], Some("0.4.0"));
        assert_eq!((found.len(), found[0].0), (1, Level::Warning), "{found:?}");
        assert_eq!(judged(&[], Some("0.4.0")), []);
    }
}
