//! Watches the state store of a worker: it alone tells the component `state`.

use crate::broker::Durability;
use crate::codes;
use crate::engine::StoreSnapshot;
use crate::error::WorkError;
use crate::reasons;
use crate::state::{StateStore, StoreHealth};
use crate::status::{StatusDesk, StatusLevel, StatusReport};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A store that was opened just now is given so long to answer before it is said to be away.
const FIRST: Duration = Duration::from_secs(2);

/// What works again is said once it has worked for so long: a disk that is full takes a little now and then.
pub(super) const STEADY: Duration = match cfg!(test) {
    true => Duration::from_millis(300),
    false => Duration::from_secs(3),
};

/// The journals of a worker whose operations fail, although the store may answer others: by queue, with the reason.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble(watch::Sender<BTreeMap<String, String>>);

impl Trouble {
    /// An operation of a queue's journal ended, or the journal did.
    pub(super) fn note(&self, queue: &str, error: Option<&WorkError>) {
        self.0.send_if_modified(|failing| match error {
            None => failing.remove(queue).is_some(),
            Some(_) if failing.contains_key(queue) => false,
            Some(error) => {
                failing.insert(queue.to_owned(), error.text.clone());
                true
            }
        });
    }
}

/// What is to be told of a store.
pub(super) struct StoreWatch {
    pub(super) store: Arc<dyn StateStore>,
    pub(super) status: Arc<StatusDesk>,
    /// What a message survives at the broker: moved into a store that keeps less, it would be less safe than before.
    pub(super) broker: Durability,
    pub(super) volatile_allowed: bool,
    pub(super) trouble: Trouble,
}

impl StoreWatch {
    /// Reports until the store is closed.
    pub(super) async fn run(self) {
        let mut health = self.store.health();
        // One that is only being connected to is no news.
        let up = health.wait_for(|health| *health == StoreHealth::Up);
        let _ = tokio::time::timeout(FIRST, up).await;
        let mut trouble = self.trouble.0.subscribe();
        let mut unwell = false;
        loop {
            health.borrow_and_update();
            let failing = trouble.borrow_and_update().values().next().cloned();
            let store = snapshot(&*self.store);
            let report = judge(&store, failing, self.broker, self.volatile_allowed);
            let unavailable = report.reason == reasons::STATE_UNAVAILABLE.name;
            let recovers = unwell && !unavailable;
            if !recovers {
                unwell = unavailable;
                self.status.report(report);
            }
            tokio::select! {
                changed = health.changed() => if changed.is_err() { return },
                _ = trouble.changed() => {}
                () = tokio::time::sleep(STEADY), if recovers => unwell = false,
            }
        }
    }
}

/// What component `state` reports of a store.
fn judge(
    store: &StoreSnapshot,
    failing: Option<String>,
    broker: Durability,
    volatile_allowed: bool,
) -> StatusReport {
    let report = |level, reason, text| StatusReport::new("state", level, reason, text);
    let name = &store.name;
    if let StoreHealth::Away(why) = &store.health {
        let text = format!("{name} does not answer: {why}");
        return report(StatusLevel::Down, reasons::STATE_UNAVAILABLE, text);
    }
    if let Some(why) = failing {
        let text = format!("{name} answers, but not all: what is held stays held: {why}");
        return report(StatusLevel::Degraded, reasons::STATE_UNAVAILABLE, text);
    }
    let volatile = store.durability == Durability::Memory;
    if volatile && broker != Durability::Memory && !volatile_allowed {
        let text = format!(
            "{name} loses what it keeps in a crash ({}): let it write to disk (Redis: appendonly yes; vumi run: --state DIR), or set allowVolatileState",
            codes::STATE_NOT_DURABLE
        );
        return report(StatusLevel::Degraded, reasons::STATE_NOT_DURABLE, text);
    }
    let text = format!("{name}, durability {}", store.durability.as_str());
    report(StatusLevel::Ok, reasons::UP, text)
}

/// A store as a snapshot shows it.
pub(super) fn snapshot(store: &dyn StateStore) -> StoreSnapshot {
    StoreSnapshot {
        name: store.describe(),
        durability: store.durability(),
        health: store.health().borrow().clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
    use crate::conformance::store_faults::StoreFaults;
    use crate::error::ErrorClass;
    use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
    use crate::status::StatusIdentity;

    #[test]
    fn a_journal_that_works_does_not_speak_for_another() {
        let trouble = Trouble::default();
        let failing = || trouble.0.borrow().keys().cloned().collect::<Vec<_>>();
        let error = WorkError::new(ErrorClass::Connect, codes::STATE_UNUSABLE, "no");
        trouble.note("q.p0", Some(&error));
        trouble.note("q.p1", Some(&error));
        trouble.note("q.p1", None);
        assert_eq!(failing(), ["q.p0"]);
        trouble.note("q.p0", None);
        assert!(failing().is_empty());
    }

    #[tokio::test]
    async fn a_store_that_works_now_and_then_is_said_to_be_away() {
        let store = EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap();
        let faults = StoreFaults::new(store, None);
        let broker = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
        let identity = StatusIdentity {
            connector: "t".into(),
            kind: vumi_api::Kind::Transport,
            name: "t".into(),
            type_name: "telnet".into(),
            instance: "one".into(),
        };
        let status = StatusDesk::new(broker, identity, None);
        let watch = StoreWatch {
            store: Arc::clone(&faults) as Arc<dyn StateStore>,
            status: Arc::clone(&status),
            broker: Durability::Memory,
            volatile_allowed: false,
            trouble: Trouble::default(),
        };
        let watching = tokio::spawn(watch.run());
        let told = || status.components().pop().map(|report| report.reason);
        let says = async |reason: &str| {
            for _ in 0..2000 {
                if told().as_deref() == Some(reason) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!("{:?}, not {reason}", told());
        };
        says("up").await;
        faults.go_away();
        says("state_unavailable").await;
        for _ in 0..10 {
            faults.come_back();
            tokio::time::sleep(STEADY / 6).await;
            assert_eq!(told().as_deref(), Some("state_unavailable"));
            faults.go_away();
            tokio::time::sleep(STEADY / 6).await;
        }
        faults.come_back();
        says("up").await;
        watching.abort();
    }

    #[test]
    fn a_store_that_is_away_is_down_and_one_that_forgets_is_degraded_where_the_broker_does_not() {
        let store = |durability, health| StoreSnapshot {
            name: "redis h:6379/0".into(),
            durability,
            health,
        };
        let (memory, process) = (Durability::Memory, Durability::Process);
        for (durability, broker, allowed, level, reason) in [
            (process, process, false, StatusLevel::Ok, "up"),
            (
                memory,
                process,
                false,
                StatusLevel::Degraded,
                "state_not_durable",
            ),
            (memory, process, true, StatusLevel::Ok, "up"),
            (memory, memory, false, StatusLevel::Ok, "up"),
        ] {
            let report = judge(&store(durability, StoreHealth::Up), None, broker, allowed);
            assert_eq!((report.level, report.reason.as_str()), (level, reason));
            assert!(report.message.starts_with("redis h:6379/0"), "{report:?}");
        }
        let away = StoreHealth::Away("connection refused".into());
        let failing = Some("NOPERM".to_owned());
        let report = judge(&store(process, away), failing.clone(), process, true);
        assert_eq!(report.level, StatusLevel::Down);
        assert!(report.message.contains("connection refused"), "{report:?}");
        let report = judge(&store(process, StoreHealth::Up), failing, process, true);
        assert_eq!(report.level, StatusLevel::Degraded);
        assert!(report.message.contains("NOPERM"), "{report:?}");
    }
}
