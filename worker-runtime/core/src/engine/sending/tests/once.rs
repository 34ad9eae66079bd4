//! Repeats of a provider.

use super::*;

#[tokio::test]
async fn a_repeat_waits_for_the_first_and_gets_its_answer() {
    let store = store();
    let manifest = json!({"kind": "Transport", "metadata": {"name": "t"}, "spec": spec(json!({}))});
    let resource = resource(&manifest).unwrap();
    let metrics = Telemetry::new().worker("transport/t");
    let once = || Once::new(Arc::clone(&store), &resource, Arc::clone(&metrics));
    let (one, two) = (once(), once());
    let never = || false;
    assert_eq!(one.reserve("id").await.unwrap(), Taken::Now);
    let (answer, ()) = tokio::join!(
        two.reserve("id"),
        one.commit("id", "first".into(), None, &never)
    );
    assert_eq!(answer.unwrap(), Taken::Before("first".into()));
    assert_eq!(metrics.duplicates.get(), 1);
    one.commit("id", "another".into(), None, &never).await;
    one.unanswered("id", "reply.holder_gone", &never)
        .await
        .unwrap();
    assert_eq!(
        two.reserve("id").await.unwrap(),
        Taken::Before("first".into()),
        "the first answer stays"
    );
    assert_eq!(metrics.duplicates.get(), 2);
    // Not published: the next one is the first again.
    assert_eq!(one.reserve("other").await.unwrap(), Taken::Now);
    one.release("other").await;
    assert_eq!(two.reserve("other").await.unwrap(), Taken::Now);
    let busy = one.reserve("other").await.unwrap_err();
    assert_eq!(busy.code, codes::DEDUPE_PENDING);
}

/// However often somebody looks, nothing is taken and no repeat is counted; one that is being published is waited for.
#[tokio::test]
async fn a_look_takes_nothing_and_counts_nothing() {
    let store = crate::conformance::failing_store::FailingStore::new(store());
    let manifest = json!({"kind": "Transport", "metadata": {"name": "t"}, "spec": spec(json!({}))});
    let resource = resource(&manifest).unwrap();
    let metrics = Telemetry::new().worker("transport/t");
    let never = || false;
    let once = Once::new(
        Arc::clone(&store) as Arc<dyn StateStore>,
        &resource,
        Arc::clone(&metrics),
    );
    // Looking reserves nothing, so it works where that does not.
    store.fail("firstSeen.reserve", u32::MAX);
    for _ in 0..3 {
        assert_eq!(once.look("id").await.unwrap(), Taken::Now);
    }
    store.fail("firstSeen.reserve", 0);
    assert_eq!(once.reserve("id").await.unwrap(), Taken::Now);
    let busy = once.look("id").await.unwrap_err();
    assert_eq!(busy.code, codes::DEDUPE_PENDING);
    let (seen, ()) = tokio::join!(
        once.look("id"),
        once.commit("id", "first".into(), None, &never)
    );
    assert_eq!(seen.unwrap(), Taken::Before("first".into()));
    for _ in 0..3 {
        let seen = once.look("id").await.unwrap();
        assert_eq!(seen, Taken::Before("first".into()));
    }
    once.unanswered("lost", "reply.holder_gone", &never)
        .await
        .unwrap();
    let seen = once.look("lost").await.unwrap();
    assert_eq!(seen, Taken::Unanswered(codes::HOLDER_GONE));
    assert_eq!(metrics.duplicates.get(), 0);
}

/// A process dies at each step of handing a reply over, and another one goes on: when its sender is told that nobody
/// knows whether the caller has it, whoever repeats the request is told as well, however the second one dies.
#[tokio::test]
async fn a_repeat_of_a_request_whose_reply_may_be_lost_is_told_so() {
    let store = store();
    let bench = Bench::new(&store, json!({}), false);
    let once = bench.once(&Telemetry::new().worker("transport/t")).unwrap();
    let never = || false;
    let mut unknown = 0;
    for (first, second) in (1..12).map(|step| (step, 12 - step)) {
        let request = format!("request {first} {second}");
        let mut message = message();
        message.set_field("in_reply_to", Some(request.as_str()));
        assert_eq!(once.reserve(&request).await.unwrap(), Taken::Now);
        once.commit(&request, Bytes::new(), None, &never).await;
        let before = bench.events().await.len();
        for (last, redelivered) in [(first, false), (second, true), (0, true)] {
            let life = Life::until(last);
            bench.deliver(&message, redelivered, life, 0, 0).await;
        }
        let events = bench.events().await.split_off(before);
        let told = events.iter().map(Event::event_type);
        let nacked = told.clone().any(|kind| kind == EventType::Nack);
        assert!(nacked || told.clone().any(|kind| kind == EventType::Ack));
        let repeated = once.reserve(&request).await.unwrap();
        match nacked {
            true => assert_eq!(repeated, Taken::Unanswered(codes::FATE_UNKNOWN)),
            false => assert_eq!(repeated, Taken::Before(Bytes::new())),
        }
        unknown += u32::from(nacked);
    }
    assert!(unknown > 0);
}
