//! What a worker keeps an eye on beside its messages: the broker connection, and its queues: that they exist, how deep
//! they are, whether anybody reads them.

use super::backlog::Backlog;
use super::outlet::Outlet;
use super::steady::Steady;
use crate::broker::{Broker, LinkState, QueueDepth, QueueSpec};
use crate::codes;
use crate::error::WorkError;
use crate::reasons::{self, Reason};
use crate::status::{StatusDesk, StatusLevel, StatusReport};
use crate::telemetry::{QueueMetrics, WorkerMetrics};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use vumi_api::shared::Class;
use vumi_api::{Flow, Port};

/// Depths are read so often.
const PERIOD: Duration = Duration::from_secs(5);
/// A target that nobody reads for so long is reported (R12).
const UNREAD: Duration = Duration::from_secs(300);
/// Queues that did not exist are asked for again after so many periods: asking for a queue that is not there costs a
/// channel, of which a connection has some two thousand in its life. What this worker sets aside is seen at once.
const MISSING_EVERY: u32 = 120;

/// One queue that the worker publishes to.
struct Target {
    port: Port,
    declared: bool,
    unread_since: Option<Instant>,
    /// The queues into which its transport divides it by class.
    classes: Vec<(Class, String)>,
}

/// One queue that the worker consumes.
struct Consumed {
    queue: String,
    metrics: QueueMetrics,
    /// Messages parked by this worker when its parking queue was last looked at.
    parked: u64,
    kept: u32,
}

/// The queue of Vumi's failure worker, which is that one's to declare.
struct Failures {
    queue: String,
    is_there: bool,
    unread_since: Option<Instant>,
}

pub(super) struct Watch {
    /// The queue of Vumi's failure worker, if that has the later attempts made.
    pub(super) failures: Option<String>,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) outlet: Arc<Outlet>,
    pub(super) status: Arc<StatusDesk>,
    pub(super) metrics: Arc<WorkerMetrics>,
}

impl Watch {
    /// Watches until it is dropped.
    pub(super) async fn run(self, publishes: Vec<Port>, consumed: Vec<(String, QueueMetrics)>) {
        let mut failures = self.failures.clone().map(|queue| Failures {
            queue,
            is_there: false,
            unread_since: None,
        });
        let mut targets: Vec<Target> = publishes.into_iter().map(Target::new).collect();
        let mut consumed: Vec<Consumed> = consumed
            .into_iter()
            .map(|(queue, metrics)| Consumed {
                queue,
                parked: 0,
                kept: 0,
                metrics,
            })
            .collect();
        let mut link: watch::Receiver<LinkState> = self.broker.link();
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut round = 0;
        self.report_link(&link.borrow_and_update().clone());
        let mut steady = Steady::default();
        steady.tells(matches!(*link.borrow(), LinkState::Blocked(_)));
        loop {
            let mut new_link = false;
            tokio::select! {
                () = steady.works() => {
                    self.report_link(&link.borrow().clone());
                    continue;
                }
                changed = link.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    new_link = true;
                }
                _ = period.tick() => {}
            }
            // A change that comes beside the tick is left for the next turn.
            let state = match new_link {
                true => link.borrow_and_update().clone(),
                false => link.borrow().clone(),
            };
            if new_link {
                // Only a broker that takes publications again is said to later.
                if !matches!(state, LinkState::Up { .. } | LinkState::Blocked(_)) {
                    steady = Steady::default();
                }
                if steady.tells(matches!(state, LinkState::Blocked(_))) {
                    self.report_link(&state);
                }
                targets.iter_mut().for_each(|t| t.declared = false);
            }
            if !matches!(state, LinkState::Up { .. }) {
                continue;
            }
            let also_missing = round % MISSING_EVERY == 0;
            for target in &mut targets {
                self.declare(target).await;
                if also_missing && target.port.flow == Flow::Outbound {
                    let _ = self.find_classes(target).await;
                }
                self.look_at_target(target).await;
            }
            if let Some(failures) = &mut failures
                && (failures.is_there || also_missing)
            {
                self.look_at_failures(failures).await;
            }
            for queue in &mut consumed {
                self.look_at_consumed(queue, also_missing).await;
            }
            round += 1;
        }
    }

    fn report_link(&self, state: &LinkState) {
        let up = matches!(state, LinkState::Up { .. });
        self.metrics.broker_up.set(i64::from(up));
        let (level, reason, text) = match state {
            LinkState::Up { server } => (StatusLevel::Ok, reasons::CONNECTED, server.clone()),
            LinkState::Blocked(why) => (StatusLevel::Degraded, reasons::BLOCKED, why.clone()),
            // The first try is not news.
            LinkState::Connecting { error: None, .. } => return,
            LinkState::Connecting {
                error: Some(error),
                refused,
                ..
            } => {
                let reason = match refused {
                    true => reasons::REFUSED,
                    false => reasons::UNREACHABLE,
                };
                (StatusLevel::Down, reason, error.clone())
            }
            LinkState::Closed => (StatusLevel::Down, reasons::CLOSED, "closed".into()),
        };
        self.status
            .report(StatusReport::new("broker", level, reason, text));
    }

    /// Makes sure that a target exists before the first message, whenever the connection is new and until it works.
    async fn declare(&self, target: &mut Target) {
        if target.declared {
            return;
        }
        match self
            .broker
            .declare(&QueueSpec::Data(target.port.queue()))
            .await
        {
            Ok(()) => {
                target.declared = true;
                target.report(&self.status, StatusLevel::Ok, reasons::FLOWING, "is there");
            }
            Err(error) => {
                let text = format!("cannot be declared: {error}");
                target.report(
                    &self.status,
                    StatusLevel::Degraded,
                    reasons::NOT_DECLARED,
                    &text,
                );
            }
        }
    }

    /// What cannot be read keeps its last value: an error is never zero.
    async fn look_at_target(&self, target: &mut Target) {
        let queue = target.port.queue();
        let depth: QueueDepth = match self.broker.depth(&queue).await {
            Ok(Some(depth)) => depth,
            Ok(None) => {
                target.declared = false;
                return;
            }
            Err(error) if error.code == codes::BROKER_QUEUE_DOWN => {
                let text = format!("is away: {error}");
                target.report(
                    &self.status,
                    StatusLevel::Degraded,
                    reasons::QUEUE_UNAVAILABLE,
                    &text,
                );
                return;
            }
            Err(_) => return,
        };
        let in_classes = self.look_at_classes(target).await;
        if let (Some(metrics), Ok(in_classes)) = (self.outlet.target_metrics(&queue), in_classes) {
            let waiting = in_classes + u64::from(depth.ready);
            metrics.backlog.set(waiting.try_into().unwrap_or(i64::MAX));
        }
        self.backlog.depth(&target.port, depth.ready);
        if !target.declared {
            return;
        }
        let unread = is_unread(&mut target.unread_since, depth);
        let limit = self.backlog.limit();
        if let Some(full) = self.backlog.is_full(&target.port) {
            let text =
                format!("is full: {full} holds {limit} messages or more, and no more are taken");
            target.report(
                &self.status,
                StatusLevel::Degraded,
                reasons::BACKLOG_FULL,
                &text,
            );
        } else if unread {
            let text = "has had no consumer for 5 minutes; messages wait there";
            target.report(
                &self.status,
                StatusLevel::Degraded,
                reasons::NO_CONSUMER,
                text,
            );
        } else {
            target.report(&self.status, StatusLevel::Ok, reasons::FLOWING, "is there");
        }
    }

    /// Looks for the queues into which a transport divides a target by class, and by user where it has partitions.
    /// Whoever has one class has all. What cannot be read stays as it was.
    async fn find_classes(&self, target: &mut Target) -> Result<(), WorkError> {
        let is_there =
            async |queue: &str| Ok::<_, WorkError>(self.broker.depth(queue).await?.is_some());
        let mut found = Vec::new();
        for class in Class::ALL {
            let whole = format!("{}.{}", target.port.queue(), class.as_str());
            if is_there(&whole).await? {
                found.push((class, whole.clone()));
            }
            for part in (0..).map(|k| format!("{whole}.p{k}")) {
                if !is_there(&part).await? {
                    break;
                }
                found.push((class, part));
            }
            if found.is_empty() {
                break;
            }
        }
        if found.is_empty() {
            self.backlog.no_classes(&target.port);
        }
        target.classes = found;
        Ok(())
    }

    /// Messages that wait in the classes of a target.
    async fn look_at_classes(&self, target: &Target) -> Result<u64, WorkError> {
        let mut waiting = [0u64; Class::ALL.len()];
        for (class, queue) in &target.classes {
            waiting[*class as usize] += u64::from(self.broker.ready(queue).await?);
        }
        if !target.classes.is_empty() {
            for class in Class::ALL {
                let waiting = waiting[class as usize];
                self.backlog.class_depth(&target.port, class, waiting);
            }
        }
        Ok(waiting.iter().sum())
    }

    /// What waits there is tried again only once somebody reads it.
    async fn look_at_failures(&self, failures: &mut Failures) {
        let Ok(depth) = self.broker.depth(&failures.queue).await else {
            return;
        };
        let was_there = std::mem::replace(&mut failures.is_there, depth.is_some());
        let queue = &failures.queue;
        let (level, reason, text) = match depth {
            Some(depth) if is_unread(&mut failures.unread_since, depth) => (
                StatusLevel::Degraded,
                reasons::NO_CONSUMER,
                format!(
                    "{queue} has had no consumer for 5 minutes: Vumi's failure worker does not run, and {} messages wait there for their next attempt",
                    depth.ready
                ),
            ),
            Some(_) => (
                StatusLevel::Ok,
                reasons::FLOWING,
                format!("{queue} is there"),
            ),
            // Without it messages are tried again here.
            None => {
                failures.unread_since = None;
                if !was_there {
                    return;
                }
                let text = format!("{queue} is gone: messages are tried again here");
                (StatusLevel::Ok, reasons::FLOWING, text)
            }
        };
        let component = format!("target {queue}");
        self.status
            .report(StatusReport::new(component, level, reason, text));
    }

    async fn look_at_consumed(&self, consumed: &mut Consumed, also_parking: bool) {
        if let Ok(Some(depth)) = self.broker.depth(&consumed.queue).await {
            consumed.metrics.ready.set(depth.ready.into());
        }
        let parked = consumed.metrics.parked.get();
        if !also_parking && consumed.kept == 0 && parked == consumed.parked {
            return;
        }
        let queue = crate::parking::parked_queue(&consumed.queue);
        if let Ok(kept) = self.broker.ready(&queue).await {
            consumed.parked = parked;
            consumed.kept = kept;
            consumed.metrics.kept.set(consumed.kept.into());
            self.backlog.kept(consumed.kept);
        }
    }
}

/// Whether nobody has read a queue for long.
fn is_unread(since: &mut Option<Instant>, depth: QueueDepth) -> bool {
    if depth.consumers > 0 {
        *since = None;
        return false;
    }
    since.get_or_insert_with(Instant::now).elapsed() >= UNREAD
}

impl Target {
    fn new(port: Port) -> Self {
        Self {
            port,
            declared: false,
            unread_since: None,
            classes: Vec::new(),
        }
    }

    fn report(&self, status: &StatusDesk, level: StatusLevel, reason: Reason, text: &str) {
        let component = format!("target {}", self.port);
        let text = format!("{} {text}", self.port);
        status.report(StatusReport::new(component, level, reason, text));
    }
}
