//! Child processes that tests kill: this test binary again, running one ignored test that says what it does line by line.

use crate::broker_suite::PATIENCE;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Says something to the parent at once; what was said before a kill was said.
pub fn say(what: &str, n: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "@{what} {n}");
    let _ = out.flush();
}

/// A child and what it said. It ends with this.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    heard: BTreeMap<String, Vec<String>>,
}

impl Running {
    /// Runs a test of this binary with some environment variables.
    pub fn start<'a>(test: &str, given: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        // The signal for files that grow too large would end the child; ignored, the write fails as on a full disk.
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().expect("this program"))
            .args(["--exact", test, "--ignored"])
            .args(["--nocapture", "--test-threads=1"])
            .envs(given)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("start the child");
        let out = BufReader::new(child.stdout.take().expect("stdout"));
        let (sender, lines) = std::sync::mpsc::sync_channel(100_000);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            heard: BTreeMap::new(),
        }
    }

    /// Hears one line, if one comes in time; false when the child ended.
    pub fn listen(&mut self, time: Duration) -> bool {
        match self.lines.recv_timeout(time) {
            Ok(line) => {
                // The harness may print its own words on the same line before ours.
                if let Some((_, said)) = line.split_once('@') {
                    let (what, n) = said.split_once(' ').unwrap_or((said, ""));
                    self.heard.entry(what.into()).or_default().push(n.into());
                }
                true
            }
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => false,
        }
    }

    /// How often something was heard.
    pub fn count(&self, what: &str) -> usize {
        self.heard.get(what).map_or(0, Vec::len)
    }

    /// Listens until something was heard more than `times`.
    pub fn until(&mut self, what: &str, times: usize) {
        let begin = Instant::now();
        while self.count(what) <= times {
            assert!(
                begin.elapsed() < 3 * PATIENCE,
                "no {what:?} number {times}; heard {:?}",
                self.heard
                    .iter()
                    .map(|(what, all)| (what, all.len(), all.last()))
                    .collect::<Vec<_>>()
            );
            assert!(self.listen(Duration::from_millis(50)), "the child ended");
        }
    }

    /// Limits the size of its files: `unlimited`, or bytes.
    pub fn limit_files(&self, soft: &str) {
        let status = Command::new("prlimit")
            .arg(format!("--pid={}", self.child.id()))
            .arg(format!("--fsize={soft}:"))
            .status()
            .expect("prlimit");
        assert!(status.success());
    }

    /// Kills it at a moment within a span that differs from run to run.
    pub fn kill_within(mut self, span: Duration) -> BTreeMap<String, Vec<String>> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock");
        let share = f64::from(since.subsec_micros() % 1000) / 1000.0;
        let moment = Instant::now() + span.mul_f64(share);
        while Instant::now() < moment {
            self.listen(Duration::from_millis(1));
        }
        self.kill()
    }

    /// Kills it and hears the rest of what it said.
    pub fn kill(mut self) -> BTreeMap<String, Vec<String>> {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
        while self.listen(PATIENCE) {}
        std::mem::take(&mut self.heard)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
