//! Starts real brokers, stores and API servers for tests, on free ports in temporary folders.
//! What cannot run because nothing is installed says so loudly and is counted, see [`skip`].

pub mod kubernetes;
pub mod rabbitmq;

use std::io::Write;

/// Says that the running test cannot run and why, and appends its name to the file that `VUMI_TEST_SKIPS` names, where
/// `scripts/test` counts it. The name is the one of the test's thread, so call it from the test's own thread.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed test");
    // Straight to the terminal: the test harness would swallow the output of a test that "passes".
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED {name}: {reason}");
    let Some(path) = std::env::var_os("VUMI_TEST_SKIPS") else {
        return;
    };
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path);
    if let Ok(mut file) = file {
        let _ = file.write_all(format!("{name}: {reason}\n").as_bytes());
    }
}

/// A TCP port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}
