//! The process of a worker under test: started in a process group of its own, started again when it ends by itself (as
//! Kubernetes does), killed or told to stop when a case says so.

use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Lines of output that are kept.
const LINES: usize = 200;
/// Waits before a process that ended by itself is started again: this, twice this, up to the last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// What to run, and with which environment variables beside those of this process.
#[derive(Clone)]
pub(super) struct Recipe {
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<(&'static str, String)>,
}

/// What its processes wrote, and how often one ended by itself.
#[derive(Clone, Default)]
pub(super) struct Diary(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    lines: VecDeque<String>,
    deaths: u32,
}

enum Order {
    Kill,
    /// SIGTERM, and SIGKILL after so long.
    Stop(Duration),
}

/// A running worker. Dropping it kills it.
pub(super) struct Program {
    orders: mpsc::Sender<Order>,
    ended: JoinHandle<Result<(), String>>,
    group: Arc<Mutex<Option<Pid>>>,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.ended.abort();
        signal(&self.group, Signal::KILL);
    }
}

fn signal(group: &Mutex<Option<Pid>>, signal: Signal) {
    if let Some(pid) = *group.lock().unwrap_or_else(PoisonError::into_inner) {
        // It may be gone already.
        let _ = kill_process_group(pid, signal);
    }
}

impl Program {
    /// Starts it; an error if there is no such program.
    pub(super) fn start(recipe: &Recipe, diary: &Diary) -> Result<Self, String> {
        let child = spawn(recipe, diary)?;
        let (orders, received) = mpsc::channel(1);
        let group = Arc::new(Mutex::new(group_of(&child)));
        let keeper = Keeper {
            recipe: recipe.clone(),
            diary: diary.clone(),
            group: Arc::clone(&group),
        };
        Ok(Self {
            orders,
            ended: tokio::spawn(keeper.keep(child, received)),
            group,
        })
    }

    /// SIGKILL, and waits until it is gone.
    pub(super) async fn kill(self) {
        // It ended if nobody hears this.
        let _ = self.orders.send(Order::Kill).await;
        let mut this = self;
        let _ = (&mut this.ended).await;
    }

    /// SIGTERM, and waits until it is gone; an error if it had to be killed after `grace`.
    pub(super) async fn stop(self, grace: Duration) -> Result<(), String> {
        let _ = self.orders.send(Order::Stop(grace)).await;
        let mut this = self;
        let ended = (&mut this.ended).await;
        ended.unwrap_or_else(|error| Err(error.to_string()))
    }
}

impl Diary {
    /// How often a process of it ended by itself.
    pub(super) fn deaths(&self) -> u32 {
        self.entries().deaths
    }

    /// The last lines that it wrote.
    pub(super) fn tail(&self, lines: usize) -> Vec<String> {
        let entries = self.entries();
        let from = entries.lines.len().saturating_sub(lines);
        entries.lines.iter().skip(from).cloned().collect()
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, line: String) {
        let lines = &mut self.entries().lines;
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn follow(&self, output: impl AsyncRead + Unpin + Send + 'static) {
        let diary = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                diary.write(line);
            }
        });
    }
}

fn spawn(recipe: &Recipe, diary: &Diary) -> Result<Child, String> {
    let (program, arguments) = recipe.command.split_first().ok_or("no command is given")?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(recipe.environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    if let Some(output) = child.stdout.take() {
        diary.follow(output);
    }
    if let Some(output) = child.stderr.take() {
        diary.follow(output);
    }
    Ok(child)
}

/// A process that was started with a group of its own leads it.
fn group_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

struct Keeper {
    recipe: Recipe,
    diary: Diary,
    group: Arc<Mutex<Option<Pid>>>,
}

impl Keeper {
    async fn keep(self, mut child: Child, mut orders: mpsc::Receiver<Order>) -> Result<(), String> {
        let mut wait = AGAIN.0;
        loop {
            let order = tokio::select! {
                order = orders.recv() => order.unwrap_or(Order::Kill),
                _ = child.wait() => {
                    // What it started would hold its queues beside the next one. Nobody else has the number of a group
                    // that has members.
                    signal(&self.group, Signal::KILL);
                    self.forget();
                    self.diary.entries().deaths += 1;
                    tokio::select! {
                        _ = orders.recv() => return Ok(()),
                        () = tokio::time::sleep(wait) => {}
                    }
                    wait = AGAIN.1.min(wait * 2);
                    child = spawn(&self.recipe, &self.diary)?;
                    *self.lock() = group_of(&child);
                    continue;
                }
            };
            let ended = match order {
                Order::Kill => {
                    signal(&self.group, Signal::KILL);
                    let _ = child.wait().await;
                    Ok(())
                }
                Order::Stop(grace) => {
                    signal(&self.group, Signal::TERM);
                    match tokio::time::timeout(grace, child.wait()).await {
                        Ok(_) => Ok(()),
                        Err(_) => {
                            signal(&self.group, Signal::KILL);
                            let _ = child.wait().await;
                            Err(format!("it did not end within {grace:?} of SIGTERM"))
                        }
                    }
                }
            };
            // Whoever else is in its group goes with it.
            signal(&self.group, Signal::KILL);
            self.forget();
            return ended;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Pid>> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number may be another process's from now on.
    fn forget(&self) {
        *self.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::rig::eventually;

    /// A worker that is started through a shell which ends before it.
    #[tokio::test]
    async fn what_a_process_started_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let script = format!("sleep 1000 & echo $! >> {}", pids.display());
        let recipe = Recipe {
            command: vec!["sh".into(), "-c".into(), script],
            environment: Vec::new(),
        };
        let diary = Diary::default();
        let program = Program::start(&recipe, &diary).unwrap();
        let started = eventually("it starts another process", async || {
            let text = std::fs::read_to_string(&pids).map_err(|error| error.to_string())?;
            let first = text.split_once('\n').map(|(first, _)| first.to_owned());
            first.ok_or(text)
        });
        let started = started.await.unwrap();
        let gone = eventually("that one ends", async || {
            match std::fs::read_to_string(format!("/proc/{started}/stat")) {
                Err(_) => Ok(()),
                // Ended, and nobody has asked for its exit code.
                Ok(stat) if stat.contains(") Z ") => Ok(()),
                Ok(stat) => Err(stat),
            }
        });
        gone.await.unwrap();
        assert!(diary.deaths() > 0);
        program.kill().await;
    }
}
