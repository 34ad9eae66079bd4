//! The channels of one connection, read from its frames: what was delivered and not acknowledged, what was published and
//! not confirmed. Frames that concern neither pass as they came.

use super::book::Book;
use super::frames::{Frame, method};
use crate::conformance::faults::Mishap;
use crate::message::glance::Glance;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::basic::{self, AMQPMethod as Basic};
use amq_protocol::protocol::{AMQPClass, channel, confirm};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// AMQP's number for a message that outlives the broker.
const PERSISTENT: u8 = 2;
/// Routing key that no queue has.
const NOWHERE: &str = ".nowhere";

/// What to do with a frame.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Pass these bytes on.
    Pass(Vec<u8>),
    /// Pass them on once confirmations pass.
    Confirmation(Vec<u8>),
    /// End the connection.
    Cut,
}

#[derive(Default)]
struct Channel {
    /// Deliveries without an acknowledgement.
    open: BTreeSet<u64>,
    delivering: Option<Delivering>,
    publishing: Option<Publishing>,
    /// Consumers that acknowledge nothing, by tag.
    careless: BTreeSet<String>,
    /// Consumers whose tag the broker will name: whether they acknowledge nothing.
    unnamed: VecDeque<bool>,
    /// Whether an answer to `basic.get` need not be acknowledged.
    gets: VecDeque<bool>,
    confirms: bool,
    /// Publications so far, in confirm mode.
    published: u64,
    /// Those without a confirmation, and what is to become of it.
    unconfirmed: BTreeMap<u64, Option<Mishap>>,
}

struct Delivering {
    tag: u64,
    no_ack: bool,
    redelivered: bool,
    body: Vec<u8>,
    size: Option<u64>,
}

struct Publishing {
    publish: basic::Publish,
    /// Header and body, as they came.
    content: Vec<u8>,
    persistent: bool,
    size: Option<u64>,
    body: u64,
}

pub(super) struct Channels {
    book: Arc<Book>,
    channels: HashMap<u16, Channel>,
}

impl Drop for Channels {
    fn drop(&mut self) {
        let ids: Vec<u16> = self.channels.keys().copied().collect();
        ids.into_iter().for_each(|id| self.close(id));
    }
}

impl Channels {
    pub(super) fn new(book: Arc<Book>) -> Self {
        Self {
            book,
            channels: HashMap::new(),
        }
    }

    /// A frame of the worker.
    pub(super) fn worker_says(&mut self, frame: Frame) -> Step {
        let id = frame.channel;
        match frame.read() {
            Some(AMQPFrame::Method(_, AMQPClass::Basic(Basic::Publish(publish)))) => {
                self.channel(id).publishing = Some(Publishing {
                    publish,
                    content: Vec::new(),
                    persistent: false,
                    size: None,
                    body: 0,
                });
                return Step::Pass(Vec::new());
            }
            Some(AMQPFrame::Header(_, header)) => {
                if let Some(publishing) = &mut self.channel(id).publishing {
                    publishing.persistent = *header.properties.delivery_mode() == Some(PERSISTENT);
                    publishing.size = Some(header.body_size);
                    publishing.content.extend(frame.bytes());
                    return self.published(id);
                }
            }
            Some(AMQPFrame::Body(_, part)) => {
                if let Some(publishing) = &mut self.channel(id).publishing {
                    publishing.body += part.len() as u64;
                    publishing.content.extend(frame.bytes());
                    return self.published(id);
                }
            }
            Some(AMQPFrame::Method(_, class)) => {
                let passes = self.heed_worker(id, class);
                let bytes = if passes { frame.bytes() } else { Vec::new() };
                return Step::Pass(bytes);
            }
            _ => {}
        }
        Step::Pass(frame.bytes())
    }

    /// Takes note of a method; false if the broker must not hear of it.
    fn heed_worker(&mut self, id: u16, class: AMQPClass) -> bool {
        match class {
            AMQPClass::Basic(Basic::Consume(consume)) => {
                let channel = self.channel(id);
                let tag = consume.consumer_tag.to_string();
                match tag.is_empty() {
                    true => channel.unnamed.push_back(consume.no_ack),
                    false if consume.no_ack => drop(channel.careless.insert(tag)),
                    false => {}
                }
            }
            AMQPClass::Basic(Basic::Get(get)) => self.channel(id).gets.push_back(get.no_ack),
            AMQPClass::Basic(Basic::Ack(ack)) => {
                let count = self.close_deliveries(id, ack.delivery_tag, ack.multiple);
                let mut page = self.book.page();
                page.ended += count;
                page.acks_tried += 1;
                if page.swallowed {
                    return false;
                }
                page.acks_passed += 1;
            }
            AMQPClass::Basic(Basic::Nack(nack)) => {
                let count = self.close_deliveries(id, nack.delivery_tag, nack.multiple);
                self.refuse(count, nack.requeue);
            }
            AMQPClass::Basic(Basic::Reject(reject)) => {
                let count = self.close_deliveries(id, reject.delivery_tag, false);
                self.refuse(count, reject.requeue);
            }
            AMQPClass::Basic(Basic::Recover(_) | Basic::RecoverAsync(_)) => {
                let count = self.close_deliveries(id, 0, true);
                self.refuse(count, true);
            }
            AMQPClass::Confirm(confirm::AMQPMethod::Select(_)) => {
                self.channel(id).confirms = true;
            }
            AMQPClass::Channel(channel::AMQPMethod::Close(_) | channel::AMQPMethod::CloseOk(_)) => {
                self.close(id);
            }
            _ => {}
        }
        true
    }

    /// A frame of the broker.
    pub(super) fn broker_says(&mut self, frame: Frame) -> Step {
        let id = frame.channel;
        match frame.read() {
            Some(AMQPFrame::Method(_, AMQPClass::Basic(Basic::Ack(ack)))) => {
                return self.confirmed(id, ack.delivery_tag, ack.multiple);
            }
            Some(AMQPFrame::Method(_, class)) => self.heed_broker(id, class),
            Some(AMQPFrame::Header(_, header)) => {
                if let Some(delivering) = &mut self.channel(id).delivering {
                    delivering.size = Some(header.body_size);
                    self.delivered(id);
                }
            }
            Some(AMQPFrame::Body(_, part)) => {
                if let Some(delivering) = &mut self.channel(id).delivering {
                    delivering.body.extend(part);
                    self.delivered(id);
                }
            }
            _ => {}
        }
        Step::Pass(frame.bytes())
    }

    fn heed_broker(&mut self, id: u16, class: AMQPClass) {
        let delivering = |tag, no_ack, redelivered| {
            Some(Delivering {
                tag,
                no_ack,
                redelivered,
                body: Vec::new(),
                size: None,
            })
        };
        let channel = self.channel(id);
        match class {
            AMQPClass::Basic(Basic::ConsumeOk(ok)) => {
                let careless = channel.unnamed.pop_front() == Some(true);
                let tag = careless.then(|| ok.consumer_tag.to_string());
                channel.careless.extend(tag);
            }
            AMQPClass::Basic(Basic::Deliver(deliver)) => {
                let no_ack = channel.careless.contains(deliver.consumer_tag.as_str());
                channel.delivering = delivering(deliver.delivery_tag, no_ack, deliver.redelivered);
            }
            AMQPClass::Basic(Basic::GetOk(ok)) => {
                let no_ack = channel.gets.pop_front() == Some(true);
                channel.delivering = delivering(ok.delivery_tag, no_ack, ok.redelivered);
            }
            AMQPClass::Basic(Basic::GetEmpty(_)) => drop(channel.gets.pop_front()),
            AMQPClass::Channel(channel::AMQPMethod::Close(_) | channel::AMQPMethod::CloseOk(_)) => {
                self.close(id);
            }
            _ => {}
        }
    }

    fn channel(&mut self, id: u16) -> &mut Channel {
        self.channels.entry(id).or_default()
    }

    /// A delivery is complete once its body is.
    fn delivered(&mut self, id: u16) {
        let channel = self.channel(id);
        let whole = |d: &mut Delivering| d.size.is_some_and(|size| d.body.len() as u64 >= size);
        let Some(delivering) = channel.delivering.take_if(whole) else {
            return;
        };
        if !delivering.no_ack {
            channel.open.insert(delivering.tag);
        }
        let mut page = self.book.page();
        page.received += 1;
        if delivering.redelivered {
            page.owed = page.owed.saturating_sub(1);
        }
        match delivering.no_ack {
            // Acknowledged before it was there.
            true => {
                page.ended += 1;
                page.acks_tried += 1;
                page.acks_passed += 1;
            }
            false => page.open += 1,
        }
        if let Some(message) = Glance::of(&delivering.body).id() {
            *page.attempts.entry(message).or_default() += 1;
        }
    }

    /// Takes the deliveries that a verdict speaks of off the list; how many they are. Tag 0 means all.
    fn close_deliveries(&mut self, id: u16, tag: u64, multiple: bool) -> u64 {
        let open = &mut self.channel(id).open;
        let before = open.len();
        match (multiple, tag) {
            (true, 0) => open.clear(),
            (true, tag) => *open = open.split_off(&(tag + 1)),
            (false, tag) => drop(open.remove(&tag)),
        }
        let count = (before - open.len()) as u64;
        self.book.page().open -= count;
        count
    }

    fn refuse(&self, count: u64, requeue: bool) {
        let mut page = self.book.page();
        match requeue {
            true => {
                page.returned += count;
                page.owed += count;
            }
            false => page.ended += count,
        }
    }

    /// A channel ends: what was not acknowledged on it returns to its queue.
    fn close(&mut self, id: u16) {
        let Some(channel) = self.channels.remove(&id) else {
            return;
        };
        let count = channel.open.len() as u64;
        let mut page = self.book.page();
        page.open -= count;
        page.returned += count;
        page.owed += count;
    }

    /// A publication is complete once its body is.
    fn published(&mut self, id: u16) -> Step {
        let book = Arc::clone(&self.book);
        let channel = self.channel(id);
        let whole = |p: &mut Publishing| p.size.is_some_and(|size| p.body >= size);
        let Some(publishing) = channel.publishing.take_if(whole) else {
            return Step::Pass(Vec::new());
        };
        let mut publish = publishing.publish;
        let queue = publish.routing_key.to_string();
        let mut mishap = None;
        if book.is_data(&queue) {
            let mut page = book.page();
            if !publishing.persistent {
                page.careless.get_or_insert_with(|| queue.clone());
            }
            mishap = match page.unroutable.contains(&queue) {
                true => Some(Mishap::Returned),
                false => page.mishaps.pop_front(),
            };
            if mishap == Some(Mishap::Returned) {
                page.unrouted += 1;
            }
            if mishap.is_none() && queue.ends_with(".parked") {
                page.parked += 1;
            }
        }
        match mishap {
            Some(Mishap::Lost) => return Step::Cut,
            Some(Mishap::Returned) => publish.routing_key = format!("{queue}{NOWHERE}").into(),
            Some(Mishap::Nacked) => {
                publish.routing_key = format!("{queue}{NOWHERE}").into();
                publish.mandatory = false;
            }
            Some(Mishap::ConfirmationLost) | None => {}
        }
        if channel.confirms {
            channel.published += 1;
            channel.unconfirmed.insert(channel.published, mishap);
        }
        let mut bytes = method(id, AMQPClass::Basic(Basic::Publish(publish)));
        bytes.extend(publishing.content);
        Step::Pass(bytes)
    }

    /// The broker confirms publications.
    fn confirmed(&mut self, id: u16, tag: u64, multiple: bool) -> Step {
        let unconfirmed = &mut self.channel(id).unconfirmed;
        let these = match (multiple, tag) {
            (true, 0) => std::mem::take(unconfirmed),
            (true, tag) => {
                let rest = unconfirmed.split_off(&(tag + 1));
                std::mem::replace(unconfirmed, rest)
            }
            (false, tag) => BTreeMap::from([(tag, unconfirmed.remove(&tag).flatten())]),
        };
        let mut bytes = Vec::new();
        for (delivery_tag, mishap) in these {
            let verdict = match mishap {
                Some(Mishap::ConfirmationLost) => return Step::Cut,
                Some(Mishap::Nacked) => Basic::Nack(basic::Nack {
                    delivery_tag,
                    multiple: false,
                    requeue: false,
                }),
                _ => Basic::Ack(basic::Ack {
                    delivery_tag,
                    multiple: false,
                }),
            };
            bytes.extend(method(id, AMQPClass::Basic(verdict)));
        }
        Step::Confirmation(bytes)
    }
}
