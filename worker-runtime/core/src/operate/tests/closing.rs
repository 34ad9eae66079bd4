//! Rows that a person closes: those whose message is nowhere any more, and no others.

use super::*;
use crate::broker::{Confirmation, Publication, PublicationClass};
use crate::close::Closed;

fn closable(chosen: &Chosen, force: bool) -> Ask {
    Ask::LedgerClosable {
        chosen: chosen.clone(),
        force,
    }
}

fn close(chosen: &Chosen, force: bool) -> Ask {
    Ask::LedgerClose {
        chosen: chosen.clone(),
        force,
    }
}

fn of_sms() -> Chosen {
    Chosen {
        account: Some("sms".into()),
        ..Chosen::default()
    }
}

fn named(id: &str) -> Chosen {
    Chosen {
        ids: vec![id.to_owned()],
        ..Chosen::default()
    }
}

impl World {
    async fn state(&self, id: &str) -> RowState {
        self.store.row(id).await.unwrap().unwrap().state
    }

    /// Why a row is not closed; none if it is.
    async fn refused(&self, id: &str, force: bool) -> Option<String> {
        let listed: Vec<resend::Summary> = self.ask(closable(&named(id), force)).await;
        listed.into_iter().next().expect("a row").refused
    }
}

#[tokio::test]
async fn a_row_whose_message_is_gone_is_closed_and_its_sender_told() {
    let world = World::new();
    for (id, state) in [
        ("queued", RowState::Queued),
        ("kept", RowState::Held),
        ("lost", RowState::Parked),
        ("parked", RowState::Parked),
        ("sent", RowState::Sent),
        ("sending", RowState::Sending),
    ] {
        world.row(id, &[RowState::Accepted, state], &[]).await;
    }
    world.wait("kept", USER, Reason::Backoff).await;
    world.park("parked").await;
    for (id, why) in [
        ("kept", "it waits in the journal"),
        ("parked", "it is set aside"),
        ("sent", "the peer may have it"),
        ("sending", "it is being sent"),
    ] {
        for force in [false, true] {
            let refused = world.refused(id, force).await.unwrap_or_default();
            assert!(refused.starts_with(why), "{id}: {refused}");
        }
    }
    let before: Vec<Balance> = world.ask(Ask::LedgerAudit).await;
    assert_eq!(before[0].missing_parked, 1, "{before:?}");
    let listed: Vec<resend::Summary> = world.ask(closable(&of_sms(), false)).await;
    assert_eq!(listed.len(), 4, "what waits or is set aside: {listed:?}");
    let done: Closed = world.ask(close(&of_sms(), false)).await;
    assert_eq!((done.done, done.stopped), (2, None));
    assert_eq!(done.refused.values().sum::<u64>(), 2);
    for id in ["queued", "lost"] {
        assert_eq!(world.state(id).await, RowState::Cancelled, "{id}");
    }
    for id in ["kept", "parked", "sent", "sending"] {
        assert!(!world.state(id).await.is_final(), "{id}");
    }
    let told = world.events(2).await;
    for event in &told {
        let fate = event.fate().expect("a fate");
        assert_eq!(fate.code, codes::LEDGER_CLOSED.name);
    }
    // Its sender may not have heard it: named once more, it is told the same.
    let again: Closed = world.ask(close(&named("queued"), false)).await;
    assert_eq!(again.done, 1);
    assert_eq!(world.state("queued").await, RowState::Cancelled);
}

#[tokio::test]
async fn what_may_be_in_a_queue_or_in_hand_is_closed_only_by_force() {
    let mut world = World::new();
    for id in ["one", "two", "three"] {
        world.row(id, &[RowState::Queued], &[]).await;
    }
    world.reach.in_flight = Some(BTreeMap::from([("sms".to_owned(), 1)]));
    let refused = world.refused("one", false).await.unwrap_or_default();
    assert!(refused.contains("in hand"), "{refused}");
    let done: Closed = world.ask(close(&named("one"), true)).await;
    assert_eq!(done.done, 1);
    world.reach.in_flight = Some(BTreeMap::new());
    assert_eq!(world.refused("two", false).await, None);
    let queue = QueueSpec::Data(QUEUE.into());
    world.broker.declare(&queue).await.unwrap();
    let waits = Publication {
        exchange: String::new(),
        routing_key: QUEUE.into(),
        message_id: None,
        body: message("three", USER),
        class: PublicationClass::Direct,
    };
    let receipt = world.broker.publish(waits).await;
    assert_eq!(receipt.confirmation().await, Confirmation::Confirmed);
    let done: Closed = world.ask(close(&of_sms(), false)).await;
    assert_eq!(done.done, 0, "{done:?}");
    let why = done.refused.keys().next().cloned().unwrap_or_default();
    assert!(why.starts_with("messages wait in the queues"), "{why}");
    // Without its broker nobody can tell who sent it.
    for at in world.reach.queues.values_mut() {
        at.broker = None;
    }
    for force in [false, true] {
        let refused = world.refused("two", force).await.unwrap_or_default();
        assert!(refused.contains("--broker URL"), "{refused}");
    }
    assert_eq!(world.state("two").await, RowState::Queued);
}

#[tokio::test]
async fn a_slip_in_what_is_closed_is_told_what_there_is() {
    let world = World::new();
    world.row("m", &[RowState::Queued], &[]).await;
    let slip = Chosen {
        account: Some("smss".into()),
        ..Chosen::default()
    };
    let error = answer(&world.reach, closable(&slip, false)).await;
    let error = error.unwrap_err();
    assert!(error.text.contains("did you mean sms?"), "{error}");
    let sent = Chosen {
        states: vec![RowState::Sent],
        ..of_sms()
    };
    let listed: Vec<resend::Summary> = world.ask(closable(&sent, false)).await;
    assert_eq!(listed, [], "nothing fits");
}
