//! The manual pages are what the commands say.

use std::path::Path;
use std::process::Command;

#[test]
fn manual_pages_are_up_to_date() {
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-vumi"))
        .args(["man", "--check"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
