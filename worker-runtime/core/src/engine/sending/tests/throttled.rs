//! Networks with a limit.

use super::*;
use crate::engine::tests::{Rig, Setup};

/// A network that takes so many parts a second, `BURST` of them at once after a pause, and has a time in which its queue is
/// full.
struct Limited {
    began: Instant,
    full: std::ops::Range<u64>,
    state: Mutex<Traffic>,
}

/// Parts that it takes in a second.
const PARTS: u32 = 50;
const BURST: u32 = 5;

#[derive(Default)]
struct Traffic {
    /// Parts that it would take at `at`.
    room: f64,
    at: Duration,
    /// Parts taken, and requests refused, by second.
    took: std::collections::BTreeMap<u64, (u32, u32)>,
    refused: Vec<Duration>,
    /// Numbers taken, by user.
    order: std::collections::HashMap<String, Vec<usize>>,
}

impl Limited {
    fn new(full: std::ops::Range<u64>) -> Self {
        let room = f64::from(BURST);
        Self {
            began: Instant::now(),
            full,
            state: Mutex::new(Traffic {
                room,
                ..Traffic::default()
            }),
        }
    }
}

#[async_trait]
impl Worker for Limited {
    fn parts(&self, message: &UserMessage) -> u32 {
        if number(message).is_multiple_of(11) {
            3
        } else {
            1
        }
    }

    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let message = input.to_deliver()?;
        let parts = self.parts(message);
        let now = self.began.elapsed();
        let mut state = self.state.lock().unwrap();
        let filled = f64::from(PARTS) * (now - state.at).as_secs_f64();
        state.room = (state.room + filled).min(f64::from(BURST));
        state.at = now;
        // But for the rounding of sums.
        let has_room = state.room + 1e-3 >= f64::from(parts);
        let fits = has_room && !self.full.contains(&now.as_secs());
        let count = state.took.entry(now.as_secs()).or_default();
        if !fits {
            count.1 += 1;
            state.refused.push(now);
            return Err(WorkError::new(
                ErrorClass::Throttled(None),
                codes::PEER_THROTTLED,
                "too fast",
            ));
        }
        count.0 += parts;
        state.room -= f64::from(parts);
        let user = message.to_addr().unwrap_or_default().to_owned();
        state.order.entry(user).or_default().push(number(message));
        let mut ack = Event::ack(message.message_id(), "r");
        ack.set_transport_name("t");
        Ok(vec![Output::new(Port::new("t", Flow::Event), ack)])
    }
}

/// A message of a class, with a number.
fn labelled(user: &str, class: &str, number: usize) -> UserMessage {
    let mut message = UserMessage::new("sms", Some(user), Some("555"));
    message.set_content(Some(&number.to_string()));
    let labels = message.helper_metadata_mut();
    labels.insert("class".into(), class.into());
    message
}

/// Acceptance test 8 of the guarantees, in simulated time: a network that takes 50 parts a second, which the manifest knows, and
/// has a full queue for 20 seconds; or which the manifest says too fast by a fifth, so that it throttles; 5 000 single and 500
/// triple messages of 100 users, and one-time passwords in between.
#[tokio::test(start_paused = true)]
async fn a_network_with_a_limit_is_used_to_it_and_not_beyond() {
    limited_campaign(PARTS, 60..80).await;
    limited_campaign(60, 0..0).await;
}

async fn limited_campaign(rate: u32, full: std::ops::Range<u64>) {
    const PASSWORDS: usize = 60;
    let store = store();
    let spec = json!({"rateLimit": {"rate": rate, "burst": BURST, "unit": "parts"}, "classes": {}});
    let bench = Bench::new(&store, spec, false);
    let network = Arc::new(Limited::new(full.clone()));
    let worker: Arc<dyn Worker> = Arc::clone(&network) as _;
    let (_, desk) = bench.desk(&Life::until(0), None, worker);
    let desk = Arc::new(desk);
    let users = (0..100).map(|user| {
        let desk = Arc::clone(&desk);
        async move {
            for number in 0..55 {
                let message = labelled(&format!("user{user}"), "bulk", number);
                let finished = Arc::clone(&desk).work(delivery(&message, false)).await;
                assert_eq!(finished.verdict, Verdict::Done);
            }
        }
    });
    // Each is a user of its own, who waits for nobody else's.
    let passwords = (0..PASSWORDS).map(|n| {
        let desk = Arc::clone(&desk);
        let began = network.began;
        async move {
            tokio::time::sleep(Duration::from_millis(2123) * n as u32).await;
            let asked = Instant::now();
            let message = labelled(&format!("shopper{n}"), "interactive", 1);
            let finished = desk.work(delivery(&message, false)).await;
            assert_eq!(finished.verdict, Verdict::Done);
            (asked - began, asked.elapsed())
        }
    });
    let (_, waits) = tokio::join!(
        futures::future::join_all(users),
        futures::future::join_all(passwords)
    );
    let state = network.state.lock().unwrap();
    assert_eq!(state.order.len(), 100 + PASSWORDS);
    for (user, numbers) in &state.order {
        let all = numbers.iter().copied();
        let fits = match user.starts_with("user") {
            true => all.eq(0..55),
            false => all.eq([1]),
        };
        assert!(fits, "in order, once, none lost: {user}: {numbers:?}");
    }
    let last = *state.took.keys().last().unwrap();
    let sum = |seconds: std::ops::Range<u64>| {
        let there = state.took.range(seconds.clone()).map(|(_, count)| *count);
        let all = there.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        (
            f64::from(all.0) / (seconds.end - seconds.start) as f64,
            all.1,
        )
    };
    // Settled: before the queue was full, and once the pace is regained.
    for settled in [30..60, 105..last] {
        let (per_second, refused) = sum(settled.clone());
        let requests = per_second * (settled.end - settled.start) as f64;
        println!("{rate} a second, {settled:?}: {per_second:.1} used, {refused} refused");
        assert!(
            per_second >= 0.95 * f64::from(PARTS),
            "{rate}, {settled:?}: {per_second}"
        );
        assert!(
            f64::from(refused) < requests / 100.0,
            "{rate}, {settled:?}: {refused}"
        );
        assert!(rate > PARTS || refused == 0, "{settled:?}: {refused}");
    }
    let (_, refused) = sum(60..80);
    assert!(
        refused < 100,
        "a full queue is asked now and then, not hammered: {refused}"
    );
    assert_eq!(state.refused.is_empty(), rate == PARTS && full.is_empty());
    // A network that takes nothing takes no password either.
    let full = match full.is_empty() {
        true => Duration::ZERO..Duration::ZERO,
        false => Duration::from_secs(full.start - 1)..Duration::from_secs(full.end + 2),
    };
    let mut longest = Duration::ZERO;
    for (asked, waited) in &waits {
        if *asked < Duration::from_secs(30) || full.contains(asked) {
            continue;
        }
        let pause = paused(&state.refused, *asked, *waited);
        let most = Duration::from_millis(if pause { 1250 } else { 1000 });
        assert!(*waited <= most, "{rate}: {waited:?} at {asked:?}");
        longest = longest.max(*waited);
    }
    println!("{rate} a second: one-time passwords waited at most {longest:?}");
}

/// Whether a pause after one of these refusals falls into a wait. Asked to slow down, nothing is sent for a second.
fn paused(refused: &[Duration], asked: Duration, waited: Duration) -> bool {
    let span = asked..=asked + waited;
    refused
        .iter()
        .any(|at| span.contains(at) || span.contains(&(*at + Duration::from_secs(1))))
}

/// An HTTP network that takes so many requests a second, and asks to come back after one.
struct Http {
    began: Instant,
    limit: u32,
    second: Mutex<(u64, u32)>,
    took: Mutex<Vec<(Duration, UserMessage)>>,
    refused: Mutex<Vec<Duration>>,
}

impl Http {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            limit: LIMIT,
            second: Mutex::default(),
            took: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    /// When it took the message for each user, as far as `fits` says.
    fn taken(&self, fits: impl Fn(&str) -> bool) -> Vec<(String, Duration)> {
        let took = self.took.lock().unwrap();
        let of = |(at, message): &(Duration, UserMessage)| {
            let user = message.to_addr().unwrap_or_default();
            fits(user).then(|| (user.to_owned(), *at))
        };
        took.iter().filter_map(of).collect()
    }
}

#[async_trait]
impl Worker for Http {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let message = input.to_deliver()?;
        let now = self.began.elapsed();
        {
            let mut second = self.second.lock().unwrap();
            if second.0 != now.as_secs() {
                *second = (now.as_secs(), 0);
            }
            if second.1 == self.limit {
                self.refused.lock().unwrap().push(now);
                return Err(WorkError::new(
                    ErrorClass::Throttled(Some(Duration::from_secs(1))),
                    codes::PEER_THROTTLED,
                    "429, Retry-After: 1",
                ));
            }
            second.1 += 1;
        }
        self.took.lock().unwrap().push((now, message.clone()));
        let mut ack = Event::ack(message.message_id(), "r");
        ack.set_transport_name("t");
        Ok(vec![Output::new(Port::new("t", Flow::Event), ack)])
    }
}

/// What an HTTP network takes in a second.
const LIMIT: u32 = 20;

/// Acceptance test 8 with a network over HTTP, in simulated time: twenty a second with `Retry-After: 1`, which the manifest
/// knows, or says too fast by half or by five times; ten minutes of a campaign, and one-time passwords in between.
#[tokio::test(start_paused = true)]
async fn a_throttling_network_is_used_and_a_one_time_password_leaves_at_once_while_a_campaign_waits()
 {
    for rate in [LIMIT, 30, 100] {
        throttled_campaign(rate, &[None]).await;
    }
}

/// The same with two replicas whose bucket is in the store that they share: what one of them is told holds for both.
#[test]
fn replicas_that_share_a_bucket_find_out_together_what_a_network_takes() {
    in_simulated_time(async {
        for rate in [LIMIT, 30, 100] {
            let shared = simulated_store();
            throttled_campaign(rate, &[Some(Arc::clone(&shared)), Some(shared)]).await;
        }
    });
}

/// The same with everything around it: a broker, a queue for each class, the window, and a store.
#[test]
fn a_throttling_network_is_used_by_a_campaign_with_all_that_a_transport_has() {
    in_simulated_time(async {
        for rate in [LIMIT, 30] {
            campaign_from_the_broker(rate).await;
        }
    });
}

async fn campaign_from_the_broker(rate: u32) {
    const EACH: usize = 40;
    let network = Http::new();
    let settings = json!({"rateLimit": {"rate": rate, "burst": 1}, "classes": {}, "retry": {"maxAttempts": 3}, "backlogLimit": 50_000});
    let setup = Setup {
        kind: Kind::Transport,
        state: Some(simulated_store()),
        ..Setup::new(settings)
    };
    let peer = Arc::clone(&network);
    let rig = Rig::on(setup, move |input, _| {
        let peer = Arc::clone(&peer);
        async move { peer.handle(input).await }
    })
    .await;
    let publish = async |user: String, class: &str, number: usize| {
        let mut message = labelled(&user, class, number);
        message.set_transport_name("t");
        rig.publish("t.outbound", message.encode()).await;
    };
    for number in 0..EACH {
        for user in 0..100 {
            publish(format!("user{user}"), "bulk", number).await;
        }
    }
    let is_bulk = |user: &str| user.starts_with("user");
    let mut asked = Vec::new();
    while network.taken(is_bulk).len() < 100 * EACH {
        tokio::time::sleep(Duration::from_millis(4321)).await;
        let now = network.began.elapsed();
        assert!(now < Duration::from_secs(900), "{rate}: it stands still");
        publish(
            format!("shopper{}", asked.len()),
            "interactive",
            asked.len(),
        )
        .await;
        asked.push(now);
    }
    // The last password.
    tokio::time::sleep(Duration::from_secs(5)).await;
    rig.stop_now().await;
    let left = network.taken(|user| !is_bulk(user));
    let waits: Vec<(Duration, Duration)> = asked
        .iter()
        .enumerate()
        .map(|(number, asked)| {
            let user = format!("shopper{number}");
            let there = left.iter().find(|(to, _)| *to == user);
            let (_, at) = there.unwrap_or_else(|| panic!("{rate}: {user} has no password"));
            (*asked, *at - *asked)
        })
        .collect();
    judge_throttled(rate, &network, EACH, &waits, 1);
}

/// By then it has been found out what the network takes.
const LEARNT: Duration = Duration::from_secs(30);

/// A campaign through replicas with these stores.
async fn throttled_campaign(rate: u32, replicas: &[Option<Arc<dyn StateStore>>]) {
    const EACH: usize = 120;
    const PASSWORDS: usize = 130;
    let spec = json!({"rateLimit": {"rate": rate, "burst": 1}, "classes": {}, "retry": {"maxAttempts": 3}});
    let bench = Bench::new(&store(), spec, false);
    let network = Http::new();
    let replicas: Vec<Arc<Desk>> = replicas
        .iter()
        .map(|store| {
            let worker: Arc<dyn Worker> = Arc::clone(&network) as _;
            let (_, desk) = bench.desk(&Life::until(0), store.clone(), worker);
            Arc::new(desk)
        })
        .collect();
    let of = |number: usize| Arc::clone(&replicas[number % replicas.len()]);
    let users = (0..100).map(|user| {
        let desk = of(user);
        async move {
            for number in 0..EACH {
                let message = labelled(&format!("user{user}"), "bulk", number);
                let finished = Arc::clone(&desk).work(delivery(&message, false)).await;
                assert_eq!(finished.verdict, Verdict::Done);
            }
        }
    });
    let passwords = async {
        let mut waits = Vec::new();
        for number in 0..PASSWORDS {
            tokio::time::sleep(Duration::from_millis(4321)).await;
            let asked = Instant::now();
            let message = labelled(&format!("shopper{number}"), "interactive", number);
            let finished = of(number).work(delivery(&message, false)).await;
            assert_eq!(finished.verdict, Verdict::Done);
            waits.push((asked - network.began, asked.elapsed()));
        }
        waits
    };
    let (_, waits) = tokio::join!(futures::future::join_all(users), passwords);
    judge_throttled(rate, &network, EACH, &waits, replicas.len() as u64);
}

/// Demands what is promised of a campaign of so many messages to each of 100 users, and of passwords that were asked for and
/// waited so.
fn judge_throttled(
    rate: u32,
    network: &Http,
    each: usize,
    waits: &[(Duration, Duration)],
    replicas: u64,
) {
    let took = network.took.lock().unwrap();
    let all = 100 * each + waits.len();
    assert_eq!(took.len(), all, "{rate}: no failure is final");
    for user in 0..100 {
        let user = format!("user{user}");
        let numbers = took.iter().filter(|(_, m)| m.to_addr() == Some(&user));
        assert!(numbers.map(|(_, m)| number(m)).eq(0..each), "in order");
    }
    let refused = network.refused.lock().unwrap();
    // The last passwords come when there is nothing else any more.
    let bulk = |(_, message): &&(Duration, UserMessage)| {
        message.to_addr().is_some_and(|to| to.starts_with("user"))
    };
    let end = took.iter().rfind(bulk).unwrap().0;
    let later = took.iter().filter(|(at, _)| *at >= LEARNT && *at <= end);
    let later = later.count() as f64;
    let share = later / (end - LEARNT).as_secs_f64() / f64::from(LIMIT);
    let again = refused.iter().filter(|at| **at >= LEARNT).count() as f64;
    println!("{rate} a second: {share:.3} of the limit used, refused at {refused:?}");
    assert!(share >= 0.95, "{rate}: {share}");
    assert!(again <= later / 100.0, "{rate}: {again} of {later}");
    assert_eq!(refused.is_empty(), rate == LIMIT, "{rate}");
    let longest = waits.iter().map(|(_, waited)| *waited).max();
    println!("one-time passwords waited at most {longest:?}");
    for (asked, waited) in waits.iter().filter(|(asked, _)| *asked >= LEARNT) {
        let pause = paused(&refused, *asked, *waited);
        // Then replicas draw lots for the first token of all.
        let lots = 250 * replicas;
        let most = Duration::from_millis(if pause { 1000 + lots } else { 1000 });
        assert!(*waited <= most, "{rate}: {waited:?} at {asked:?}");
    }
}

/// Two replicas share a bucket: at no time did they send more than it gave, in parts, for the account or for each sender.
#[tokio::test]
async fn two_replicas_share_one_bucket_by_account_or_sender() {
    const RATE: u32 = 200;
    const BURST: u32 = 20;
    for per in ["account", "sender"] {
        let store = store();
        let spec =
            json!({"rateLimit": {"rate": RATE, "burst": BURST, "unit": "parts", "per": per}});
        let bench = Bench::new(&store, spec, false);
        let network = Arc::new(Shared {
            began: Instant::now(),
            took: Mutex::default(),
        });
        let replicas: Vec<Arc<Desk>> = (0..2)
            .map(|_| {
                let worker: Arc<dyn Worker> = Arc::clone(&network) as _;
                let (_, desk) = bench.desk(&Life::until(0), Some(Arc::clone(&store)), worker);
                Arc::new(desk)
            })
            .collect();
        let works = (0..330).map(|number| {
            let desk = Arc::clone(&replicas[number % 2]);
            let mut message = message();
            message.set_content(Some(&number.to_string()));
            message.set_field("from_addr", ["100", "200"][number % 3 % 2]);
            desk.work(delivery(&message, false))
        });
        let finished = futures::future::join_all(works).await;
        assert!(finished.iter().all(|f| f.verdict == Verdict::Done));
        let took = network.took.lock().unwrap();
        let mut sums: std::collections::HashMap<&str, u32> = Default::default();
        for (at, sender, parts) in took.iter() {
            let sum = sums
                .entry(if per == "account" { "" } else { sender })
                .or_default();
            *sum += parts;
            // What costs more than is there waits; a triple one may leave a debt, never the other way round.
            let most = f64::from(BURST) + f64::from(RATE) * at.as_secs_f64() + 1.0;
            assert!(f64::from(*sum) <= most, "{per}: {sum} after {at:?}");
        }
        let parts: u32 = sums.values().sum();
        assert_eq!(parts, 330 + 2 * 30, "every message, a triple one as three");
    }
}

struct Shared {
    began: Instant,
    /// When, from which sender, how many parts.
    took: Mutex<Vec<(Duration, String, u32)>>,
}

#[async_trait]
impl Worker for Shared {
    fn parts(&self, message: &UserMessage) -> u32 {
        if number(message).is_multiple_of(11) {
            3
        } else {
            1
        }
    }

    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let message = input.to_deliver()?;
        let sender = message.from_addr().unwrap_or_default().to_owned();
        let one = (self.began.elapsed(), sender, self.parts(message));
        self.took.lock().unwrap().push(one);
        let mut ack = Event::ack(message.message_id(), "r");
        ack.set_transport_name("t");
        Ok(vec![Output::new(Port::new("t", Flow::Event), ack)])
    }
}
