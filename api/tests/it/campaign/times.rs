//! Lengths of time that make no sense together.

use super::{document, echo, lines, telnet};

#[test]
fn a_trail_that_ends_before_the_retries_do_is_told() {
    let kept = |retention: &str, retry: &str| {
        let more = format!("  retention: {{ledger: {retention}}}\n  retry: {{{retry}}}\n");
        lines(&[telnet("t", 9010) + &more, echo("e", "t")])
    };
    let found = kept("12h", "maxAttempts: 5");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("c.yaml:6:15 spec.retention.ledger: warning: transport/t: trails are kept for 12h, which is shorter than retry.maxAge (24h)"),
        "{found:?}"
    );
    assert_eq!(kept("12h", "maxAge: 12h"), [""; 0]);
}

#[test]
fn times_of_http_that_make_no_sense_together_are_told() {
    let with_store = |spec: &str| {
        let state = "  state: {redis: {secretRef: {name: r}}}\n";
        let http = document("Transport", "t", &format!("{spec}{state}"));
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: r}\nstringData: {connection_string: redis://h}\n";
        lines(&[http, echo("e", "t"), secret.into()])
    };
    let rpc = |config: &str, more: &str| with_store(&format!("  httpRpc: {{{config}}}\n{more}"));
    let generic = |session: &str| {
        with_store(&format!(
            "  genericHttp: {{requests: [{{name: a, message: {{fromAddr: a, toAddr: b}}}}], deadline: {{after: 20s, text: x}}, session: {{id: x, {session}}}}}\n  http: {{port: 8080}}\n"
        ))
    };
    let relay = |client: &str, retry: &str| {
        let spec = format!(
            "  httpRelay: {{url: \"http://x/\"}}\n  transportName: t\n  client: {{{client}}}\n  retry: {{{retry}}}\n"
        );
        lines(&[telnet("t", 9010), document("Application", "r", &spec)])
    };
    for (found, expected) in [
        (
            rpc(
                "",
                "  http: {port: 8080, requestTimeout: 20s, downAfter: 20s}\n",
            ),
            "spec.http.downAfter: warning: transport/t: http.downAfter (20s) and http.requestTimeout (20s): no response is ever",
        ),
        (
            rpc(
                "deadline: {after: 8s, text: x}",
                "  http: {port: 8080, downAfter: 9s}\n",
            ),
            "http.downAfter (9s) and httpRpc.deadline.after (8s)",
        ),
        (
            with_store(
                "  httpApi: {replyExpected: true, deadline: {after: 8s, text: x}}\n  http: {port: 8080, downAfter: 9s}\n",
            ),
            "http.downAfter (9s) and httpApi.deadline.after (8s)",
        ),
        (
            rpc(
                "idField: id",
                "  http: {port: 8080}\n  dedupe: {window: 2m}\n",
            ),
            "dedupe.window (2m) and http.requestTimeout (4m): a request that comes again",
        ),
        (
            generic("redial: resume, keep: 2m"),
            "genericHttp.session.redialWithin (5m) and genericHttp.session.keep (2m)",
        ),
        (
            relay("connectTimeout: 20s, answerTimeout: 10s", "maxAge: 1h"),
            "client.connectTimeout (20s) and client.answerTimeout (10s): a server may",
        ),
        (
            relay("answerTimeout: 60s", "maxAge: 30s"),
            "client.answerTimeout (1m) and retry.maxAge (30s): the first try",
        ),
    ] {
        assert!(
            found.iter().any(|line| line.contains(expected)),
            "{expected}: {found:#?}"
        );
    }
    for found in [
        rpc("", "  http: {port: 8080, requestTimeout: 5s}\n"),
        rpc("deadline: {after: 8s, text: x}", "  http: {port: 8080}\n"),
        generic("redial: resume"),
        relay("connectTimeout: 1s, answerTimeout: 1s", "maxAge: 1h"),
    ] {
        let told = found.iter().filter(|line| line.contains(" and "));
        assert_eq!(told.count(), 0, "{found:#?}");
    }
}
