//! The two connections of a process (S3), each kept alive by a task, and the one state that people see of both.
//! Reconnecting backs off from 100 ms to 3 s with full jitter (S5); credentials are read anew at every attempt.

use super::config::AmqpConfig;
use super::dial::{self, Failure, Server};
use super::errors::Trouble;
use super::profile::{self, Profile};
use crate::backoff::Backoff;
use crate::broker::{Durability, LinkState};
use futures::StreamExt;
use lapin::{Connection, Event};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const RECONNECT: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(3)).with_full_jitter();
/// A connection that lived shorter counts as one more failed attempt.
const LIVED: Duration = Duration::from_secs(3);
/// How long closing may take: a broker with a memory alarm does not answer (R8).
const CLOSING: Duration = Duration::from_secs(2);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Deliveries, acknowledgements, declarations: never blocked by an alarm.
    Consume,
    /// Publications and confirms.
    Publish,
}

/// Whether publications may be handed over now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Connecting or blocked.
    Shut,
    /// Connected.
    Open,
    /// Closed by us, for good.
    Closed,
}

/// One of the two connections as its users see it.
#[derive(Clone)]
pub(super) struct Line {
    current: watch::Receiver<Option<Arc<Connection>>>,
}

impl Line {
    /// Waits for a connection; an error once we closed it for good.
    pub(super) async fn connection(&mut self) -> Result<Arc<Connection>, Trouble> {
        let connected = self.current.wait_for(Option::is_some).await;
        match connected.as_deref() {
            Ok(Some(connection)) => Ok(Arc::clone(connection)),
            _ => Err(Trouble::Lost("the connection was closed".into())),
        }
    }

    /// Returns when `connection` is no longer the current one.
    pub(super) async fn lost(&mut self, connection: &Arc<Connection>) {
        let _ = self
            .current
            .wait_for(|c| c.as_ref().is_none_or(|c| !Arc::ptr_eq(c, connection)))
            .await;
    }
}

#[derive(Clone, Debug)]
enum Side {
    Connecting {
        error: Option<String>,
        since: SystemTime,
        refused: bool,
    },
    Up,
    Blocked(String),
}

/// State of both connections, combined.
pub(super) struct Hub {
    sides: Mutex<Sides>,
    state: watch::Sender<LinkState>,
    gate: watch::Sender<Gate>,
}

struct Sides {
    consume: Side,
    publish: Side,
    server: Option<Server>,
    /// Where the youngest connection leads.
    address: Option<String>,
    closed: bool,
}

impl Hub {
    pub(super) fn new() -> Self {
        let since = SystemTime::now();
        let side = Side::Connecting {
            error: None,
            since,
            refused: false,
        };
        Self {
            sides: Mutex::new(Sides {
                consume: side.clone(),
                publish: side,
                server: None,
                address: None,
                closed: false,
            }),
            state: watch::Sender::new(LinkState::Connecting {
                error: None,
                since,
                refused: false,
            }),
            gate: watch::Sender::new(Gate::Shut),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    pub(super) fn gate(&self) -> watch::Sender<Gate> {
        self.gate.clone()
    }

    pub(super) fn durability(&self) -> Durability {
        self.lock()
            .server
            .as_ref()
            .map_or(Durability::Process, |server| {
                dial::durability(&server.version)
            })
    }

    pub(super) fn cluster(&self) -> Option<String> {
        self.lock().server.as_ref()?.cluster.clone()
    }

    /// Where we are connected, or were last; none before the first connection.
    pub(super) fn address(&self) -> Option<String> {
        self.lock().address.clone()
    }

    /// Why there is no answer, for errors of one-off questions.
    pub(super) fn last_error(&self) -> String {
        match &*self.state.borrow() {
            LinkState::Connecting {
                error: Some(error), ..
            } => format!("not connected: {error}"),
            LinkState::Connecting { .. } => "not connected yet".into(),
            LinkState::Closed => "the connection was closed".into(),
            LinkState::Up { .. } | LinkState::Blocked(_) => {
                "the broker did not answer in time".into()
            }
        }
    }

    pub(super) fn closed(&self) {
        self.lock().closed = true;
        self.gate.send_replace(Gate::Closed);
        self.show();
    }

    fn lock(&self) -> MutexGuard<'_, Sides> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, role: Role, side: Side) {
        let mut sides = self.lock();
        if role == Role::Publish {
            let gate = if matches!(side, Side::Up) {
                Gate::Open
            } else {
                Gate::Shut
            };
            self.gate.send_if_modified(|now| {
                let change = *now != gate && *now != Gate::Closed;
                if change {
                    *now = gate;
                }
                change
            });
        }
        match role {
            Role::Consume => sides.consume = side,
            Role::Publish => sides.publish = side,
        }
        drop(sides);
        self.show();
    }

    fn show(&self) {
        let sides = self.lock();
        let both = [&sides.consume, &sides.publish];
        // Of two that are connecting, the one that knows why.
        let connecting = both
            .into_iter()
            .filter(|side| matches!(side, Side::Connecting { .. }))
            .max_by_key(|side| matches!(side, Side::Connecting { error: Some(_), .. }));
        let state = match connecting.unwrap_or(&sides.publish) {
            _ if sides.closed => LinkState::Closed,
            Side::Connecting {
                error,
                since,
                refused,
            } => LinkState::Connecting {
                error: error.clone(),
                since: *since,
                refused: *refused,
            },
            Side::Blocked(why) => LinkState::Blocked(why.clone()),
            Side::Up => LinkState::Up {
                server: match &sides.server {
                    Some(server) => server.version.clone(),
                    None => "RabbitMQ".into(),
                },
            },
        };
        // Under the lock, so that two changes are shown in their order.
        self.state.send_if_modified(|shown| {
            let change = *shown != state;
            if change {
                *shown = state;
            }
            change
        });
    }
}

/// A connection and the task that keeps it.
pub(super) fn line(
    config: &Arc<AmqpConfig>,
    hub: &Arc<Hub>,
    role: Role,
    stop: CancellationToken,
) -> (Line, impl Future<Output = ()> + Send + use<>) {
    let (sender, current) = watch::channel(None);
    let (config, hub) = (Arc::clone(config), Arc::clone(hub));
    let keeper = async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = keep(&config, &hub, role, &sender) => {}
        }
        let last = sender.send_replace(None);
        if let Some(connection) = last {
            let closing = connection.close(200, "closed by vumi".into());
            let _ = tokio::time::timeout(CLOSING, closing).await;
        }
    };
    (Line { current }, keeper)
}

async fn keep(
    config: &AmqpConfig,
    hub: &Hub,
    role: Role,
    current: &watch::Sender<Option<Arc<Connection>>>,
) {
    let mut since = SystemTime::now();
    let mut attempts = 0u32;
    loop {
        let begin = Instant::now();
        let failure = match attempt(config, hub, role).await {
            Err(failure) => failure,
            Ok(connection) => {
                let connection = Arc::new(connection);
                let events = connection.events_listener();
                hub.set(role, Side::Up);
                current.send_replace(Some(Arc::clone(&connection)));
                let failure = until_lost(hub, role, &connection, events).await;
                current.send_replace(None);
                since = SystemTime::now();
                if begin.elapsed() > LIVED {
                    attempts = 0;
                }
                failure
            }
        };
        tracing::debug!(?role, error = failure.text, "no connection to the broker");
        hub.set(
            role,
            Side::Connecting {
                error: Some(failure.text),
                since,
                refused: failure.refused,
            },
        );
        attempts = attempts.saturating_add(1);
        tokio::time::sleep(RECONNECT.after(attempts)).await;
    }
}

async fn attempt(config: &AmqpConfig, hub: &Hub, role: Role) -> Result<Connection, Failure> {
    let name = match role {
        Role::Consume => format!("{} (consume)", config.name()),
        Role::Publish => format!("{} (publish)", config.name()),
    };
    if config.profile() != Profile::default() {
        // Asked before anything is declared there.
        let server = dial::server(config.resolve()?).await;
        let Some(server) = server else {
            // Nobody is there, or refuses us, or connects and does not say.
            dial::connect(config.resolve()?, name).await?;
            return Err(Failure {
                text: "the broker does not say which version it is".into(),
                refused: false,
            });
        };
        profile::check_server(config.profile(), &server.version).map_err(|error| Failure {
            text: error.text,
            refused: true,
        })?;
    }
    let endpoint = config.resolve()?;
    let address = endpoint.describe();
    let connection = dial::connect(endpoint, name).await?;
    hub.lock().address = Some(address);
    if role == Role::Publish {
        // Asked at every connection, because the broker may have been upgraded meanwhile.
        let server = dial::server(config.resolve()?).await;
        hub.lock().server = server;
    }
    Ok(connection)
}

async fn until_lost(
    hub: &Hub,
    role: Role,
    connection: &Connection,
    events: impl futures::Stream<Item = Event>,
) -> Failure {
    let mut events = std::pin::pin!(events);
    let mut look = tokio::time::interval(Duration::from_millis(250));
    let mut error = None;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(why)) => hub.set(role, Side::Blocked(why)),
                Some(Event::ConnectionUnblocked) => hub.set(role, Side::Up),
                Some(Event::Error(e)) => error = Some(e),
                _ => {}
            },
            _ = look.tick() => {}
        }
        // Errors of single channels come as events too; they are their users' business.
        if !connection.status().connected() {
            return Failure {
                text: error.map_or_else(|| "the connection ended".into(), |e| e.to_string()),
                refused: false,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_connections_make_one_state() {
        let hub = Hub::new();
        let state = hub.watch();
        hub.set(Role::Consume, Side::Up);
        assert!(matches!(*state.borrow(), LinkState::Connecting { .. }));
        hub.set(Role::Publish, Side::Up);
        assert!(matches!(*state.borrow(), LinkState::Up { .. }));
        assert_eq!(*hub.gate.borrow(), Gate::Open);
        hub.set(Role::Publish, Side::Blocked("memory".into()));
        assert_eq!(*state.borrow(), LinkState::Blocked("memory".into()));
        assert_eq!(*hub.gate.borrow(), Gate::Shut);
        hub.closed();
        hub.set(Role::Publish, Side::Up);
        assert_eq!(*state.borrow(), LinkState::Closed);
        assert_eq!(*hub.gate.borrow(), Gate::Closed);
    }
}
