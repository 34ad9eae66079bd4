//! A test in a process of its own: for what belongs to a process, such as its memory and its clocks.

use std::process::{Child, Command, Stdio};

/// Set in the process that runs one test alone.
const ALONE: &str = "VUMI_TEST_ALONE";

/// Runs the calling test again, alone in a process of its own, and waits for its end: false, and the test is over. In
/// that process: true. Call it from the test's own thread, whose name is the test's.
///
/// # Panics
/// If the test failed there.
pub fn alone() -> bool {
    alone_in(1).is_some()
}

/// The same in so many processes beside each other; in each of them: which one it is, from 0.
///
/// # Panics
/// If the test failed in one of them.
pub fn alone_in(processes: usize) -> Option<usize> {
    if let Some(which) = std::env::var_os(ALONE) {
        return which.to_str().and_then(|which| which.parse().ok());
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let start = |which: usize| {
        let mut test = Command::new(std::env::current_exe().unwrap_or_default());
        test.args([name, "--exact", "--nocapture"])
            .env(ALONE, which.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        test.spawn()
            .unwrap_or_else(|e| panic!("{name} cannot be started again: {e}"))
    };
    let started: Vec<Child> = (0..processes).map(start).collect();
    // Each has its thread, so that none waits until another was read.
    let ended = started
        .into_iter()
        .map(|child| std::thread::spawn(move || child.wait_with_output()));
    for ended in ended.collect::<Vec<_>>() {
        let Ok(Ok(output)) = ended.join() else {
            panic!("the output of {name} cannot be read");
        };
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (told, wrong) = (said(&output.stdout), said(&output.stderr));
        println!("{told}");
        assert!(
            output.status.success() && told.contains("1 passed"),
            "{name} failed in a process of its own:\n{told}{wrong}"
        );
    }
    None
}

/// Memory that this process has now, in KiB.
///
/// # Panics
/// Where the kernel does not say.
pub fn resident() -> u64 {
    resident_of("self", "VmRSS")
}

/// Memory of a process by its id (`self` for this one), in KiB: `VmRSS` what it has now, `VmHWM` the most it ever had.
///
/// # Panics
/// Where the kernel does not say.
pub fn resident_of(process: &str, which: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(which));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.unwrap_or_else(|| panic!("no {which} of process {process}"))
}
