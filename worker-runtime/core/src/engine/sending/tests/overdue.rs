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
        let loaded = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&loaded);
        let counted = Prompt::new(&store(), move |operation, _| {
            counter.fetch_add(u64::from(operation == "ledger.row"), Ordering::SeqCst);
        });
        let store: Arc<dyn StateStore> = Arc::new(counted);
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
        let alarms = AT_ONCE as u64 + 1;
        assert_eq!(
            left, [alarms; 3],
            "the other one is ended by the first look"
        );
        let read = loaded.load(Ordering::SeqCst);
        assert!(read < 50, "only a few are read each time: {read}");
        let row = store.row("sent").await.unwrap().unwrap();
        assert_eq!(row.state, RowState::SentFinal);
    });
}

/// A store whose every operation takes a while.
struct Tardy(Arc<dyn StateStore>);

#[async_trait]
impl Around for Tardy {
    fn inner(&self) -> &Arc<dyn StateStore> {
        &self.0
    }

    async fn before(&self, _: &'static str) -> Result<(), WorkError> {
        tokio::time::sleep(Duration::from_millis(30)).await;
        Ok(())
    }
}

#[test]
fn a_look_that_takes_long_is_no_silence_of_the_store() {
    in_simulated_time(async {
        let store = simulated_store();
        for number in 0..300 {
            overdue(&store, &format!("m{number}"), RowState::Sent, 1000).await;
        }
        // Looked at last.
        overdue(&store, "sending", RowState::Sending, 2000).await;
        let tardy: Arc<dyn StateStore> = Arc::new(Tardy(Arc::clone(&store)));
        let bench = Bench::new(&tardy, json!({}), false);
        let keeper = bench.keeper();
        let book = keeper.sending.book.as_ref().unwrap();
        let began = Instant::now();
        let looked = keeper.look(book, &mut Round::default(), &|| false).await;
        assert!(began.elapsed() > alive::HOLD, "{:?}", began.elapsed());
        assert_eq!(looked.unwrap(), 0);
        let row = store.row("sending").await.unwrap().unwrap();
        assert_eq!(row.state, RowState::Failed);
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
