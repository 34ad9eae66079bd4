//! Starting what consumes a port of a worker: a consumer of the whole queue, or what reads a divided one.

use super::RunningWorker;
use crate::broker::{Durability, QueueSpec};
use crate::engine::backoff::RetryPolicy;
use crate::engine::consumer::{Consumer, PREFETCH, Parts};
use crate::engine::delivery::{Desk, Duty};
use crate::engine::forwarded::{Forwarded, Replies};
use crate::engine::journal::{self, Hold, Schedules};
use crate::engine::outlet::Outlet;
use crate::engine::partitions::{self, Plan};
use crate::engine::sending::{Sending, Trail, Trial};
use crate::middleware::Chain;
use crate::state::legacy::Reading;
use crate::telemetry::QueueMetrics;
use crate::worker::HOLD_LIMIT;
use futures::FutureExt;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use vumi_api::{Flow, Holds, Kind, OrderingMode, Port};

/// What the consumers of a worker share.
pub(super) struct Consumed {
    pub(super) outlet: Arc<Outlet>,
    pub(super) chain: Arc<Chain>,
    pub(super) sending: Option<Arc<Sending>>,
    pub(super) trail: Option<Arc<Trail>>,
    /// What each replica holds.
    pub(super) holds: Option<Holds>,
    /// The reply queue of this replica, if it holds anything.
    pub(super) own_queue: Option<Arc<Replies>>,
    /// Of a worker that holds sessions.
    pub(super) forwarded: Option<Arc<Forwarded>>,
}

impl RunningWorker {
    /// Starts one consumer.
    pub(super) async fn consume(
        &mut self,
        parts: &Consumed,
        port: &Port,
        queue: QueueSpec,
        intake: bool,
    ) -> (String, QueueMetrics) {
        let resource = self.cx.resource();
        let settings = resource.settings();
        // Requests wait side by side: replies to them that were forwarded have no order to keep.
        let mode = match (&queue, parts.holds) {
            (QueueSpec::Reply(_), Some(Holds::Requests)) => OrderingMode::None,
            _ => resource.ordering_mode(),
        };
        let data = match &queue {
            QueueSpec::Data(name) => Some(name.clone()),
            _ => None,
        };
        let name = queue.name().to_owned();
        // The reply queue is named after this replica, and its series after the port, so that labels stay bounded.
        let label = match queue {
            QueueSpec::Reply(_) => format!("{}.reply", port.connector),
            _ => name.clone(),
        };
        let metrics = self.metrics.queue(&label);
        let lasting = !matches!(queue, QueueSpec::Reply(_));
        // A reply queue vanishes with its process, and what would have killed it.
        let trial = self.environment.state.as_ref().filter(|_| lasting);
        let keep = settings.retention.suspects();
        let trial = trial.map(|store| Trial::new(Arc::clone(store), &name, keep, self.life));
        let stage = if intake { &self.intake } else { &self.replies };
        // A reply queue ends with its replica: nothing of it can wait longer.
        let store = match queue {
            QueueSpec::Reply(_) => None,
            _ => self.environment.state.clone(),
        };
        let journal = store.map(|store| journal::Parts {
            store,
            volatile_will_do: settings.allow_volatile_state
                || self.environment.broker.durability() == Durability::Memory,
            imports: (resource.kind() == Kind::Transport && port.flow == Flow::Outbound).then(
                || {
                    let external = settings.retry.as_ref().and_then(|r| r.external);
                    // What a failure worker still works on is not taken from it.
                    let from = match external {
                        Some(true) => Reading::Scheduled(0),
                        _ => Reading::Retries,
                    };
                    (port.connector.clone(), from)
                },
            ),
            fenced: mode != OrderingMode::None,
            trouble: self.trouble.clone(),
            gauges: Arc::new(journal::Gauges::new(metrics.clone())),
        });
        // Only a transport's outbound messages can be sent at a time of their own.
        let schedules = resource.kind() == Kind::Transport && port.flow == Flow::Outbound;
        let hold = schedules.then(|| Arc::new(Schedules) as Arc<dyn Hold>);
        let desk = Arc::new(Desk {
            acker: None,
            duty: Duty::Handle,
            layout: None,
            worker: Arc::clone(&self.worker),
            key: self.cx.worker_name().to_owned(),
            port: port.clone(),
            // What cannot be handled from the reply queue is parked with its connector: the reply queue vanishes.
            queue: match queue {
                QueueSpec::Reply(_) => port.queue(),
                _ => name,
            },
            chain: Arc::clone(&parts.chain),
            outlet: Arc::clone(&parts.outlet),
            policy: RetryPolicy::new(
                settings.retry.as_ref(),
                resource.attempts(),
                settings.hold_limit.map_or(HOLD_LIMIT, |d| d.0),
            ),
            metrics: metrics.clone(),
            counters: Arc::default(),
            worker_metrics: Arc::clone(&self.metrics),
            generation: Arc::default(),
            halt: match lasting {
                true => stage.halt.clone(),
                // Nothing brings back what was forwarded to us: it is finished as long as a stop lasts.
                false => CancellationToken::new(),
            },
            sending: parts
                .sending
                .clone()
                .filter(|_| port.flow == Flow::Outbound),
            lasting,
            forwarded: parts
                .forwarded
                .clone()
                .filter(|_| port.flow == Flow::Outbound),
            trail: parts.trail.clone(),
            trial,
            legacy_failures: resource.transport().and_then(|t| t.legacy_failures) == Some(true),
            exit: None,
        });
        let parts = Parts {
            backlog: Arc::clone(&self.backlog),
            broker: Arc::clone(&self.environment.broker),
            status: Arc::clone(&self.status),
            phase: stage.phase.subscribe(),
            mode,
            queue,
            prefetch: PREFETCH,
            oldest: None,
            label: label.clone(),
            tag: format!("{}@{}", self.cx.worker_name(), self.cx.instance()),
            epoch: self.epoch,
            journal,
            hold,
            replies: parts.own_queue.clone().filter(|_| !lasting),
            desk,
        };
        let plan = Plan::of(resource, port);
        let loops = match data {
            Some(_) if !plan.parts().is_empty() => partitions::start(parts, plan).await,
            Some(name) => partitions::start_whole(parts, &name).await,
            None => {
                let (consumer, watched) = Consumer::subscribe(parts).await;
                vec![(consumer.run().boxed(), Some(watched))]
            }
        };
        for (run, watched) in loops {
            self.watched.extend(watched);
            let task = self.guarded(run);
            if intake {
                self.intake.tasks.push(task);
            } else {
                self.replies.tasks.push(task);
            }
        }
        (label, metrics)
    }
}
