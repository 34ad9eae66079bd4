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
    assert_eq!(one.reserve("id").await.unwrap(), None);
    let (answer, ()) = tokio::join!(
        two.reserve("id"),
        one.commit("id", "first".into(), None, &never)
    );
    assert_eq!(answer.unwrap(), Some("first".into()));
    assert_eq!(metrics.duplicates.get(), 1);
    one.commit("id", "better".into(), None, &never).await;
    assert_eq!(two.reserve("id").await.unwrap(), Some("better".into()));
    // Not published: the next one is the first again.
    assert_eq!(one.reserve("other").await.unwrap(), None);
    one.release("other").await;
    assert_eq!(two.reserve("other").await.unwrap(), None);
    let busy = one.reserve("other").await.unwrap_err();
    assert_eq!(busy.code, codes::DEDUPE_PENDING);
}
