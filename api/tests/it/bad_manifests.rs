//! Every bad manifest of the table gives its finding; all findings come at once; YAML's own mistakes have a place.

use crate::table::{BAD, Bad, ONLY_OFFLINE};
use vumi_api::manifest::{Finding, Manifests, load};
use vumi_api::{Severity, Target};

fn read(text: &str, target: Target) -> Manifests {
    load(&[("f.yaml", text)], target)
}

fn local(text: &str) -> Vec<Finding> {
    read(text, Target::Local).findings
}

fn lines(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(Finding::to_string).collect()
}

/// The place of the last key of `path` in a text, 1-based: its first occurrence after the one of its parent.
fn place_of(text: &str, path: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    for key in path.split('.') {
        let key = key.split('[').next()?;
        let at = text[from..].match_indices(key).find(|(at, _)| {
            text[from + at + key.len()..].starts_with(':')
                && !text[..from + at].ends_with(char::is_alphanumeric)
        })?;
        from += at.0;
    }
    let before = &text[..from];
    let line = before.matches('\n').count() + 1;
    Some((
        line,
        before.chars().rev().take_while(|c| *c != '\n').count() + 1,
    ))
}

fn check(bad: &Bad) {
    let text = bad.manifest();
    let read = read(&text, Target::Cluster);
    let found = read.findings.iter().find(|f| {
        f.code == bad.code
            && f.path == bad.path
            && f.severity == Severity::Error
            && f.to_string().contains(bad.says)
    });
    let found = found.unwrap_or_else(|| {
        panic!(
            "expected {} at {:?} saying {:?}, got {:#?} for\n{text}",
            bad.code,
            bad.path,
            bad.says,
            lines(&read.findings)
        )
    });
    assert!(found.line > 0 && found.column > 0, "{found}");
    assert!(
        read.resources.is_empty(),
        "a bad resource was loaded:\n{text}"
    );
    // An unknown field is shown where it stands, to the character.
    if found.code == "manifest.unknown_field" {
        let place = place_of(&text, bad.path);
        assert_eq!(Some((found.line, found.column)), place, "{found}\n{text}");
    }
}

#[test]
fn every_bad_manifest_gives_its_finding() {
    BAD.iter().chain(ONLY_OFFLINE).for_each(check);
}

#[test]
fn the_bounds_themselves_are_allowed() {
    let head = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: t}\nspec:\n";
    for spec in [
        "telnet: {port: 9010, maxLine: 64Ki}",
        "telnet: {port: 9010}, holdLimit: 10m",
        "telnet: {port: 9010}, holdLimit: 9m60000ms",
        "httpApi: {}, http: {port: 8080, maxBody: 1Mi}",
        "httpApi: {}, http: {port: 8080, maxBody: \"1048576\"}",
    ] {
        let text = format!("{head}  {{{spec}}}\n");
        assert_eq!(read(&text, Target::Cluster).findings, [], "{spec}");
    }
    // Numbers without end are refused too.
    for spec in [
        "telnet: {port: 9010, maxLine: 99999999999999999Gi}",
        "telnet: {port: 9010}, holdLimit: 9999999999999999999h",
    ] {
        let findings = lines(&read(&format!("{head}  {{{spec}}}\n"), Target::Cluster).findings);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].contains("at most "), "{findings:?}");
    }
}

/// Everything that `autoscaling` is for.
#[test]
fn what_may_be_scaled_is_accepted() {
    for (kind, spec) in [
        (
            "Transport",
            "devNull: {}, autoscaling: {minReplicas: 0, maxReplicas: 9}",
        ),
        (
            "Transport",
            "httpApi: {}, http: {port: 8080}, autoscaling: {maxReplicas: 4}",
        ),
        (
            "Transport",
            "custom: {image: a}, autoscaling: {minReplicas: 0, maxReplicas: 4}",
        ),
        // One pod or none: order is no matter.
        (
            "Application",
            "echo: {}, transportName: t, autoscaling: {minReplicas: 0, maxReplicas: 1}",
        ),
        (
            "Application",
            "echo: {}, transportName: t, autoscaling: {maxReplicas: 8}, ordering: {mode: perUser, partitions: 8}",
        ),
        (
            "Application",
            "echo: {}, transportName: t, autoscaling: {maxReplicas: 8}, ordering: {mode: none}",
        ),
        (
            "Application",
            "staticReply: {text: x}, transportName: t, autoscaling: {minReplicas: 3, maxReplicas: 3}, replicas: 2",
        ),
        (
            "Dispatcher",
            "simple: {transports: [a], exposed: [b]}, autoscaling: {minReplicas: 0, maxReplicas: 1}",
        ),
    ] {
        let text = format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: t}}\nspec: {{{spec}}}\n"
        );
        assert_eq!(
            lines(&read(&text, Target::Cluster).findings),
            [""; 0],
            "{spec}"
        );
    }
}

#[test]
fn one_mistake_gives_one_error() {
    for bad in BAD {
        let text = bad.manifest();
        let errors: Vec<String> = read(&text, Target::Cluster)
            .findings
            .iter()
            .filter(|f| f.severity == Severity::Error)
            .map(Finding::to_string)
            .collect();
        // A misplaced or misspelt required field is also missing where it belongs; both secrets is two mistakes.
        let most = match bad.says {
            "it belongs inside telnet" | "did you mean connector?" => 2,
            "did you mean logging?" => 1,
            "give secretKeyRef or value, not both" => 2,
            _ => 1,
        };
        assert!(errors.len() <= most, "{errors:#?} for\n{text}");
    }
}

#[test]
fn all_findings_come_at_once_in_the_order_of_places() {
    let text = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: t}\nspec:\n  telnet:\n    prot: 9010\n    host: 5\n    idleTimeout: soon\n  placement: here\n---\napiVersion: vumi.dev/v1alpha1\nkind: Aplication\nmetadata: {name: a}\nspec: {}\n---\napiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: good}\nspec: {echo: {}, transportName: t}\n";
    let read = read(text, Target::Local);
    assert_eq!(
        lines(&read.findings),
        [
            "f.yaml:5:3 spec.telnet.port: required, but missing; Port to listen on; 1024 or higher, and not 9464, where the worker serves health checks and metrics",
            "f.yaml:6:5 spec.telnet.prot: unknown field; did you mean port?",
            "f.yaml:7:11 spec.telnet.host: expected text, found the number 5; put it in quotes",
            "f.yaml:8:18 spec.telnet.idleTimeout: \"soon\" is not a duration; write e.g. 500ms, 30s, 1m30s or 2h",
            "f.yaml:9:3 spec.placement: not supported yet",
            "f.yaml:12:7 kind: unknown kind \"Aplication\"; did you mean Application?",
        ]
    );
    // What is good is still read.
    assert_eq!(read.resources.len(), 1);
    assert_eq!(read.resources[0].resource.key(), "application/good");
    assert_eq!(read.resources[0].line, 16);
}

/// Its name is kept for a later version, and no misspelling of another kind.
#[test]
fn the_reserved_kind_is_told_as_such() {
    let text =
        "apiVersion: vumi.dev/v1alpha1\nkind: WorkerPool\nmetadata: {name: small}\nspec: {}\n";
    assert_eq!(
        lines(&read(text, Target::Cluster).findings),
        ["f.yaml:2:7 kind: kind WorkerPool is not supported yet; each worker has a pod of its own",]
    );
}

/// A Secret that was made from a worker's manifest.
#[test]
fn a_secret_under_our_api_version_is_told_its_own() {
    let text = "apiVersion: vumi.dev/v1alpha1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n---\napiVersion: vumi.dev/v1\nkind: Secret\nmetadata: {name: t}\n";
    assert_eq!(
        lines(&read(text, Target::Local).findings),
        [
            "f.yaml:1:13 apiVersion: a Secret is one of Kubernetes itself, not of vumi.dev; write `apiVersion: v1`",
            "f.yaml:6:13 apiVersion: a Secret is one of Kubernetes itself, not of vumi.dev; write `apiVersion: v1`",
        ]
    );
}

#[test]
fn keys_and_names_may_stand_once() {
    let text = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: t}\nspec:\n  telnet:\n    port: 9010\n    port: 9011\n";
    let findings = local(text);
    assert_eq!(
        lines(&findings),
        [
            "f.yaml:7:5 spec.telnet.port: this key stands here twice; the first one is in line 6: keep one"
        ]
    );
    assert_eq!(findings[0].code, "manifest.duplicate_key");

    let one = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: t}\nspec: {telnet: {port: 9010}}\n";
    let read = load(&[("a.yaml", one), ("b.yaml", one)], Target::Local);
    assert_eq!(
        lines(&read.findings),
        ["b.yaml:3:18 metadata.name: Transport \"t\" exists already; the first one is at a.yaml:3"]
    );
    assert_eq!(read.resources.len(), 1);
    let elsewhere = one.replace("name: t", "name: t, namespace: other");
    let read = load(&[("a.yaml", one), ("b.yaml", &elsewhere)], Target::Local);
    assert_eq!(read.findings, []);
}

#[test]
fn documents_say_what_they_are() {
    let cases = [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        ("- a\n- b\n", "a document must be an object"),
        (
            "kind: Transport\nmetadata: {name: t}\n",
            "apiVersion: required, but missing",
        ),
        (
            "apiVersion: v1\nmetadata: {name: t}\n",
            "kind: required, but missing",
        ),
        (
            "apiVersion: vumi.dev/v1\nkind: Transport\nmetadata: {name: t}\nspec: {}\n",
            "did you mean vumi.dev/v1alpha1?",
        ),
        (
            "apiVersion: apps/v1\nkind: Transport\nmetadata: {name: t}\nspec: {}\n",
            "did you mean vumi.dev/v1alpha1?",
        ),
        (
            "apiVersion: vumi.dev/v1alpha1\nkind: transport\nmetadata: {name: t}\nspec: {}\n",
            "did you mean Transport?",
        ),
        (
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nspec: {telnet: {port: 9010}}\n",
            "metadata: required, but missing",
        ),
        (
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {nam: t}\nspec: {telnet: {port: 9010}}\n",
            "did you mean name?",
        ),
        (
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: 5}\nspec: {telnet: {port: 9010}}\n",
            "a name of digits needs quotes",
        ),
        (
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: My_Name}\nspec: {telnet: {port: 9010}}\n",
            "not a name that Kubernetes accepts",
        ),
        (
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: t}\n",
            "spec: required, but missing",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: 5\n",
            "a List needs a list of items",
        ),
    ];
    for (text, says) in cases {
        let findings = lines(&local(text));
        assert!(
            findings.iter().any(|f| f.contains(says)),
            "{findings:?} for {text}"
        );
    }
}

#[test]
fn a_list_holds_documents_and_foreign_kinds_are_left_alone() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: vumi.dev/v1alpha1\n  kind: Transport\n  metadata: {name: t}\n  spec: {telnet: {port: 9010}}\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: s}\n  stringData: {a: b}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {whatever: 1}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n---\n# nothing\n---\n";
    let read = read(text, Target::Cluster);
    assert_eq!(read.resources.len(), 1);
    assert_eq!(read.secrets["s"]["a"], "b");
    assert_eq!(read.findings.len(), 2, "{:?}", read.findings);
    for (finding, kind) in read.findings.iter().zip(["Deployment", "ConfigMap"]) {
        assert_eq!(finding.code, "manifest.ignored");
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.message.contains(kind), "{finding}");
    }
}

#[test]
fn what_is_not_yaml_has_a_place() {
    for (text, line) in [
        ("a: [1, 2\nb: 3\n", 2),
        ("a: b\n\tc: d\n", 2),
        ("a: 'open\n", 1),
        ("a: *unknown\n", 1),
        ("a: {b: c}}\n", 1),
        ("a: !thing 1\n", 1),
        ("? [x]\n: y\n", 1),
        ("{{ .Values.name }}: 1\n", 1),
    ] {
        let findings = local(text);
        let syntax = findings.iter().find(|f| f.code == "manifest.syntax");
        let syntax = syntax.unwrap_or_else(|| panic!("{findings:?} for {text:?}"));
        assert!(
            syntax.line.abs_diff(line) <= 1 && syntax.line > 0,
            "{syntax} for {text:?}"
        );
        assert!(syntax.column > 0, "{syntax}");
    }
    // Documents before the mistake are read.
    let text = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: t}\nspec: {telnet: {port: 9010}}\n---\na: [\n";
    let read = read(text, Target::Local);
    assert_eq!(read.resources.len(), 1);
    assert!(read.has_errors());
}

#[test]
fn aliases_are_bounded() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let findings = local(&bomb);
    assert!(
        findings[0].message.contains("once aliases are expanded"),
        "{findings:?}"
    );
    let deep = "[".repeat(100) + &"]".repeat(100);
    let findings = local(&deep);
    assert!(
        findings[0].message.contains("nested deeper"),
        "{findings:?}"
    );
}

#[test]
fn words_that_kubectl_reads_otherwise_are_named() {
    let text = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: t}\nspec:\n  telnet: {port: 9010, toAddr: 0123, transportType: on}\n";
    let findings = local(text);
    assert_eq!(
        lines(&findings),
        [
            "f.yaml:5:32 spec.telnet.toAddr: warning: kubectl reads the unquoted word 0123 as a number; put it in quotes",
            "f.yaml:5:53 spec.telnet.transportType: warning: kubectl reads the unquoted word on as true; put it in quotes",
        ]
    );
    let octal = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: t}\nspec: {telnet: {port: 02000}}\n";
    assert!(lines(&local(octal))[0].contains("without leading zeros"));
}

#[test]
fn plain_secrets_are_for_one_machine() {
    let bad = BAD.iter().find(|b| b.says.contains("`vumi run` only"));
    let text = bad.unwrap().manifest();
    assert_eq!(local(&text), []);
    assert!(read(&text, Target::Cluster).has_errors());
}
