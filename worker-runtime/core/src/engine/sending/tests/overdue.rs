//! The keeper among rows that it cannot end.

use super::*;
use crate::broker::ConsumerState;
use crate::engine::sending::keeper::{AT_ONCE, Round};
use crate::state::ledger::{Change, Step};
use tokio::sync::watch;

/// A row that is overdue since `at`.
async fn overdue(store: &Arc<dyn StateStore>, id: &str, state: RowState, at: u64) {
    let step = Step {
        at,
        ..Step::of_a_person(0, codes::LEDGER_RESENT, "for the test")
    };
    let change = Change {
        step,
        state,
        patience: Duration::ZERO,
        remote_id: None,
        told: Vec::new(),
    };
    let row = Row::new(id, "t", at).after(change).unwrap();
    let put = store.put(&row, None, Duration::ZERO).await;
    assert_eq!(put.unwrap(), Put::Stored);
}

#[test]
fn nobody_is_taken_for_dead_before_the_store_could_take_a_sign_of_life() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = Bench::new(&store, json!({}), false);
        overdue(&store, "sending", RowState::Sending, 1000).await;
        let keeper = bench.keeper();
        let book = keeper.sending.book.as_ref().unwrap();
        let mut round = Round::default();
        for (left, state) in [(1, RowState::Sending), (0, RowState::Failed)] {
            let looked = keeper.look(book, &mut round, &|| false).await;
            assert_eq!(looked.unwrap(), left);
            let row = store.row("sending").await.unwrap().unwrap();
            assert_eq!(row.state, state);
            tokio::time::sleep(alive::HOLD).await;
        }
    });
}

#[test]
fn rows_that_need_a_person_do_not_hide_those_that_need_only_the_keeper() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = Bench::new(&store, json!({}), true);
        for number in 0..=AT_ONCE {
            // It waits in a queue, or is lost: only a person can tell.
            overdue(&store, &format!("m{number}"), RowState::Queued, 1000).await;
        }
        overdue(&store, "sent", RowState::Sent, 2000).await;
        let keeper = bench.keeper();
        let book = keeper.sending.book.as_ref().unwrap();
        let (mut round, mut left) = (Round::default(), Vec::new());
        for _ in 0..3 {
            left.push(keeper.look(book, &mut round, &|| false).await.unwrap());
        }
        let all = AT_ONCE as u64 + 2;
        assert_eq!(left, [all, all - 1, all - 1]);
        let row = store.row("sent").await.unwrap().unwrap();
        assert_eq!(row.state, RowState::SentFinal);
    });
}

/// Another replica counts the rows from then on, and their sum is to be right.
#[test]
fn whoever_reads_the_queue_no_more_says_nothing_of_what_is_overdue() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = Bench::new(&store, json!({}), false);
        overdue(&store, "m", RowState::Queued, 1000).await;
        let mut keeper = bench.keeper();
        let (state, told) = watch::channel(ConsumerState::Consuming);
        keeper.consumers.push(told);
        let gauge = keeper.sending.metrics.ledger_overdue.clone();
        let status = Arc::clone(&keeper.status);
        let said = || {
            let mut components = status.components().into_iter();
            let ledger = components.find(|report| report.component == "ledger");
            ledger.map(|report| report.reason)
        };
        let keeping = tokio::spawn(keeper.run());
        for (is, overdue, reason) in [
            (ConsumerState::Consuming, 1, "overdue"),
            (ConsumerState::Standby(None), 0, "on"),
            (ConsumerState::Consuming, 1, "overdue"),
        ] {
            state.send_replace(is);
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(gauge.get(), overdue);
            assert_eq!(said().as_deref(), Some(reason));
        }
        keeping.abort();
    });
}

#[test]
fn a_row_that_cannot_be_read_is_counted_and_holds_up_no_other() {
    in_simulated_time(async {
        let embedded = EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap();
        let inner: Arc<dyn StateStore> = embedded.clone();
        let store: Arc<dyn StateStore> = Arc::new(Prompt::new(&inner, |_, _| {}));
        let bench = Bench::new(&store, json!({}), true);
        overdue(&store, "damaged", RowState::Sent, 1000).await;
        overdue(&store, "sent", RowState::Sent, 2000).await;
        embedded.spoil_row("damaged").await;
        let keeper = bench.keeper();
        let book = keeper.sending.book.as_ref().unwrap();
        let mut round = Round::default();
        for _ in 0..2 {
            let left = keeper.look(book, &mut round, &|| false).await.unwrap();
            assert_eq!(left, 1, "nobody can end it");
        }
        assert_eq!(keeper.sending.metrics.ledger_overdue.get(), 1);
        let row = store.row("sent").await.unwrap().unwrap();
        assert_eq!(row.state, RowState::SentFinal);
    });
}
