//! What the peers saw, told to the oracle: the OKs and echoes of the clients, and, from outside, everything that the
//! dispatcher hands towards the application and back, and every reply that the application publishes, read by the
//! test's own AMQP client.

use crate::harness::amqp::Amqp;
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use vumi_core::conformance::oracle::{Demands, Judgement, Oracle};
use vumi_core::message::reply_id;

/// Unacknowledged copies at the observer: after a broker's restart they come again.
const WINDOW: u16 = 100;
/// Where queues are whose messages would be set aside.
const CONNECTORS: [&str; 6] = ["http", "talk", "telnet", "survey", "sms", "pager"];
/// Ends of the names of their queues.
const QUEUES: [&str; 3] = ["inbound", "outbound", "event"];
const CLASSES: [&str; 4] = ["", ".interactive", ".transactional", ".bulk"];
const PARTITIONS: [&str; 5] = ["", ".p0", ".p1", ".p2", ".p3"];

/// Copies of the application's replies.
const REPLIES: &str = "loss.replies";
/// Where messages are seen: on the way to the application, as its reply right behind it, and back at the transport.
const PLACES: [&str; 3] = ["to the application", "from the application", "back"];
const THERE: usize = 0;
const REPLIED: usize = 1;
const BACK: usize = 2;

/// One oracle per place.
pub struct Ledger {
    began: Instant,
    books: Mutex<Books>,
    progress: [AtomicUsize; 3],
    unanswered: AtomicUsize,
}

struct Books {
    oracles: [Oracle; 3],
    owed: HashSet<String>,
    /// Owed and not yet back.
    under_way: usize,
    /// Tokens seen at each place.
    seen: [HashSet<String>; 3],
    /// Reply ids of tokens seen on the way there.
    replies: HashMap<String, String>,
    /// Events that overtook the copy of the message they tell of, by its reply's id.
    early: HashMap<String, Vec<(Event, Duration)>>,
    /// Copies seen on the way there and of replies.
    copies: [usize; 2],
    /// Kinds of events per reply.
    told: HashMap<String, HashSet<String>>,
    last: Duration,
}

/// The fields that the test looks at; unknown ones are skipped fast.
#[derive(Deserialize)]
struct Copy {
    message_id: String,
    content: Option<String>,
}

impl Copy {
    /// The number it carries; none for the first greeting and for the start and end of telnet sessions.
    fn token(&self) -> Option<&str> {
        self.content.as_deref().filter(|text| text.contains('.'))
    }
}

#[derive(Deserialize)]
struct Event {
    event_id: String,
    event_type: String,
    user_message_id: String,
}

impl Ledger {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            books: Mutex::new(Books {
                oracles: Default::default(),
                owed: HashSet::new(),
                under_way: 0,
                seen: Default::default(),
                replies: HashMap::new(),
                early: HashMap::new(),
                copies: [0; 2],
                told: HashMap::new(),
                last: Duration::ZERO,
            }),
            progress: Default::default(),
            unanswered: AtomicUsize::new(0),
        }
    }

    /// The peer of `user` got its OK for `token`.
    pub fn owe(&self, token: &str, user: &str) {
        let at = self.began.elapsed();
        let mut books = self.books.lock().unwrap();
        for oracle in &mut books.oracles {
            oracle.owe(token, user, at);
        }
        if books.owed.insert(token.to_owned()) && !books.seen[BACK].contains(token) {
            books.under_way += 1;
        }
    }

    /// A user heard `token` again.
    pub fn heard(&self, token: &str, place: &str, whom: &str) {
        let at = self.began.elapsed();
        let mut books = self.books.lock().unwrap();
        books.oracles[BACK].observe(token, place, whom, at);
        books.note(BACK, token, at);
        self.count(&books);
    }

    /// A user was told that there will be no answer.
    pub fn unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were told so.
    pub fn left_unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// A copy of a message to the application. What is `read_again` and was seen before is the same copy.
    fn copied(&self, body: &[u8], read_again: bool) {
        let at = self.began.elapsed();
        let copy: Copy = serde_json::from_slice(body).unwrap();
        let Some(token) = copy.token() else { return };
        let mut books = self.books.lock().unwrap();
        if read_again && books.seen[THERE].contains(token) {
            return;
        }
        books.copies[THERE] += 1;
        books.oracles[THERE].observe(token, "application", &copy.message_id, at);
        let reply = reply_id(&copy.message_id, "application/echo", 0);
        for (event, at) in books.early.remove(&reply).unwrap_or_default() {
            books.returned(token, event, at);
        }
        books.replies.insert(reply, token.to_owned());
        books.note(THERE, token, at);
        self.count(&books);
    }

    /// A copy of a reply that the application published.
    fn replied(&self, body: &[u8], read_again: bool) {
        let at = self.began.elapsed();
        let copy: Copy = serde_json::from_slice(body).unwrap();
        let Some(token) = copy.token() else { return };
        let mut books = self.books.lock().unwrap();
        if read_again && books.seen[REPLIED].contains(token) {
            return;
        }
        books.copies[REPLIED] += 1;
        books.oracles[REPLIED].observe(token, "transports", &copy.message_id, at);
        books.note(REPLIED, token, at);
        self.count(&books);
    }

    /// What the transport said about a reply: the reply has come all the way back.
    fn event(&self, body: &[u8], read_again: bool) {
        let at = self.began.elapsed();
        let event: Event = serde_json::from_slice(body).unwrap();
        let mut books = self.books.lock().unwrap();
        books.last = at;
        match books.replies.get(&event.user_message_id).cloned() {
            Some(token) if read_again && books.was_told(&token, &event) => {}
            Some(token) => books.returned(&token, event, at),
            None => {
                let id = event.user_message_id.clone();
                books.early.entry(id).or_default().push((event, at));
            }
        }
        self.count(&books);
    }

    fn count(&self, books: &Books) {
        for (counter, seen) in self.progress.iter().zip(&books.seen) {
            counter.store(seen.len(), Ordering::Relaxed);
        }
    }

    /// Different messages that reached the application's side, and that came back.
    pub fn progress(&self) -> (usize, usize) {
        let at = |place: usize| self.progress[place].load(Ordering::Relaxed);
        (at(THERE), at(BACK))
    }

    /// Copies to the application and from it beyond the first of each.
    pub fn repeated(&self) -> [usize; 2] {
        let books = self.books.lock().unwrap();
        [THERE, REPLIED].map(|place| books.copies[place] - books.seen[place].len())
    }

    /// Owed, and not yet back.
    pub fn under_way(&self) -> usize {
        self.books.lock().unwrap().under_way
    }

    /// Messages of which the application was told both that their reply was delivered and that it was not.
    pub fn contradicted(&self) -> Vec<String> {
        let books = self.books.lock().unwrap();
        let both = books.told.iter().filter(|(_, kinds)| kinds.len() > 1);
        both.map(|(token, _)| token.clone()).collect()
    }

    /// Owed, and not yet seen at every place.
    pub fn open(&self) -> usize {
        let books = self.books.lock().unwrap();
        let done = |token: &&String| books.seen.iter().all(|seen| seen.contains(*token));
        books.owed.iter().filter(|token| !done(token)).count()
    }

    /// Some of those: what they are, at which places they were seen, and the id of the reply, if it is known.
    pub fn missing(&self) -> Vec<(String, Option<String>)> {
        let books = self.books.lock().unwrap();
        let reply = |token: &str| {
            let mut replies = books.replies.iter();
            replies.find_map(|(id, of)| (of == token).then(|| id.clone()))
        };
        let missing = books.owed.iter().filter_map(|token| {
            let seen: Vec<&str> = PLACES
                .iter()
                .zip(&books.seen)
                .filter_map(|(place, seen)| seen.contains(token).then_some(*place))
                .collect();
            (seen.len() < PLACES.len()).then(|| (format!("{token}, seen {seen:?}"), reply(token)))
        });
        missing.take(10).collect()
    }

    pub fn faults_ended(&self) {
        let at = self.began.elapsed();
        let mut books = self.books.lock().unwrap();
        for oracle in &mut books.oracles {
            oracle.faults_ended(at);
        }
    }

    /// Waits until nothing came for so long.
    pub async fn quiet(&self, pause: Duration) {
        loop {
            let last = self.books.lock().unwrap().last;
            if self.began.elapsed() > last + pause {
                return;
            }
            tokio::time::sleep(pause / 4).await;
        }
    }

    pub fn judge(&self, within: Duration) -> [(&'static str, Judgement); 3] {
        let books = self.books.lock().unwrap();
        [THERE, REPLIED, BACK].map(|place| {
            let demands = Demands {
                // The HTTP transports take replies as they come, and their events tell of it in that order. Telnet
                // users check themselves that they hear their lines in order.
                order: place != BACK,
                within: Some(within),
            };
            (PLACES[place], books.oracles[place].judge(demands))
        })
    }

    /// Queues in which something was set aside.
    pub async fn parked(&self, url: &str) -> Vec<String> {
        let amqp = Amqp::connect(url).await;
        let mut found = Vec::new();
        for (connector, flow) in CONNECTORS.iter().flat_map(|c| QUEUES.map(|q| (c, q))) {
            for (class, part) in CLASSES.iter().flat_map(|c| PARTITIONS.map(|p| (c, p))) {
                let queue = format!("{connector}.{flow}{class}{part}.parked");
                if amqp.ready(&queue).await.is_some_and(|count| count > 0) {
                    found.push(queue);
                }
            }
        }
        found
    }
}

impl Books {
    fn was_told(&self, token: &str, event: &Event) -> bool {
        let told = self.told.get(token);
        told.is_some_and(|kinds| kinds.contains(&event.event_type))
    }

    fn note(&mut self, place: usize, token: &str, at: Duration) {
        self.last = at;
        let first = self.seen[place].insert(token.to_owned());
        if place == BACK && first && self.owed.contains(token) {
            self.under_way -= 1;
        }
    }

    fn returned(&mut self, token: &str, event: Event, at: Duration) {
        // A transport that died after it wrote a reply cannot know that it did: the reply comes again to one who may
        // say the opposite. Only repeats of one kind must be equal.
        let place = format!("{} of the transport", event.event_type);
        self.oracles[BACK].observe(token, &place, &event.event_id, at);
        let told = self.told.entry(token.to_owned()).or_default();
        told.insert(event.event_type);
        self.note(BACK, token, at);
    }
}

/// Reads both queues of the connector `observed`, and copies of what the application publishes, until aborted, over
/// broker restarts. The first reply has its copy too.
pub async fn watch(url: String, ledger: Arc<Ledger>) -> JoinHandle<()> {
    let amqp = Amqp::connect(&url).await;
    amqp.copy(REPLIES, "survey.outbound").await;
    tokio::spawn(async move {
        tokio::join!(
            read(&url, "observed.inbound", |body, again| ledger
                .copied(body, again)),
            read(&url, REPLIES, |body, again| ledger.replied(body, again)),
            read(&url, "observed.event", |body, again| ledger
                .event(body, again)),
        );
    })
}

/// Whatever hangs or goes silent is begun anew: the observer must not be what stops the flow.
pub async fn read(url: &str, queue: &str, saw: impl Fn(&[u8], bool)) {
    const SILENCE: Duration = Duration::from_secs(3);
    let last = Mutex::new(Instant::now());
    loop {
        *last.lock().unwrap() = Instant::now();
        let reading = async {
            // While the broker is away, and before the dispatcher has declared the queue, this fails.
            let amqp = Amqp::try_connect(url).await?;
            let noted = |body: &[u8], again: bool| {
                *last.lock().unwrap() = Instant::now();
                saw(body, again);
            };
            amqp.consume(queue, WINDOW, SILENCE, noted).await
        };
        // A request to a broker that stops may never be answered.
        let hangs = async {
            while last.lock().unwrap().elapsed() < SILENCE * 2 {
                tokio::time::sleep(SILENCE / 4).await;
            }
        };
        tokio::select! {
            _ = reading => {}
            () = hangs => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
