//! Messages that kill, and those that come again with them.

use super::*;
use std::cell::RefCell;
use std::collections::HashMap;

fn trial(store: &Arc<dyn StateStore>, life: u64) -> Trial {
    let keep = vumi_api::shared::Retention::SUSPECTS;
    Trial::new(Arc::clone(store), "t.outbound", keep, life)
}

/// A peer that takes its time, and whose client one message kills.
#[derive(Default)]
struct Slow {
    poison: Option<String>,
    killed: Notify,
}

#[async_trait]
impl Worker for Slow {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let message = input.to_deliver()?;
        let id = message.message_id();
        if self.poison.as_deref() == Some(id) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut event = Event::ack(id, id);
        event.set_transport_name("t");
        Ok(vec![Output::new(Port::new("t", Flow::Event), event)])
    }
}

/// A process was killed, or its channel lost, with a full window.
#[test]
fn what_comes_again_for_the_first_time_is_worked_on_side_by_side() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = Bench::new(&store, json!({}), false);
        let takes = async |redelivered, life| {
            let known = Some(Arc::clone(&store));
            let (_, mut desk) = bench.desk(&Life::until(0), known, Arc::new(Slow::default()));
            desk.trial = Some(trial(&store, life));
            let desk = Arc::new(desk);
            let began = tokio::time::Instant::now();
            let works = (0..200).map(|_| {
                let delivery = delivery(&message(), redelivered);
                Arc::clone(&desk).work(delivery)
            });
            for finished in futures::future::join_all(works).await {
                assert_eq!(finished.verdict, Verdict::Done);
            }
            began.elapsed()
        };
        let usual = takes(false, 1).await;
        let again = takes(true, 2).await;
        assert!(again <= usual * 2, "{again:?} instead of {usual:?}");
    });
}

#[test]
fn what_ran_beside_a_killer_is_not_set_aside_with_it() {
    in_simulated_time(async {
        let store = simulated_store();
        let bench = Bench::new(&store, json!({}), false);
        let all: Vec<UserMessage> = (0..20).map(|_| message()).collect();
        let poison = all[10].message_id();
        let verdicts: RefCell<HashMap<&str, Verdict>> = RefCell::default();
        let mut in_hand = Vec::new();
        for life in 1..=4 {
            let worker = Arc::new(Slow {
                poison: Some(poison.to_owned()),
                ..Slow::default()
            });
            let dies = Arc::clone(&worker);
            let (_, mut desk) = bench.desk(&Life::until(0), None, worker);
            desk.trial = Some(trial(&store, life));
            let desk = Arc::new(desk);
            let open = |one: &&UserMessage| !verdicts.borrow().contains_key(one.message_id());
            let open: Vec<&UserMessage> = all.iter().filter(open).collect();
            in_hand.push(open.len());
            let works = open.into_iter().map(|one| {
                let work = Arc::clone(&desk).work(delivery(one, life > 1));
                let verdicts = &verdicts;
                async move {
                    let finished = work.await;
                    let id = one.message_id();
                    verdicts.borrow_mut().insert(id, finished.verdict);
                }
            });
            tokio::select! {
                _ = futures::future::join_all(works) => {}
                () = dies.killed.notified() => {}
            }
        }
        assert_eq!(in_hand, [20, 20, 20, 10], "alone after two processes");
        let verdicts = verdicts.into_inner();
        for one in &all {
            let id = one.message_id();
            let ends = match id == poison {
                true => Verdict::Parked,
                false => Verdict::Done,
            };
            assert_eq!(verdicts.get(id), Some(&ends));
        }
    });
}

/// Three nodes are drained, one after the other, while it waits under the rate limit: it was never sent.
#[test]
fn a_message_that_waits_for_its_turn_is_not_counted() {
    in_simulated_time(async {
        let store = simulated_store();
        let spec = json!({"rateLimit": {"rate": 1, "burst": 1}});
        let bench = Bench::new(&store, spec, false);
        let waits = message();
        for life in 1..=5 {
            let (_, mut desk) = bench.desk(&Life::until(0), None, Arc::new(Slow::default()));
            desk.trial = Some(trial(&store, life));
            let desk = Arc::new(desk);
            // It has the turn before.
            let first = Arc::clone(&desk).work(delivery(&message(), false)).await;
            assert_eq!(first.verdict, Verdict::Done);
            let work = desk.work(delivery(&waits, life > 1));
            if life < 5 {
                let killed = tokio::time::timeout(Duration::from_millis(500), work).await;
                assert!(killed.is_err(), "it waits");
            } else {
                assert_eq!(work.await.verdict, Verdict::Done);
            }
        }
    });
}

#[tokio::test]
async fn a_message_that_kills_again_and_again_is_set_aside_and_its_neighbours_are_not() {
    let store = store();
    let bench = Bench::new(&store, json!({}), false);
    let (poison, neighbour) = (message(), message());
    let work = async |message: &UserMessage, redelivered, last| {
        let life = Life::until(last);
        let worker = bench.transport(&life);
        let (_, mut desk) = bench.desk(&life, None, worker);
        desk.trial = Some(trial(&store, rand::random()));
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
    let lives = |life| trial(&store, life);
    let guilty = async |trial: &Trial| trial.begin("m", &|| false).await.unwrap().is_guilty();
    let first = lives(1);
    for _ in 0..5 {
        // Its channel was lost before the attempt was over.
        assert!(!guilty(&first).await);
    }
    assert!(!guilty(&lives(2)).await);
    assert!(guilty(&lives(3)).await);
}
