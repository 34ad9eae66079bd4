//! Lanes that move from one queue to another, because its division changed.

use super::journal::{NOW, add, bodies, claim, done, lane, list, text};
use super::{LONG, Source, unique};
use std::sync::Arc;
use vumi_core::state::StateStore;
use vumi_core::state::journal::{Due, Filter, Journal, Lane, Listed, Mover, Next};

/// Who may move lanes of this queue from now on.
async fn mover(store: &Arc<dyn StateStore>, queue: &str) -> Mover {
    let mover = Mover {
        queue: queue.to_owned(),
        token: unique("mover"),
    };
    store.appoint(&mover).await.expect("appoint");
    mover
}

/// Whoever was frozen with lanes to move, while another one was appointed, moves nothing.
pub async fn journal_moves_lanes_for_who_was_appointed_last(source: &impl Source) {
    let (store, queue) = (source.client().await, unique("q"));
    let (to, one) = (format!("{queue}.to"), lane("", 1));
    add(&store, &queue, &one, NOW, &["a"]).await;
    let (lanes, frozen) = ([one], mover(&store, &queue).await);
    let (other, successor) = (source.client().await, mover(&store, &queue).await);
    let nobody = Mover {
        queue: queue.clone(),
        token: unique("mover"),
    };
    for not_he in [&frozen, &nobody] {
        let moved = other.relocate(not_he, &queue, &to, &lanes).await;
        assert_eq!(moved.expect_err("it may not").code.name, "partitions.busy");
    }
    assert_eq!(
        bodies(&list(&store, &queue, Filter::default()).await),
        ["a"]
    );
    other.dismiss(&queue).await.expect("dismiss");
    let moved = store.relocate(&successor, &queue, &to, &lanes).await;
    assert_eq!(moved.expect_err("dismissed").code.name, "partitions.busy");
    store.appoint(&successor).await.expect("appoint");
    let moved = other.relocate(&successor, &queue, &to, &lanes).await;
    assert_eq!(moved.expect("it may"), 1);
    assert_eq!(bodies(&list(&store, &to, Filter::default()).await), ["a"]);
}

/// Lanes move to another queue as they are, behind what stands there; what is claimed stays.
pub async fn journal_relocates_lanes(source: &impl Source) {
    let (store, queue) = (source.client().await, unique("q"));
    let to = format!("{queue}.to");
    let (held, later, busy, both) = (lane("g", 1), lane("", 2), lane("", 3), lane("g", 4));
    add(&store, &to, &both, NOW, &["a"]).await;
    add(&store, &queue, &held, Due::Released, &["b", "c"]).await;
    add(&store, &queue, &later, Due::After(LONG), &["d"]).await;
    add(&store, &queue, &busy, NOW, &["e", "f"]).await;
    add(&store, &queue, &both, Due::Released, &["g", "h"]).await;
    let head = claim(&store, &queue, "").await.remove(0);
    let before = list(&store, &queue, Filter::default()).await;
    let all = [&held, &later, &busy, &both, &lane("", 99)].map(Clone::clone);
    let heads = store.heads(&queue, &all).await.expect("heads");
    let heads = heads.iter().map(|head| head.as_ref().map(|h| &h.body[..]));
    let expected: [Option<&[u8]>; 5] = [Some(b"b"), Some(b"d"), Some(b"e"), Some(b"g"), None];
    assert!(heads.eq(expected), "of each lane the first");
    let mover = mover(&store, &queue).await;
    let relocated = store.relocate(&mover, &queue, &to, &all);
    assert_eq!(relocated.await.expect("relocate"), 5);
    assert_eq!(
        bodies(&list(&store, &queue, Filter::default()).await),
        ["e", "f"]
    );
    let there = list(&store, &to, Filter::default()).await;
    let mut moved = bodies(&there);
    moved.sort();
    assert_eq!(moved, ["a", "b", "c", "d", "g", "h"]);
    let of = |lane: &Lane| {
        let of: Vec<Listed> = there.iter().filter(|l| l.lane == *lane).cloned().collect();
        assert!(of.is_sorted_by_key(|l| l.id), "numbers rise");
        (bodies(&of), of[0].due)
    };
    assert_eq!(of(&held), (vec!["b".to_owned(), "c".to_owned()], None));
    let was_due = before.iter().find(|l| l.lane == later).expect("listed").due;
    assert_eq!(of(&later), (vec!["d".to_owned()], was_due));
    assert_eq!(of(&both).0, ["a", "g", "h"]);
    let depth = store.depth(&to).await.expect("depth");
    assert_eq!((depth.messages, depth.lanes), (6, 3));
    let depth = store.depth(&queue).await.expect("depth");
    assert_eq!((depth.messages, depth.lanes), (2, 1));
    assert!(matches!(done(&store, &queue, &head).await, Next::Head(next) if text(&next) == "f"));
    let heads = claim(&store, &to, "g").await;
    assert_eq!(
        heads.iter().map(text).collect::<Vec<_>>(),
        ["a"],
        "as it was due there"
    );
    assert!(matches!(done(&store, &to, &heads[0]).await, Next::Head(next) if text(&next) == "g"));
    let released = Journal::release(&*store, &to, &Filter::default()).await;
    assert_eq!(released.expect("release"), 3);
    let heads = claim(&store, &to, "g").await;
    assert_eq!(heads.iter().map(text).collect::<Vec<_>>(), ["b"]);
    assert!(matches!(done(&store, &to, &heads[0]).await, Next::Head(next) if text(&next) == "c"));
}

/// Long lanes move in steps, behind what stands there or into a lane that is new, and keep their order and time.
pub async fn journal_relocates_long_lanes(source: &impl Source) {
    const LONG_LANE: usize = 2500;
    let (store, queue) = (source.client().await, unique("q"));
    let to = format!("{queue}.to");
    let (long, short, new) = (lane("", 1), lane("", 2), lane("g", 3));
    let names: Vec<String> = (0..LONG_LANE).map(|n| format!("{n:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    add(&store, &to, &long, NOW, &["first"]).await;
    for some in names.chunks(500) {
        add(&store, &queue, &long, NOW, some).await;
        add(&store, &queue, &new, Due::Released, some).await;
    }
    add(&store, &queue, &short, NOW, &["other"]).await;
    let all = [long.clone(), new.clone(), short];
    let mover = mover(&store, &queue).await;
    let relocated = store.relocate(&mover, &queue, &to, &all);
    let relocated = relocated.await.expect("relocate");
    assert_eq!(relocated, 2 * LONG_LANE as u64 + 1);
    let depth = store.depth(&queue).await.expect("depth");
    assert_eq!((depth.messages, depth.lanes), (0, 0));
    let there = async |lane: &Lane| {
        let filter = Filter {
            lane: Some(lane.number),
            ..Filter::default()
        };
        let there = store.list(&to, &filter, LONG_LANE + 2).await.expect("list");
        assert!(there.is_sorted_by_key(|l| l.id), "numbers rise");
        there
    };
    let long = bodies(&there(&long).await);
    assert_eq!(long[0], "first");
    assert_eq!(long[1..], names);
    let new = there(&new).await;
    assert_eq!(new[0].due, None);
    assert_eq!(bodies(&new), names);
}
