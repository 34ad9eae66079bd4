//! An endpoint of an `httpRelay` that is away for six hours, in simulated time, then back and slow, then refuses, then wants
//! another secret: real relays, real sockets, the embedded broker and store; only the clocks are moved. `tests/it/relay/`
//! is the same in real time, over RabbitMQ and Redis, where half a minute stands for the six hours, with 20 events a second.

mod endpoint;

use super::clock::Clock;
use super::outage::{self, AT_ONCE, MEMORY_KIB, MINUTE, OUTAGE, STEP, supervisor};
use super::services::StoreOfTest;
use endpoint::{Endpoint, address};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use vumi_api::{Flow, Port, Resource};
use vumi_core::broker::Broker;
use vumi_core::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use vumi_core::conformance::stand_in;
use vumi_core::message::{DeliveryStatus, Event, UserMessage};
use vumi_core::parking::{self, Selection};
use vumi_core::secrets::Secrets;
use vumi_core::state::journal::{Filter, Listed, Reason};
use vumi_core::state::{Person, StateStore};
use vumi_core::supervisor::services::StateSource;
use vumi_testkit::resident;

const HOUR: Duration = Duration::from_secs(3600);
/// Users who write all the time, one message a second together.
const USERS: Range<usize> = 0..100;
/// In so many steps an event comes: the ack of a message that went out, then its delivery report. Each such message is a lane
/// of its own, which is tried on its own: with many more of them the test would take minutes.
const EVENT_EVERY: usize = 3;
const KINDS: [&str; 2] = ["ack", "delivery_report"];
/// Bytes of each message beside its number: what waits is large beside the memory that six hours may take.
const PADDING: usize = 1000;
/// What each answer of a slow endpoint takes, for how long it is slow, and how many messages come a second meanwhile: of
/// users for whom nothing waits.
const SLOW: Duration = Duration::from_secs(10);
const SLOW_FOR: Duration = Duration::from_secs(120);
const SLOW_RATE: usize = 20;
const FRESH: Range<usize> = 1000..1400;
/// A worker has 200 messages of its queue in hand at most, so that an endpoint that takes 10 s gets 20 a second of what is new:
/// half of that it must get at least, from when its first answers are there.
const LEAST: u64 = 10;
/// Users whose messages are answered 404, and one that is answered 302.
const GONE: Range<usize> = 5000..5010;
const MOVED: usize = 5010;
/// Users who write while the endpoint knows none of our secrets, and one when it knows the old one of two.
const HELD: Range<usize> = 6000..6005;
const OVERLAP: usize = 6005;
/// What the shortest and the longest wait of back-off at its maximum leave of attempts in an hour, with timers late by a step.
const ATTEMPTS: std::ops::RangeInclusive<u32> = 11..=25;
/// Longest wait of back-off.
const LONGEST: Duration = Duration::from_secs(300);
const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn relay(name: &str, port: u16) -> Resource {
    let secret = |key: &str| serde_json::json!({"secretKeyRef": {"name": "signing", "key": key}});
    let spec = serde_json::json!({
        "httpRelay": {
            "url": format!("http://127.0.0.1:{port}/in"),
            "signing": {"secrets": [secret("new"), secret("old")]},
        },
        "transportName": name,
    });
    let manifest =
        serde_json::json!({"kind": "Application", "metadata": {"name": name}, "spec": spec});
    stand_in::resource(&manifest).unwrap()
}

/// The Secret of both relays.
fn secrets(new: &str, old: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let keys = [("new", new), ("old", old)];
    let keys = keys.map(|(key, value)| (key.to_owned(), value.to_owned()));
    BTreeMap::from([("signing".to_owned(), BTreeMap::from(keys))])
}

/// Two relays, `crm` whose endpoint has troubles, and `other`; and what is written to them.
struct Campaign {
    clock: Clock,
    broker: Arc<dyn Broker>,
    store: Arc<dyn StateStore>,
    other: Arc<Endpoint>,
    /// How many messages each user wrote to each relay.
    sent: BTreeMap<(&'static str, usize), usize>,
    turn: usize,
    /// How many events each relay got.
    told: usize,
}

impl Campaign {
    /// The next message of a user.
    async fn write(&mut self, name: &'static str, user: usize) {
        let next = self.sent.entry((name, user)).or_default();
        let number = *next;
        *next += 1;
        let mut message = UserMessage::new("sms", Some("555"), Some(&address(user)));
        message.set_message_id(&id(name, user, number));
        message.set_transport_name(name);
        let padding = "x".repeat(PADDING);
        message.set_content(Some(&format!("{number} {padding}")));
        let port = Port::new(name, Flow::Inbound);
        outage::publish(&*self.broker, &port, message.encode()).await;
    }

    /// The next event, to each relay.
    async fn tell(&mut self) {
        let (number, kind) = (self.told / KINDS.len(), self.told % KINDS.len());
        self.told += 1;
        for name in ["crm", "other"] {
            let id = sent_id(name, number);
            let mut event = match kind {
                0 => Event::ack(&id, &id),
                _ => Event::delivery_report(&id, &id, DeliveryStatus::Delivered),
            };
            event.set_transport_name(name);
            let port = Port::new(name, Flow::Event);
            outage::publish(&*self.broker, &port, event.encode()).await;
        }
    }

    /// So many of these users write to `crm` in turn, and one to `other`, whose endpoint has it at once; then time passes.
    async fn passes(&mut self, span: Duration, users: Range<usize>, messages: usize) {
        for _ in 0..messages {
            let user = users.start + self.turn % users.len();
            self.turn += 1;
            self.write("crm", user).await;
        }
        let other = self.turn % USERS.len();
        self.write("other", other).await;
        self.clock.advance_by(AT_ONCE, AT_ONCE).await;
        assert_eq!(self.other.count(), self.all("other"), "at once");
        assert_eq!(self.other.told().len(), self.told, "events at once");
        self.clock
            .advance_by(span.saturating_sub(AT_ONCE), STEP)
            .await;
    }

    /// One step: a message a second, and an event if it is time.
    async fn steps_on(&mut self, step: usize) {
        if step % EVENT_EVERY == 1 {
            self.tell().await;
        }
        self.passes(STEP, USERS, STEP.as_secs() as usize).await;
    }

    /// How many messages were written to a relay.
    fn all(&self, name: &str) -> usize {
        let of = self.sent.iter().filter(|((of, _), _)| *of == name);
        of.map(|(_, count)| count).sum()
    }

    /// An endpoint has each message once, everyone's in order, and each event once, those of a message in order.
    fn judge(&self, name: &str, endpoint: &Endpoint) {
        let mut users = BTreeMap::<usize, Vec<usize>>::new();
        for (user, number) in endpoint.taken() {
            users.entry(user).or_default().push(number);
        }
        let sent = self.sent.iter().filter(|((of, _), _)| *of == name);
        let sent: BTreeMap<usize, Vec<usize>> = sent
            .map(|((_, user), count)| (*user, (0..*count).collect()))
            .collect();
        assert_eq!(users, sent, "{name}");
        let mut events = BTreeMap::<String, Vec<String>>::new();
        for (message, kind) in endpoint.told() {
            events.entry(message).or_default().push(kind);
        }
        let mut told = BTreeMap::<String, Vec<String>>::new();
        for n in 0..self.told {
            let message = sent_id(name, n / KINDS.len());
            let kinds = told.entry(message).or_default();
            kinds.push(KINDS[n % KINDS.len()].to_owned());
        }
        assert_eq!(events, told, "{name}");
    }

    /// The first message of each user that waits.
    async fn heads(&self) -> BTreeMap<usize, Listed> {
        let mut heads = BTreeMap::new();
        for user in USERS {
            let filter = Filter {
                lane: Some(Person::new(&address(user)).lane()),
                ..Filter::default()
            };
            let listed = self.store.list("crm.inbound", &filter, 1).await.unwrap();
            let head = listed.into_iter().next().expect("it waits");
            assert_eq!(head.place, 0);
            heads.insert(user, head);
        }
        heads
    }

    /// Codes of what is set aside, by message.
    async fn parked(&self) -> BTreeMap<String, String> {
        let listed = parking::list(&*self.broker, "crm.inbound", 1000).await;
        let parked = listed.unwrap().into_iter();
        parked
            .map(|parked| (parked.message_id.unwrap(), parked.code))
            .collect()
    }
}

fn id(name: &str, user: usize, number: usize) -> String {
    format!("{name} {user}/{number}")
}

/// Id of a message that went out, of which events tell.
fn sent_id(name: &str, number: usize) -> String {
    format!("{name} out {number}")
}

/// The users of what an endpoint took.
fn users(taken: &[(usize, usize)]) -> BTreeSet<usize> {
    taken.iter().map(|(user, _)| *user).collect()
}

#[test]
fn an_endpoint_that_is_away_for_six_hours_then_slow_then_wrong_gets_everything_in_order() {
    outage::simulated(away);
}

async fn away(clock: Clock) {
    let folder = tempfile::tempdir().unwrap();
    let stores = StoreOfTest {
        beside: clock.beside(),
        folder: folder.path().to_owned(),
    };
    let embedded = EmbeddedBroker::start(EmbeddedOptions::default()).unwrap();
    clock.with_sockets();
    let crm = Endpoint::open(&[OLD]).await;
    let other = Endpoint::open(&[OLD, NEW]).await;
    let resources = vec![relay("crm", crm.port), relay("other", other.port)];
    let mut campaign = Campaign {
        clock,
        broker: embedded.connect(),
        store: stores.open(&resources[0]).await.unwrap(),
        other: Arc::clone(&other),
        sent: BTreeMap::new(),
        turn: 0,
        told: 0,
    };
    // Both of a rotation are one to begin with.
    let held = Arc::new(Secrets::new(secrets(OLD, OLD), None));
    let supervisor = supervisor(embedded, &campaign.store, held);
    let applied = campaign
        .clock
        .drive(supervisor.apply(resources), MINUTE)
        .await;
    assert!(applied.unwrap().not_applied.is_empty());
    let a_step = STEP.as_secs() as usize;
    for step in 0..30 {
        campaign.steps_on(step).await;
    }
    campaign.judge("crm", &crm);

    // Away: one message a second, and an event in each half of a minute.
    crm.goes_away();
    campaign.clock.advance_by(AT_ONCE, AT_ONCE).await;
    let (before, told_before) = (crm.count(), campaign.told);
    let steps = |span: Duration| (span.as_secs() / STEP.as_secs()) as usize;
    let (mut early, mut earlier) = (0, BTreeMap::new());
    for step in 1..=steps(OUTAGE) {
        // An event of the last minute would still be in its worker's hand at the end, and not in the journal.
        match step <= steps(OUTAGE - MINUTE) {
            true => campaign.steps_on(step).await,
            false => campaign.passes(STEP, USERS, a_step).await,
        }
        if step == steps(HOUR) {
            early = resident();
        }
        if step == steps(OUTAGE - HOUR) {
            earlier = campaign.heads().await;
        }
        if step.is_multiple_of(steps(HOUR)) {
            println!("hour {}: {} KiB", step / steps(HOUR), resident());
        }
    }
    let late = resident();
    assert!(
        late <= early + MEMORY_KIB,
        "{early} KiB after an hour, {late} KiB after six"
    );
    campaign.judge("other", &other);
    // Nothing ended: what was written waits, all of it, and nothing is set aside.
    assert_eq!(crm.count(), before);
    let waiting = (campaign.all("crm") - before) as u64;
    let depth = campaign.store.depth("crm.inbound").await.unwrap();
    assert_eq!(
        (depth.messages, depth.lanes),
        (waiting, USERS.len() as u64),
        "messages and users"
    );
    assert_eq!(crm.told().len(), told_before);
    let waiting = campaign.told - told_before;
    let of = campaign.told.div_ceil(KINDS.len()) - told_before / KINDS.len();
    let depth = campaign.store.depth("crm.event").await.unwrap();
    assert_eq!(
        (depth.messages, depth.lanes),
        (waiting as u64, of as u64),
        "events and messages that they are of"
    );
    assert_eq!(campaign.parked().await, BTreeMap::new());
    let now = vumi_core::clock::now().duration_since(std::time::UNIX_EPOCH);
    let latest = (now.unwrap() + LONGEST + AT_ONCE).as_millis() as u64;
    for (user, head) in campaign.heads().await {
        let about = &head.entry.about;
        assert_eq!((about.reason, about.counted), (Reason::Backoff, 0));
        assert!(head.due.is_some_and(|due| due <= latest), "{:?}", head.due);
        // Nobody's first message was taken away, and its tries are as far apart as they may be.
        let before = &earlier[&user].entry;
        assert_eq!(head.entry.body, before.body);
        let in_an_hour = about.attempts - before.about.attempts;
        assert!(ATTEMPTS.contains(&in_an_hour), "{in_an_hour} in an hour");
    }

    // Back, and slow, while more comes than before.
    let began = crm.count();
    crm.behaves(|manner| manner.delay = SLOW);
    crm.comes_back().await;
    for _ in 0..SLOW_FOR.as_secs() {
        campaign.passes(AT_ONCE, FRESH, SLOW_RATE).await;
    }
    let relayed = (crm.count() - began) as u64;
    println!("{relayed} in {SLOW_FOR:?}, each of which took {SLOW:?}");
    assert!(
        relayed >= (SLOW_FOR - SLOW).as_secs() * LEAST,
        "{relayed} in {SLOW_FOR:?}"
    );
    crm.behaves(|manner| manner.delay = Duration::ZERO);
    // What it has in hand is answered first: in a longer step a slow answer and its timeout would come together.
    campaign.clock.advance_by(SLOW + AT_ONCE, AT_ONCE).await;
    // Nobody waits longer than the longest back-off.
    for _ in 0..steps(LONGEST + MINUTE) {
        campaign.passes(STEP, USERS, a_step).await;
    }
    campaign.judge("crm", &crm);
    for queue in ["crm.inbound", "crm.event"] {
        let depth = campaign.store.depth(queue).await.unwrap();
        assert_eq!(depth.messages, 0, "{queue}");
    }
    println!(
        "{} messages and {} events in all",
        crm.count(),
        crm.told().len()
    );

    // Wrong: set aside at once, at the first try, and only what is refused.
    let gone = GONE.map(|user| (user, 404));
    crm.behaves(|manner| manner.answers = gone.chain([(MOVED, 302)]).collect());
    for user in GONE.chain([MOVED]) {
        campaign.write("crm", user).await;
    }
    let taken = crm.count();
    campaign.passes(AT_ONCE, USERS, a_step).await;
    let code = |user: usize, code: &str| (id("crm", user, 0), code.to_owned());
    let mut aside: BTreeMap<String, String> =
        GONE.map(|user| code(user, "relay.refused")).collect();
    aside.extend([code(MOVED, "relay.redirected")]);
    assert_eq!(campaign.parked().await, aside);
    let once: BTreeMap<usize, usize> = GONE.map(|user| (user, 1)).collect();
    assert_eq!(crm.refused(404), once);
    assert_eq!(crm.refused(302), BTreeMap::from([(MOVED, 1)]));
    assert_eq!(crm.count(), taken + a_step, "what is not refused goes on");

    // A secret is replaced: the endpoint knows the new one first, then both ends use it alone.
    crm.behaves(|manner| manner.secrets = vec![NEW]);
    for user in HELD {
        campaign.write("crm", user).await;
    }
    campaign.passes(STEP, USERS, 0).await;
    let held: BTreeSet<usize> = HELD.collect();
    assert!(users(&crm.taken()).is_disjoint(&held));
    assert!(crm.refused(401).keys().copied().eq(HELD));
    let rotated = supervisor.secrets_changed(secrets(NEW, OLD));
    campaign.clock.drive(rotated, MINUTE).await.unwrap();
    campaign.passes(MINUTE, USERS, 0).await;
    assert!(users(&crm.taken()).is_superset(&held));
    crm.behaves(|manner| manner.secrets = vec![OLD]);
    campaign.write("crm", OVERLAP).await;
    campaign.passes(AT_ONCE, USERS, 0).await;
    assert_eq!(
        crm.taken().last(),
        Some(&(OVERLAP, 0)),
        "the old one signs as well"
    );
    crm.behaves(|manner| manner.secrets = vec![NEW]);
    let rotated = supervisor.secrets_changed(secrets(NEW, NEW));
    campaign.clock.drive(rotated, MINUTE).await.unwrap();
    assert_eq!(
        campaign.parked().await,
        aside,
        "a wrong secret sets nothing aside"
    );

    // A person sends again what was refused: exactly that, and the rest when it is its turn.
    crm.behaves(|manner| manner.answers.clear());
    for (selection, wanted) in [
        (Selection::Code("relay.refused".into()), GONE),
        (Selection::All, MOVED..MOVED + 1),
    ] {
        let taken = crm.count();
        let handled = parking::requeue(&*campaign.broker, "crm.inbound", &selection).await;
        let handled = handled.unwrap();
        assert_eq!(handled.stopped, None);
        assert_eq!(handled.done, wanted.len());
        campaign.passes(AT_ONCE, USERS, 0).await;
        let all = crm.taken();
        let requeued = &all[taken..];
        assert_eq!(requeued.len(), wanted.len());
        let wanted: BTreeSet<usize> = wanted.collect();
        assert_eq!(users(requeued), wanted, "exactly those");
    }
    assert_eq!(campaign.parked().await, BTreeMap::new());
    campaign.judge("crm", &crm);
    campaign.judge("other", &other);
    campaign
        .clock
        .drive(supervisor.shutdown(), 2 * MINUTE)
        .await;
}
