//! What operators ask, of a store and a broker that were filled as the engine fills them.

mod batches;
mod closing;
mod journal;
mod ledger;
mod parked;
mod persons;
mod slips;
mod timelines;

use super::*;
use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use crate::broker::{Access, QueueSpec, RawDelivery, Subscribe};
use crate::message::{Event, UserMessage};
use crate::parking::{self, Envelope};
use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::state::journal::{About, Append, Due, Entry, Lane, Reason};
use crate::state::ledger::{Change, Put, Step};
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
        Self::on(EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap())
    }

    fn on(store: Arc<dyn StateStore>) -> Self {
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
