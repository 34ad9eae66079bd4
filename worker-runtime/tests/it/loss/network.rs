//! The other half of the loss test: an application that sends to simulated networks which lose answers. `sms` is divided
//! into classes and partitions over two replicas, kept to a rate, and waits for receipts of what it is unsure of, then
//! sends again; `pager` lets such a message fail. Every message must come to one end, and those that were sent once come
//! out in order per user.

use super::clients::Pace;
use super::observer::read;
use crate::harness::amqp::{Amqp, user_message};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use vumi_core::conformance::oracle::{Demands, Judgement, Oracle};

/// The batch that is paused and resumed.
pub const BATCH: &str = "spring";
const CLASSES: [&str; 3] = ["interactive", "transactional", "bulk"];
/// Users of each transport.
const USERS: usize = 60;
const PAUSE: Duration = Duration::from_millis(100);

/// What went to the networks, and what was said of it.
pub struct Network {
    began: Instant,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    ends: Oracle,
    owed: Vec<(String, String, Duration)>,
    /// Answers of recipients, in the order in which they came.
    answers: Vec<(String, String, Duration)>,
    /// Kinds of ends per message: more than one is a contradiction.
    told: BTreeMap<String, BTreeSet<String>>,
    open: HashSet<String>,
    /// Ids of what was read: a copy that the broker hands out again after its restart is the same copy.
    read: HashSet<String>,
    /// Of these the transport said that it did not know.
    unsure: BTreeSet<String>,
    /// Ended by `onUnknown`.
    given_up: usize,
    seen: usize,
}

impl Network {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            books: Mutex::default(),
        }
    }

    fn owe(&self, token: &str, user: &str) {
        let at = self.began.elapsed();
        let mut books = self.books.lock().unwrap();
        books.ends.owe(token, user, at);
        books.owed.push((token.to_owned(), user.to_owned(), at));
        if !books.told.contains_key(token) {
            books.open.insert(token.to_owned());
        }
    }

    fn event(&self, body: &[u8], read_again: bool) {
        let at = self.began.elapsed();
        let event: Value = serde_json::from_slice(body).unwrap();
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        let (token, id) = (text("user_message_id"), text("event_id"));
        let mut books = self.books.lock().unwrap();
        if !books.read.insert(id.to_owned()) && read_again {
            return;
        }
        books.seen += 1;
        let kind = text("event_type");
        if kind == "delivery_report" {
            match text("delivery_status") {
                "pending" => {
                    books.unsure.insert(token.to_owned());
                    return;
                }
                status => books.ends.observe(token, status, id, at),
            }
        } else {
            books.ends.observe(token, kind, id, at);
            let told = books.told.entry(token.to_owned()).or_default();
            told.insert(kind.to_owned());
            let code = &event["helper_metadata"]["fate"]["code"];
            books.given_up += usize::from(kind == "nack" && code == "fate.unknown");
        }
        books.told.entry(token.to_owned()).or_default();
        books.open.remove(token);
    }

    fn answer(&self, body: &[u8], read_again: bool) {
        let at = self.began.elapsed();
        let answer: Value = serde_json::from_slice(body).unwrap();
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        let mut books = self.books.lock().unwrap();
        if !books.read.insert(text("message_id")) && read_again {
            return;
        }
        books.seen += 1;
        books
            .answers
            .push((text("content"), text("message_id"), at));
    }

    /// Messages without an end, and how much was heard so far.
    pub fn progress(&self) -> (usize, usize) {
        let books = self.books.lock().unwrap();
        (books.open.len(), books.seen)
    }

    pub fn faults_ended(&self) {
        let at = self.began.elapsed();
        self.books.lock().unwrap().ends.faults_ended(at);
    }

    /// Judges the ends of all messages, and the order of those whose first attempt was the only one.
    pub fn judge(&self, within: Duration) -> [(&'static str, Judgement); 2] {
        let books = self.books.lock().unwrap();
        let ends = books.ends.judge(Demands {
            order: false,
            within: Some(within),
        });
        let mut order = Oracle::default();
        let sure = |token: &&(String, String, Duration)| !books.unsure.contains(&token.0);
        let answered: HashSet<&String> = books.answers.iter().map(|(token, ..)| token).collect();
        for (token, user, at) in books.owed.iter().filter(sure) {
            // A pager has no answers.
            if answered.contains(token) {
                order.owe(token, user, *at);
            }
        }
        for (token, id, at) in books.answers.iter().filter(sure) {
            order.observe(token, "recipients", id, *at);
        }
        let order = order.judge(Demands {
            order: true,
            within: None,
        });
        [("ends", ends), ("recipients", order)]
    }

    /// When the answers came of those whose order is wrong, in the order in which they came, with some before and behind.
    pub fn disorder(&self, judgement: &Judgement) -> Vec<String> {
        const AROUND: usize = 12;
        let books = self.books.lock().unwrap();
        let mut users: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
        for (user, token) in &judgement.disorder {
            users.entry(user).or_default().insert(token);
        }
        let told = users.into_iter().map(|(user, wrong)| {
            let of_user = |token: &str| token.split_once('.').is_some_and(|(of, _)| of == user);
            let answers: Vec<_> = books.answers.iter().filter(|(t, ..)| of_user(t)).collect();
            let is_wrong = |(token, ..): &&(String, String, Duration)| wrong.contains(&**token);
            let first = answers.iter().copied().position(|a| is_wrong(&a));
            let last = answers.iter().copied().rposition(|a| is_wrong(&a));
            let from = first.unwrap_or_default().saturating_sub(AROUND);
            let to = (last.unwrap_or_default() + AROUND).min(answers.len());
            let shown = answers[from..to].iter().map(|(token, _, at)| {
                let number = token.split_once('.').map_or("", |(_, number)| number);
                let mark = if wrong.contains(&**token) { "!" } else { "" };
                format!("{number}{mark} {:.1}", at.as_secs_f64())
            });
            format!("{user}: {}", shown.collect::<Vec<_>>().join(", "))
        });
        told.collect()
    }

    /// Messages that have both an ack and a nack.
    pub fn contradicted(&self) -> Vec<String> {
        let books = self.books.lock().unwrap();
        let both = books.told.iter().filter(|(_, kinds)| kinds.len() > 1);
        both.map(|(token, _)| token.clone()).collect()
    }

    /// Of how many it was said that nobody knew, and how many ended so.
    pub fn unknown(&self) -> (usize, usize) {
        let books = self.books.lock().unwrap();
        (books.unsure.len(), books.given_up)
    }
}

/// Reads what the networks say, until aborted.
pub fn watch(url: String, network: Arc<Network>) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::join!(
            read(&url, "sms.event", |body, again| network.event(body, again)),
            read(&url, "pager.event", |body, again| network
                .event(body, again)),
            read(&url, "sms.inbound", |body, again| network
                .answer(body, again)),
        );
    })
}

/// Sends `count` messages to the users of a transport, in turn, each until the broker has it.
pub async fn campaign(
    url: String,
    transport: &'static str,
    count: usize,
    network: Arc<Network>,
    mut pace: Pace,
) {
    let mut amqp = None;
    let queue = format!("{transport}.outbound");
    for number in 0..count {
        pace.turn(number, count).await;
        let user = number % USERS;
        let address = format!("{transport}{user}");
        let token = format!("{address}.{}", number / USERS);
        let mut message = user_message(&token, transport, &token);
        message["to_addr"] = address.as_str().into();
        message["helper_metadata"]["class"] = CLASSES[user % CLASSES.len()].into();
        if user.is_multiple_of(2) {
            message["helper_metadata"]["batch"] = BATCH.into();
        }
        let body = message.to_string();
        loop {
            if amqp.is_none() {
                amqp = Amqp::try_connect(&url).await.ok();
            }
            if let Some(open) = &amqp {
                match open.offer(&queue, body.as_bytes()).await {
                    Ok(true) => break,
                    // Nobody has declared it yet.
                    Ok(false) => {}
                    Err(_) => amqp = None,
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        network.owe(&token, &address);
    }
}
