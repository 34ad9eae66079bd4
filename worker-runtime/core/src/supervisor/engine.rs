//! What the supervisor asks of the engine, as traits: the real one is [`Registered`], the reload rules are tested with
//! one whose workers build, drain and fail as each test says.

use crate::codes;
use crate::engine::{self, BuiltWorker, Environment, RunningWorker, StopLimits, WorkerSnapshot};
use crate::error::{ErrorClass, WorkError};
use crate::worker::Registration;
use async_trait::async_trait;
use std::sync::Arc;
use vumi_api::Resource;

/// Builds workers.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Builds a worker: reads secrets and makes clients, opens nothing exclusive.
    async fn build(
        &self,
        resource: Arc<Resource>,
        environment: Environment,
    ) -> Result<Box<dyn Built>, WorkError>;
}

/// A worker that is built but does nothing yet.
#[async_trait]
pub trait Built: Send {
    /// Starts consuming and listening.
    async fn start(self: Box<Self>) -> Box<dyn Running>;
}

/// A worker that runs.
#[async_trait]
pub trait Running: Send + Sync {
    /// What it is doing.
    fn snapshot(&self) -> WorkerSnapshot;
    /// Goes on after it paused because too much was parked.
    fn resume_parked(&self);
    /// Resolves if it ended although nobody stopped it.
    async fn failed(&self) -> WorkError;
    /// Stops in two stages. The intake is closed when the returned future is first polled.
    async fn stop(self: Box<Self>, limits: StopLimits);
}

/// The real engine over registration tables.
pub struct Registered {
    registrations: Vec<Registration>,
}

impl Registered {
    /// The engine for these worker types.
    pub fn new<'a>(registrations: impl IntoIterator<Item = &'a Registration>) -> Self {
        Self {
            registrations: registrations.into_iter().copied().collect(),
        }
    }
}

#[async_trait]
impl Engine for Registered {
    async fn build(
        &self,
        resource: Arc<Resource>,
        environment: Environment,
    ) -> Result<Box<dyn Built>, WorkError> {
        let registration = self
            .registrations
            .iter()
            .find(|registration| (registration.matches)(&resource))
            .ok_or_else(|| {
                WorkError::new(
                    ErrorClass::Config,
                    codes::CONFIG_INVALID,
                    format!("{} is of no worker type of this program", resource.key()),
                )
            })?;
        let built = engine::build(registration, resource, environment).await?;
        Ok(Box::new(built))
    }
}

#[async_trait]
impl Built for BuiltWorker {
    async fn start(self: Box<Self>) -> Box<dyn Running> {
        Box::new(BuiltWorker::start(*self).await)
    }
}

#[async_trait]
impl Running for RunningWorker {
    fn snapshot(&self) -> WorkerSnapshot {
        RunningWorker::snapshot(self)
    }

    fn resume_parked(&self) {
        RunningWorker::resume_parked(self);
    }

    async fn failed(&self) -> WorkError {
        RunningWorker::failed(self).await
    }

    async fn stop(self: Box<Self>, limits: StopLimits) {
        RunningWorker::stop(*self, limits).await;
    }
}
