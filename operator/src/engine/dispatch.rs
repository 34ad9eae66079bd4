//! Takes resources from the queue and looks at them, a bounded number at one time, while this operator leads.

use super::Engine;
use super::events::Event;
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
use vumi_plan::Reason;

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
    lease: (String, String),
    stop: CancellationToken,
) {
    let mut definitions = engine.cluster.definitions();
    let mut looks = JoinSet::new();
    let mut beat = tokio::time::interval(BEAT);
    let mut active = false;
    let mut lacking = None;
    loop {
        let known = definitions.borrow_and_update().clone();
        let leads = *leading.borrow_and_update();
        let may = leads && known == Definitions::Current;
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
        match known {
            Definitions::Older(what) if leads && lacking.as_ref() != Some(&what) => {
                let (engine, lease, event) = (Arc::clone(&engine), lease.clone(), older(&what));
                looks.spawn(async move { engine.events.tell_of_operator(&lease, event).await });
                lacking = Some(what);
            }
            Definitions::Current => lacking = None,
            Definitions::Older(_) | Definitions::Unknown => {}
        }
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

/// What people are told of definitions that lack something.
fn older(what: &str) -> Event {
    let message = format!(
        "the CRDs are older than this operator ({}): they lack {what}, and the API server drops what they lack. Nothing is written for any resource until they are upgraded: kubectl apply --server-side -f deploy/crds",
        env!("CARGO_PKG_VERSION")
    );
    Event::warning(Reason::DefinitionsOlder.as_str(), message)
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
