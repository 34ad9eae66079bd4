//! Starts servers under a launcher that ends them with their owner: it kills its server when the pipe to the test
//! process closes, however that happens.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Runs a command in the background until standard input ends, that is until the test process is gone or lets go. First
/// argument: folder; second: file in it for the process id; third: `last` waits for the brokers in folders below and
/// removes the folder, `alone` removes the folder unless it was told to keep it.
const LAUNCHER: &str = r#"folder=$1; file=$2; order=$3; shift 3
"$@" </dev/null & pid=$!
echo $pid >"$folder/$file"
said=$(cat)
kill -9 $pid; wait $pid
if [ "$order" = last ]; then
  for broker in "$folder"/*/broker.pid; do
    while kill -0 "$(cat "$broker")"; do sleep 0.05; done 2>/dev/null
  done
  rm -rf "$folder"
elif [ "$order" = alone ] && [ "$said" != keep ]; then
  rm -rf "$folder"
fi"#;

/// Starts a command under the launcher, with its environment and folder; what it says goes to `output.log` there.
pub(crate) fn launch(
    command: Command,
    folder: &Path,
    file: &str,
    order: &str,
) -> io::Result<Child> {
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(folder.join("output.log"))?;
    let errors = log.try_clone()?;
    let _ = std::fs::remove_file(folder.join(file));
    let command = command.as_std();
    let mut launcher = Command::new("/bin/sh");
    launcher
        .args(["-c", LAUNCHER, "launcher"])
        .arg(folder)
        .args([file, order])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(command.get_current_dir().unwrap_or(folder))
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(errors)
        // Ctrl-C in a terminal reaches the test, and through its end the launcher.
        .process_group(0);
    for (name, value) in command.get_envs() {
        set(&mut launcher, name, value);
    }
    launcher.spawn()
}

fn set(launcher: &mut Command, name: &OsStr, value: Option<&OsStr>) {
    match value {
        Some(value) => launcher.env(name, value),
        None => launcher.env_remove(name),
    };
}

/// Lets a launcher kill its server. The server's folder goes next, so this waits until nobody writes there any more;
/// SIGKILL takes no time.
pub(crate) fn end(mut launcher: Child) {
    drop(launcher.stdin.take());
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Ok(None) = launcher.try_wait() {
        if Instant::now() > deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The process id that the launcher wrote down.
pub(crate) fn pid(folder: &Path, file: &str) -> Option<u32> {
    let text = std::fs::read_to_string(folder.join(file)).ok()?;
    text.trim().parse().ok()
}

/// Sends a signal; whether there was somebody to take it.
pub(crate) async fn send_signal(signal: &str, pid: u32) -> bool {
    Command::new("/bin/sh")
        .args(["-c", "kill -\"$0\" \"$1\"", signal, &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .await
        .is_ok_and(|status| status.success())
}

/// Whether a process exists and is not a zombie.
pub(crate) fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}

/// The end of what a server said.
pub(crate) fn log(folder: &Path) -> String {
    let log = std::fs::read_to_string(folder.join("output.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
