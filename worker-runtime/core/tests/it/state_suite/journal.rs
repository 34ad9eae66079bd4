//! The journal, sentence by sentence, and workers racing for its lanes.

use super::{LONG, PATIENCE, SOON, Source, unique, until};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use vumi_core::state::StateStore;
use vumi_core::state::journal::{
    About, Append, Cause, Claimed, Depth, Due, Entry, Filter, Journal, Lane, Listed, Next,
    Outgoing, Reason, Step,
};

pub const NOW: Due = Due::After(Duration::ZERO);

pub fn lane(group: &str, number: u64) -> Lane {
    Lane {
        group: group.to_owned(),
        number,
    }
}

pub fn entry(body: &str) -> Entry {
    Entry {
        about: About {
            reason: Reason::Backoff,
            since: 1_700_000_000_000,
            attempts: 1,
            counted: 0,
            code: "peer.timeout".into(),
            text: "it did not answer".into(),
            routing_key: "sms.outbound".into(),
            amqp_message_id: Some(format!("id of {body}")),
        },
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

pub fn append(lane: &Lane, due: Due, body: &str) -> Append {
    Append {
        lane: lane.clone(),
        due,
        entry: entry(body),
    }
}

pub fn text(claimed: &Claimed) -> String {
    String::from_utf8_lossy(&claimed.entry.body).into_owned()
}

pub async fn add(store: &Arc<dyn StateStore>, queue: &str, lane: &Lane, due: Due, bodies: &[&str]) {
    let messages = bodies.iter().map(|body| append(lane, due, body)).collect();
    store.append(queue, messages).await.expect("append");
}

pub async fn claim(store: &Arc<dyn StateStore>, queue: &str, group: &str) -> Vec<Claimed> {
    store.claim(queue, group, 100, LONG).await.expect("claim")
}

pub async fn done(store: &Arc<dyn StateStore>, queue: &str, head: &Claimed) -> Next {
    let step = store.step(queue, &head.lane, head.id, Step::Done, LONG);
    step.await.expect("step")
}

/// Takes messages out and forgets them.
pub async fn remove(
    store: &Arc<dyn StateStore>,
    queue: &str,
    filter: &Filter,
    limit: usize,
) -> Vec<Outgoing> {
    let withdrawn = store
        .withdraw(queue, filter, limit, Cause::Dropped, LONG)
        .await
        .expect("withdraw");
    let ids: Vec<u64> = withdrawn.taken.iter().map(|taken| taken.id).collect();
    store.forget(queue, &ids).await.expect("forget");
    withdrawn.taken
}

pub async fn list(store: &Arc<dyn StateStore>, queue: &str, filter: Filter) -> Vec<Listed> {
    store.list(queue, &filter, 100).await.expect("list")
}

pub fn bodies(listed: &[Listed]) -> Vec<String> {
    let text = |l: &Listed| String::from_utf8_lossy(&l.entry.body).into_owned();
    listed.iter().map(text).collect()
}

pub async fn journal_gives_back_what_it_was_given_in_order(source: &impl Source) {
    let (store, queue) = (source.client().await, unique("q"));
    let (one, two) = (lane("", 1), lane("", u64::MAX));
    store.append(&queue, Vec::new()).await.expect("nothing");
    assert_eq!(store.depth(&queue).await.expect("depth"), Depth::default());
    let binary = Append {
        lane: two.clone(),
        due: NOW,
        entry: Entry {
            body: Bytes::from_static(b"\0\xff\n"),
            ..entry("")
        },
    };
    let mixed = vec![
        append(&one, NOW, "a"),
        binary.clone(),
        append(&one, NOW, "b"),
    ];
    store.append(&queue, mixed).await.expect("append");
    add(&store, &queue, &one, NOW, &["c"]).await;
    let depth = store.depth(&queue).await.expect("depth");
    assert_eq!((depth.messages, depth.lanes), (4, 2));
    let lanes: BTreeSet<Lane> = store
        .lanes(&queue)
        .await
        .expect("lanes")
        .into_iter()
        .collect();
    assert_eq!(lanes, [one.clone(), two.clone()].into());
    assert_eq!(store.groups(&queue).await.expect("groups"), [""]);
    assert!(store.queues().await.expect("queues").contains(&queue));

    let heads = claim(&store, &queue, "").await;
    assert_eq!(heads.len(), 2);
    for head in heads {
        if head.lane == two {
            assert_eq!(head.entry, binary.entry);
            assert_eq!(done(&store, &queue, &head).await, Next::Empty);
            continue;
        }
        assert_eq!(head.entry, entry("a"));
        let Next::Head(second) = done(&store, &queue, &head).await else {
            panic!("b follows");
        };
        assert_eq!((text(&second).as_str(), &second.lane), ("b", &one));
        let Next::Head(third) = done(&store, &queue, &second).await else {
            panic!("c follows");
        };
        assert_eq!(text(&third), "c");
        assert!(head.id < second.id && second.id < third.id);
        assert_eq!(done(&store, &queue, &third).await, Next::Empty);
    }
    assert_eq!(store.depth(&queue).await.expect("depth"), Depth::default());
    assert!(store.lanes(&queue).await.expect("lanes").is_empty());
    assert!(store.groups(&queue).await.expect("groups").is_empty());
    assert!(!store.queues().await.expect("queues").contains(&queue));
}

pub async fn journal_lane_keeps_its_time(source: &impl Source) {
    let (store, queue) = (source.client().await, unique("q"));
    let (later, sooner, never) = (lane("", 1), lane("", 2), lane("", 3));
    add(&store, &queue, &later, Due::After(LONG), &["a"]).await;
    add(&store, &queue, &later, NOW, &["b"]).await;
    add(&store, &queue, &never, Due::Released, &["n"]).await;
    add(&store, &queue, &never, NOW, &["m"]).await;
    assert!(claim(&store, &queue, "").await.is_empty());
    add(&store, &queue, &sooner, Due::After(SOON), &["c"]).await;
    let begun = std::time::Instant::now();
    let heads = until("the lane is due", || async {
        Some(claim(&store, &queue, "").await).filter(|heads| !heads.is_empty())
    })
    .await;
    assert!(begun.elapsed() >= SOON / 2, "not before its time");
    assert_eq!(heads.iter().map(text).collect::<Vec<_>>(), ["c"]);
}

pub async fn journal_claims_longest_due_first(source: &impl Source) {
    let (store, queue) = (source.client().await, unique("q"));
    for (number, seconds) in [(1, 10), (2, 30), (3, 20), (4, 40)] {
        let past = SystemTime::now() - Duration::from_secs(seconds);
        add(&store, &queue, &lane("", number), Due::At(past), &["x"]).await;
    }
    let mut order = Vec::new();
    for limit in [0, 2, 1, 5] {
        let heads = store.claim(&queue, "", limit, LONG).await.expect("claim");
        assert!(heads.len() <= limit);
        order.extend(heads.iter().map(|head| head.lane.number));
    }
    assert_eq!(order, [4, 2, 3, 1]);
}

pub async fn journal_claim_excludes_others_until_it_ends(source: &impl Source) {
    let (store, other, queue) = (source.client().await, source.client().await, unique("q"));
    add(&store, &queue, &lane("", 1), NOW, &["a", "b"]).await;
    let first = store.claim(&queue, "", 10, SOON).await.expect("claim");
    assert_eq!(first.len(), 1);
    assert!(claim(&other, &queue, "").await.is_empty());
    add(&store, &queue, &lane("", 1), NOW, &["c"]).await;
    assert!(claim(&other, &queue, "").await.is_empty(), "appended to");
    let again = until("the claim ends", || async {
        Some(claim(&other, &queue, "").await).filter(|heads| !heads.is_empty())
    })
    .await;
    let late = |head: &Claimed| Claimed {
        again: true,
        ..head.clone()
    };
    assert!(!first[0].again);
    assert_eq!(again, [late(&first[0])]);
    // Each step claims the next head for as long as it says.
    let step = other.step(&queue, &again[0].lane, again[0].id, Step::Done, SOON);
    let Next::Head(next) = step.await.expect("step") else {
        panic!("b follows");
    };
    let again = until("the claim of the step ends", || async {
        Some(claim(&store, &queue, "").await).filter(|heads| !heads.is_empty())
    })
    .await;
    assert!(!next.again);
    assert_eq!(again, [late(&next)]);
}

/// Only what nobody ended is claimed again: whoever had it may have died of it.
pub async fn journal_claim_says_what_was_claimed_before(source: &impl Source) {
    let (store, queue) = (source.client().await, unique("q"));
    let (only, other) = (lane("", 1), lane("", 2));
    add(&store, &queue, &only, NOW, &["a"]).await;
    let now = async || claim(&store, &queue, "").await.remove(0);
    assert!(!now().await.again);
    let given_back = [only.clone(), other.clone()];
    let renewed = store.renew(&queue, &given_back, Duration::ZERO).await;
    renewed.expect("given back");
    assert!(!now().await.again);
    store.reclaim(&queue).await.expect("reclaim");
    let head = now().await;
    assert!(!head.again);
    let step = Step::Again(head.entry.about, NOW);
    let waits = store.step(&queue, &only, head.id, step, LONG).await;
    assert_eq!(waits.expect("step"), Next::Waits);
    assert!(!now().await.again);
    store.reclaim(&queue).await.expect("reclaim");
    let brief = store.claim(&queue, "", 10, SOON).await.expect("claim");
    assert!(!brief[0].again);
    add(&store, &queue, &other, NOW, &["b"]).await;
    let found = Mutex::new(BTreeMap::new());
    until("the claim ends", || async {
        let heads = claim(&store, &queue, "").await;
        let mut found = found.lock().expect("found");
        found.extend(heads.iter().map(|head| (text(head), head.again)));
        (found.len() == 2).then_some(())
    })
    .await;
    let found = found.into_inner().expect("found");
    let expected = [("a".to_owned(), true), ("b".to_owned(), false)];
    assert_eq!(found, BTreeMap::from(expected));
}

pub async fn journal_renew_prolongs_claims(source: &impl Source) {
    let (store, queue) = (source.client().await, unique("q"));
    let (one, two, free) = (lane("", 1), lane("", 2), lane("", 3));
    add(&store, &queue, &one, NOW, &["a"]).await;
    add(&store, &queue, &two, NOW, &["b"]).await;
    assert_eq!(
        store
            .claim(&queue, "", 10, SOON * 2)
            .await
            .expect("claim")
            .len(),
        2
    );
    add(&store, &queue, &free, Due::After(SOON), &["c"]).await;
    let lanes = [one, free, lane("", 99)];
    store.renew(&queue, &lanes, LONG).await.expect("renew");
    let found = Mutex::new(Vec::new());
    until("the others are due", || async {
        let heads = claim(&store, &queue, "").await;
        let mut found = found.lock().expect("found");
        found.extend(heads.iter().map(text));
        (found.len() == 2).then_some(())
    })
    .await;
    let mut found = found.into_inner().expect("found");
    found.sort();
    assert_eq!(found, ["b", "c"], "what is not claimed is not prolonged");
}

pub async fn journal_reclaim_ends_claims(source: &impl Source) {
    let (store, queue, other) = (source.client().await, unique("q"), unique("q"));
    for queue in [&queue, &other] {
        add(&store, queue, &lane("", 1), NOW, &["a"]).await;
        add(&store, queue, &lane("g", 1), NOW, &["b"]).await;
        assert_eq!(claim(&store, queue, "").await.len(), 1);
        assert_eq!(claim(&store, queue, "g").await.len(), 1);
    }
    add(&store, &queue, &lane("", 2), Due::After(LONG), &["c"]).await;
    store.reclaim(&queue).await.expect("reclaim");
    assert_eq!(
        claim(&store, &queue, "")
            .await
            .iter()
            .map(text)
            .collect::<Vec<_>>(),
        ["a"]
    );
    assert_eq!(
        claim(&store, &queue, "g")
            .await
            .iter()
            .map(text)
            .collect::<Vec<_>>(),
        ["b"]
    );
    assert!(claim(&store, &other, "").await.is_empty());
}

pub async fn journal_again_keeps_the_place_and_the_body(source: &impl Source) {
    let (store, queue, only) = (source.client().await, unique("q"), lane("", 1));
    add(&store, &queue, &only, NOW, &["a", "b"]).await;
    let head = claim(&store, &queue, "").await.remove(0);
    let about = About {
        reason: Reason::Throttle,
        attempts: 2,
        ..head.entry.about.clone()
    };
    let again = |due| {
        store.step(
            &queue,
            &only,
            head.id,
            Step::Again(about.clone(), due),
            LONG,
        )
    };
    assert_eq!(again(NOW).await.expect("step"), Next::Waits);
    let second = claim(&store, &queue, "").await.remove(0);
    assert_eq!((second.id, &second.entry.about), (head.id, &about));
    assert_eq!(second.entry.body, head.entry.body);
    assert_eq!(again(Due::After(LONG)).await.expect("step"), Next::Waits);
    assert!(claim(&store, &queue, "").await.is_empty());
    assert_eq!(again(Due::Released).await.expect("step"), Next::Waits);
    assert!(claim(&store, &queue, "").await.is_empty());
    assert_eq!(store.next_due(&queue).await.expect("next due"), None);
    assert_eq!(
        Journal::release(&*store, &queue, &Filter::default())
            .await
            .expect("release"),
        1
    );
    let third = claim(&store, &queue, "").await.remove(0);
    assert_eq!(third, second);
    assert!(matches!(done(&store, &queue, &third).await, Next::Head(next) if text(&next) == "b"));
}

pub async fn journal_step_of_another_head_changes_nothing(source: &impl Source) {
    let (store, queue, only) = (source.client().await, unique("q"), lane("", 1));
    add(&store, &queue, &only, NOW, &["a", "b"]).await;
    let head = claim(&store, &queue, "").await.remove(0);
    let nowhere = Claimed {
        lane: lane("", 2),
        ..head.clone()
    };
    assert_eq!(done(&store, &queue, &nowhere).await, Next::Moved);
    let Next::Head(second) = done(&store, &queue, &head).await else {
        panic!("b follows");
    };
    let before = list(&store, &queue, Filter::default()).await;
    assert_eq!(done(&store, &queue, &head).await, Next::Moved);
    let about = head.entry.about.clone();
    let step = store.step(&queue, &only, head.id, Step::Again(about, NOW), LONG);
    assert_eq!(step.await.expect("step"), Next::Moved);
    assert_eq!(list(&store, &queue, Filter::default()).await, before);
    assert!(claim(&store, &queue, "").await.is_empty(), "still claimed");
    assert_eq!(done(&store, &queue, &second).await, Next::Empty);
    assert_eq!(done(&store, &queue, &second).await, Next::Moved);
}

pub async fn journal_tells_when_the_next_lane_is_due(source: &impl Source) {
    let (store, queue) = (source.client().await, unique("q"));
    let next = async || store.next_due(&queue).await.expect("next due");
    assert_eq!(next().await, None);
    add(&store, &queue, &lane("", 1), Due::Released, &["a"]).await;
    assert_eq!(next().await, None);
    add(&store, &queue, &lane("", 2), Due::After(2 * LONG), &["b"]).await;
    let told = next().await.expect("b");
    assert!(told <= 2 * LONG && told > LONG, "{told:?}");
    add(&store, &queue, &lane("g", 3), Due::After(LONG), &["c"]).await;
    let told = next().await.expect("c");
    assert!(told <= LONG && told > LONG - PATIENCE, "{told:?}");
    add(&store, &queue, &lane("h", 4), NOW, &["d"]).await;
    assert_eq!(next().await, Some(Duration::ZERO));
    let lease = LONG / 2;
    assert_eq!(
        store
            .claim(&queue, "h", 1, lease)
            .await
            .expect("claim")
            .len(),
        1
    );
    let told = next().await.expect("the claim's end");
    assert!(told <= lease && told > lease - PATIENCE, "{told:?}");
}

/// Five thousand questions after one lane each, beside twenty thousand others: nobody may look through all of them.
pub async fn journal_finds_one_lane_among_many(source: &impl Source) {
    let (store, queue) = (source.client().await, unique("q"));
    let place = |n: u64| lane("", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let all: Vec<Append> = (0..20_000)
        .map(|n| append(&place(n), Due::After(LONG), &n.to_string()))
        .collect();
    for some in all.chunks(100) {
        store.append(&queue, some.to_vec()).await.expect("append");
    }
    let begun = std::time::Instant::now();
    for n in 0..5000 {
        let filter = Filter {
            group: Some(String::new()),
            lane: Some(place(n).number),
            ..Filter::default()
        };
        let found = store.list(&queue, &filter, 1).await.expect("list");
        assert_eq!(bodies(&found), [n.to_string()]);
        assert!(begun.elapsed() < PATIENCE, "{n} in {PATIENCE:?}");
    }
}

pub async fn journal_keeps_queues_and_groups_apart(source: &impl Source) {
    let (store, queue) = (source.client().await, unique("q"));
    let longer = format!("{queue}x");
    for (queue, group) in [
        (&queue, ""),
        (&queue, "g"),
        (&queue, "gx"),
        (&longer, ""),
        (&longer, "xg"),
    ] {
        let body = format!("{}{group}", queue.len());
        add(&store, queue, &lane(group, 7), NOW, &[&body]).await;
    }
    let short = queue.len();
    for (queue, group, body) in [
        (&queue, "g", format!("{short}g")),
        (&queue, "", format!("{short}")),
        (&longer, "", format!("{}", short + 1)),
    ] {
        let heads = claim(&store, queue, group).await;
        assert_eq!(heads.iter().map(text).collect::<Vec<_>>(), [body]);
        assert_eq!(heads[0].lane, lane(group, 7));
    }
    assert_eq!(store.groups(&queue).await.expect("groups").len(), 3);
    assert_eq!(store.depth(&longer).await.expect("depth").messages, 2);
    let all = Filter::default();
    store.reclaim(&longer).await.expect("reclaim");
    assert_eq!(remove(&store, &longer, &all, 9).await.len(), 2);
    assert_eq!(store.depth(&queue).await.expect("depth").messages, 3);
}

/// Workers of two clients race for lanes that grow meanwhile: every message once, in order, never two of a lane at once.
pub async fn journal_gives_one_head_to_one_worker(source: &impl Source) {
    const LANES: u64 = 7;
    const EACH: u64 = 40;
    let queue = Arc::new(unique("q"));
    let clients = [source.client().await, source.client().await];
    let done: Arc<Mutex<BTreeMap<u64, Vec<u64>>>> = Arc::default();
    let working: Arc<Mutex<BTreeSet<u64>>> = Arc::default();
    let mut tasks = tokio::task::JoinSet::new();
    let (filler, target) = (Arc::clone(&clients[0]), Arc::clone(&queue));
    tasks.spawn(async move {
        for n in 0..EACH {
            let messages = (0..LANES).map(|l| append(&lane("", l), NOW, &n.to_string()));
            let messages = messages.collect();
            filler.append(&target, messages).await.expect("append");
        }
    });
    for worker in 0..6 {
        let store = Arc::clone(&clients[worker % 2]);
        let (queue, done) = (Arc::clone(&queue), Arc::clone(&done));
        let working = Arc::clone(&working);
        let mut dice = super::Dice::new(worker as u64 + 1);
        tasks.spawn(async move {
            let total = || {
                done.lock()
                    .expect("done")
                    .values()
                    .map(Vec::len)
                    .sum::<usize>()
            };
            while total() < (LANES * EACH) as usize {
                let heads = store.claim(&queue, "", 2, LONG).await.expect("claim");
                for mut head in heads {
                    loop {
                        let number = head.lane.number;
                        assert!(
                            working.lock().expect("working").insert(number),
                            "two at once"
                        );
                        tokio::task::yield_now().await;
                        working.lock().expect("working").remove(&number);
                        if dice.roll(5) == 0 {
                            let about = head.entry.about.clone();
                            let step = Step::Again(about, NOW);
                            let next = store.step(&queue, &head.lane, head.id, step, LONG).await;
                            assert_eq!(next.expect("step"), Next::Waits);
                            break;
                        }
                        let n = text(&head).parse().expect("a number");
                        done.lock()
                            .expect("done")
                            .entry(number)
                            .or_default()
                            .push(n);
                        let step = store.step(&queue, &head.lane, head.id, Step::Done, LONG);
                        match step.await.expect("step") {
                            Next::Head(next) => head = next,
                            Next::Empty => break,
                            other => panic!("{other:?}"),
                        }
                    }
                }
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("no task fails");
    }
    let done = std::mem::take(&mut *done.lock().expect("done"));
    assert_eq!(done.len(), LANES as usize);
    for lane in done.values() {
        assert_eq!(*lane, (0..EACH).collect::<Vec<_>>());
    }
    let depth = clients[0].depth(&queue).await.expect("depth");
    assert_eq!(depth, Depth::default());
}
