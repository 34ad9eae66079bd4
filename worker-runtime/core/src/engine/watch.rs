//! What a worker keeps an eye on beside its messages: the broker connection, its queues' depths, its own readiness.

use super::backlog::Backlog;
use super::outlet::Outlet;
use crate::broker::{Broker, LinkState, QueueSpec};
use crate::status::{StatusDesk, StatusLevel, StatusReport};
use crate::telemetry::{QueueMetrics, WorkerMetrics};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use vumi_api::Port;

/// Depths are read so often.
const DEPTH_PERIOD: Duration = Duration::from_secs(5);

/// Reports edges of the broker connection, and declares the worker's target queues whenever it comes up, so that they
/// exist before the first message.
pub(super) async fn link(
    broker: Arc<dyn Broker>,
    publishes: Vec<Port>,
    status: Arc<StatusDesk>,
    metrics: Arc<WorkerMetrics>,
    key: String,
) {
    let mut link: watch::Receiver<LinkState> = broker.link();
    loop {
        let state = link.borrow_and_update().clone();
        metrics
            .broker_up
            .set(i64::from(matches!(state, LinkState::Up { .. })));
        let up = matches!(state, LinkState::Up { .. });
        let report = match state {
            LinkState::Up { server } => {
                StatusReport::new("broker", StatusLevel::Ok, "connected", server)
            }
            LinkState::Blocked(why) => {
                StatusReport::new("broker", StatusLevel::Degraded, "blocked", why)
            }
            LinkState::Connecting { error, refused, .. } => {
                let reason = if refused { "refused" } else { "unreachable" };
                let text = error.unwrap_or_else(|| "connecting".into());
                StatusReport::new("broker", StatusLevel::Down, reason, text)
            }
            LinkState::Closed => StatusReport::new("broker", StatusLevel::Down, "closed", "closed"),
        };
        metrics.component("broker", report.level);
        status.report(report);
        if up {
            for port in &publishes {
                if let Err(error) = broker.declare(&QueueSpec::Data(port.queue())).await {
                    tracing::warn!(worker = key, queue = port.queue(), code = %error.code, reason = %error, "cannot declare a target queue");
                    let component = format!("target {port}");
                    status.report(StatusReport::new(
                        component,
                        StatusLevel::Degraded,
                        "not_declared",
                        error.to_string(),
                    ));
                }
            }
        }
        if link.changed().await.is_err() {
            return;
        }
    }
}

/// Reads the depth of target, consumed and parking queues. What cannot be read keeps its last value: an error is never
/// zero.
pub(super) async fn depths(
    broker: Arc<dyn Broker>,
    publishes: Vec<Port>,
    consumed: Vec<(String, QueueMetrics)>,
    backlog: Arc<Backlog>,
    outlet: Arc<Outlet>,
    status: Arc<StatusDesk>,
) {
    let mut period = tokio::time::interval(DEPTH_PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        if !matches!(*broker.link().borrow(), LinkState::Up { .. }) {
            continue;
        }
        for port in &publishes {
            if let Ok(Some(depth)) = broker.depth(&port.queue()).await {
                let was = backlog.is_full(port);
                backlog.depth(port, depth.ready);
                if let Some(metrics) = outlet.target_metrics(&port.queue()) {
                    metrics.backlog.set(depth.ready.into());
                }
                let full = backlog.is_full(port);
                if was != full {
                    report_backlog(&status, port, full, backlog.limit());
                }
            }
        }
        for (queue, metrics) in &consumed {
            if let Ok(Some(depth)) = broker.depth(queue).await {
                metrics.ready.set(depth.ready.into());
            }
            match broker.depth(&crate::parking::parked_queue(queue)).await {
                Ok(depth) => {
                    let kept = depth.map_or(0, |d| d.ready);
                    metrics.kept.set(kept.into());
                    backlog.kept(kept);
                }
                Err(_) => continue,
            }
        }
    }
}

fn report_backlog(status: &StatusDesk, port: &Port, full: bool, limit: u32) {
    let component = format!("target {port}");
    status.report(if full {
        let text = format!("{port} holds {limit} messages or more; new work is refused");
        StatusReport::new(component, StatusLevel::Degraded, "backlog_full", text)
    } else {
        StatusReport::new(
            component,
            StatusLevel::Ok,
            "flowing",
            format!("{port} has room"),
        )
    });
}
