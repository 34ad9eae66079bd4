//! The side towards the peer: keeps [`Worker::run`] running, and serves what a worker asks of the engine.

use super::backoff::Backoff;
use super::outlet::{Outlet, Unpublished};
use super::sending::{Happened, Hop, Once, Place, Sending, Trail};
use crate::broker::{Broker, ConsumerState, LinkState};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::holding::HOLDER;
use crate::message::Message;
use crate::outcome::Receipt;
use crate::reasons;
use crate::state::{Person, StateStore};
use crate::status::{StatusDesk, StatusLevel, StatusReport};
use crate::supervisor::listeners::Listeners;
use crate::telemetry::{HttpSeen, WorkerMetrics};
use crate::worker::{Listener, Output, Services, Taken, Traffic, Worker, WorkerContext};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const RESTART: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
/// A peer side that ran so long had recovered; its next failure counts as the first.
const RECOVERED: Duration = Duration::from_secs(60);
/// Started again, it counts as working when it did not fail for so long.
const SETTLED: Duration = Duration::from_secs(2);
/// A peer waits so long for a broker that is away; after that it is told at once.
const AWAY: Duration = Duration::from_secs(2);
/// How long a peer is asked to wait when a target queue is full.
const FULL_RETRY: Duration = Duration::from_secs(5);

/// The engine's services for one worker.
#[derive(Clone)]
pub(super) struct Counter {
    pub(super) outlet: Arc<Outlet>,
    pub(super) status: Arc<StatusDesk>,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) listeners: Arc<Listeners>,
    pub(super) accepting: Arc<AtomicBool>,
    pub(super) broker: Arc<dyn Broker>,
    /// Fires when the worker is told to give up whatever still waits.
    pub(super) abandoned: CancellationToken,
    /// Of a transport.
    pub(super) sending: Option<Arc<Sending>>,
    /// Of a worker with a state store.
    pub(super) trail: Option<Arc<Trail>>,
    /// Of a transport with a state store whose provider gives ids.
    pub(super) once: Option<Arc<Once>>,
    /// The state store itself, for workers that keep something.
    pub(super) state: Option<Arc<dyn StateStore>>,
    /// How the consumer of the reply queue stands, if there is one.
    pub(super) replies: ReplyQueue,
    /// What is being taken over from the peer, though it may have hung up.
    pub(super) taking: TaskTracker,
}

/// How the consumer of a replica's reply queue stands, once it is started.
pub(super) type ReplyQueue = Arc<OnceLock<watch::Receiver<ConsumerState>>>;

#[async_trait]
impl Services for Counter {
    async fn accept(&self, output: Output) -> Result<(), WorkError> {
        let noted = self.to_note(&output).await;
        self.publish(output).await?;
        note(noted);
        Ok(())
    }

    async fn accept_once(
        &self,
        output: Output,
        id: &str,
        answer: Bytes,
    ) -> Result<Taken, WorkError> {
        let Some(once) = self.once.clone() else {
            return self.accept(output).await.map(|()| Taken::Now);
        };
        let (this, id) = (self.clone(), id.to_owned());
        self.to_its_end(async move { this.take_over(&once, output, &id, answer).await })
            .await
    }

    async fn seen(&self, id: &str) -> Result<Taken, WorkError> {
        let Some(once) = &self.once else {
            return Ok(Taken::Now);
        };
        let seen = once.look(id).await;
        seen.inspect_err(|error| self.metrics.error(error))
    }

    async fn answered(&self, id: &str, answer: Bytes, person: Option<Person>) {
        if let Some(once) = &self.once {
            self.remember(once, id, answer, person).await;
        }
    }

    async fn receipt(&self, receipt: Receipt) -> Result<(), WorkError> {
        let this = self.clone();
        self.to_its_end(async move { this.report_on(receipt).await })
            .await
    }

    fn report(&self, report: StatusReport) {
        self.metrics.link(&report.component, report.level);
        self.status.report(report);
    }

    async fn listen(&self, host: &str, port: u16) -> Result<Listener, WorkError> {
        let listener = self.listeners.lend(host, port).await?;
        self.accepting.store(true, Ordering::Relaxed);
        Ok(listener)
    }

    fn traffic(&self, direction: Traffic) {
        self.metrics.traffic(direction);
    }

    fn http(&self, seen: HttpSeen) {
        self.metrics.http(seen);
    }

    fn state(&self) -> Option<Arc<dyn StateStore>> {
        self.state.clone()
    }
}

impl Counter {
    /// Goes on to the end although whoever asked leaves: a peer that hangs up leaves nothing half done behind.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, WorkError>> + Send + 'static,
    ) -> Result<T, WorkError> {
        match self.taking.spawn(work).await {
            Ok(result) => result,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(stopped()),
            },
        }
    }

    /// Publishes a message of the peer once under its `id`, and keeps the answer to it.
    async fn take_over(
        &self,
        once: &Once,
        output: Output,
        id: &str,
        answer: Bytes,
    ) -> Result<Taken, WorkError> {
        let reserved = once
            .reserve(id)
            .await
            .inspect_err(|error| self.metrics.error(error))?;
        if reserved != Taken::Now {
            return Ok(reserved);
        }
        let person = match &output.message {
            Message::User(message) => message.from_addr().map(Person::new),
            Message::Event(_) => None,
        };
        let noted = self.to_note(&output).await;
        if let Err(error) = self.publish(output).await {
            once.release(id).await;
            return Err(error);
        }
        note(noted);
        self.remember(once, id, answer, person).await;
        Ok(Taken::Now)
    }

    /// What the peer says about a message that it was handed.
    async fn report_on(&self, receipt: Receipt) -> Result<(), WorkError> {
        self.broker_is_there().await?;
        let interrupted = || self.abandoned.is_cancelled();
        let told = match &self.sending {
            Some(sending) => sending.receipt(receipt, &interrupted).await,
            None => Err(Unpublished::Failed(WorkError::new(
                ErrorClass::Bug,
                codes::CONFIG_INVALID,
                "only transports hand over receipts",
            ))),
        };
        self.outcome(told)
    }

    /// Publishes a message of the peer, unless its queue is full.
    async fn publish(&self, output: Output) -> Result<(), WorkError> {
        if let Some(why) = self.outlet.backlog.refuses(&output.port, &output.message) {
            let error = WorkError::new(
                ErrorClass::Throttled(Some(FULL_RETRY)),
                codes::BACKLOG_FULL,
                why,
            );
            self.metrics.error(&error);
            return Err(error);
        }
        self.broker_is_there().await?;
        if holder(&output.message).is_some() {
            self.replies_are_read().await;
        }
        let interrupted = || self.abandoned.is_cancelled();
        self.outcome(self.outlet.publish(output, &interrupted).await)
    }

    /// Waits a moment until our reply queue is there: whoever hands on a reply to what we publish would not find it. The
    /// connection that consumes may be back a little later than the one that publishes.
    async fn replies_are_read(&self) {
        if let Some(mut state) = self.replies.get().cloned() {
            let read = state.wait_for(|state| !matches!(state, ConsumerState::Connecting(_)));
            let _ = tokio::time::timeout(AWAY, read).await;
        }
    }

    /// What the trail will say of a message of the peer.
    async fn to_note(&self, output: &Output) -> Option<(&Arc<Trail>, Place, Hop, Happened)> {
        let trail = self.trail.as_ref()?;
        let hop = Trail::hop(output.port.flow, &output.message)?;
        let text = format!("taken over from the peer, to {}", output.port);
        let caused = vec![output.message.id().to_owned()];
        let happened = Happened::caused(text, caused).held(holder(&output.message));
        Some((trail, trail.place().await, hop, happened))
    }

    fn outcome(&self, outcome: Result<(), Unpublished>) -> Result<(), WorkError> {
        match outcome {
            Ok(()) => Ok(()),
            Err(Unpublished::Failed(error)) => {
                self.metrics.error(&error);
                Err(error)
            }
            Err(Unpublished::Interrupted) => Err(stopped()),
        }
    }

    async fn remember(&self, once: &Once, id: &str, answer: Bytes, person: Option<Person>) {
        let interrupted = || self.abandoned.is_cancelled();
        once.commit(id, answer, person.as_ref(), &interrupted).await;
    }

    /// Waits a moment for a broker that is away. A peer whose message cannot be taken hears so soon, not when its own
    /// patience ends.
    async fn broker_is_there(&self) -> Result<(), WorkError> {
        let mut link = self.broker.link();
        let up = link.wait_for(|state| !matches!(state, LinkState::Connecting { .. }));
        if tokio::time::timeout(AWAY, up).await.is_ok() {
            return Ok(());
        }
        let why = match &*link.borrow() {
            LinkState::Connecting { error, .. } => error.clone().unwrap_or_default(),
            _ => return Ok(()),
        };
        let error = WorkError::new(
            ErrorClass::Connect,
            codes::BROKER_UNREACHABLE,
            format!("the broker is away: {why}"),
        );
        self.metrics.error(&error);
        Err(error)
    }
}

fn stopped() -> WorkError {
    WorkError::new(
        ErrorClass::Connect,
        codes::BROKER_UNREACHABLE,
        "the worker stopped before the broker confirmed the message",
    )
}

/// The reply queue that a message of the peer names.
fn holder(message: &Message) -> Option<String> {
    let Message::User(message) = message else {
        return None;
    };
    let named = message.transport_metadata()?.get(HOLDER)?;
    named.as_str().map(str::to_owned)
}

/// A message of the peer is with the broker.
fn note(noted: Option<(&Arc<Trail>, Place, Hop, Happened)>) {
    if let Some((trail, place, hop, happened)) = noted {
        trail.note(place, hop, happened);
    }
}

/// Runs the side towards the peer until the intake closes; what fails or panics is started again with back-off.
pub(super) async fn run(
    worker: Arc<dyn Worker>,
    cx: Arc<WorkerContext>,
    accepting: Arc<AtomicBool>,
    failing: watch::Sender<Option<String>>,
    metrics: Arc<WorkerMetrics>,
) {
    let mut failures = 0;
    loop {
        let started = Instant::now();
        let run = AssertUnwindSafe(worker.run(Arc::clone(&cx))).catch_unwind();
        let mut run = std::pin::pin!(run);
        let ended = match tokio::time::timeout(SETTLED, &mut run).await {
            Ok(ended) => ended,
            Err(_) => {
                if failing.send_replace(None).is_some() {
                    let report = StatusReport::new(
                        "peer",
                        StatusLevel::Ok,
                        reasons::RESTARTED,
                        "works again",
                    );
                    cx.report(report);
                }
                run.await
            }
        };
        accepting.store(false, Ordering::Relaxed);
        if cx.closing().is_cancelled() {
            return;
        }
        let error = match ended {
            Ok(Ok(())) => WorkError::new(
                ErrorClass::Bug,
                codes::BUG_ENDED,
                "the side towards the peer ended although nobody stopped it",
            ),
            Ok(Err(error)) => error,
            Err(_) => WorkError::new(
                ErrorClass::Bug,
                codes::BUG_ENDED,
                "the side towards the peer panicked; the process's output shows where",
            ),
        };
        if started.elapsed() >= RECOVERED {
            failures = 0;
        }
        failures += 1;
        let wait = RESTART.after(failures);
        metrics.error(&error);
        metrics.peer_restarts.inc();
        let wait_ms = wait.as_millis() as u64;
        let text = error.to_string();
        if failing.borrow().as_ref() != Some(&text) {
            tracing::error!(worker = cx.worker_name(), code = %error.code, reason = %error, wait_ms, "the side towards the peer failed and is started again until it works");
        } else {
            tracing::debug!(worker = cx.worker_name(), code = %error.code, wait_ms, "failed again");
        }
        cx.report(StatusReport::new(
            "peer",
            StatusLevel::Down,
            reasons::RESTARTING,
            text.as_str(),
        ));
        failing.send_replace(Some(text));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = cx.closing().cancelled() => return,
        }
    }
}
