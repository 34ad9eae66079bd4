//! The programs that know the cluster: run to their end, or talked to while they run. Nothing here waits without a limit.

use crate::root;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a program is asked for has a limit of its own; this one is for what hangs.
const LONGEST: Duration = Duration::from_secs(360);

/// Runs `kubectl` or `kubectl-vumi` to its end, with this text as its standard input. What takes too long is killed, and fails.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = spawn(program, arguments);
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // Beside: who is slow to read it is waited for below. One that reads no input may have ended already.
        std::thread::spawn(move || {
            let _ = stdin.write_all(input.as_bytes());
        });
    }
    let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
    let deadline = Instant::now() + LONGEST;
    let mut killed = false;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline || killed => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(None) => {
                killed = true;
                // It may have ended just now.
                let _ = child.kill();
            }
            Err(e) => panic!("{program}: {e}"),
        }
    };
    let mut stderr = stderr.join().unwrap_or_default();
    if killed {
        let (arguments, limit) = (arguments.join(" "), LONGEST.as_secs());
        let said = format!("{program} {arguments} did not end in {limit} s and was killed\n");
        stderr.extend_from_slice(said.as_bytes());
    }
    Output {
        status,
        stdout: stdout.join().unwrap_or_default(),
        stderr,
    }
}

/// Reads beside what else happens, until the other end is closed.
fn read(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut stream) = stream {
            // What came before an error is still what was said.
            let _ = stream.read_to_end(&mut all);
        }
        all
    })
}

fn spawn(program: &str, arguments: &[&str]) -> Child {
    Command::new(root().join("tests/e2e/cluster").join(program))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("tests/e2e/cluster/{program}: {e}"))
}

/// A connection over which lines are exchanged. It ends when this is dropped.
pub struct Conversation {
    process: Child,
    stdin: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Conversation {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        let mut process = spawn(program, arguments);
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            panic!("{program} has no standard streams");
        };
        let (sender, lines) = mpsc::channel();
        // Ends with the connection.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            process,
            stdin,
            lines,
        }
    }

    /// Sends a line.
    ///
    /// # Panics
    /// If the connection has ended.
    #[track_caller]
    pub fn send(&mut self, line: &str) {
        let sent = writeln!(self.stdin, "{line}").and_then(|()| self.stdin.flush());
        sent.unwrap_or_else(|e| panic!("{line:?} cannot be sent: {e}"));
    }

    /// The next line of the other side, if one comes within so many seconds.
    pub fn overhear(&mut self, seconds: u64) -> Option<String> {
        let line = self.lines.recv_timeout(Duration::from_secs(seconds)).ok()?;
        Some(line.trim_end().to_owned())
    }

    /// The next line of the other side, without its end; `None` if it hung up.
    ///
    /// # Panics
    /// If neither happens within so many seconds.
    #[track_caller]
    pub fn hear(&mut self, seconds: u64) -> Option<String> {
        match self.lines.recv_timeout(Duration::from_secs(seconds)) {
            Ok(line) => Some(line.trim_end().to_owned()),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("nothing was said in {seconds} s"),
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
