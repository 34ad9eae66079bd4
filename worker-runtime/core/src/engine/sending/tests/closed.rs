//! Rows that a person closed, and a message that turns up after all.

use super::*;
use crate::close::{Close, Closed};
use crate::withdraw::Withdrawal;

async fn close(bench: &Bench, message: &UserMessage, force: bool) -> Closed {
    let close = Close {
        store: &*bench.store,
        broker: &*bench.broker,
        withdrawal: Withdrawal {
            store: Some(&*bench.store),
            broker: Some(&*bench.broker),
            keep: Duration::from_secs(3600),
        },
        account: "t",
        queues: vec!["t.outbound".into()],
        in_hand: None,
        force,
    };
    let mut done = Closed::default();
    let rows = [bench.row(message).await];
    close.all(&rows, &mut done).await.unwrap();
    done
}

#[test]
fn what_turns_up_after_its_row_was_closed_is_not_sent_and_has_one_nack() {
    in_simulated_time(async {
        let bench = Bench::new(&simulated_store(), json!({}), false);
        let message = message();
        let (sending, _) = bench.process(&Life::until(0), 0, 0);
        sending.taken_over(&message, &|| false).await.unwrap();
        assert_eq!(close(&bench, &message, false).await.done, 1);
        assert_eq!(bench.row(&message).await.state, RowState::Cancelled);
        let sent = bench.deliver(&message, false, Life::until(0), 0, 0).await;
        assert_eq!(sent, Some(Verdict::Done));
        assert_eq!(bench.peer.attempts.load(Ordering::SeqCst), 0);
        let told = bench.events().await;
        assert_eq!(verdicts(&told), 1, "{told:?}");
        assert_eq!(told[0].event_type(), EventType::Nack);
        assert_eq!(bench.row(&message).await.state, RowState::Cancelled);
    });
}
