//! The side towards the peer: keeps [`Worker::run`] running, and serves what a worker asks of the engine.

use super::backoff::Backoff;
use super::outlet::{Outlet, Unpublished};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::status::{StatusDesk, StatusLevel, StatusReport};
use crate::supervisor::listeners::Listeners;
use crate::telemetry::WorkerMetrics;
use crate::worker::{Listener, Output, Services, Target, Traffic, Worker, WorkerContext};
use async_trait::async_trait;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const RESTART: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
/// A peer side that ran so long had recovered; its next failure counts as the first.
const RECOVERED: Duration = Duration::from_secs(60);
/// How long a peer is asked to wait when a target queue is full.
const FULL_RETRY: Duration = Duration::from_secs(5);

/// The engine's services for one worker.
pub(super) struct Counter {
    pub(super) outlet: Arc<Outlet>,
    pub(super) status: Arc<StatusDesk>,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) listeners: Arc<Listeners>,
    pub(super) accepting: Arc<AtomicBool>,
    /// Fires when the worker is told to give up whatever still waits.
    pub(super) abandoned: CancellationToken,
}

#[async_trait]
impl Services for Counter {
    async fn accept(&self, output: Output) -> Result<(), WorkError> {
        if let Target::Port(port) = &output.target
            && self.outlet.backlog.is_full(port)
        {
            let error = WorkError::new(
                ErrorClass::Throttled(Some(FULL_RETRY)),
                codes::BACKLOG_FULL,
                format!(
                    "{port} holds {} messages or more",
                    self.outlet.backlog.limit()
                ),
            );
            self.metrics.error(&error);
            return Err(error);
        }
        let interrupted = || self.abandoned.is_cancelled();
        match self.outlet.publish(output, &interrupted).await {
            Ok(()) => Ok(()),
            Err(Unpublished::Failed(error)) => {
                self.metrics.error(&error);
                Err(error)
            }
            Err(Unpublished::Interrupted) => Err(WorkError::new(
                ErrorClass::Connect,
                codes::BROKER_UNREACHABLE,
                "the worker stopped before the broker confirmed the message",
            )),
        }
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
}

/// Runs the side towards the peer until the intake closes; what fails or panics is started again with back-off.
pub(super) async fn run(
    worker: Arc<dyn Worker>,
    cx: Arc<WorkerContext>,
    accepting: Arc<AtomicBool>,
    metrics: Arc<WorkerMetrics>,
) {
    let mut failures = 0;
    loop {
        let started = Instant::now();
        let ended = AssertUnwindSafe(worker.run(Arc::clone(&cx)))
            .catch_unwind()
            .await;
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
        tracing::error!(worker = cx.worker_name(), code = %error.code, reason = %error, wait_ms = wait.as_millis() as u64, "the side towards the peer failed and is started again");
        cx.report(StatusReport::new(
            "peer",
            StatusLevel::Down,
            "restarting",
            error.to_string(),
        ));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = cx.closing().cancelled() => return,
        }
        cx.report(StatusReport::new(
            "peer",
            StatusLevel::Ok,
            "restarted",
            "started again",
        ));
    }
}
