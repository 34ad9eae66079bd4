//! `docs/reference` is what `vumi docs` would write.

use crate::root;
use std::process::Command;

#[test]
fn reference_pages_are_up_to_date() {
    let output = Command::new(env!("CARGO_BIN_EXE_vumi"))
        .args(["docs", "--check"])
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn a_changed_or_left_over_page_is_noticed_and_cured() {
    let folder = tempfile::tempdir().unwrap();
    let docs = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_vumi"))
            .arg("docs")
            .arg("--out")
            .arg(folder.path())
            .args(more)
            .current_dir(root())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    assert_eq!(
        docs(&["--check"]).0,
        Some(2),
        "an empty folder is not up to date"
    );
    assert_eq!(docs(&[]).0, Some(0));
    assert_eq!(docs(&["--check"]).0, Some(0));
    let page = folder.path().join("transports/telnet.md");
    let text = std::fs::read_to_string(&page).unwrap();
    std::fs::write(&page, format!("{text}more")).unwrap();
    std::fs::write(folder.path().join("transports/gone.md"), &text).unwrap();
    std::fs::write(folder.path().join("notes.md"), "written by a person").unwrap();
    let (code, said) = docs(&["--check"]);
    assert_eq!(code, Some(2));
    assert!(
        said.contains("telnet.md") && said.contains("gone.md"),
        "{said}"
    );
    assert!(!said.contains("notes.md"), "{said}");
    assert_eq!(docs(&[]).0, Some(0));
    assert_eq!(docs(&["--check"]).0, Some(0));
    assert!(folder.path().join("notes.md").exists());
}
