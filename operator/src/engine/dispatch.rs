//! Takes resources from the queue and looks at them, a bounded number at one time, while this operator leads.

use super::Engine;
use super::queue::Ended;
use super::reconcile::reconcile;
use super::store::Key;
use crate::cluster::Definitions;
use crate::health::Health;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What is in hand at the end has this time.
const LAST: Duration = Duration::from_secs(5);
/// Between signs of life.
const BEAT: Duration = Duration::from_secs(2);

/// Runs until told to stop; then what is in hand is finished.
pub async fn dispatch(
    engine: Arc<Engine>,
    mut leading: watch::Receiver<bool>,
    concurrency: usize,
    health: Arc<Health>,
    stop: CancellationToken,
) {
    let mut definitions = engine.cluster.definitions();
    let mut looks = JoinSet::new();
    let mut beat = tokio::time::interval(BEAT);
    let mut active = false;
    loop {
        let current = *definitions.borrow_and_update() == Definitions::Current;
        let may = *leading.borrow_and_update() && current;
        if may && !active {
            engine.recall.forget_all();
            // Whatever was seen while others led is looked at now.
            for key in engine.stores.keys() {
                engine.queue.add(key, Duration::ZERO);
            }
        }
        if active && !may {
            // Another one may begin: nothing is finished.
            looks.abort_all();
        }
        active = may;
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Ok(()) = leading.changed() => {}
            Ok(()) = definitions.changed() => {}
            _ = beat.tick() => {
                health.beat();
                report(&engine);
            }
            Some(_) = looks.join_next(), if !looks.is_empty() => {}
            key = engine.queue.next(), if active && looks.len() < concurrency => {
                looks.spawn(look(Arc::clone(&engine), key));
            }
        }
    }
    let finish = async { while looks.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST, finish).await.is_err() {
        looks.abort_all();
    }
}

/// Gauges of what there is.
fn report(engine: &Engine) {
    let (queued, failing) = engine.queue.sizes();
    engine.metrics.queue(queued, failing);
    let keys = engine.stores.keys();
    for kind in vumi_api::Kind::ALL {
        let count = keys.iter().filter(|key| key.kind == kind).count();
        engine.metrics.resources(kind.as_str(), count);
    }
}

/// Puts it back into the queue's hands, however its look ends: aborted, or by a panic.
struct InHand {
    engine: Arc<Engine>,
    key: Key,
    ended: Ended,
}

impl Drop for InHand {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.ended = Ended::Failed(None);
        }
        self.engine.queue.done(&self.key, self.ended);
    }
}

async fn look(engine: Arc<Engine>, key: Key) {
    let mut in_hand = InHand {
        engine,
        key,
        ended: Ended::Dropped,
    };
    let began = Instant::now();
    let looked = reconcile(&in_hand.engine, &in_hand.key).await;
    let kind = in_hand.key.kind.as_str();
    in_hand
        .engine
        .metrics
        .reconciled(kind, looked.word(), began.elapsed());
    in_hand.ended = looked.ended();
}
