//! What nobody is shown of a person, and what is left after an erasure.

use super::*;
use crate::state::ledger::Content;

#[tokio::test]
async fn a_message_that_waits_in_its_row_to_be_sent_again_is_never_shown() {
    let world = World::new();
    let mut row = world
        .row("lost", &[RowState::Sending, RowState::Unknown], &[])
        .await;
    let content = UserMessage::decode(&message("lost", USER)).unwrap();
    row.body = Some(Content::of(&content.encode()));
    let (expected, next) = (Some(row.version), row.version + 1);
    row.version = next;
    let put = world.store.put(&row, expected, HOUR).await.unwrap();
    assert_eq!(put, Put::Stored);
    let kept = world.store.row("lost").await.unwrap().unwrap();
    let body = kept.body.as_ref().and_then(Content::message);
    assert_eq!(body.as_ref(), Some(&content), "it is kept");
    let why = |question| Ask::Why {
        question,
        limit: 10,
    };
    let asks = [
        why(Question::Message("lost".into())),
        why(Question::Person(USER.into())),
        why(Question::Between(0, u64::MAX)),
        Ask::LedgerOverdue {
            account: None,
            limit: 10,
        },
        Ask::LedgerCounts,
        Ask::LedgerAudit,
        Ask::Erase {
            address: USER.into(),
            dry_run: true,
        },
    ];
    let mut shown = vec![format!("{kept:?} {kept:#?}")];
    for ask in asks {
        let answer: Value = world.ask(ask).await;
        assert_ne!(answer, json!([]), "something is found");
        shown.push(answer.to_string());
    }
    for text in shown {
        let leaks = text.contains("secret") || text.contains("2782");
        assert!(!leaks, "{text}");
    }
}

#[tokio::test]
async fn a_person_is_erased_everywhere_and_others_stay() {
    let world = World::new();
    let person = Person::new(USER);
    world.row("theirs", &[RowState::Held], &[]).await;
    world.wait("theirs", USER, Reason::Backoff).await;
    world.wait("others", "27820002222", Reason::Backoff).await;
    world.park("parked").await;
    let session = crate::state::sessions::Session::new();
    world
        .store
        .create("app", USER, session, None)
        .await
        .unwrap();
    let answer = Bytes::from_static(b"ok");
    let first_seen = world
        .store
        .commit("sms", "id-1", answer, Some(&person), HOUR, 10);
    first_seen.await.unwrap();
    let erase = |dry_run| Ask::Erase {
        address: "+27 (0)82 000-1111".into(),
        dry_run,
    };
    let dry: erase::Report = world.ask(erase(true)).await;
    let count = |report: &erase::Report, what: &str| {
        let of = report.removed.iter().filter(|removed| removed.what == what);
        of.map(|removed| removed.count).sum::<u64>()
    };
    assert_eq!((count(&dry, "journal"), count(&dry, "ledger")), (1, 1));
    assert_eq!(count(&dry, "parked"), 1);
    let report: erase::Report = world.ask(erase(false)).await;
    for what in ["sessions", "journal", "ledger", "firstSeen", "parked"] {
        assert_eq!(count(&report, what), 1, "{what}: {report:?}");
    }
    assert!(
        report
            .not_reached
            .iter()
            .any(|place| place.starts_with("logs"))
    );
    let text = json!(report).to_string();
    assert!(!text.contains("2782"), "{text}");
    let again: erase::Report = world.ask(erase(false)).await;
    assert!(
        again.removed.iter().all(|removed| removed.count == 0),
        "{again:?}"
    );
    let left: Vec<journal_desk::Summary> = world.ask(list(None, all())).await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].message_id.as_deref(), Some("others"));
}

#[tokio::test]
async fn without_a_store_only_an_erasure_has_an_answer() {
    let reach = Reach::default();
    let error = answer(&reach, Ask::LedgerCounts).await.unwrap_err();
    assert_eq!(error.code, codes::STATE_NONE);
    let ask = Ask::Erase {
        address: "1".into(),
        dry_run: false,
    };
    let report = answer(&reach, ask).await.unwrap();
    let said = report["notReached"].to_string();
    assert!(said.contains("state stores: none was asked"), "{said}");
}
