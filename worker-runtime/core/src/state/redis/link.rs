//! The connection: one task keeps it, operations share it. An outage shorter than an operation's deadline is a delay
//! and not an error; after that, operations fail at once until Redis is back.

use super::config::RedisConfig;
use super::dial::{self, Server};
use super::errors::{Trouble, unreachable};
use crate::backoff::Backoff;
use crate::broker::Durability;
use crate::error::{ErrorClass, WorkError};
use crate::state::StoreHealth;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisResult, ScriptInvocation};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest time of an operation.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// How often Redis is asked whether it is there.
const PING: Duration = Duration::from_secs(1);
const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(3)).with_full_jitter();
const CLOSED: &str = "the connection is closed";
/// Operations in flight at once; further ones wait.
const IN_FLIGHT: u32 = 1024;

/// Between the operations and the task.
pub(super) struct Link {
    line: watch::Receiver<Line>,
    health: watch::Receiver<StoreHealth>,
    server: watch::Receiver<Option<Server>>,
    complaints: mpsc::Sender<(u64, Trouble)>,
    places: Semaphore,
    end: Mutex<Option<DropGuard>>,
}

#[derive(Clone)]
enum Line {
    Up(MultiplexedConnection, u64),
    Away(Instant, WorkError),
}

struct Keeper {
    config: RedisConfig,
    probe: String,
    line: watch::Sender<Line>,
    health: watch::Sender<StoreHealth>,
    server: watch::Sender<Option<Server>>,
    complaints: mpsc::Receiver<(u64, Trouble)>,
}

impl Link {
    /// Begins to connect. A server that is away is a state, not an error.
    pub(super) fn open(config: RedisConfig) -> Self {
        let first = unreachable("not connected yet");
        let (health, health_seen) = watch::channel(StoreHealth::Away(first.text.clone()));
        let (line, line_seen) = watch::channel(Line::Away(Instant::now(), first));
        let (server, server_seen) = watch::channel(None);
        let (complaints, complaints_heard) = mpsc::channel(16);
        let end = CancellationToken::new();
        let mut keeper = Keeper {
            probe: config.keys().probe(),
            config,
            line,
            health,
            server,
            complaints: complaints_heard,
        };
        let ended = end.clone();
        tokio::spawn(async move {
            ended.run_until_cancelled_owned(keeper.run()).await;
            keeper.away(unreachable(CLOSED));
        });
        Self {
            line: line_seen,
            health: health_seen,
            server: server_seen,
            complaints,
            places: Semaphore::new(IN_FLIGHT as usize),
            end: Mutex::new(Some(end.drop_guard())),
        }
    }

    pub(super) fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.clone()
    }

    /// What a write survives; before the first connection the usual is assumed.
    pub(super) fn durability(&self) -> Durability {
        let server = self.server.borrow();
        server
            .as_ref()
            .map_or(Durability::Process, |s| s.durability)
    }

    /// Runs a script: one round trip.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, WorkError> {
        let mut turn = self.begin().await?;
        let answer = timeout_at(turn.deadline, call.invoke_async(&mut turn.connection)).await;
        self.judge(turn.number, answer)
    }

    /// Runs a command: one round trip.
    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, WorkError> {
        let mut turn = self.begin().await?;
        let answer = timeout_at(turn.deadline, command.query_async(&mut turn.connection)).await;
        self.judge(turn.number, answer)
    }

    /// Lets operations in flight finish and ends the task; later ones fail.
    pub(super) async fn close(&self, deadline: Duration) {
        let _all = timeout(deadline, self.places.acquire_many(IN_FLIGHT)).await;
        self.places.close();
        if let Ok(mut end) = self.end.lock() {
            end.take();
        }
    }

    async fn begin(&self) -> Result<Turn<'_>, WorkError> {
        let deadline = Instant::now() + DEADLINE;
        let place = match timeout_at(deadline, self.places.acquire()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(unreachable(CLOSED)),
            Err(_) => return Err(late()),
        };
        let mut line = self.line.clone();
        loop {
            let (since, error) = match &*line.borrow_and_update() {
                Line::Up(connection, number) => {
                    return Ok(Turn {
                        connection: connection.clone(),
                        number: *number,
                        deadline,
                        _place: place,
                    });
                }
                Line::Away(since, error) => (*since, error.clone()),
            };
            // What someone must cure does not pass in a moment.
            let until = match error.class {
                ErrorClass::Connect => deadline.min(since + DEADLINE),
                _ => since,
            };
            match timeout_at(until, line.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(error),
            }
        }
    }

    fn judge<T>(
        &self,
        number: u64,
        answer: Result<RedisResult<T>, Elapsed>,
    ) -> Result<T, WorkError> {
        let trouble = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Trouble::of(&error),
            Err(_) => Trouble::Lost(no_answer()),
        };
        // If there is no room, others have said the same.
        let _ = self.complaints.try_send((number, trouble.clone()));
        Err(trouble.error())
    }
}

/// The right to one operation on the present connection.
struct Turn<'a> {
    connection: MultiplexedConnection,
    number: u64,
    deadline: Instant,
    _place: SemaphorePermit<'a>,
}

fn no_answer() -> String {
    format!("no answer within {} s", DEADLINE.as_secs())
}

fn late() -> WorkError {
    unreachable(&no_answer())
}

impl Keeper {
    async fn run(&mut self) {
        let (mut number, mut attempt) = (0, 0);
        loop {
            match dial::connect(&self.config).await {
                Ok((connection, server)) => {
                    (number, attempt) = (number + 1, 0);
                    self.introduce(server);
                    let _ = self.line.send(Line::Up(connection.clone(), number));
                    self.say(StoreHealth::Up);
                    let error = self.watch(connection, number).await;
                    self.away(error);
                }
                Err(error) => {
                    attempt += 1;
                    self.away(error);
                }
            }
            tokio::time::sleep(BACKOFF.after(attempt.max(1))).await;
        }
    }

    /// Says once what is known of a server, and again when that changes.
    fn introduce(&self, server: Server) {
        let store = self.config.describe();
        self.server.send_if_modified(|known| {
            if known.as_ref() == Some(&server) {
                return false;
            }
            let durability = server.durability.as_str();
            match &server.doubt {
                Some(doubt) => tracing::warn!(
                    store,
                    version = server.version,
                    durability,
                    "state store: {doubt}"
                ),
                None => tracing::info!(
                    store,
                    version = server.version,
                    durability,
                    "state store connected"
                ),
            }
            *known = Some(server);
            true
        });
    }

    fn away(&self, error: WorkError) {
        let text = error.text.clone();
        self.line.send_modify(|line| {
            let since = match line {
                Line::Up(..) => Instant::now(),
                Line::Away(since, _) => *since,
            };
            *line = Line::Away(since, error);
        });
        self.say(StoreHealth::Away(text));
    }

    fn say(&self, health: StoreHealth) {
        self.health.send_if_modified(|known| {
            if *known == health {
                return false;
            }
            match (&*known, &health) {
                (StoreHealth::Up, StoreHealth::Away(reason)) => {
                    tracing::warn!(store = self.config.describe(), "state store away: {reason}");
                }
                (StoreHealth::Away(_), StoreHealth::Up) => {
                    tracing::info!(store = self.config.describe(), "state store answers");
                }
                _ => {}
            }
            *known = health;
            true
        });
    }

    /// Returns when the connection is of no use any more, with the reason.
    async fn watch(&mut self, mut connection: MultiplexedConnection, number: u64) -> WorkError {
        let mut full = false;
        let mut ticks = tokio::time::interval(PING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let trouble = tokio::select! {
                complaint = self.complaints.recv() => match complaint {
                    Some((of, trouble)) if of == number => trouble,
                    Some(_) => continue,
                    None => return unreachable(CLOSED),
                },
                _ = ticks.tick() => {
                    // A store that refused writes must take one before it counts as well.
                    let command = match full {
                        true => redis::Cmd::set_ex(&self.probe, "", 60),
                        false => redis::cmd("PING"),
                    };
                    match timeout(DEADLINE, command.query_async::<redis::Value>(&mut connection)).await {
                        Ok(Ok(_)) => {
                            full = false;
                            self.say(StoreHealth::Up);
                            continue;
                        }
                        Ok(Err(error)) => Trouble::of(&error),
                        Err(_) => Trouble::Lost(no_answer()),
                    }
                }
            };
            match trouble {
                Trouble::Lost(_) => return trouble.error(),
                Trouble::Full(_) => {
                    full = true;
                    self.say(StoreHealth::Away(trouble.error().text));
                }
                // A user who may not do one thing may do another; a wrong type is about one key.
                Trouble::Refused(_) | Trouble::Odd(_) => {}
            }
        }
    }
}
