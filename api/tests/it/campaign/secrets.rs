//! Secrets that workers name: those that are not there, and what is missing in them.

use super::{document, echo, judge, lines, telnet};
use vumi_api::manifest::{Finding, broker_findings, load, state_findings};
use vumi_api::{Severity, Target};

#[test]
fn a_secret_that_is_not_there_is_named() {
    let spec = "  httpApi: {}\n  http:\n    port: 8080\n    auth: {username: u, password: {secretKeyRef: {name: partnr, key: password}}}\n";
    let secret =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: partner}\nstringData: {password: x}\n";
    let campaign = |spec: &str| {
        [
            document("Transport", "h", spec),
            echo("e", "h"),
            secret.to_owned(),
        ]
    };
    let found = judge(&campaign(spec), Target::Local);
    assert_eq!(
        found[0].to_string(),
        "c.yaml:8:51 spec.http.auth.password.secretKeyRef.name: transport/h: there is no Secret \"partnr\"; did you mean partner?"
    );
    // On a cluster the Secret may come from elsewhere.
    assert_eq!(judge(&campaign(spec), Target::Cluster), []);
    let right_name = spec.replace("partnr", "partner");
    assert_eq!(judge(&campaign(&right_name), Target::Local), []);
    let wrong_key = right_name.replace("key: password", "key: pasword");
    let found = judge(&campaign(&wrong_key), Target::Local);
    assert_eq!(found[0].help.as_deref(), Some("did you mean password?"));
    assert_eq!(found[0].code, "campaign.secret_missing");
}

/// Findings about the broker's Secret of one telnet transport beside a Secret with these keys.
fn of_broker(broker: &str, keys: &str, target: Target) -> Vec<String> {
    let spec = format!("  telnet: {{port: 9010}}\n  broker: {broker}\n");
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: rabbit}}\nstringData: {{{keys}}}\n"
    );
    let text = [document("Transport", "t", &spec), secret].join("---\n");
    let read = load(&[("c.yaml", text)], target);
    assert_eq!(read.findings, []);
    let findings = broker_findings(&read, Severity::Error);
    assert!(findings.iter().all(|f| f.severity == Severity::Error));
    assert!(findings.iter().all(|f| f.code == "campaign.secret_missing"));
    findings.iter().map(Finding::to_string).collect()
}

#[test]
fn a_brokers_secret_is_there_and_holds_an_address() {
    const RABBIT: &str = "{secretRef: {name: rabbit}}";
    const TLS: &str = "{secretRef: {name: rabbit}, tls: {caSecretRef: {name: rabbit}}}";
    let local = |broker: &str, keys: &str| of_broker(broker, keys, Target::Local);
    for keys in [
        "connection_string: \"amqp://u:hunter2@h/v\"",
        "connection_string: \"amqps://h\"",
        "host: h, username: u, password: hunter2",
        "host: h, username: u, password: hunter2, port: \"5672\"",
    ] {
        assert_eq!(local(RABBIT, keys), [""; 0], "{keys}");
    }
    for (keys, says) in [
        ("a: b", "has neither connection_string nor host"),
        ("host: h, username: u", "has no key \"password\""),
        (
            "host: h, user: u, password: hunter2",
            "has no key \"username\"",
        ),
        (
            "host: h, username: u, password: hunter2, port: amqp",
            "is not a port number",
        ),
        (
            "connection_string: \"http://u:hunter2@h\"",
            "is not of the form amqp://",
        ),
    ] {
        let found = local(RABBIT, keys);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(says), "{found:?} for {keys}");
        assert!(found[0].starts_with("c.yaml:6:"), "{found:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
    assert_eq!(
        local(
            "{secretRef: {name: rabit}}",
            "connection_string: \"amqp://h\""
        ),
        [
            "c.yaml:6:24 spec.broker.secretRef.name: transport/t: there is no Secret \"rabit\"; did you mean rabbit?"
        ]
    );
    assert_eq!(
        local("{secretRef: {name: other}}", "a: b"),
        [
            "c.yaml:6:24 spec.broker.secretRef.name: transport/t: there is no Secret \"other\"; \
             put a `kind: Secret` document beside the manifests, or give --secrets DIR, or give --broker URL to `vumi run`"
        ]
    );
    let found = local(TLS, "connection_string: \"amqps://h\"");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("spec.broker.tls.caSecretRef.name"),
        "{found:?}"
    );
    assert!(found[0].contains("has no key \"ca.crt\""), "{found:?}");
    let whole = "connection_string: \"amqps://h\", ca.crt: x";
    assert_eq!(local(TLS, whole), [""; 0]);
    // On a cluster the Secret may come from elsewhere.
    assert_eq!(of_broker(RABBIT, "a: b", Target::Cluster), [""; 0]);
}

#[test]
fn an_empty_secret_is_told() {
    let found = |value: &str| {
        let spec = "  httpRelay: {url: \"http://x/\", auth: {username: u, password: {secretKeyRef: {name: s, key: k}}}}\n  transportName: t\n";
        let secret = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{k: {value}}}\n"
        );
        lines(&[
            telnet("t", 9010),
            document("Application", "r", spec),
            secret,
        ])
    };
    for empty in ["\"\"", "\" \""] {
        let found = found(empty);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains("Secret \"s\" has nothing in its key \"k\""),
            "{found:?}"
        );
    }
    assert_eq!(found("x"), [""; 0]);
}

#[test]
fn a_state_stores_secret_is_there_and_holds_an_address() {
    let found = |state: &str, keys: &str| {
        let spec = format!("  telnet: {{port: 9010}}\n  state: {{redis: {state}}}\n");
        let secret = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: redis}}\nstringData: {{{keys}}}\n"
        );
        let text = [document("Transport", "t", &spec), secret].join("---\n");
        let read = load(&[("c.yaml", text)], Target::Local);
        assert_eq!(read.findings, []);
        let findings = state_findings(&read, Severity::Warning);
        let lines = findings.iter().map(Finding::to_string);
        lines.collect::<Vec<String>>()
    };
    const REDIS: &str = "{secretRef: {name: redis}}";
    for keys in [
        "connection_string: \"redis://:hunter2@h/3\"",
        "host: h",
        "host: h, port: \"6379\", password: hunter2",
        "sentinels: \"a:1,b:2\", masterName: m",
    ] {
        assert_eq!(found(REDIS, keys), [""; 0], "{keys}");
    }
    for (keys, says) in [
        ("a: b", "has none of connection_string, host, sentinels"),
        (
            "connection_string: \"amqp://u:hunter2@h\"",
            "is not of the form redis://",
        ),
        ("sentinels: a", "has no key \"masterName\""),
        ("host: h, port: redis", "is not a port number"),
    ] {
        let found = found(REDIS, keys);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(says), "{found:?} for {keys}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
    let missing = found("{secretRef: {name: redsi}}", "host: h");
    assert_eq!(missing.len(), 1);
    assert!(missing[0].contains("did you mean redis?"), "{missing:?}");
    let tls = found(
        "{secretRef: {name: redis}, tls: {caSecretRef: {name: redis}}}",
        "host: h",
    );
    assert!(tls[0].contains("has no key \"ca.crt\""), "{tls:?}");
}
