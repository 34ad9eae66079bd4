//! No finding and no `Debug` shows a secret value, whatever is wrong around it.

use vumi_api::Target;
use vumi_api::manifest::{campaign_findings, load};

const VALUE: &str = "hunter2";

/// Secret documents and secret fields, wrong in every way that comes to mind; each holds the value.
const WRONG: &[&str] = &[
    "http: {port: 8080, auth: {username: u, password: hunter2}}",
    "http: {port: 8080, auth: {username: u, password: [hunter2]}}",
    "http: {port: 8080, auth: {username: u, password: {value: [hunter2]}}}",
    "http: {port: 8080, auth: {username: u, password: {value: {x: hunter2}}}}",
    "http: {port: 8080, auth: {username: u, password: {valeu: hunter2}}}",
    "http: {port: 8080, auth: {username: u, password: {value: hunter2, value: hunter2}}}",
    "http: {port: 8080, auth: {username: u, password: {secretKeyRef: hunter2}}}",
    "http: {port: 8080, auth: {username: u, password: {secretKeyRef: {name: hunter2}}}}",
    "http: {port: 8080, auth: {username: u, password: {value: hunter2, secretKeyRef: {name: s, key: k}}}}",
    "http: {port: 8080, auth: {username: u, password: {value: hunter2}}, maxBody: x}",
];

const DOCUMENTS: &[&str] = &[
    "stringData: {password: [hunter2]}",
    "stringData: {password: {a: hunter2}}",
    "stringData: hunter2",
    "stringData: [hunter2]",
    "data: {password: hunter2!}",
    "data: {password: hunter2!, password: hunter2!}",
    "stringdata: {password: hunter2}",
    "stringData: {password: hunter2}\ntype: [hunter2]",
    "stringData: {password: !x hunter2}",
    "stringData: {password: \"hunter2}",
];

#[test]
fn findings_never_show_a_secret() {
    let transports = WRONG.iter().map(|spec| {
        format!("apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: t}}\nspec:\n  httpApi: {{}}\n  {spec}\n")
    });
    let secrets = DOCUMENTS
        .iter()
        .map(|data| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{data}\n"));
    for text in transports.chain(secrets) {
        for target in [Target::Local, Target::Cluster] {
            let read = load(&[("f.yaml", &text)], target);
            let mut findings = read.findings.clone();
            findings.extend(campaign_findings(&read));
            // A name that happens to be the value is a name.
            let shown = format!("{findings:?} {read:?}");
            let named = text.contains("name: hunter2");
            assert!(named || !shown.contains(VALUE), "{shown}\nfor\n{text}");
            if text.contains("kind: Secret") || target == Target::Cluster {
                assert!(read.has_errors(), "{text}");
            }
        }
    }
}

#[test]
fn unquoted_numbers_in_secrets_are_named_but_not_shown() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {pin: 0042, on: no, code: 123456}\n";
    let read = load(&[("f.yaml", text)], Target::Local);
    let shown: Vec<String> = read.findings.iter().map(|f| f.to_string()).collect();
    assert_eq!(
        shown,
        [
            "f.yaml:4:19 stringData.pin: warning: kubectl reads this unquoted word as a number; put it in quotes",
            "f.yaml:4:29 stringData.on: warning: kubectl reads this unquoted word as false; put it in quotes",
            "f.yaml:4:39 stringData.code: expected text, found another kind of value; put it in quotes",
        ]
    );
}

#[test]
fn debug_of_a_resource_hides_plain_values() {
    let text = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: t}\nspec:\n  httpApi: {}\n  http: {port: 8080, auth: {username: u, password: {value: hunter2}}}\n";
    let read = load(&[("f.yaml", text)], Target::Local);
    assert_eq!(read.resources.len(), 1);
    assert!(!format!("{:?}", read.resources[0].resource).contains(VALUE));
    assert!(!format!("{:?}", read.resources[0]).contains(VALUE));
}
