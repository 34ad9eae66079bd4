//! Messages that kill.

use super::*;

#[tokio::test]
async fn a_message_that_kills_again_and_again_is_set_aside_and_its_neighbours_are_not() {
    let store = store();
    let bench = Bench::new(&store, json!({}), false);
    let (poison, neighbour) = (message(), message());
    let work = async |message: &UserMessage, redelivered, last| {
        let life = Life::until(last);
        let worker = Arc::new(Transport {
            name: bench.name,
            peer: Arc::clone(&bench.peer),
            life: Arc::clone(&life),
        });
        let (_, mut desk) = bench.desk(&life, None, worker);
        desk.trial = Some(Trial::new(
            Arc::clone(&store),
            "t.outbound",
            vumi_api::shared::Retention::SUSPECTS,
            rand::random(),
        ));
        tokio::select! {
            finished = Arc::new(desk).work(delivery(message, redelivered)) => Some(finished.verdict),
            () = life.ended.notified() => None,
        }
    };
    assert_eq!(work(&poison, false, 1).await, None);
    assert_eq!(work(&poison, true, 1).await, None);
    assert_eq!(
        work(&neighbour, true, 1).await,
        None,
        "it was in the same process"
    );
    assert_eq!(work(&neighbour, true, 0).await, Some(Verdict::Done));
    assert_eq!(work(&poison, true, 1).await, None);
    assert_eq!(work(&poison, true, 0).await, Some(Verdict::Parked));
    let parked = bench.read("t.outbound.parked").await;
    let envelope = crate::parking::Envelope::decode(&parked[0]).unwrap();
    assert_eq!(envelope.code, codes::BUG_CRASH_LOOP.name);
    // What was acquitted, or requeued by a person, begins anew.
    assert_eq!(work(&neighbour, true, 1).await, None);
    assert_eq!(work(&poison, true, 0).await, Some(Verdict::Done));
}

#[tokio::test]
async fn a_message_that_comes_again_and_again_to_a_process_that_lives_is_no_killer() {
    let store = store();
    let lives = |life| {
        let keep = vumi_api::shared::Retention::SUSPECTS;
        Trial::new(Arc::clone(&store), "t.outbound", keep, life)
    };
    let guilty = async |trial: &Trial| trial.begin("m", &|| false).await.unwrap().is_guilty();
    let first = lives(1);
    for _ in 0..5 {
        // Its channel was lost before the attempt was over.
        assert!(!guilty(&first).await);
    }
    assert!(!guilty(&lives(2)).await);
    assert!(guilty(&lives(3)).await);
}
