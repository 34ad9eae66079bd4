//! Copies of what passes a connector, for people who look on: a queue of the tap's own, bound beside the consumed one while
//! that exists, so that nothing is taken away. What comes faster than it is read is dropped here and counted; the broker keeps nothing for
//! a tap whose process is gone.

use crate::broker::{Access, Broker, ConsumerState, QueueSpec, Subscribe};
use crate::clock;
use crate::message::random_id;
use crate::state::Person;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use vumi_api::{Flow, Port};

/// Messages that wait to be read; an older one makes room for a newer one.
const KEPT: usize = 10_000;
/// Bytes of their bodies, likewise: a reader that stands still must not take the memory of the process that is looked at.
const KEPT_BYTES: usize = 16 << 20;
/// Window of the subscription. It is acknowledged at once, so it only has to cover the way to the broker.
const WINDOW: u16 = 1000;
/// Why a tap ends whose broker nobody reconnects to.
const CLOSED: &str = "the broker's connection is closed";

/// Which messages are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Filter {
    /// From or to this person, however the address is written. Events have none.
    pub address: Option<String>,
    /// With this text in its content, whatever the case.
    pub content: Option<String>,
}

impl Filter {
    fn takes(&self, message: &Value) -> bool {
        let text = |field: &str| message.get(field).and_then(Value::as_str);
        let address = self.address.as_ref().is_none_or(|wanted| {
            let wanted = Person::new(wanted);
            ["from_addr", "to_addr"]
                .into_iter()
                .filter_map(text)
                .any(|address| wanted.has(address))
        });
        let content = self.content.as_ref().is_none_or(|wanted| {
            text("content")
                .is_some_and(|content| content.to_lowercase().contains(&wanted.to_lowercase()))
        });
        address && content
    }
}

/// One message that passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Seconds since 1970.
    pub at: f64,
    /// The connector.
    pub connector: String,
    /// Which of its flows.
    pub kind: String,
    /// The whole message; a text if it is no JSON object.
    pub message: Value,
}

/// What a tap tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Told {
    /// The copies begin here; again, after an interruption.
    Open,
    /// A message.
    Seen(Seen),
    /// So many were dropped before the next one, because they came faster than they were read.
    Dropped(u64),
    /// The broker is away: what passes until the next [`Told::Open`] is not seen, and cannot be counted.
    Interrupted,
    /// Why the tap ended.
    Ended(String),
}

#[derive(Default)]
struct Ring {
    /// With the length of its body each.
    waiting: VecDeque<(Told, usize)>,
    bytes: usize,
    dropped: u64,
    /// An interruption was among what made room.
    interrupted: bool,
}

#[derive(Default)]
struct Shared {
    ring: Mutex<Ring>,
    more: Notify,
}

impl Shared {
    fn put(&self, told: Told, length: usize) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        while (ring.waiting.len() >= KEPT || ring.bytes + length > KEPT_BYTES)
            && let Some((old, oldest)) = ring.waiting.pop_front()
        {
            ring.bytes -= oldest;
            match old {
                Told::Interrupted => ring.interrupted = true,
                Told::Open => {}
                _ => ring.dropped += 1,
            }
        }
        ring.bytes += length;
        ring.waiting.push_back((told, length));
        drop(ring);
        self.more.notify_one();
    }

    fn take(&self) -> Option<Told> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = std::mem::take(&mut ring.dropped);
        if dropped > 0 {
            return Some(Told::Dropped(dropped));
        }
        if std::mem::take(&mut ring.interrupted) {
            // Whatever follows came after its end.
            if !matches!(ring.waiting.front(), Some((Told::Open, _))) {
                ring.waiting.push_front((Told::Open, 0));
            }
            return Some(Told::Interrupted);
        }
        let (told, length) = ring.waiting.pop_front()?;
        ring.bytes -= length;
        Some(told)
    }
}

/// Whether copies come; tells each time that changes.
struct Flowing {
    into: Arc<Shared>,
    /// The newest life of the consumer that was told of. A short interruption may be seen by nothing but a newer one.
    generation: Option<u64>,
    away: bool,
}

impl Flowing {
    fn begins(&mut self, generation: u64) {
        if self.generation == Some(generation) && !self.away {
            return;
        }
        self.stops();
        self.into.put(Told::Open, 0);
        self.generation = Some(generation);
        self.away = false;
    }

    fn stops(&mut self) {
        if self.generation.is_some() && !self.away {
            self.into.put(Told::Interrupted, 0);
            self.away = true;
        }
    }

    /// Why it ended, if it did.
    fn look(&mut self, state: &ConsumerState, generation: Option<u64>) -> Result<(), String> {
        match state {
            ConsumerState::Consuming => {
                // Without one it is lost again, and the next state says so.
                if let Some(generation) = generation {
                    self.begins(generation);
                }
            }
            ConsumerState::Connecting(_) | ConsumerState::Standby(_) => self.stops(),
            ConsumerState::Refused(code, why) => return Err(format!("{why} ({code})")),
            ConsumerState::Stopped => return Err(CLOSED.into()),
        }
        Ok(())
    }
}

/// An open tap. It ends when it is dropped.
pub struct Tap {
    shared: Arc<Shared>,
    reader: AbortHandle,
}

impl Tap {
    /// Copies what is published on `ports` from now on; the first thing it tells is [`Told::Open`].
    pub async fn open(broker: &dyn Broker, ports: &[Port], filter: Filter) -> Self {
        let name = format!("vumi.tap.{}", random_id());
        let mut subscription = broker
            .subscribe(Subscribe {
                queue: QueueSpec::Tap {
                    name: name.clone(),
                    queues: ports.iter().map(Port::queue).collect(),
                },
                prefetch: WINDOW,
                access: Access::Shared,
                tag: name,
            })
            .await;
        let shared = Arc::new(Shared::default());
        let mut flowing = Flowing {
            into: Arc::clone(&shared),
            generation: None,
            away: false,
        };
        let reader = tokio::spawn(async move {
            // The state of now is news as well.
            subscription.state.mark_changed();
            let why: String = loop {
                tokio::select! {
                    biased;
                    delivery = subscription.deliveries.recv() => {
                        let Some(raw) = delivery else { break CLOSED.into() };
                        if Some(raw.generation) > flowing.generation {
                            flowing.begins(raw.generation);
                        }
                        if let Some(seen) = seen(&raw.routing_key, &raw.body, &filter) {
                            flowing.into.put(Told::Seen(seen), raw.body.len());
                        }
                        subscription.acker.ack(raw.generation, raw.tag, false);
                    }
                    changed = subscription.state.changed() => {
                        let state = subscription.state.borrow_and_update().clone();
                        let generation = subscription.acker.generation();
                        if changed.is_err() {
                            break CLOSED.into();
                        }
                        if let Err(why) = flowing.look(&state, generation) {
                            break why;
                        }
                    }
                }
            };
            flowing.into.put(Told::Ended(why), 0);
            subscription.acker.close();
        });
        Self {
            shared,
            reader: reader.abort_handle(),
        }
    }

    /// The next thing it tells; waits for it.
    pub async fn next(&mut self) -> Told {
        loop {
            let more = self.shared.more.notified();
            if let Some(told) = self.shared.take() {
                return told;
            }
            more.await;
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn seen(key: &str, body: &[u8], filter: &Filter) -> Option<Seen> {
    let message = serde_json::from_slice(body)
        .unwrap_or_else(|_| json!(String::from_utf8_lossy(body).into_owned()));
    let (connector, kind) = key.rsplit_once('.')?;
    let at = clock::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| (since.as_secs_f64() * 1e3).round() / 1e3);
    filter.takes(&message).then(|| Seen {
        at,
        connector: connector.to_owned(),
        kind: kind.to_owned(),
        message,
    })
}

/// The flow with this name.
pub fn flow(kind: &str) -> Option<Flow> {
    [Flow::Inbound, Flow::Outbound, Flow::Event]
        .into_iter()
        .find(|flow| flow.as_str() == kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
    use crate::broker::{EXCHANGE, Publication, PublicationClass};
    use crate::message::UserMessage;

    async fn say(broker: &dyn Broker, from: &str, content: &str) {
        let mut message = UserMessage::new("sms", Some("12345"), Some(from));
        message.set_content(Some(content));
        let receipt = broker
            .publish(Publication {
                exchange: EXCHANGE.into(),
                routing_key: "t.inbound".into(),
                body: message.encode(),
                message_id: None,
                class: PublicationClass::Data,
            })
            .await;
        assert_eq!(
            receipt.confirmation().await,
            crate::broker::Confirmation::Confirmed
        );
    }

    fn inbound() -> Vec<Port> {
        vec![Port::new("t", Flow::Inbound)]
    }

    #[tokio::test]
    async fn what_is_tapped_stays_in_its_queue() {
        let broker = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
        let filter = Filter {
            address: Some("+27 82 000 0001".into()),
            content: Some("HELLO".into()),
        };
        let mut tap = Tap::open(&*broker, &inbound(), filter).await;
        assert_eq!(tap.next().await, Told::Open);
        for (from, content) in [
            ("27830000001", "hello"),
            ("27820000001", "bye"),
            ("27820000001", "hello you"),
        ] {
            say(&*broker, from, content).await;
        }
        let Told::Seen(seen) = tap.next().await else {
            panic!("a message is seen")
        };
        assert_eq!((&*seen.connector, &*seen.kind), ("t", "inbound"));
        assert_eq!(seen.message["content"], "hello you");
        let depth = broker.depth("t.inbound").await.unwrap().unwrap();
        assert_eq!(depth.ready, 3);
    }

    #[tokio::test]
    async fn what_nobody_reads_in_time_is_dropped_and_counted() {
        let broker = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
        let mut tap = Tap::open(&*broker, &inbound(), Filter::default()).await;
        assert_eq!(tap.next().await, Told::Open);
        let count = KEPT + 25;
        for number in 0..count {
            say(&*broker, "2782", &number.to_string()).await;
        }
        // The copies are with the tap once its last one is.
        while tap.shared.ring.lock().unwrap().dropped < 25 {
            tokio::task::yield_now().await;
        }
        assert_eq!(tap.next().await, Told::Dropped(25));
        let Told::Seen(first) = tap.next().await else {
            panic!("a message is seen")
        };
        assert_eq!(first.message["content"], "25");
    }

    /// What is waiting in a tap of these, in short.
    fn told(shared: &Shared) -> Vec<String> {
        std::iter::from_fn(|| shared.take())
            .map(|told| match told {
                Told::Seen(seen) => seen.connector,
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn each_change_of_the_consumer_is_told_once_however_short_it_was() {
        use ConsumerState::{Connecting, Consuming, Refused, Standby};
        let shared = Arc::new(Shared::default());
        let mut flowing = Flowing {
            into: Arc::clone(&shared),
            generation: None,
            away: false,
        };
        let away = || Connecting(Some("lost".into()));
        for (state, generation, expected) in [
            (away(), None, vec![]),
            (Consuming, Some(1), vec!["Open"]),
            (Consuming, Some(1), vec![]),
            (away(), None, vec!["Interrupted"]),
            (Connecting(None), None, vec![]),
            (Standby(None), None, vec![]),
            // Lost between its word and our look.
            (Consuming, None, vec![]),
            (Consuming, Some(2), vec!["Open"]),
            // Away and back before anybody looked.
            (Consuming, Some(3), vec!["Interrupted", "Open"]),
        ] {
            flowing.look(&state, generation).unwrap();
            assert_eq!(told(&shared), expected, "{state:?} {generation:?}");
        }
        let refused = Refused("broker.queue_type".into(), "it is of another type".into());
        assert_eq!(
            flowing.look(&refused, None),
            Err("it is of another type (broker.queue_type)".into())
        );
    }

    #[test]
    fn an_interruption_outlives_what_is_dropped() {
        let shared = Shared::default();
        let message = |name: String| {
            let (at, kind) = (0.0, "inbound".into());
            Told::Seen(Seen {
                at,
                connector: name,
                kind,
                message: Value::Null,
            })
        };
        for told in [
            Told::Open,
            message("old".into()),
            Told::Interrupted,
            Told::Open,
        ] {
            shared.put(told, 0);
        }
        for number in 0..KEPT {
            shared.put(message(number.to_string()), 0);
        }
        let told = told(&shared);
        assert_eq!(told[..4], ["Dropped(1)", "Interrupted", "Open", "0"]);
        assert_eq!(told.len(), KEPT + 3);
    }

    #[tokio::test]
    async fn large_messages_that_nobody_reads_take_a_bounded_memory() {
        const LARGE: usize = 1 << 20;
        let broker = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
        let mut tap = Tap::open(&*broker, &inbound(), Filter::default()).await;
        assert_eq!(tap.next().await, Told::Open);
        let text = "x".repeat(LARGE);
        let count = 2 * KEPT_BYTES / LARGE;
        for _ in 0..count {
            say(&*broker, "2782", &text).await;
        }
        let dropped = || tap.shared.ring.lock().unwrap().dropped;
        while dropped() < count as u64 / 2 {
            tokio::task::yield_now().await;
        }
        say(&*broker, "2782", "the last one").await;
        let mut seen = 0;
        loop {
            match tap.next().await {
                Told::Seen(last) if last.message["content"] == "the last one" => break,
                Told::Seen(_) => seen += 1,
                told => assert!(matches!(told, Told::Dropped(_)), "{told:?}"),
            }
        }
        assert!(seen <= KEPT_BYTES / LARGE, "{seen}");
        assert_eq!(tap.shared.ring.lock().unwrap().bytes, 0);
    }
}
