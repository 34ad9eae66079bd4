//! Receipts whose message nobody knows: they come again for a while, and then they are taken.

use super::file::{CaseFile, Sent};
use super::folder;
use super::scene::Scene;
use std::time::{Duration, SystemTime};
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::derived_id;
use vumi_core::state::FirstSeen;
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
    let mut receipt: Sent = serde_yaml::from_str(
        "{path: /acme/receipt/dlr, headers: {X-Key: s3cret-key}, query: {id: A-9, state: D}}",
    )
    .unwrap();
    for _ in 0..3 {
        let answer = scene.ask(scene.call(&receipt)).await.unwrap();
        assert_eq!(answer.status, 502, "it may be faster than the answer");
    }
    // One that came eleven minutes ago for the first time.
    let store = scene.engine.state().unwrap();
    let store: &dyn FirstSeen = &*store;
    let earlier = SystemTime::now() - Duration::from_secs(660);
    let earlier = earlier.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let (first, day) = (earlier.as_secs().to_string(), Duration::from_secs(86_400));
    let id = derived_id(&["orphan", "A-8"]);
    let put = store.commit("acme:orphans", &id, first.into(), None, day, 100);
    put.await.unwrap();
    receipt.query.insert("id".into(), "A-8".into());
    for _ in 0..2 {
        let answer = scene.ask(scene.call(&receipt)).await.unwrap();
        assert_eq!(answer.status, 202, "as if it were taken");
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
    let answer = scene.ask(scene.call(&receipt)).await.unwrap();
    assert_eq!(answer.status, 202);
    assert_eq!(scene.engine.receipts().len(), 1);
    scene.stop().await.unwrap();
}
