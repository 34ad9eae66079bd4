//! A worker around the worker under test, in which messages named by a case panic or fail. The engine sees what it would
//! see if the worker itself did so.

use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::message::UserMessage;
use crate::worker::{BuildFn, Input, Output, Registration, Worker, WorkerContext};
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio_util::sync::CancellationToken;

/// What happens when a message is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Panics, every time.
    Panic,
    /// Fails for a while: this many times.
    Temporary(u32),
    /// Fails for good.
    Permanent,
}

/// The troubles of one worker, and how often each message was handled.
#[derive(Default)]
pub(super) struct Plan {
    build: Mutex<Option<BuildFn>>,
    troubles: Mutex<HashMap<String, Trouble>>,
    attempts: Mutex<HashMap<String, u32>>,
    gates: Mutex<HashMap<String, CancellationToken>>,
    built: Mutex<Vec<Weak<dyn Worker>>>,
}

/// Plans by instance: a registration's build is a plain function and can carry nothing.
static PLANS: Mutex<BTreeMap<String, Arc<Plan>>> = Mutex::new(BTreeMap::new());

impl Plan {
    /// A plan without troubles for the worker that will be built as `instance`, and the registration that builds it.
    pub(super) fn of(registration: &Registration, instance: &str) -> (Arc<Self>, Registration) {
        let plan = Arc::new(Self::default());
        *lock(&plan.build) = Some(registration.build);
        lock(&PLANS).insert(instance.to_owned(), Arc::clone(&plan));
        let build: BuildFn = |cx| Box::pin(build(cx));
        let registration = Registration {
            build,
            ..*registration
        };
        (plan, registration)
    }

    /// Lets another instance share the plan.
    pub(super) fn share(self: &Arc<Self>, instance: &str) {
        lock(&PLANS).insert(instance.to_owned(), Arc::clone(self));
    }

    /// Forgets the plan of `instance`.
    pub(super) fn forget(instance: &str) {
        lock(&PLANS).remove(instance);
    }

    pub(super) fn trouble(&self, id: &str, trouble: Trouble) {
        lock(&self.troubles).insert(id.to_owned(), trouble);
    }

    /// Once its troubles are over, the message waits until the case cancels this token.
    pub(super) fn hold(&self, id: &str) -> CancellationToken {
        let gate = CancellationToken::new();
        lock(&self.gates).insert(id.to_owned(), gate.clone());
        gate
    }

    /// How often the message was handed to the worker.
    pub(super) fn attempts(&self, id: &str) -> u32 {
        lock(&self.attempts).get(id).copied().unwrap_or_default()
    }

    /// Workers built so far that something still holds.
    pub(super) fn alive(&self) -> usize {
        let built = lock(&self.built);
        built.iter().filter(|w| w.strong_count() > 0).count()
    }

    fn meet(&self, id: &str) -> Result<(), WorkError> {
        *lock(&self.attempts).entry(id.to_owned()).or_default() += 1;
        let trouble = match lock(&self.troubles).get_mut(id) {
            None | Some(Trouble::Temporary(0)) => return Ok(()),
            Some(trouble) => {
                let now = *trouble;
                if let Trouble::Temporary(left) = trouble {
                    *left -= 1;
                }
                now
            }
        };
        let failed = |class, code, text| Err(WorkError::new(class, code, text));
        match trouble {
            // Without the panic hook, which would fill the output of a passing test.
            Trouble::Panic => std::panic::resume_unwind(Box::new("of the conformance suite")),
            Trouble::Temporary(_) => failed(
                ErrorClass::RemoteTemporary,
                codes::RETRY_EXHAUSTED,
                "a temporary error of the conformance suite",
            ),
            Trouble::Permanent => failed(
                ErrorClass::RemotePermanent,
                codes::MESSAGE_INVALID,
                "a permanent error of the conformance suite",
            ),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn build(cx: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
    let missing = || {
        WorkError::new(
            ErrorClass::Bug,
            codes::CONFIG_INVALID,
            "the conformance suite has no plan for this instance",
        )
    };
    let plan = lock(&PLANS)
        .get(cx.instance())
        .cloned()
        .ok_or_else(missing)?;
    let build = (*lock(&plan.build)).ok_or_else(missing)?;
    let worker = build(cx).await?;
    lock(&plan.built).push(Arc::downgrade(&worker));
    Ok(Arc::new(Saboteur { worker, plan }))
}

struct Saboteur {
    worker: Arc<dyn Worker>,
    plan: Arc<Plan>,
}

#[async_trait]
impl Worker for Saboteur {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        self.plan.meet(input.message.id())?;
        let gate = lock(&self.plan.gates).get(input.message.id()).cloned();
        if let Some(gate) = gate {
            gate.cancelled().await;
        }
        self.worker.handle(input).await
    }

    fn holds(&self, message: &UserMessage) -> bool {
        self.worker.holds(message)
    }

    fn parts(&self, message: &UserMessage) -> u32 {
        self.worker.parts(message)
    }

    async fn run(&self, cx: Arc<WorkerContext>) -> Result<(), WorkError> {
        self.worker.run(cx).await
    }

    async fn drained(&self) {
        self.worker.drained().await;
    }

    async fn close(&self) {
        self.worker.close().await;
    }
}
