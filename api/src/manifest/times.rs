//! Lengths of time that cannot be meant together: what is refused, and what is only odd.

use super::LoadedResource;
use super::finding::{Finding, Severity, TIMES};
use crate::kinds::Settings;
use crate::shared::{Duration, Retry};
use crate::transports::generic_http::Redial;
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

/// Lengths of time that are possible together, and mean less than one would expect.
pub(super) fn odd(worker: &LoadedResource) -> Vec<Finding> {
    let mut findings: Vec<Finding> = trails(worker).into_iter().collect();
    findings.extend(http(worker));
    findings
}

fn trails(worker: &LoadedResource) -> Option<Finding> {
    let settings = worker.resource.settings();
    let retention = &settings.retention;
    let age = max_age(&settings);
    let kept = retention.trail().filter(|kept| *kept < age)?;
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
    Some(finding)
}

fn max_age(settings: &Settings) -> Length {
    let age = settings.retry.as_ref().and_then(|retry| retry.max_age);
    age.map_or(Retry::MAX_AGE, |age| age.0)
}

/// What a manifest says of times, or the default beside it.
struct Said {
    path: &'static str,
    time: Length,
    is_written: bool,
}

impl Said {
    fn of(path: &'static str, written: Option<Duration>, default: Length) -> Self {
        Self {
            path,
            time: written.map_or(default, |d| d.0),
            is_written: written.is_some(),
        }
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.path, Duration(self.time))
    }
}

/// Of whoever serves requests, or makes them.
fn http(worker: &LoadedResource) -> Vec<Finding> {
    let seconds = Length::from_secs;
    let (transport, application) = (worker.resource.transport(), worker.resource.application());
    let mut findings = Vec::new();
    // Said only of what the manifest itself writes.
    let mut odd = |one: &Said, other: &Said, what: &str, help: &str| {
        if !one.is_written && !other.is_written {
            return;
        }
        let path = if one.is_written { one.path } else { other.path };
        let message = format!("{one} and {other}: {what}");
        let mut finding = worker.finding(Severity::Warning, TIMES, path, message);
        finding.help = Some(help.to_owned());
        findings.push(finding);
    };
    let client = transport.and_then(|t| t.client.as_ref());
    if let Some(client) = client.or(application.and_then(|a| a.client.as_ref())) {
        let connect = Said::of("client.connectTimeout", client.connect_timeout, seconds(5));
        let answer = Said::of("client.answerTimeout", client.answer_timeout, seconds(15));
        let settings = worker.resource.settings();
        let written = settings.retry.as_ref().and_then(|retry| retry.max_age);
        let age = Said::of("retry.maxAge", written, Retry::MAX_AGE);
        if connect.time > answer.time && connect.is_written && answer.is_written {
            odd(
                &connect,
                &answer,
                "a server may take longer to be reached than to answer, so that messages wait longest for one that is away",
                "connect in less time than an answer takes",
            );
        }
        if answer.time >= age.time {
            odd(
                &answer,
                &age,
                "the first try may take all the time that a message has",
                "answer sooner, or give up later",
            );
        }
    }
    let Some(transport) = transport else {
        return findings;
    };
    let described = transport.generic_http.as_ref();
    let rpc = transport.http_rpc.as_ref();
    let api = transport.http_api.as_ref();
    let deadlines = [
        (
            "genericHttp.deadline.after",
            described.and_then(|described| described.deadline.as_ref()),
        ),
        (
            "httpRpc.deadline.after",
            rpc.and_then(|rpc| rpc.deadline.as_ref()),
        ),
        (
            "httpApi.deadline.after",
            api.and_then(|api| api.deadline.as_ref()),
        ),
    ];
    let mut deadlines = deadlines.into_iter();
    if let Some(http) = &transport.http {
        let request = Said::of("http.requestTimeout", http.request_timeout, seconds(240));
        let slow = Said::of("http.degradedAfter", http.degraded_after, seconds(1));
        let very = Said::of("http.downAfter", http.down_after, seconds(10));
        let end = deadlines.find_map(|(path, deadline)| Some((path, deadline?)));
        let end = end.map_or(request, |(path, deadline)| {
            Said::of(path, Some(deadline.after), seconds(0))
        });
        for slow in [slow, very] {
            if slow.is_written && slow.time >= end.time {
                odd(
                    &slow,
                    &end,
                    "no response is ever reported as that slow, because it is ended before",
                    "report sooner",
                );
            }
        }
        let dedupe = transport.dedupe.clone().unwrap_or_default();
        let window = Said::of("dedupe.window", dedupe.window, dedupe.window());
        if window.time < end.time && transport.dedupe.is_some() {
            odd(
                &window,
                &end,
                "a request that comes again while its first copy still waits for the reply is another message",
                "remember deliveries for longer than requests wait",
            );
        }
    }
    if let Some(session) = described.and_then(|d| d.session.as_ref()) {
        let keep = Said::of("genericHttp.session.keep", session.keep, seconds(600));
        let redial = Said::of(
            "genericHttp.session.redialWithin",
            session.redial_within,
            seconds(300),
        );
        if session.redial == Some(Redial::Resume) && redial.time > keep.time {
            odd(
                &redial,
                &keep,
                "who dials again goes on with what is older than any session lives",
                "keep sessions longer, or begin anew sooner",
            );
        }
    }
    findings
}
