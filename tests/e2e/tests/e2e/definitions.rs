//! The custom resource definitions as users get them.

use vumi_e2e::{Namespace, file, kubectl, root, succeed};

fn apply_definitions() {
    let folder = root().join("deploy/crds");
    let folder = folder.to_str().unwrap();
    // Several tests may do so at once: what is equal conflicts with nobody.
    succeed(&["apply", "--server-side", "-f", folder], "");
    succeed(
        &[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "-f",
            folder,
        ],
        "",
    );
}

#[test]
fn definitions_apply_and_explain_themselves() {
    apply_definitions();
    let said = succeed(&["explain", "transport.spec.telnet.port"], "");
    let (_, description) = said.split_once("DESCRIPTION:").unwrap();
    assert!(description.trim().len() > 10, "{said}");
    assert!(said.contains("FIELD: port <integer>"), "{said}");
}

/// An example is taken as it is, and applying it twice changes nothing.
#[test]
fn an_example_is_taken_and_compares_as_equal() {
    apply_definitions();
    let here = Namespace::create("example");
    for name in ["telnet.yaml", "echo.yaml"] {
        let manifest = file(&format!("examples/telnet-echo/{name}"));
        here.succeed(&["apply", "-f", "-"], &manifest);
        let difference = here.kubectl(&["diff", "-f", "-"], &manifest);
        let told = String::from_utf8_lossy(&difference.stdout);
        assert!(difference.status.success(), "{name}: {told}");
    }
}

#[test]
fn a_wrong_manifest_is_refused_with_the_reason() {
    apply_definitions();
    let both = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: both}\nspec: {telnet: {port: 9010}, devNull: {}}\n";
    let output = kubectl(&["apply", "-f", "-"], both);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(told.contains("exactly one worker type"), "{told}");
}
