//! What concerns a store as a whole: erasing a person, sweeping, health and the end.

use super::journal::{NOW, append, lane, remove};
use super::ledger::step;
use super::{LONG, PATIENCE, SOON, Source, now, sweep_all, unique};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use vumi_core::error::ErrorClass;
use vumi_core::message::UserMessage;
use vumi_core::state::first_seen::Reserved;
use vumi_core::state::journal::{Cause, Filter, Next, Step};
use vumi_core::state::ledger::{Note, Query, Row};
use vumi_core::state::sessions::Session;
use vumi_core::state::{Person, StateStore, StoreHealth};

/// A message between two addresses: its id, its body.
fn message(from: &str, to: &str) -> (String, Bytes) {
    let message = UserMessage::new("sms", Some(to), Some(from));
    (message.message_id().to_owned(), message.encode())
}

pub async fn erase_removes_one_person_everywhere(source: &impl Source) {
    let store: Arc<dyn StateStore> = source.client().await;
    let digits = format!("27{}", now());
    let (address, stranger) = (format!("+{digits}"), unique("28"));
    let person = Person::new(&address);
    let (queue, account, scope) = (unique("q"), unique("sms"), unique("ussd"));
    // A session under either spelling and one under the key, messages from and for the person, an event about one of them.
    let key = person.key();
    for user in [&address, &digits, &key, &stranger] {
        store
            .create(&scope, user, Session::new(), Some(LONG))
            .await
            .expect("create");
        let begun = store.begin(&scope, user, LONG);
        begun.await.expect("begin");
    }
    let (own, from) = message(&address, &stranger);
    let (_, to) = message("8000", &digits);
    let (others, other) = message("8000", &stranger);
    let event = format!("{{\"user_message_id\": \"{own}\"}}");
    for body in [
        from,
        to,
        other,
        event.into(),
        Bytes::from_static(b"not json"),
    ] {
        let mut one = append(&lane("", 1), NOW, "");
        one.entry.body = body;
        store.append(&queue, vec![one]).await.expect("append");
    }
    // One that somebody drops at this moment.
    let mut leaving = append(&lane("leaving", 1), NOW, "");
    leaving.entry.body = message("8000", &address).1;
    let append = store.append(&queue, vec![leaving]);
    append.await.expect("append");
    let filter = Filter {
        group: Some("leaving".into()),
        ..Filter::default()
    };
    let withdrawn = store.withdraw(&queue, &filter, 9, Cause::Dropped, LONG);
    assert_eq!(withdrawn.await.expect("withdraw").taken.len(), 1);
    for (id, person) in [
        (&own, Some(person.key())),
        (&others, Some(Person::new(&stranger).key())),
    ] {
        let mut row = Row::new(id, &account, now());
        row.person = person.clone();
        store.put(&row, None, LONG).await.expect("put");
        let note = Note {
            message_id: id.clone(),
            person,
            step: step(now(), "passed"),
        };
        store.note(&[note], LONG).await.expect("note");
        store.suspect(&queue, id, 1, LONG).await.expect("suspect");
    }
    for (id, who) in [("1", &person), ("2", &Person::new(&stranger))] {
        let answer = Bytes::from_static(b"welcome");
        store
            .commit(&scope, id, answer, Some(who), LONG, 100)
            .await
            .expect("commit");
    }
    let erased = store.erase(&person).await.expect("erase");
    let count = |what: &str| erased.iter().find(|e| e.what == what).map(|e| e.count);
    assert_eq!(count("sessions"), Some(6), "{erased:?}");
    assert_eq!(count("journal"), Some(4), "one on its way out: {erased:?}");
    assert_eq!(count("ledger"), Some(2), "a row and a trail: {erased:?}");
    assert_eq!(count("firstSeen"), Some(1), "{erased:?}");
    assert_eq!(count("suspects"), Some(1), "{erased:?}");
    assert!(
        store
            .find(&Query::Person(person.key()), 9)
            .await
            .expect("find")
            .is_empty()
    );
    assert!(
        store
            .find(&Query::Message(own.clone()), 9)
            .await
            .expect("find")
            .is_empty()
    );
    assert_eq!(
        store.active(&scope, 9).await.expect("active"),
        vec![stranger.clone()]
    );
    let left = store
        .list(&queue, &Filter::default(), 9)
        .await
        .expect("list");
    assert_eq!(left.len(), 2);
    for one in left {
        let text = String::from_utf8_lossy(&one.entry.body).into_owned();
        assert!(!text.contains(&digits), "{text}");
    }
    assert_eq!(
        store.reserve(&scope, "1", LONG).await.expect("reserve"),
        Reserved::First
    );
    assert!(store.row(&others).await.expect("row").is_some());
    assert_eq!(store.trail(&others).await.expect("trail").len(), 1);
    assert_eq!(
        store.suspect(&queue, &own, 1, LONG).await.expect("suspect"),
        1
    );
    assert_eq!(
        store
            .suspect(&queue, &others, 2, LONG)
            .await
            .expect("suspect"),
        2
    );
    let again = store.erase(&person).await.expect("erase");
    let nothing = again
        .iter()
        .filter(|e| e.what != "suspects")
        .all(|e| e.count == 0);
    assert!(nothing, "{again:?}");
    // The lane goes on with what is left.
    let head = store
        .claim(&queue, "", 1, LONG)
        .await
        .expect("claim")
        .remove(0);
    let next = store
        .step(&queue, &head.lane, head.id, Step::Done, LONG)
        .await;
    assert!(matches!(next.expect("step"), Next::Head(_)));
}

/// More than one sweep's worth of every kind goes, and nothing else.
pub async fn sweep_removes_what_ended_and_no_more(source: &impl Source) {
    let (store, scope) = (source.client().await, unique("ussd"));
    let person = unique("person");
    for n in 0..300 {
        let keep = if n % 3 == 0 { LONG } else { SOON };
        let user = n.to_string();
        store
            .create(&scope, &user, Session::new(), Some(keep))
            .await
            .expect("create");
        store
            .commit(&scope, &user, Bytes::new(), None, keep, 1000)
            .await
            .expect("commit");
        let note = Note {
            message_id: format!("{scope}/{n}"),
            person: Some(person.clone()),
            step: step(n, "passed"),
        };
        store.note(&[note], keep).await.expect("note");
    }
    tokio::time::sleep(SOON * 2).await;
    sweep_all(&store).await;
    assert_eq!(store.active(&scope, 1000).await.expect("active").len(), 100);
    let found = store
        .find(&Query::Person(person), 1000)
        .await
        .expect("find");
    assert_eq!(found.len(), 100);
    for n in 0..300 {
        let found = store
            .reserve(&scope, &n.to_string(), LONG)
            .await
            .expect("reserve");
        assert_eq!(found == Reserved::First, n % 3 != 0, "{n}");
    }
}

/// A burst of operations at once, each of them done once.
pub async fn many_operations_at_once(source: &impl Source) {
    let clients = [source.client().await, source.client().await];
    let queue = unique("q");
    let begin = std::time::Instant::now();
    for round in 0..5u64 {
        let all = (0..200u64).map(|n| {
            let (store, queue) = (&clients[n as usize % 2], &queue);
            let one = append(&lane("", n), NOW, &format!("{round}/{n}"));
            async move { store.append(queue, vec![one]).await }
        });
        for one in futures::future::join_all(all).await {
            one.expect("append");
        }
    }
    let depth = clients[0].depth(&queue).await.expect("depth");
    assert_eq!((depth.messages, depth.lanes), (1000, 200));
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
    let removed = remove(&clients[1], &queue, &Filter::default(), 2000).await;
    assert_eq!(removed.len(), 1000);
}

pub async fn names_of_any_kind_are_names(source: &impl Source) {
    let store = source.client().await;
    let odd = format!("{}\0 :*\"{{}}\u{1f600}\n", unique("x"));
    store
        .create(&odd, &odd, Session::new(), None)
        .await
        .expect("create");
    assert_eq!(
        store.active(&odd, 9).await.expect("active"),
        vec![odd.clone()]
    );
    assert!(store.clear(&odd, &odd).await.expect("clear").is_some());
    let one = append(&lane(&odd, 1), NOW, "a");
    store.append(&odd, vec![one]).await.expect("append");
    assert_eq!(store.groups(&odd).await.expect("groups"), vec![odd.clone()]);
    assert_eq!(
        store.claim(&odd, &odd, 9, LONG).await.expect("claim").len(),
        1
    );
    let row = Row::new(&odd, &odd, now());
    store.put(&row, None, LONG).await.expect("put");
    assert_eq!(store.row(&odd).await.expect("row"), Some(row));
    assert_eq!(
        store
            .find(&Query::Message(odd.clone()), 9)
            .await
            .expect("find"),
        vec![odd.clone()]
    );
}

pub async fn a_closed_client_refuses_and_says_so(source: &impl Source) {
    let store = source.client().await;
    assert!(!store.describe().is_empty());
    assert_eq!(*store.health().borrow(), StoreHealth::Up);
    let queue = unique("q");
    let one = append(&lane("", 1), NOW, "a");
    store
        .append(&queue, vec![one.clone()])
        .await
        .expect("append");
    store.close(PATIENCE).await;
    store.close(Duration::ZERO).await;
    let refused = async {
        let errors = [
            store.append(&queue, vec![one]).await.err(),
            store.depth(&queue).await.err(),
            store.load("scope", "user").await.err(),
            store.sweep().await.err(),
        ];
        for error in errors {
            assert_eq!(error.expect("closed").class, ErrorClass::Connect);
        }
    };
    tokio::time::timeout(PATIENCE / 2, refused)
        .await
        .expect("nothing hangs");
}
