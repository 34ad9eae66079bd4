//! Starts real brokers, stores and API servers for tests, on free ports in temporary folders.
//! What cannot run because nothing is installed says so loudly and is counted, see [`skip`].

mod alone;
pub mod certificates;
pub mod forwarder;
pub mod kubernetes;
mod launcher;
pub mod rabbitmq;
pub mod redis;

pub use alone::{alone, alone_in, resident, resident_of};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

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

/// A Python that has this module, if there is one: the first on the path, or Debian's own, which another may hide.
pub fn python_with(module: &str) -> Option<PathBuf> {
    let import = format!("import {module}");
    let has = |python: &&str| {
        let tried = Command::new(python).args(["-c", &import]).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(has);
    found.map(PathBuf::from)
}

/// A TCP port of 127.0.0.1 that nobody uses now. Ports for outgoing connections are left alone: the kernel may give one
/// of them away before the caller has it. Each port is given once per process.
pub fn free_port() -> std::io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 10_000;
    // Test binaries run beside each other: each begins somewhere else.
    let start = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(std::io::ErrorKind::AddrInUse.into())
}
