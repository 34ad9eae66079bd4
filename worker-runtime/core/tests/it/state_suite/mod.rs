//! What every state store must do, judged from outside: one list of cases, run on the embedded store in each durability
//! and on Redis. Nothing here knows which store it talks to.

mod batches;
mod first_seen;
mod journal;
mod journal_desk;
mod journal_model;
mod journal_moves;
mod ledger;
mod ledger_model;
mod rate_limits;
mod sessions;
mod whole;

pub use batches::*;
pub use first_seen::*;
pub use journal::*;
pub use journal_desk::*;
pub use journal_model::*;
pub use journal_moves::*;
pub use ledger::*;
pub use ledger_model::*;
pub use rate_limits::*;
pub use sessions::*;
pub use whole::*;

use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use vumi_core::state::StateStore;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A span that ends within a test.
pub const SOON: Duration = Duration::from_millis(300);
/// A span that does not.
pub const LONG: Duration = Duration::from_secs(3600);

/// A store under test. It may be shared with other tests; names are not.
#[async_trait]
pub trait Source: Send + Sync {
    /// Another client of it: a connection of its own, where there are connections.
    async fn client(&self) -> Arc<dyn StateStore>;
}

/// Makes one test per case, in a module of its own. The expression makes a [`Source`] and may await.
#[macro_export]
macro_rules! state_suite {
    ($module:ident, $source:expr) => {
        $crate::state_suite!(@cases $module, $source,
            journal_gives_back_what_it_was_given_in_order
            journal_lane_keeps_its_time
            journal_claims_longest_due_first
            journal_claim_excludes_others_until_it_ends
            journal_claim_says_what_was_claimed_before
            journal_renew_prolongs_claims
            journal_reclaim_ends_claims
            journal_again_keeps_the_place_and_the_body
            journal_step_of_another_head_changes_nothing
            journal_tells_when_the_next_lane_is_due
            journal_lists_what_matches
            journal_releases_what_matches
            journal_removes_what_matches
            journal_withdraws_what_nobody_works_on
            journal_withdraws_by_age_from_the_head
            journal_gives_a_message_to_a_worker_or_to_who_drops_it
            journal_relocates_lanes
            journal_moves_lanes_for_who_was_appointed_last
            journal_finds_one_lane_among_many
            journal_relocates_long_lanes
            journal_keeps_queues_and_groups_apart
            journal_gives_one_head_to_one_worker
            journal_follows_its_model
            batches_count_rows_by_state
            batches_have_one_order_each
            ledger_stores_by_version
            ledger_finds_rows_and_trails
            ledger_finds_remote_ids
            ledger_counts_by_state
            ledger_knows_what_is_overdue
            ledger_keeps_trails
            ledger_knows_who_lives
            ledger_keeps_final_rows_for_their_time
            ledger_loses_no_update
            ledger_follows_its_model
            first_seen_is_reserved_then_committed
            first_seen_is_looked_at_without_a_trace
            first_seen_forgets_in_time
            first_seen_is_bounded
            first_seen_gives_first_once
            first_seen_of_a_person_is_erased
            rate_limit_gives_a_burst_then_says_how_long
            rate_limit_holds_for_all_together
            rate_limit_slows_down_and_recovers
            session_lives_from_create_to_clear
            session_ends_in_time
            session_save_never_brings_one_back
            session_beginnings_are_remembered_for_their_time
            sessions_change_together_or_not_at_all
            sessions_of_racing_changes_lose_none
            suspects_are_counted_and_forgotten
            erase_removes_one_person_everywhere
            sweep_removes_what_ended_and_no_more
            many_operations_at_once
            names_of_any_kind_are_names
            a_closed_client_refuses_and_says_so
        );
    };
    (@cases $module:ident, $source:expr, $($case:ident)*) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let source = $source;
                    let case = $crate::state_suite::$case(&source);
                    tokio::time::timeout($crate::state_suite::PATIENCE, case)
                        .await
                        .expect("the case took too long");
                }
            )*
        }
    };
}

/// A name that no other test and no earlier run has used.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{what}-{}-{:x}-{n}", std::process::id(), now())
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock");
    u64::try_from(since.as_millis()).expect("this age")
}

/// Asks again and again until the answer is right.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begin.elapsed() < PATIENCE / 2, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Sweeps until nothing is left to go now.
pub async fn sweep_all(store: &Arc<dyn StateStore>) {
    while store.sweep().await.expect("sweep") > 0 {}
}

/// Random numbers that are the same in every run: xorshift.
pub struct Dice(u64);

impl Dice {
    /// Dice of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}
