//! Lengths of time that cannot be meant together: what is refused, and what is only odd.

use super::LoadedResource;
use super::finding::{Finding, Severity, TIMES};
use crate::kinds::Settings;
use crate::shared::{Duration, Retry};
use std::time::Duration as Length;

/// Defaults of `retry`, as its fields state them.
const INITIAL: Length = Length::from_secs(1);
const MAX: Length = Length::from_secs(5 * 60);

/// What the schema cannot say about lengths of time, as `(path below spec, sentence)` pairs.
pub(crate) fn validate(settings: &Settings) -> Vec<(String, String)> {
    let mut findings = Vec::new();
    let mut refuse = |path: &str, sentence: String| findings.push((path.to_owned(), sentence));
    let retry = settings.retry.clone().unwrap_or_default();
    let backoff = retry.backoff.clone().unwrap_or_default();
    let initial = backoff.initial.map_or(INITIAL, |d| d.0);
    let written = |length: Length| Duration(length).to_string();
    if retry.max_age.is_some_and(|age| age.0 < initial) {
        refuse(
            "retry.maxAge",
            format!(
                "ends before the first retry, which comes after backoff.initial ({}): to try only once, write maxAttempts: 1",
                written(initial)
            ),
        );
    }
    match (backoff.initial, backoff.max) {
        (Some(_), Some(max)) | (None, Some(max)) if max.0 < initial => refuse(
            "retry.backoff.max",
            format!("is shorter than backoff.initial ({})", written(initial)),
        ),
        (Some(_), None) if initial > MAX => refuse(
            "retry.backoff.initial",
            format!(
                "is longer than backoff.max, whose default is {}: set both",
                written(MAX)
            ),
        ),
        _ => {}
    }
    if backoff.initial.is_some_and(|initial| initial.0.is_zero()) {
        let sentence = "would try again without a pause: write at least 1ms";
        refuse("retry.backoff.initial", sentence.into());
    }
    if settings.hold_limit.is_some_and(|limit| limit.0.is_zero()) {
        let sentence = "would give up every message that cannot be handled at once: write at least 1ms, or leave it out (30s)";
        refuse("holdLimit", sentence.into());
    }
    findings
}

/// Lengths of time that are possible, and less than one would expect.
pub(super) fn odd(worker: &LoadedResource) -> Vec<Finding> {
    let settings = worker.resource.settings();
    let retention = &settings.retention;
    let age = settings.retry.as_ref().and_then(|retry| retry.max_age);
    let age = age.map_or(Retry::MAX_AGE, |age| age.0);
    let Some(kept) = retention.trail().filter(|kept| *kept < age) else {
        return Vec::new();
    };
    let path = match (retention.trail, retention.ledger) {
        (Some(_), _) => "retention.trail",
        (None, Some(_)) => "retention.ledger",
        (None, None) => "retry.maxAge",
    };
    let message = format!(
        "trails are kept for {}, which is shorter than retry.maxAge ({}): `vumi why` forgets how a message came here while it is still being tried",
        Duration(kept),
        Duration(age)
    );
    let mut finding = worker.finding(Severity::Warning, TIMES, path, message);
    finding.help = Some("keep trails longer, or give up sooner".into());
    vec![finding]
}
