//! What only shows when several manifests are seen together.

use vumi_api::manifest::{Finding, broker_findings, campaign_findings, load, state_findings};
use vumi_api::{Severity, Target};

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: vumi.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}"
    )
}

fn telnet(name: &str, port: u16) -> String {
    document("Transport", name, &format!("  telnet: {{port: {port}}}\n"))
}

fn echo(name: &str, connector: &str) -> String {
    document(
        "Application",
        name,
        &format!("  echo: {{}}\n  transportName: {connector}\n"),
    )
}

fn join(name: &str, transports: &str, exposed: &str, more: &str) -> String {
    let spec = format!("  simple: {{transports: [{transports}], exposed: [{exposed}]}}\n{more}");
    document("Dispatcher", name, &spec)
}

fn judge(documents: &[String], target: Target) -> Vec<Finding> {
    let text = documents.join("---\n");
    let read = load(&[("c.yaml", text)], target);
    assert!(!read.has_errors(), "{:?}", read.findings);
    campaign_findings(&read)
}

fn lines(documents: &[String]) -> Vec<String> {
    let findings = judge(documents, Target::Local);
    findings.iter().map(Finding::to_string).collect()
}

#[test]
fn whole_campaigns_have_nothing_wrong() {
    assert_eq!(lines(&[telnet("t", 9010), echo("e", "t")]), [""; 0]);
    let joined = [
        telnet("t", 9010),
        telnet("u", 9011),
        join("d", "t, u", "s", ""),
        echo("e", "s"),
    ];
    assert_eq!(lines(&joined), [""; 0]);
}

#[test]
fn the_examples_that_run_have_nothing_wrong() {
    for folder in [
        "telnet-echo",
        "two-transports-one-app",
        "with-state",
        "games",
    ] {
        let files: Vec<_> = crate::examples()
            .into_iter()
            .filter(|(name, _)| name.contains(&format!("/{folder}/")))
            .collect();
        for target in [Target::Local, Target::Cluster] {
            let read = load(&files, target);
            assert_eq!(read.findings, []);
            assert_eq!(campaign_findings(&read), []);
        }
    }
}

#[test]
fn every_example_alone_has_no_error() {
    for (file, text) in crate::examples() {
        for target in [Target::Local, Target::Cluster] {
            let read = load(&[(&file, &text)], target);
            assert_eq!(read.findings, [], "{file}");
            assert_eq!(read.resources.len(), 1, "{file}");
            // One worker alone lacks the other side, and nothing else.
            for finding in campaign_findings(&read) {
                assert_eq!(finding.code, "campaign.no_consumer", "{finding}");
                assert_eq!(finding.severity, Severity::Warning);
            }
        }
    }
}

#[test]
fn two_consumers_of_a_queue_clash() {
    let clash = [telnet("t", 9010), echo("a", "t"), echo("b", "t")];
    assert_eq!(
        lines(&clash),
        [
            "c.yaml:19:3 spec.transportName: application/b: t.inbound and t.event would be shared with application/a, \
          each getting a part of the messages; give one of them another name, or put a dispatcher between; application/a is at c.yaml:7"
        ]
    );
    let beside = [
        telnet("t", 9010),
        echo("a", "t"),
        join("d", "t", "s", ""),
        echo("e", "s"),
    ];
    let found = judge(&beside, Target::Cluster);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].code, "campaign.queue_clash");
    assert_eq!(found[0].path, "spec.simple.transports[0]");
}

#[test]
fn a_queue_that_nobody_reads_is_named() {
    let slip = [telnet("telnet", 9010), echo("e", "telnte")];
    let found = lines(&slip);
    assert_eq!(
        found,
        [
            "c.yaml:4:1 spec.transportName: warning: transport/telnet: no manifest consumes telnet.inbound and telnet.event; did you mean telnte?",
            "c.yaml:12:3 spec.transportName: warning: application/e: no manifest consumes telnte.outbound; did you mean telnet?",
        ]
    );
}

#[test]
fn listeners_of_one_machine_clash_and_pods_do_not() {
    let two = [
        telnet("a", 9010),
        telnet("b", 9010),
        echo("ea", "a"),
        echo("eb", "b"),
    ];
    let found = judge(&two, Target::Local);
    assert_eq!(
        found[0].to_string(),
        "c.yaml:11:12 spec.telnet.port: transport/b: port 9010 of 0.0.0.0 is taken by transport/a; choose another port"
    );
    assert_eq!(judge(&two, Target::Cluster), []);
    let http = "  httpApi: {}\n  http: {port: 9010, host: 127.0.0.1}\n";
    let mixed = [
        telnet("a", 9010),
        document("Transport", "h", http),
        echo("ea", "a"),
        echo("eh", "h"),
    ];
    let found = judge(&mixed, Target::Local);
    assert_eq!(found[0].path, "spec.http.port", "{found:?}");
}

#[test]
fn the_hop_that_breaks_the_order_is_named() {
    let broken = [
        telnet("t", 9010),
        join("d", "t", "s", "  ordering: {mode: none}\n"),
        echo("e", "s"),
    ];
    assert_eq!(
        lines(&broken),
        [
            "c.yaml:12:14 spec.ordering.mode: warning: dispatcher/d: keeps no order, so the path between transport/t and application/e keeps none either; \
          leave ordering out here, or set ordering to none on the whole path"
        ]
    );
    let external = "  telnet: {port: 9010}\n  legacyFailures: true\n  retry: {external: true}\n";
    assert_eq!(
        lines(&[document("Transport", "t", external), echo("e", "t")]),
        [
            "c.yaml:7:11 spec.retry.external: warning: transport/t: has retries made by a failure worker, which keeps no order, so the path between \
          transport/t and application/e keeps none either; leave external out here, or set ordering to none on the whole path"
        ]
    );
    // The other end may be somewhere else.
    let reads = "  staticReply: {text: x}\n  transportName: t\n";
    assert_eq!(
        lines(&[
            document("Transport", "t", external),
            document("Application", "s", reads)
        ]),
        [
            "c.yaml:7:11 spec.retry.external: warning: transport/t: has retries made by a failure worker, which keeps no order, although this transport \
          keeps it; leave external out, or set ordering to none"
        ]
    );
    let unordered = format!("{external}  ordering: {{mode: none}}\n");
    let reply = "  staticReply: {text: x}\n  transportName: t\n";
    assert_eq!(
        lines(&[
            document("Transport", "t", &unordered),
            document("Application", "s", reply)
        ]),
        [""; 0]
    );
    // Where an end keeps no order by itself, nothing is broken.
    let spec = "  staticReply: {text: x}\n  transportName: t\n";
    assert_eq!(
        lines(&[telnet("t", 9010), document("Application", "s", spec)]),
        [""; 0]
    );
}

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
fn workers_of_one_queue_on_two_brokers_never_hear_each_other() {
    let at = |broker: &str| match broker {
        "" => String::new(),
        broker => format!("  broker: {{{broker}}}\n"),
    };
    let pair = |transport: &str, application: &str, more: &[String], target| {
        let mut documents = vec![
            telnet("t", 9010) + &at(transport),
            echo("e", "t") + &at(application),
        ];
        documents.extend_from_slice(more);
        let read = load(&[("c.yaml", documents.join("---\n"))], target);
        assert!(!read.has_errors(), "{:?}", read.findings);
        let found = campaign_findings(&read).into_iter();
        let found = found.filter(|f| f.code == "campaign.broker_split");
        found.map(|f| f.to_string()).collect::<Vec<_>>()
    };
    let secret = |name: &str, url: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{connection_string: \"{url}\"}}\n"
        )
    };
    let found = pair(
        "secretRef: {name: a}",
        "secretRef: {name: b}",
        &[],
        Target::Cluster,
    );
    assert_eq!(
        found,
        [
            "c.yaml:6:3 spec.broker: warning: transport/t: application/e consumes t.inbound, but on the broker of Secret b and \
          not on the broker of Secret a: they never hear each other; give both the same `broker`; application/e is at c.yaml:8"
        ]
    );
    for (transport, application, target, split) in [
        ("", "", Target::Local, false),
        ("", "secretRef: {name: a}", Target::Local, true),
        ("", "secretRef: {name: vumi-broker}", Target::Cluster, false),
        (
            "secretRef: {name: a}",
            "secretRef: {name: a}, vhost: /",
            Target::Cluster,
            false,
        ),
        (
            "secretRef: {name: a}",
            "secretRef: {name: a}, vhost: /b",
            Target::Cluster,
            true,
        ),
        (
            "secretRef: {name: a}",
            "secretRef: {name: a}, profile: quorum",
            Target::Cluster,
            true,
        ),
    ] {
        let found = pair(transport, application, &[], target);
        assert_eq!(
            found.len(),
            usize::from(split),
            "{transport} {application}: {found:?}"
        );
    }
    let (a, b) = ("secretRef: {name: a}", "secretRef: {name: b}");
    let same = [
        secret("a", "amqp://u:one@h:5672/v"),
        secret("b", "amqp://w:two@h:5672/v"),
    ];
    assert_eq!(
        pair(a, b, &same, Target::Local),
        [""; 0],
        "two users of one broker"
    );
    let other = [
        secret("a", "amqp://u:one@h:5672/v"),
        secret("b", "amqp://u:one@h:5672/w"),
    ];
    assert_eq!(pair(a, b, &other, Target::Local).len(), 1);
    // The command line names one broker for all.
    let text = [telnet("t", 9010) + &at(a), echo("e", "t") + &at(b)].join("---\n");
    let mut read = load(&[("c.yaml", text)], Target::Local);
    read.one_broker = true;
    assert_eq!(campaign_findings(&read), []);
}

#[test]
fn one_name_on_two_brokers_is_two_queues() {
    let on = |secret: &str| format!("  broker: {{secretRef: {{name: {secret}}}}}\n");
    let both = [
        telnet("t", 9010) + &on("a"),
        echo("e", "t") + &on("a"),
        telnet("u", 9011) + "  transportName: t\n" + &on("b"),
        echo("f", "t") + &on("b"),
    ];
    assert_eq!(judge(&both, Target::Cluster), []);
}

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

#[test]
fn a_worker_that_needs_a_state_store_names_it_or_is_told_which_is_used() {
    let http = |name: &str, more: &str| {
        let spec = format!("  httpApi: {{idField: id}}\n  http: {{port: 8080}}\n{more}");
        document("Transport", name, &spec)
    };
    let judged = |target, more: &str| {
        let found = judge(&[http("t", more), echo("e", "t")], target);
        let lines = found.iter().map(Finding::to_string);
        lines.collect::<Vec<String>>()
    };
    let wait = "  onUnknown: {policy: wait, deadline: 2h, then: fail}\n";
    let external = "  legacyFailures: true\n  retry: {external: true}\n";
    for (place, field, more) in [
        ("7:3", "dedupe", "  dedupe: {}\n"),
        ("7:3", "onUnknown", wait),
        ("8:11", "retry.external", external),
    ] {
        let found = judged(Target::Cluster, more);
        assert_eq!(found.len(), 1, "{found:?}");
        let says = format!(
            "c.yaml:{place} spec.{field}: warning: transport/t: needs a state store and names none: it starts only where there is a Secret vumi-redis; name it: "
        );
        assert!(found[0].starts_with(&says), "{found:?}");
        assert_eq!(judged(Target::Local, more), [""; 0]);
        let named = format!("{more}  state: {{volume: {{}}}}\n");
        assert_eq!(judged(Target::Cluster, &named), [""; 0]);
    }
}

/// It starts without one, and does less than its manifest promises.
#[test]
fn a_worker_that_would_recognise_repeats_is_told_where_they_are_remembered() {
    let judged = |target, spec: &str, more: &str| {
        let spec = format!("  {spec}\n  http: {{port: 8080}}\n{more}");
        let found = judge(&[document("Transport", "t", &spec), echo("e", "t")], target);
        let lines = found.iter().map(Finding::to_string);
        lines.collect::<Vec<String>>()
    };
    let request = "name: a, message: {fromAddr: a, toAddr: b, id: c}";
    let described = format!("genericHttp: {{requests: [{{{request}}}]}}");
    for (field, spec) in [
        ("httpApi.idField", "httpApi: {idField: id}"),
        ("httpRpc.idField", "httpRpc: {idField: id}"),
        ("genericHttp.requests", &described),
    ] {
        let found = judged(Target::Cluster, spec, "");
        assert_eq!(found.len(), 1, "{found:?}");
        let says = format!(
            " spec.{field}: warning: transport/t: a request that comes again is recognised only with a state store, and this names none: where there is no Secret vumi-redis it is another message; name it: "
        );
        assert!(found[0].contains(&says), "{found:?}");
        assert_eq!(judged(Target::Local, spec, ""), [""; 0]);
        let named = "  state: {volume: {}}\n";
        assert_eq!(judged(Target::Cluster, spec, named), [""; 0]);
    }
    assert_eq!(judged(Target::Cluster, "httpApi: {}", ""), [""; 0]);
    let fail = "  onUnknown: {policy: fail}\n";
    assert_eq!(judged(Target::Cluster, "httpApi: {}", fail), [""; 0]);
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
