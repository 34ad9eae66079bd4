//! A replica on a thread of its own whose world can be made to stand still, as that of a process that got SIGSTOP: no task
//! of it runs, no timer, no signs of life. The broker gives its connection up meanwhile, and it learns of that some time
//! after it goes on.

use super::far_end::patience;
use super::faults::Faults;
use super::rig::WITHOUT_REPLIES;
use crate::broker::Broker;
use crate::engine::{self, Environment, WorkerSnapshot};
use crate::worker::Registration;
use std::sync::{Arc, mpsc as blocking};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};
use vumi_api::Resource;

enum Order {
    /// Stand still until the other end says so or is gone.
    Freeze(oneshot::Sender<()>, blocking::Receiver<()>),
    Snapshot(oneshot::Sender<WorkerSnapshot>),
}

/// A replica that can be frozen; stops when it is dropped.
pub(super) struct Freezable {
    pub(super) faults: Arc<Faults>,
    orders: Option<mpsc::Sender<Order>>,
    thaw: Option<blocking::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What it is made of; the broker in `environment` is the real one.
pub(super) struct Parts {
    pub(super) registration: Registration,
    pub(super) resource: Resource,
    pub(super) environment: Environment,
}

impl Freezable {
    /// Starts it; it need not consume yet.
    pub(super) async fn start(parts: Parts) -> Result<Self, String> {
        // The broker does not stand still with it.
        let faults = Faults::new(Arc::clone(&parts.environment.broker));
        let broker = Arc::clone(&faults) as Arc<dyn Broker>;
        let (orders, given) = mpsc::channel(1);
        let (ready, started) = oneshot::channel();
        // What it logs belongs to the case.
        let log = tracing::dispatcher::get_default(Clone::clone);
        let thread = std::thread::Builder::new().name("frozen".into());
        let live = move || {
            tracing::dispatcher::with_default(&log, || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match runtime {
                    Ok(runtime) => runtime.block_on(life(parts, broker, ready, given)),
                    Err(e) => drop(ready.send(Err(e.to_string()))),
                }
            });
        };
        let thread = thread.spawn(live).map_err(|e| e.to_string())?;
        started.await.map_err(|_| "it panicked")??;
        Ok(Self {
            faults,
            orders: Some(orders),
            thaw: None,
            thread: Some(thread),
        })
    }

    /// From now on nothing of it runs. The broker has not noticed yet.
    pub(super) async fn freeze(&mut self) -> Result<(), String> {
        let (thaw, thawed) = blocking::channel();
        let (frozen, is_frozen) = oneshot::channel();
        self.order(Order::Freeze(frozen, thawed)).await?;
        is_frozen.await.map_err(|_| "it is gone")?;
        self.thaw = Some(thaw);
        Ok(())
    }

    /// It goes on where it stood.
    pub(super) fn thaw(&mut self) {
        self.thaw = None;
    }

    /// How it stands by its own word; not while it is frozen.
    pub(super) async fn snapshot(&self) -> Result<WorkerSnapshot, String> {
        let (reply, snapshot) = oneshot::channel();
        self.order(Order::Snapshot(reply)).await?;
        let snapshot = tokio::time::timeout(patience(), snapshot).await;
        let snapshot = snapshot.map_err(|_| "it says nothing")?;
        snapshot.map_err(|_| "it is gone".into())
    }

    async fn order(&self, order: Order) -> Result<(), String> {
        let orders = self.orders.as_ref().ok_or("it is stopped")?;
        orders.send(order).await.map_err(|_| "it is gone".into())
    }

    /// Stops it in order.
    pub(super) async fn stop(mut self) -> Result<(), String> {
        drop((self.thaw.take(), self.orders.take()));
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let ended = tokio::task::spawn_blocking(|| thread.join()).await;
        match ended {
            Ok(Ok(())) => Ok(()),
            _ => Err("it panicked".into()),
        }
    }
}

async fn life(
    parts: Parts,
    broker: Arc<dyn Broker>,
    ready: oneshot::Sender<Result<(), String>>,
    mut orders: mpsc::Receiver<Order>,
) {
    let Parts {
        registration,
        resource,
        environment,
    } = parts;
    let environment = Environment {
        broker,
        ..environment
    };
    let running = match engine::build(&registration, Arc::new(resource), environment).await {
        Ok(built) => built.start().await,
        Err(e) => return drop(ready.send(Err(e.to_string()))),
    };
    let _ = ready.send(Ok(()));
    while let Some(order) = orders.recv().await {
        match order {
            Order::Freeze(frozen, thaw) => {
                let _ = frozen.send(());
                // On purpose: this thread runs all there is of the replica.
                let _ = thaw.recv();
            }
            Order::Snapshot(reply) => drop(reply.send(running.snapshot())),
        }
    }
    running.stop(WITHOUT_REPLIES).await;
}
