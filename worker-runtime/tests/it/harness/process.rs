//! Processes of the real `vumi` binary: started with a log file, told signals by their id, gone with the test however
//! it ends, be it by SIGKILL.

use std::cell::RefCell;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

thread_local! {
    /// Processes that the running test expects to live, with their logs.
    static EXPECTED: RefCell<Vec<(u32, PathBuf)>> = const { RefCell::new(Vec::new()) };
}

/// Fails the test at once if a process ended that should not, instead of waiting for what will never come.
pub fn assert_expected_live() {
    let dead = EXPECTED.with_borrow(|expected| {
        let dead = expected.iter().find(|(pid, _)| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(')')
                .next()
                .is_none_or(|rest| rest.trim_start().starts_with('Z'))
        });
        dead.map(|(_, log)| log.clone())
    });
    if let Some(log) = dead {
        panic!("a process ended, see {}", log.display());
    }
}

/// A running `vumi`. Dropping it kills it; in a failing test the end of its log is shown.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

/// A command of the binary under test, with its control sockets in `folder`. `setpriv` (util-linux) asks the kernel to
/// kill it with the thread that starts it, and becomes it: the process id is that of `vumi`.
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_vumi")])
        .env("XDG_RUNTIME_DIR", folder)
        .env_remove("RUST_LOG")
        .env_remove("VUMI_BROKER_URL")
        .env_remove("VUMI_REDIS_URL")
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    command(folder).args(arguments).output().unwrap()
}

/// Where a Debian package put one of its files; none if it is not installed.
pub fn installed(package: &str, file: &str) -> Option<String> {
    let listed = Command::new("dpkg-query").args(["-L", package]).output();
    let listed = String::from_utf8(listed.ok()?.stdout).ok()?;
    let found = listed.lines().find(|line| line.ends_with(file));
    found.map(str::to_owned)
}

/// Standard output and error of a finished command.
pub fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

impl Process {
    /// Starts `vumi` with `arguments`; its log is `NAME.log` in `folder`, written on over restarts.
    pub fn start(folder: &Path, name: &str, arguments: &[&str]) -> Self {
        Self::start_with(folder, name, arguments, &[])
    }

    /// The same, with more environment variables.
    pub fn start_with(
        folder: &Path,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&log)
            .unwrap();
        let child = command(folder)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        EXPECTED.with_borrow_mut(|expected| expected.push((child.id(), log.clone())));
        Self {
            child,
            name: name.to_owned(),
            log,
            ended: None,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, for example `TERM`.
    pub fn signal(&self, signal: &str) {
        let kill = Command::new("/bin/sh")
            .args(["-c", "kill -\"$0\" \"$1\"", signal])
            .arg(self.child.id().to_string())
            .status();
        assert!(
            kill.is_ok_and(|status| status.success()),
            "{} is gone:\n{}",
            self.name,
            self.tail()
        );
    }

    /// Its end is no surprise any more.
    pub fn expect_end(&self) {
        let id = self.child.id();
        EXPECTED.with_borrow_mut(|expected| expected.retain(|(pid, _)| *pid != id));
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.expect_end();
        let _ = self.child.kill();
        self.ended = self.child.wait().ok();
    }

    /// Waits for the end; panics after `limit`.
    pub async fn ends(&mut self, limit: Duration) -> ExitStatus {
        self.expect_end();
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.poll() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} does not end within {limit:?}",
                self.name
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGTERM, and the exit code.
    pub async fn stop(&mut self, limit: Duration) -> Option<i32> {
        self.signal("TERM");
        let status = self.ends(limit).await;
        assert_eq!(status.signal(), None, "{} did not end by itself", self.name);
        status.code()
    }

    /// Its exit status, if it has ended.
    pub fn poll(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Everything it printed so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Fails the test if it has ended.
    pub fn assert_running(&mut self) {
        let ended = self.poll();
        assert!(ended.is_none(), "{} ended: {ended:?}", self.name);
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(150)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.expect_end();
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.name, self.tail());
        }
    }
}
