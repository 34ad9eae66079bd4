//! Tests that cannot run on this machine say so loudly; `scripts/test` counts them, and in CI each is a failure.

use std::io::Write;

/// Says that `test` did not run and why, on standard error and in the file that `VUMI_TEST_SKIPS` names.
pub fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    let Some(path) = std::env::var_os("VUMI_TEST_SKIPS") else {
        return;
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    // One write per line: tests of several processes append to the same file.
    let written = file.and_then(|mut file| file.write_all(format!("{test}: {why}\n").as_bytes()));
    if let Err(error) = written {
        eprintln!("the skip of {test} could not be noted: {error}");
    }
}
