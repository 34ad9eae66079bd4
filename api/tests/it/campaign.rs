//! What only shows when several manifests are seen together.

mod brokers;
mod secrets;
mod times;

use vumi_api::manifest::{Finding, campaign_findings, load};
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
