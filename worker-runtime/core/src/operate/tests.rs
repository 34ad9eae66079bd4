//! What operators ask, of a store and a broker that were filled as the engine fills them.

mod journal;
mod parked;

use super::*;
use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use crate::broker::{Access, QueueSpec, RawDelivery, Subscribe};
use crate::message::{Event, EventType, UserMessage};
use crate::parking::{self, Envelope, Selection};
use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::state::journal::{About, Append, Cause, Due, Entry, Lane, Reason};
use crate::state::ledger::{Change, Content, Note, Put, Step};
use bytes::Bytes;

const QUEUE: &str = "sms.outbound";
const HOUR: Duration = Duration::from_secs(3600);
const USER: &str = "+27820001111";

struct World {
    store: Arc<dyn StateStore>,
    broker: Arc<dyn Broker>,
    reach: Reach,
}

impl World {
    fn new() -> Self {
        let store: Arc<dyn StateStore> =
            EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap();
        let broker = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
        let consumed = Consumed {
            broker: Some(Arc::clone(&broker)),
            store: Some(0),
            keep: HOUR,
            worker: String::new(),
            journal: None,
            classes: Some(false),
            only_answers: false,
        };
        let reach = Reach {
            stores: vec![Arc::clone(&store)],
            queues: BTreeMap::from([(QUEUE.to_owned(), consumed)]),
            in_flight: Some(BTreeMap::new()),
        };
        Self {
            store,
            broker,
            reach,
        }
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, ask: Ask) -> T {
        // As it travels over the control socket.
        let ask = serde_json::from_value(json!(ask)).expect("read as it was written");
        let value = answer(&self.reach, ask).await.expect("answered");
        serde_json::from_value(value).expect("an answer of this kind")
    }

    /// A message with a row, moved through these states.
    async fn row(&self, id: &str, states: &[RowState], told: &[&Event]) -> Row {
        let mut row = Row::new(id, "sms", 1_000);
        row.person = Some(Person::new(USER).key());
        for (number, state) in states.iter().enumerate() {
            let before = row.version;
            row = row
                .after(change(*state, 1_000 + number as u64, told))
                .unwrap();
            let expected = (before > 0).then_some(before);
            let put = self.store.put(&row, expected, HOUR).await.unwrap();
            assert_eq!(put, Put::Stored);
        }
        row
    }

    async fn wait(&self, id: &str, to: &str, reason: Reason) {
        self.wait_since(id, to, reason, 1_000).await;
    }

    async fn wait_since(&self, id: &str, to: &str, reason: Reason, since: u64) {
        self.wait_in(QUEUE, id, to, reason, since).await;
    }

    async fn wait_in(&self, queue: &str, id: &str, to: &str, reason: Reason, since: u64) {
        let lane = Lane {
            group: String::new(),
            number: Person::new(to).lane(),
        };
        let message = Append {
            lane,
            due: Due::After(HOUR),
            entry: Entry {
                about: About {
                    reason,
                    since,
                    attempts: 2,
                    counted: 0,
                    code: "peer.timeout".into(),
                    text: "no answer".into(),
                    routing_key: queue.into(),
                    amqp_message_id: None,
                },
                body: message(id, to),
            },
        };
        self.store.append(queue, vec![message]).await.unwrap();
    }

    async fn park(&self, id: &str) {
        self.park_ago(id, Duration::ZERO).await;
    }

    async fn park_ago(&self, id: &str, ago: Duration) {
        let delivery = RawDelivery {
            tag: 1,
            generation: 1,
            redelivered: false,
            routing_key: QUEUE.into(),
            body: message(id, USER),
            message_id: None,
            delivery_count: None,
        };
        let error = WorkError::new(ErrorClass::Bug, codes::BUG_PANIC, "it panicked");
        let mut envelope = Envelope::new(QUEUE, &delivery, &error, "transport/sms", 3);
        envelope.time -= ago.as_secs_f64();
        let queue = QueueSpec::Parking(parking::parked_queue(QUEUE));
        self.broker.declare(&queue).await.unwrap();
        let receipt = self.broker.publish(envelope.publication()).await;
        let confirmed = receipt.confirmation().await;
        assert_eq!(confirmed, crate::broker::Confirmation::Confirmed);
    }

    /// Events that senders got, in order.
    async fn events(&self, count: usize) -> Vec<Event> {
        let mut subscription = self
            .broker
            .subscribe(Subscribe {
                queue: QueueSpec::Data("sms.event".into()),
                prefetch: 100,
                access: Access::Shared,
                tag: "test".into(),
            })
            .await;
        let mut events = Vec::new();
        while events.len() < count {
            let delivery = tokio::time::timeout(HOUR, subscription.deliveries.recv()).await;
            let delivery = delivery.unwrap().expect("a delivery");
            events.push(Event::decode(&delivery.body).unwrap());
        }
        let depth = self.broker.depth("sms.event").await.unwrap();
        assert_eq!(depth.map(|depth| depth.ready), Some(0), "and no more");
        events
    }
}

fn message(id: &str, to: &str) -> Bytes {
    let mut message = UserMessage::new("sms", Some(to), Some("12345"));
    message.set_message_id(id);
    message.set_content(Some("my secret"));
    message.encode()
}

fn step(at: u64, worker: &str, text: &str, caused: &[&str]) -> Step {
    Step {
        at,
        worker: worker.into(),
        state: None,
        attempt: 1,
        code: String::new(),
        class: String::new(),
        text: text.into(),
        who: String::new(),
        caused: caused.iter().map(|id| (*id).to_owned()).collect(),
        holder: None,
    }
}

fn change(state: RowState, at: u64, told: &[&Event]) -> Change {
    let text = |event: &&Event| String::from_utf8(event.encode().to_vec()).unwrap();
    Change {
        step: step(at, "transport/sms", "went on", &[]),
        state,
        patience: Duration::from_secs(60),
        remote_id: None,
        told: told.iter().map(text).collect(),
    }
}

fn all() -> Filter {
    Filter::default()
}

fn list(queue: Option<&str>, filter: Filter) -> Ask {
    Ask::JournalList {
        queue: queue.map(str::to_owned),
        filter,
        limit: 10,
    }
}

#[tokio::test]
async fn an_audit_is_balanced_until_a_message_is_gone() {
    let world = World::new();
    world
        .row("held", &[RowState::Sending, RowState::Held], &[])
        .await;
    world
        .row("parked", &[RowState::Sending, RowState::Parked], &[])
        .await;
    world
        .row("sent", &[RowState::Sending, RowState::Sent], &[])
        .await;
    world
        .row("done", &[RowState::Sending, RowState::Delivered], &[])
        .await;
    world.wait("held", USER, Reason::Backoff).await;
    world.wait("not-taken-over", USER, Reason::Behind).await;
    world.park("parked").await;
    let balances: Vec<Balance> = world.ask(Ask::LedgerAudit).await;
    let [balance] = &balances[..] else {
        panic!("one transport: {balances:?}");
    };
    assert_eq!((balance.account.as_str(), balance.imbalance()), ("sms", 0));
    assert!(balance.at_rest, "{balance:?}");
    assert_eq!(balance.found.journal.without_row, 1);
    // A person removes both behind the ledger's back.
    let filter = all();
    let withdrawn = world
        .store
        .withdraw(QUEUE, &filter, 10, Cause::Dropped, HOUR);
    let removed: Vec<u64> = withdrawn
        .await
        .unwrap()
        .taken
        .iter()
        .map(|o| o.id)
        .collect();
    assert_eq!(removed.len(), 2);
    let balances: Vec<Balance> = world.ask(Ask::LedgerAudit).await;
    assert_eq!(balances[0].missing, 0, "it is on its way out");
    world.store.forget(QUEUE, &removed).await.unwrap();
    let gone = parking::of_person(&*world.broker, QUEUE, &Person::new(USER), true).await;
    assert_eq!(gone.unwrap(), 1);
    let balances: Vec<Balance> = world.ask(Ask::LedgerAudit).await;
    let found = (balances[0].missing, balances[0].missing_parked);
    assert_eq!(found, (1, 1), "{balances:?}");
    world.wait("done", USER, Reason::Backoff).await;
    let balances: Vec<Balance> = world.ask(Ask::LedgerAudit).await;
    assert_eq!(balances[0].finished, 1, "{balances:?}");
}

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
async fn counts_and_overdue_rows() {
    let world = World::new();
    world
        .row("late", &[RowState::Sending, RowState::Sent], &[])
        .await;
    world.row("done", &[RowState::SentFinal], &[]).await;
    let counts: Vec<RowCount> = world.ask(Ask::LedgerCounts).await;
    let counts: Vec<_> = counts.iter().map(|c| (c.state, c.count)).collect();
    assert_eq!(counts, [(RowState::Sent, 1), (RowState::SentFinal, 1)]);
    let overdue = |account: Option<&str>| Ask::LedgerOverdue {
        account: account.map(str::to_owned),
        limit: 5,
    };
    let late: Vec<Overdue> = world.ask(overdue(None)).await;
    assert_eq!(
        (late[0].count, late[0].rows[0].message_id.as_str()),
        (1, "late")
    );
    let unknown = answer(&world.reach, overdue(Some("other"))).await;
    assert_eq!(unknown.unwrap_err().class, ErrorClass::BadInput);
}

#[tokio::test]
async fn what_is_being_sent_for_long_is_listed_with_who_sends_it_and_until_when() {
    let world = World::new();
    world.row("held", &[RowState::Sending], &[]).await;
    let overdue = Ask::LedgerOverdue {
        account: None,
        limit: 5,
    };
    for lives in [false, true] {
        let late: Vec<Overdue> = world.ask(overdue.clone()).await;
        let [one] = &late[0].sending[..] else {
            panic!("{late:?}")
        };
        assert_eq!(one.message_id, "held");
        assert_eq!((one.sender.since, one.sender.lives), (1_000, lives));
        let sign = world.store.live(&one.sender.name, HOUR).await;
        sign.unwrap();
    }
    let why: why::Answer = world
        .ask(Ask::Why {
            question: Question::Message("held".into()),
            limit: 5,
        })
        .await;
    let sender = why.timelines[0].standings[0].sender.as_ref();
    assert_eq!(sender.map(|sender| sender.until), Some(301_000));
}

#[tokio::test]
async fn why_follows_a_reply_back_to_its_question_and_on_to_its_place_in_the_journal() {
    let world = World::new();
    world
        .row("reply", &[RowState::Sending, RowState::Held], &[])
        .await;
    world.wait("first", USER, Reason::Backoff).await;
    world.wait("reply", USER, Reason::Behind).await;
    let person = Some(Person::new(USER).key());
    let note = |id: &str, step: Step| Note {
        message_id: id.into(),
        person: person.clone(),
        step,
    };
    let notes = [
        note(
            "question",
            step(900, "application/echo", "answered", &["reply"]),
        ),
        note("reply", step(950, "dispatcher/d", "routed", &[])),
        note("stranger", step(10, "application/echo", "answered", &[])),
    ];
    world.store.note(&notes, HOUR).await.unwrap();
    for question in [
        Question::Message("reply".into()),
        Question::Message("question".into()),
    ] {
        let ask = Ask::Why {
            question,
            limit: 10,
        };
        let answer: why::Answer = world.ask(ask).await;
        assert_eq!((answer.timelines.len(), answer.truncated), (1, false));
        let workers: Vec<_> = answer.timelines[0]
            .moments
            .iter()
            .map(|m| (m.step.at, m.step.worker.as_str()))
            .collect();
        assert_eq!(
            workers,
            [
                (900, "application/echo"),
                (950, "dispatcher/d"),
                (1_000, "transport/sms"),
                (1_001, "transport/sms")
            ]
        );
        let last = answer.timelines[0].standings.last().unwrap();
        assert_eq!(
            (last.message_id.as_str(), last.state),
            ("reply", Some(RowState::Held))
        );
        assert_eq!(last.waits.as_ref().map(|waits| waits.before), Some(1));
    }
    let of_person: why::Answer = world
        .ask(Ask::Why {
            question: Question::Person("27820001111".into()),
            limit: 10,
        })
        .await;
    let count = of_person.timelines.len();
    assert_eq!(count, 3, "the stranger's too, and what only waits");
    let nothing: why::Answer = world
        .ask(Ask::Why {
            question: Question::Message("nobody".into()),
            limit: 10,
        })
        .await;
    assert_eq!(nothing.timelines, []);
    let waiting: why::Answer = world
        .ask(Ask::Why {
            question: Question::Message("first".into()),
            limit: 10,
        })
        .await;
    let standing = &waiting.timelines[0].standings[0];
    assert_eq!(standing.state, None, "no transport took it over yet");
    assert_eq!(standing.stage, why::Stage::InJournal);
    assert!(
        standing
            .waits
            .as_ref()
            .is_some_and(|waits| waits.at.is_some())
    );
}

fn about(question: Question) -> Ask {
    Ask::Why {
        question,
        limit: 10,
    }
}

#[tokio::test]
async fn why_finds_a_message_by_its_beginning_a_person_in_any_spelling_and_what_only_waits() {
    let world = World::new();
    world.row("abcd1111", &[RowState::Sent], &[]).await;
    world.row("abcd2222", &[RowState::Sent], &[]).await;
    world.wait("waiting", USER, Reason::Schedule).await;
    world.park("aside").await;
    let one: why::Answer = world.ask(about(Question::Message("abcd1".into()))).await;
    assert_eq!(one.timelines[0].standings[0].message_id, "abcd1111");
    let error = answer(&world.reach, about(Question::Message("abcd".into())));
    let error = error.await.unwrap_err();
    assert_eq!(error.class, ErrorClass::BadInput);
    assert!(error.text.contains("abcd1111, abcd2222"), "{error}");
    let nothing: why::Answer = world.ask(about(Question::Message("abc".into()))).await;
    assert_eq!(nothing.timelines, [], "too short to stand for others");
    for written in ["+27 82 000-1111", "0027820001111"] {
        let theirs: why::Answer = world.ask(about(Question::Person(written.into()))).await;
        let ids = theirs.timelines.iter().flat_map(|t| &t.standings);
        let ids: Vec<&str> = ids.map(|s| s.message_id.as_str()).collect();
        assert!(
            ids.contains(&"abcd1111") && ids.contains(&"waiting"),
            "{ids:?}"
        );
    }
    let aside: why::Answer = world.ask(about(Question::Message("aside".into()))).await;
    let standing = &aside.timelines[0].standings[0];
    assert_eq!(
        (standing.stage, standing.code.as_str()),
        (why::Stage::Parked, codes::BUG_PANIC.name),
        "known to the parking queue alone"
    );
    let error = answer(&world.reach, about(Question::Person("+".into())));
    assert_eq!(error.await.unwrap_err().class, ErrorClass::BadInput);
}

#[tokio::test]
async fn an_inbound_message_that_a_person_drops_has_ended() {
    let mut world = World::new();
    let queue = "app.inbound";
    let consumed = world.reach.queues[QUEUE].clone();
    world.reach.queues.insert(queue.into(), consumed);
    let delivery = RawDelivery {
        tag: 1,
        generation: 1,
        redelivered: false,
        routing_key: queue.into(),
        body: message("in", USER),
        message_id: None,
        delivery_count: None,
    };
    let error = WorkError::new(ErrorClass::Bug, codes::BUG_PANIC, "it panicked");
    let envelope = Envelope::new(queue, &delivery, &error, "application/app", 3);
    let parked = QueueSpec::Parking(parking::parked_queue(queue));
    world.broker.declare(&parked).await.unwrap();
    world
        .broker
        .publish(envelope.publication())
        .await
        .confirmation()
        .await;
    let withdrawal = world.reach.withdrawal(queue);
    let dropped = parking::drop(&*world.broker, &withdrawal, queue, &Selection::All);
    assert_eq!(dropped.await.unwrap().done, 1);
    let gone: why::Answer = world.ask(about(Question::Message("in".into()))).await;
    let standing = &gone.timelines[0].standings[0];
    assert_eq!(
        (standing.stage, standing.code.as_str()),
        (why::Stage::Ended, codes::PARKED_DROPPED.name)
    );
}

#[tokio::test]
async fn a_name_with_a_slip_is_told_what_there_is() {
    let world = World::new();
    world.row("m", &[RowState::Sent], &[]).await;
    let slip = || Some("smss.outbound".to_owned());
    for ask in [
        list(slip().as_deref(), all()),
        Ask::JournalCount {
            queue: slip().unwrap(),
            filter: all(),
        },
        Ask::LedgerOverdue {
            account: Some("smss".into()),
            limit: 1,
        },
    ] {
        let error = answer(&world.reach, ask).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::BadInput);
        assert!(error.text.contains("there are: sms"), "{error}");
    }
}

/// Where no message fits because of a slip, the name is said, and what there is.
#[tokio::test]
async fn a_slip_in_what_is_sent_again_is_told_what_there_is() {
    let world = World::new();
    let row = world.row("f", &[RowState::Sending], &[]).await;
    let change = Change {
        step: Step {
            code: "0x0b".into(),
            class: "recipient".into(),
            ..step(2_000, "transport/sms", "failed", &[])
        },
        ..change(RowState::Failed, 2_000, &[])
    };
    let mut failed = row.after(change).unwrap();
    failed.batch = Some("spring".into());
    let put = world.store.put(&failed, Some(row.version), HOUR).await;
    assert_eq!(put.unwrap(), Put::Stored);
    let ask = |chosen: Chosen| Ask::LedgerResendable {
        chosen,
        force: false,
    };
    let all = Chosen::default();
    let listed: Vec<resend::Summary> = world.ask(ask(all.clone())).await;
    assert_eq!(listed.len(), 1);
    let named = |name: &str| Some(name.to_owned());
    for (chosen, why) in [
        (
            Chosen {
                account: named("smss"),
                ..all.clone()
            },
            "no transport \"smss\" here; there are: sms; did you mean sms?",
        ),
        (
            Chosen {
                batch: named("sprong"),
                ..all.clone()
            },
            "no batch \"sprong\" here; there are: spring; did you mean spring?",
        ),
        (
            Chosen {
                class: named("credit"),
                ..all.clone()
            },
            "no failure class \"credit\" here; there are: recipient",
        ),
        (
            Chosen {
                code: named("0x0c"),
                class: named("recipient"),
                ..all.clone()
            },
            "no code \"0x0c\" here; there are: 0x0b",
        ),
    ] {
        let error = answer(&world.reach, ask(chosen)).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::BadInput);
        assert!(error.text.starts_with(why), "{error}");
    }
    // Every name is of something: it is only that nothing fits.
    let later = Chosen {
        account: named("sms"),
        code: named("0x0b"),
        since: Some(u64::MAX),
        ..all
    };
    assert_eq!(world.ask::<Vec<resend::Summary>>(ask(later)).await, []);
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

async fn give(
    world: &World,
    batch: &str,
    account: &str,
    order: Option<Order>,
) -> Result<(), WorkError> {
    let ask = Ask::BatchOrder {
        batch: batch.into(),
        account: account.into(),
        order,
    };
    answer(&world.reach, ask).await.map(drop)
}

#[tokio::test]
async fn an_order_before_the_first_message_is_listed_and_lifted() {
    let world = World::new();
    give(&world, "spring", "sms", Some(Order::Pause))
        .await
        .unwrap();
    let list = Ask::BatchList {
        batch: Some("spring".into()),
        account: None,
    };
    let listed: Vec<batch_desk::Summary> = world.ask(list.clone()).await;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].account.as_str(), listed[0].open()), ("sms", 0));
    assert_eq!(listed[0].order, Some(Order::Pause));
    give(&world, "spring", "sms", None).await.unwrap();
    assert_eq!(world.ask::<Vec<batch_desk::Summary>>(list).await, []);
}

#[tokio::test]
async fn orders_that_could_not_be_obeyed_are_refused() {
    use vumi_api::shared::Class;
    let mut world = World::new();
    for queue in ["backup.outbound", "third.outbound"] {
        let queue = QueueSpec::Data(queue.into());
        world.broker.declare(&queue).await.unwrap();
    }
    let answers = Consumed {
        only_answers: true,
        ..world.reach.queues[QUEUE].clone()
    };
    let queues = &mut world.reach.queues;
    queues.insert("api.outbound".into(), answers);
    let reroute = |to: &str| Order::Reroute(to.into());
    let long = "x".repeat(300);
    for (batch, account, order, why) in [
        ("", "sms", Order::Pause, "1 to 128 characters"),
        (long.as_str(), "sms", Order::Pause, "this one has 300"),
        ("spring", "", Order::Pause, "no name of a transport"),
        (
            "spring",
            long.as_str(),
            Order::Pause,
            "no name of a transport",
        ),
        (
            "spring",
            "smss",
            Order::Cancel,
            "there is no queue smss.outbound; there are: api, sms; did you mean sms?",
        ),
        ("spring", "sms", reroute("sms"), "is with sms already"),
        (
            "spring",
            "sms",
            reroute("api"),
            "can send nothing of its own",
        ),
        (
            "spring",
            "sms",
            reroute("bckup"),
            "no transport bckup has ever run here",
        ),
        ("spring", "sms", reroute("SMS 2"), "no name of a transport"),
        (
            "spring",
            "sms",
            Order::Reclass(Class::Bulk),
            "has no classes",
        ),
        (
            "spring",
            "backup",
            Order::Reclass(Class::Bulk),
            "has no classes",
        ),
    ] {
        let error = give(&world, batch, account, Some(order)).await.unwrap_err();
        assert_eq!(error.code, codes::BATCH_ORDER);
        assert!(error.text.contains(why), "{}", error.text);
    }
    assert!(world.store.all_orders().await.unwrap().is_empty());
    // Round in a circle.
    give(&world, "spring", "backup", Some(reroute("third")))
        .await
        .unwrap();
    give(&world, "spring", "third", Some(reroute("sms")))
        .await
        .unwrap();
    let error = give(&world, "spring", "sms", Some(reroute("backup")))
        .await
        .unwrap_err();
    assert!(
        error.text.contains("third gives the same batch back"),
        "{}",
        error.text
    );
    give(&world, "autumn", "sms", Some(reroute("backup")))
        .await
        .unwrap();
    // A transport with classes, seen by its process, and by its queues alone.
    for known in [Some(true), None] {
        world.reach.queues.get_mut(QUEUE).unwrap().classes = known;
        for queue in ["sms.outbound", "sms.outbound.bulk"] {
            let queue = QueueSpec::Data(queue.into());
            world.broker.declare(&queue).await.unwrap();
        }
        give(&world, "spring", "sms", Some(Order::Reclass(Class::Bulk)))
            .await
            .unwrap();
    }
    // An order that is there already can be lifted, whatever it says.
    world
        .store
        .set_order("gone", &long[..200], Some(&Order::Pause))
        .await
        .unwrap();
    give(&world, &long[..200], "gone", None).await.unwrap();
}
