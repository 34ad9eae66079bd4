//! Building a worker from its manifest.

use crate::codes;
use crate::engine::Environment;
use crate::engine::backlog::Backlog;
use crate::engine::outlet::Outlet;
use crate::engine::peer::{Counter, ReplyQueue};
use crate::engine::sending::{self, Names, Once, Sending, Trail};
use crate::error::{ErrorClass, WorkError};
use crate::middleware::Chain;
use crate::status::{StatusDesk, StatusIdentity};
use crate::telemetry::WorkerMetrics;
use crate::worker::{Dedupe, Registration, Services, Worker, WorkerContext};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vumi_api::{Kind, Resource, Topology};

/// Messages in a target queue above which new work is refused, unless the manifest says otherwise.
const BACKLOG_LIMIT: u32 = 10_000;

/// A worker that is built but consumes nothing yet: what does not build leaves the old one running.
pub struct BuiltWorker {
    pub(super) worker: Arc<dyn Worker>,
    pub(super) cx: Arc<WorkerContext>,
    pub(super) type_name: &'static str,
    pub(super) topology: Topology,
    pub(super) environment: Environment,
    pub(super) outlet: Arc<Outlet>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) chain: Arc<Chain>,
    pub(super) status: Arc<StatusDesk>,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) accepting: Arc<AtomicBool>,
    pub(super) abandoned: CancellationToken,
    pub(super) taking: TaskTracker,
    pub(super) sending: Option<Arc<Sending>>,
    pub(super) trail: Option<Arc<Trail>>,
    pub(super) replies: ReplyQueue,
}

/// Builds a worker (phase three): may read secrets and make clients and opens its listening sockets; nothing else that
/// two versions could not share.
pub async fn build(
    registration: &Registration,
    resource: Arc<Resource>,
    environment: Environment,
) -> Result<BuiltWorker, WorkError> {
    let key = resource.key();
    let settings = resource.settings();
    let topology = resource.topology();
    let metrics = environment.telemetry.worker(&key);
    let chain = Arc::new(Chain::build(
        &settings.middleware,
        &key,
        environment.state.as_ref(),
    )?);
    let limit = settings.backlog_limit.unwrap_or(BACKLOG_LIMIT);
    let backlog = Arc::new(Backlog::new(resource.kind(), limit));
    let outlet = Arc::new(Outlet::new(
        Arc::clone(&environment.broker),
        Arc::clone(&chain),
        Arc::clone(&backlog),
        &metrics,
        &topology.publishes,
    ));
    let status = StatusDesk::new(
        Arc::clone(&environment.broker),
        StatusIdentity::of(&resource, &environment.instance),
        Some(Arc::clone(&metrics)),
    );
    let accepting = Arc::new(AtomicBool::new(false));
    let abandoned = CancellationToken::new();
    let names = Names::of(&resource, &environment);
    let store = environment.state.as_ref();
    let once = store
        .filter(|_| registration.dedupe != Dedupe::None)
        .map(|store| {
            Arc::new(Once::new(
                Arc::clone(store),
                &resource,
                Arc::clone(&metrics),
            ))
        });
    let sending = (resource.kind() == Kind::Transport).then(|| {
        let (outlet, metrics) = (Arc::clone(&outlet), Arc::clone(&metrics));
        let policy = sending::Policy::of(
            &resource,
            (registration.receipts)(&resource),
            store.is_some(),
        );
        let (names, once) = (names.clone(), once.clone());
        Arc::new(Sending::new(names, policy, store, once, outlet, metrics))
    });
    let trail = store
        .and_then(|store| Trail::new(Arc::clone(store), &names, Arc::clone(&metrics)))
        .map(Arc::new);
    let (replies, taking) = (ReplyQueue::default(), TaskTracker::new());
    let services: Arc<dyn Services> = Arc::new(Counter {
        outlet: Arc::clone(&outlet),
        status: Arc::clone(&status),
        metrics: Arc::clone(&metrics),
        listeners: Arc::clone(&environment.listeners),
        accepting: Arc::clone(&accepting),
        broker: Arc::clone(&environment.broker),
        abandoned: abandoned.clone(),
        sending: sending.clone(),
        trail: trail.clone(),
        state: store.cloned(),
        once,
        replies: Arc::clone(&replies),
        taking: taking.clone(),
    });
    let cx = WorkerContext::new(
        resource,
        environment.instance.clone(),
        Arc::clone(&environment.secrets),
        CancellationToken::new(),
        services,
    );
    let cx = Arc::new(cx.with_outside(environment.outside.clone()));
    let worker = AssertUnwindSafe((registration.build)(Arc::clone(&cx)))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            Err(WorkError::new(
                ErrorClass::Bug,
                codes::BUG_ENDED,
                format!("building {key} panicked; the process's output shows where"),
            ))
        })?;
    // Sockets belong to the process and outlive their worker, so opening them early hurts nobody, and an address that
    // cannot be used leaves the old version running.
    for (host, port) in &topology.listens {
        environment.listeners.open_early(host, *port).await?;
    }
    Ok(BuiltWorker {
        worker,
        cx,
        type_name: registration.type_name,
        topology,
        environment,
        outlet,
        backlog,
        chain,
        status,
        metrics,
        accepting,
        abandoned,
        taking,
        sending,
        trail,
        replies,
    })
}
