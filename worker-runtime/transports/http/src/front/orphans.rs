//! Receipts whose message nobody knows: when each came first. Whatever callers make up, so many are remembered and no more.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use vumi_core::clock;
use vumi_core::error::WorkError;
use vumi_core::message::derived_id;
use vumi_core::state::FirstSeen;
use vumi_core::state::first_seen::Reserved;
use vumi_core::worker::WorkerContext;

/// How long such a receipt is remembered. Providers that repeat for days ask again within this.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Most that are remembered, oldest out: one that was put out is asked for anew.
const MOST: usize = 10_000;
/// How long it may take to write one down.
const HOLD: Duration = Duration::from_secs(5);

/// Those of one transport: in its state store, or here if it has none.
#[derive(Default)]
pub(super) struct Orphans {
    here: Mutex<Here>,
}

/// What a process remembers by itself.
#[derive(Default)]
struct Here {
    first: HashMap<String, Instant>,
    /// Oldest first.
    order: VecDeque<String>,
}

impl Here {
    fn age(&mut self, id: String, now: Instant) -> Duration {
        if let Some(first) = self.first.get(&id) {
            return now.saturating_duration_since(*first);
        }
        if self.order.len() == MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.first.remove(&oldest);
        }
        self.order.push_back(id.clone());
        self.first.insert(id, now);
        Duration::ZERO
    }
}

impl Orphans {
    /// How long ago a receipt with this id of the peer came first.
    pub(super) async fn age(
        &self,
        cx: &WorkerContext,
        remote_id: &str,
    ) -> Result<Duration, WorkError> {
        // What a caller sends may be of any length.
        let id = derived_id(&["orphan", remote_id]);
        let Some(store) = cx.state() else {
            let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(here.age(id, Instant::now()));
        };
        let store: &dyn FirstSeen = &*store;
        let scope = format!("{}:orphans", cx.transport_name());
        let now = clock::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default();
        match store.reserve(&scope, &id, HOLD).await? {
            Reserved::Seen(first) => {
                let first = std::str::from_utf8(&first).ok();
                let first = first.and_then(|first| first.parse().ok());
                Ok(first.map_or(Duration::ZERO, |first| {
                    now.saturating_sub(Duration::from_secs(first))
                }))
            }
            // Another replica writes it down.
            Reserved::Pending(_) => Ok(Duration::ZERO),
            Reserved::First => {
                let first = now.as_secs().to_string().into();
                let most = MOST as u64;
                store
                    .commit(&scope, &id, first, None, REMEMBERED, most)
                    .await?;
                Ok(Duration::ZERO)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_remembers_so_many_and_no_more() {
        let mut here = Here::default();
        let began = Instant::now();
        let later = began + Duration::from_secs(700);
        assert_eq!(here.age("first".into(), began), Duration::ZERO);
        let age = here.age("first".into(), later);
        assert_eq!(age, Duration::from_secs(700));
        for n in 1..MOST {
            here.age(n.to_string(), later);
        }
        assert_eq!(here.age("first".into(), later), age, "there is room yet");
        for n in 0..MOST {
            here.age(format!("made up {n}"), later);
            assert!(here.first.len() <= MOST && here.order.len() <= MOST);
        }
        assert_eq!(here.age("first".into(), later), Duration::ZERO);
    }
}
