//! Rules of the state, one by one, without tasks or time.

use super::message::Write;
use super::pending::Pending;
use super::queue::Consumer;
use super::state::{Clash, State};
use crate::broker::{
    Confirmation, ConsumerState, EXCHANGE, LinkState, Publication, PublicationClass, QueueSpec,
    RawDelivery,
};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tokio::sync::{mpsc, oneshot, watch};

const QUEUE: &str = "x.inbound";

struct Broker {
    state: State,
    session: u64,
    link: watch::Receiver<LinkState>,
}

struct Reader {
    id: u64,
    deliveries: mpsc::Receiver<RawDelivery>,
    states: watch::Receiver<ConsumerState>,
}

impl Broker {
    fn new(limit: u64, pending: Option<Pending>) -> Self {
        let mut state = State::new(limit, pending);
        let (session, link) = state.open_session();
        Self {
            state,
            session,
            link,
        }
    }

    fn in_memory() -> Self {
        Self::new(u64::MAX, None)
    }

    fn publish(&mut self, key: &str, body: &str) -> oneshot::Receiver<Confirmation> {
        let (resolve, receipt) = oneshot::channel();
        let publication = Publication {
            exchange: EXCHANGE.into(),
            routing_key: key.into(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            message_id: None,
            class: PublicationClass::Data,
        };
        // A publication that has to wait is given back; its receipt then stays open only if the caller keeps it.
        let _ = self.state.publish(self.session, publication, resolve);
        receipt
    }

    fn consume(&mut self, session: u64, spec: QueueSpec, prefetch: usize, fenced: bool) -> Reader {
        let (sender, deliveries) = mpsc::channel(prefetch * 2);
        let (state, states) = watch::channel(ConsumerState::Connecting(None));
        let id = self.state.next_id();
        self.state.add_consumer(Consumer {
            id,
            session,
            spec,
            queue: None,
            tag: format!("reader {id}"),
            prefetch,
            fenced,
            cancelled: false,
            generation: 1,
            next_tag: 1,
            unacked: BTreeMap::new(),
            sender,
            state,
        });
        Reader {
            id,
            deliveries,
            states,
        }
    }

    fn reader(&mut self, prefetch: usize, fenced: bool) -> Reader {
        self.consume(
            self.session,
            QueueSpec::Data(QUEUE.into()),
            prefetch,
            fenced,
        )
    }

    /// Everything that waits for the disk gets there.
    fn commit(&mut self) -> usize {
        let writes = self.state.pending.as_mut().expect("a disk").take();
        let count = writes.len();
        for write in writes {
            self.state.apply(write);
        }
        count
    }
}

impl Reader {
    fn bodies(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.deliveries.try_recv().ok())
            .map(|d| String::from_utf8(d.body.to_vec()).expect("text"))
            .collect()
    }

    fn state(&self) -> ConsumerState {
        self.states.borrow().clone()
    }
}

#[test]
fn holder_is_named_to_those_who_stand_by() {
    let mut broker = Broker::in_memory();
    let holder = broker.reader(1, true);
    let standby = broker.reader(1, true);
    let plain = broker.reader(1, false);
    assert_eq!(holder.state(), ConsumerState::Consuming);
    let name = Some(format!("reader {}", holder.id));
    assert_eq!(standby.state(), ConsumerState::Standby(name.clone()));
    assert_eq!(plain.state(), ConsumerState::Standby(name));
    assert_eq!(broker.state.depth(QUEUE).expect("queue").consumers, 1);
    broker.state.close_consumer(holder.id);
    // A plain consumer is there: as on RabbitMQ, no fence can be taken beside it.
    assert_eq!(plain.state(), ConsumerState::Consuming);
    let name = Some(format!("reader {}", plain.id));
    assert_eq!(standby.state(), ConsumerState::Standby(name));
    broker.state.close_consumer(plain.id);
    assert_eq!(standby.state(), ConsumerState::Consuming);
}

#[test]
fn cancelled_holder_lets_go_and_queues_again() {
    let mut broker = Broker::in_memory();
    let first = broker.reader(1, true);
    let second = broker.reader(1, true);
    broker.state.set_cancelled(first.id, true);
    assert_eq!(first.state(), ConsumerState::Stopped);
    assert_eq!(second.state(), ConsumerState::Consuming);
    broker.state.set_cancelled(first.id, false);
    assert!(matches!(first.state(), ConsumerState::Standby(_)));
}

#[test]
fn verdicts_without_a_delivery_change_nothing() {
    let mut broker = Broker::in_memory();
    let mut reader = broker.reader(5, false);
    let _receipt = broker.publish(QUEUE, "1");
    assert_eq!(reader.bodies(), ["1"]);
    let state = &mut broker.state;
    assert!(!state.ack(reader.id, 2, 1, false), "a later generation");
    assert!(!state.ack(reader.id, 1, 2, false), "never delivered");
    assert!(!state.ack(reader.id, 1, 2, true), "never delivered");
    assert!(!state.ack(reader.id, 1, u64::MAX, true), "never delivered");
    assert!(!state.requeue(reader.id, 1, 2));
    assert!(!state.ack(reader.id + 100, 1, 1, false), "nobody");
    assert!(state.ack(reader.id, 1, 1, false));
    assert!(!state.ack(reader.id, 1, 1, false), "twice");
    state.rebuild(reader.id);
    assert!(!state.ack(reader.id, 1, 1, true), "an old generation");
    state.close_consumer(reader.id);
    assert!(!state.requeue(reader.id, 2, 1));
    assert_eq!(state.memory, 0);
}

#[test]
fn rebuilding_often_does_not_overrun_the_stream() {
    let mut broker = Broker::in_memory();
    let mut reader = broker.reader(3, true);
    for n in 1..=5 {
        let _receipt = broker.publish(QUEUE, &n.to_string());
    }
    for _ in 0..4 {
        broker.state.rebuild(reader.id);
    }
    // Two generations fit into the stream; the last waits until the receiver has read.
    assert_eq!(reader.bodies().len(), 6);
    broker.state.pump_consumer(reader.id);
    assert_eq!(reader.bodies(), ["1", "2", "3"]);
}

#[test]
fn reader_that_dropped_its_stream_lets_go() {
    let mut broker = Broker::in_memory();
    let reader = broker.reader(3, true);
    let mut heir = broker.reader(3, true);
    drop(reader.deliveries);
    let _receipt = broker.publish(QUEUE, "1");
    assert_eq!(heir.bodies(), ["1"]);
    assert_eq!(heir.state(), ConsumerState::Consuming);
}

#[test]
fn exclusive_queue_goes_to_the_next_connection() {
    let mut broker = Broker::in_memory();
    let (other, _link) = broker.state.open_session();
    let spec = QueueSpec::Reply("x.reply.one".into());
    let owner = broker.consume(broker.session, spec.clone(), 1, false);
    let waiting = broker.consume(other, spec.clone(), 1, false);
    assert_eq!(owner.state(), ConsumerState::Consuming);
    assert_eq!(waiting.state(), ConsumerState::Standby(None));
    assert_eq!(broker.state.declare(&spec, other), Err(Clash::Held));
    broker.state.close_session(broker.session);
    assert_eq!(*broker.link.borrow(), LinkState::Closed);
    assert_eq!(owner.state(), ConsumerState::Stopped);
    assert_eq!(waiting.state(), ConsumerState::Consuming);
    broker.state.close_consumer(waiting.id);
    assert_eq!(broker.state.depth("x.reply.one"), None);
}

#[test]
fn one_name_is_not_two_kinds_of_queue() {
    let mut broker = Broker::in_memory();
    let _reader = broker.reader(1, false);
    let reply = broker.consume(broker.session, QueueSpec::Reply(QUEUE.into()), 1, false);
    assert!(matches!(reply.state(), ConsumerState::Refused(code, text)
            if code == "broker.queue_type_mismatch" && text.contains(QUEUE)));
    let spec = QueueSpec::Reply("x.reply.one".into());
    let _owner = broker.consume(broker.session, spec, 1, false);
    let fate = broker.publish("x.reply.one", "1").try_recv();
    assert!(matches!(fate, Ok(Confirmation::Returned(_))));
}

#[test]
fn parking_queue_may_become_a_data_queue() {
    let mut broker = Broker::in_memory();
    let spec = QueueSpec::Parking(QUEUE.into());
    let id = broker.state.declare(&spec, broker.session);
    assert!(broker.state.route(EXCHANGE, QUEUE).is_empty());
    let data = QueueSpec::Data(QUEUE.into());
    assert_eq!(broker.state.declare(&data, broker.session), id);
    assert_eq!(broker.state.route(EXCHANGE, QUEUE).len(), 1);
}

#[test]
fn nothing_shows_before_the_disk_has_it() {
    let mut broker = Broker::new(u64::MAX, Some(Pending::default()));
    let mut reader = broker.reader(5, true);
    let mut receipt = broker.publish(QUEUE, "1");
    assert_eq!(reader.bodies(), [""; 0]);
    assert!(receipt.try_recv().is_err(), "not confirmed yet");
    assert_eq!(broker.state.depth(QUEUE).expect("queue").ready, 0);
    assert_eq!(broker.commit(), 3, "queue, mark, message");
    assert_eq!(reader.bodies(), ["1"]);
    assert_eq!(receipt.try_recv(), Ok(Confirmation::Confirmed));
    assert!(broker.state.ack(reader.id, 1, 1, false));
    let removal = broker.state.pending.as_mut().expect("a disk").take();
    assert!(matches!(removal.as_slice(), [Write::Remove { key: 0, .. }]));
}

#[test]
fn backlog_is_delivered_only_after_its_mark_is_on_disk() {
    let mut broker = Broker::new(u64::MAX, Some(Pending::default()));
    let receipts: Vec<_> = (0..2000)
        .map(|n| broker.publish(QUEUE, &n.to_string()))
        .collect();
    assert_eq!(broker.commit(), 2001, "no marks while nobody reads");
    drop(receipts);
    let mut reader = broker.reader(2000, true);
    assert_eq!(reader.bodies(), [""; 0], "the mark is on its way");
    let mut got = 0;
    while broker.commit() > 0 {
        got += reader.bodies().len() as u64;
        let queue = broker.state.queues.values().next().expect("one queue");
        assert!(got <= queue.delivered_below, "only what is marked");
    }
    assert_eq!(got, 2000);
    let queue = broker.state.queues.values().next().expect("one queue");
    assert!(queue.delivered_below <= 2000 + 2000, "not far beyond");
}

#[test]
fn disk_trouble_holds_publishers_back() {
    let mut broker = Broker::new(u64::MAX, Some(Pending::default()));
    let _first = broker.publish(QUEUE, "1");
    broker.commit();
    broker.state.pending.as_mut().expect("a disk").trouble = Some("full".into());
    broker.state.tell_links();
    assert_eq!(*broker.link.borrow(), LinkState::Blocked("full".into()));
    let mut second = broker.publish(QUEUE, "2");
    assert!(second.try_recv().is_err());
    assert_eq!(broker.commit(), 0, "not accepted");
}

proptest! {
    /// Whatever the consumers do, nothing is lost, nothing is there twice, and what is ready is in order.
    #[test]
    fn messages_are_conserved(
        steps in proptest::collection::vec((0u8..7, 0u64..6, any::<bool>()), 1..80),
    ) {
        let mut broker = Broker::in_memory();
        let mut readers = vec![broker.reader(4, false), broker.reader(3, false)];
        let (mut sent, mut acked) = (0u64, 0u64);
        for (what, n, first) in steps {
            let at = usize::from(!first).min(readers.len() - 1);
            let id = readers[at].id;
            let held = |b: &Broker| b.state.consumers.values().map(|c| c.unacked.len() as u64).sum::<u64>();
            match what {
                0 | 1 => {
                    let _receipt = broker.publish(QUEUE, &sent.to_string());
                    sent += 1;
                }
                2 | 3 => {
                    let generation = broker.state.consumers[&id].generation;
                    let before = held(&broker) + u64::from(broker.state.depth(QUEUE).expect("q").ready);
                    broker.state.ack(id, generation, n + 1, what == 2);
                    acked += before - held(&broker) - u64::from(broker.state.depth(QUEUE).expect("q").ready);
                }
                4 => {
                    let generation = broker.state.consumers[&id].generation;
                    broker.state.requeue(id, generation, n + 1);
                }
                5 => {
                    broker.state.rebuild(id);
                }
                _ => {
                    broker.state.close_consumer(id);
                    readers[at] = broker.reader(4, false);
                }
            }
            for reader in &mut readers {
                reader.bodies();
                broker.state.pump_consumer(reader.id);
            }
            let queue = broker.state.queues.values().next().expect("one queue");
            let ready: Vec<u64> = queue.ready.iter().map(|m| m.position).collect();
            prop_assert!(ready.is_sorted_by(|a, b| a < b));
            prop_assert_eq!(ready.len() as u64 + held(&broker) + acked, sent);
        }
        let left = broker.state.memory;
        let queue = broker.state.queues.values().next().expect("one queue");
        prop_assert_eq!(left, queue.bytes);
    }
}
