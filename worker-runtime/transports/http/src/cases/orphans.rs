//! Receipts whose message nobody knows: they come again for a while, and then they are taken.

use super::file::{CaseFile, Sent};
use super::folder;
use super::scene::Scene;
use std::collections::BTreeMap;
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::derived_id;
use vumi_core::status::StatusLevel;
use vumi_core::telemetry::HttpSeen;
use vumi_core::worker::Services;

#[tokio::test]
async fn a_receipt_that_no_message_takes_is_not_asked_for_for_ever() {
    let file = CaseFile::read(&folder().join("acme.yaml")).unwrap();
    let scene = Scene::start(&file).await.unwrap();
    let unmatched = WorkError::new(
        ErrorClass::RemoteTemporary,
        codes::RECEIPT_UNMATCHED,
        "nobody has it",
    );
    scene.engine.refuse_receipts(Some(unmatched));
    let receipt: Sent = serde_yaml::from_str(
        "{path: /acme/receipt/dlr, headers: {X-Key: s3cret-key}, query: {id: A-9, state: D}}",
    )
    .unwrap();
    let ask = || async { scene.ask(scene.call(&receipt)).await.unwrap().status };
    for _ in 0..3 {
        assert_eq!(ask().await, 502, "it may be faster than the answer");
    }
    // Eleven minutes pass.
    let store = scene.engine.state().unwrap();
    let id = derived_id(&["orphan", "A-9"]);
    let seen = store.load("acme:orphans", &id).await.unwrap().unwrap();
    let first: u64 = seen["first"].parse().unwrap();
    let earlier = BTreeMap::from([("first".to_owned(), (first - 660).to_string())]);
    assert!(store.save("acme:orphans", &id, earlier).await.unwrap());
    for _ in 0..2 {
        assert_eq!(ask().await, 202, "as if it were taken");
    }
    let counted = scene.engine.counted();
    let count = |state| {
        let of = counted
            .iter()
            .filter(|seen| **seen == HttpSeen::Receipt(state));
        of.count()
    };
    assert_eq!((count("orphan"), count("given_up")), (5, 2));
    let reports = scene.engine.reports();
    let last = reports
        .iter()
        .rev()
        .find(|r| r.component == "request")
        .unwrap();
    let expected = (StatusLevel::Degraded, "orphan_receipt");
    assert_eq!((last.level, last.reason.as_str()), expected);
    // When the message is known after all, the receipt is taken over.
    scene.engine.refuse_receipts(None);
    assert_eq!(ask().await, 202);
    assert_eq!(scene.engine.receipts().len(), 1);
    scene.stop().await.unwrap();
}
