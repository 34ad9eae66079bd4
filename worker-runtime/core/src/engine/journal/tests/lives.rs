//! A transport dies at any operation of its store, of its broker or with its peer, again and again: journal and ledger
//! together. What happens follows from a seed: one thread, clocks that stand still while anything is done, waiting times
//! and failures that are drawn from it. `VUMI_LIVES=FROM..TO` runs other seeds. On Redis they run beside each other and in
//! time as it passes (`VUMI_LIVES_REDIS=FROM..TO`): there a seed draws the same faults, and not the same moments.

use super::kills::{Mortal, judge_seeds, seeds, set_aside, two_threads};
use super::*;
use crate::backoff::seeded;
use crate::broker::Broker;
use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use crate::clock;
use crate::codes;
use crate::conformance::simulated_time::Prompt;
use crate::conformance::store_faults::Fuse;
use crate::engine::tests::redis_store;
use crate::error::{ErrorClass, WorkError};
use crate::message::{Actor, FailureClass};
use crate::message::{Event, EventType};
use crate::outcome::{Receipt, ReceiptOutcome, Refusal};
use crate::state::ledger::RowState;
use crate::worker::{Input, Output, WorkerContext};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Mutex;
use vumi_api::Kind;
use vumi_testkit::{alone, alone_in};
use xxhash_rust::xxh3::xxh3_64;

/// Processes that share the seeds: each waits for its store's thread most of the time.
const PROCESSES: usize = 4;
/// A receipt comes so long after an answer that was lost, and whoever waits for one waits longer.
const RECEIPT: Duration = Duration::from_millis(700);
/// How much of a history is shown.
const SHOWN: usize = 60;

/// What happened, operation by operation.
#[derive(Clone, Default)]
struct History(Arc<Mutex<Vec<String>>>);

impl History {
    fn add(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// What a peer does with an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Ack,
    Nack,
    /// Did not take it.
    Busy,
    /// Was not there.
    Away,
    /// Took it, and its answer is lost.
    Lost,
    /// The same, and sends a receipt later, if it reaches a process that lives.
    LostWithReceipt,
}

/// What is done with a message whose answer is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Policy {
    Retry,
    Fail,
    Wait,
    WaitThenRetry,
}

impl Policy {
    fn drawn(rng: &mut StdRng) -> Self {
        match rng.random_range(0..6) {
            0 => Self::Retry,
            1 | 2 => Self::Fail,
            3 | 4 => Self::Wait,
            _ => Self::WaitThenRetry,
        }
    }

    fn settings(self) -> Value {
        match self {
            Self::Retry => json!({"policy": "retry"}),
            Self::Fail => json!({"policy": "fail"}),
            Self::Wait => json!({"policy": "wait", "deadline": "2s", "then": "fail"}),
            Self::WaitThenRetry => json!({"policy": "wait", "deadline": "2s", "then": "retry"}),
        }
    }

    fn retries(self) -> bool {
        matches!(self, Self::Retry | Self::WaitThenRetry)
    }
}

/// The far end of all lives.
struct Peer {
    seed: u64,
    /// Of a hundred attempts so many do not succeed at once.
    trouble: u64,
    history: History,
    /// How often it was asked to take each.
    asked: Mutex<BTreeMap<String, u64>>,
    /// User and message, as it took them.
    took: Mutex<Vec<(String, String)>>,
}

impl Peer {
    fn answer(&self, number: &str) -> Answer {
        let asked = {
            let mut all = self.asked.lock().unwrap();
            let asked = all.entry(number.to_owned()).or_default();
            *asked += 1;
            *asked
        };
        let drawn = xxh3_64(format!("{}/{number}/{asked}", self.seed).as_bytes());
        if drawn % 100 >= self.trouble {
            return Answer::Ack;
        }
        let troubles = [
            Answer::Busy,
            Answer::Busy,
            Answer::Away,
            Answer::Away,
            Answer::Lost,
            Answer::LostWithReceipt,
            Answer::Nack,
        ];
        troubles[(drawn / 100) as usize % troubles.len()]
    }

    async fn handle(
        &self,
        input: Input,
        cx: Arc<WorkerContext>,
        fuse: Arc<Fuse>,
    ) -> Result<Vec<Output>, WorkError> {
        let message = input.to_deliver()?;
        let id = message.message_id();
        let number = message.content().unwrap_or_default();
        fuse.pass().await;
        let answer = self.answer(number);
        self.history.add(format!("message {number}: {answer:?}"));
        let took = [Answer::Ack, Answer::Lost, Answer::LostWithReceipt];
        if took.contains(&answer) {
            let user = message.to_addr().unwrap_or_default().to_owned();
            self.took.lock().unwrap().push((user, id.to_owned()));
        }
        fuse.pass().await;
        let failed = |class, code| Err(WorkError::new(class, code, "as drawn"));
        let no = || {
            Refusal::new(
                FailureClass::Content,
                codes::REPLY_FIELDS,
                "no",
                Actor::Campaign,
            )
        };
        match answer {
            Answer::Ack => Ok(vec![cx.ack(message, &format!("remote {id}"))]),
            Answer::Nack => Ok(vec![cx.nack(message, input.attempt, no())]),
            Answer::Busy => failed(ErrorClass::RemoteTemporary, codes::PEER_FAILED),
            Answer::Away => failed(ErrorClass::Connect, codes::PEER_UNREACHABLE),
            Answer::Lost => failed(ErrorClass::Timeout, codes::PEER_TIMEOUT),
            Answer::LostWithReceipt => {
                let receipt = Receipt {
                    message_id: Some(id.to_owned()),
                    remote_id: None,
                    outcome: ReceiptOutcome::Delivered,
                };
                tokio::spawn(async move {
                    tokio::time::sleep(RECEIPT).await;
                    fuse.pass().await;
                    let _ = cx.receipt(receipt).await;
                });
                failed(ErrorClass::Timeout, codes::PEER_TIMEOUT)
            }
        }
    }
}

/// The lives of a transport, and what is left after the last one.
struct Lives {
    connector: String,
    policy: Policy,
    broker: Arc<dyn Broker>,
    store: Arc<dyn StateStore>,
    peer: Arc<Peer>,
    /// User and message, in the order in which they were published.
    sent: Vec<(String, String)>,
}

impl Lives {
    fn queue(&self) -> String {
        format!("{}.outbound", self.connector)
    }

    async fn run(&mut self, mut rng: StdRng) -> Result<(), String> {
        let users = rng.random_range(1..4usize);
        let count = match rng.random_range(0..8) {
            0 => rng.random_range(12..50usize),
            _ => rng.random_range(1..9usize),
        };
        let hold = ["0ms", "3ms", "1s"][rng.random_range(0..3usize)];
        let settings = json!({
            "transportName": self.connector,
            "holdLimit": hold,
            "onUnknown": self.policy.settings(),
            "retry": {"maxAttempts": 1000, "backoff": {"initial": "1ms", "max": "4ms"}},
        });
        let mut messages = Vec::new();
        for n in 0..count {
            let user = format!("u{}", rng.random_range(0..users));
            let mut message = UserMessage::new("sms", Some(&user), Some("555"));
            message.set_message_id(&format!("{}-{n}", self.connector));
            message.set_transport_name(&self.connector);
            message.set_content(Some(&n.to_string()));
            messages.push((user, message));
        }
        let mut messages = messages.into_iter();
        let lives = rng.random_range(1..6usize);
        for life in 0..=lives {
            let last = life == lives;
            let fuse = match last {
                true => i64::MAX,
                false => rng.random_range(1..30 + 5 * count as i64),
            };
            let fuse = Fuse::new(fuse);
            self.peer.history.add(format!("life {life}"));
            let faults = StoreFaults::new(Arc::clone(&self.store), Some(Arc::clone(&fuse)));
            for _ in 0..rng.random_range(0..4) {
                faults.next([match rng.random_bool(0.5) {
                    true => StoreMishap::Refused,
                    false => StoreMishap::AnswerLost,
                }]);
            }
            let setup = Setup {
                broker: Arc::new(Mortal {
                    inner: Arc::clone(&self.broker),
                    fuse: Arc::clone(&fuse),
                }),
                state: Some(faults),
                kind: Kind::Transport,
                name: self.connector.clone(),
                settings: settings.clone(),
            };
            let (peer, ending) = (Arc::clone(&self.peer), Arc::clone(&fuse));
            // The worker under test is built on operations that count, and may die while it is.
            let rig = tokio::select! {
                biased;
                rig = Rig::on(setup, move |input, cx| {
                    let (peer, fuse) = (Arc::clone(&peer), Arc::clone(&ending));
                    async move { peer.handle(input, cx, fuse).await }
                }) => rig,
                () = fuse.burnt() => continue,
            };
            let share = if last {
                count
            } else {
                rng.random_range(0..count)
            };
            for (user, message) in messages.by_ref().take(share) {
                self.sent.push((user, message.message_id().to_owned()));
                let publication = Publication {
                    exchange: EXCHANGE.into(),
                    routing_key: self.queue(),
                    body: message.encode(),
                    message_id: None,
                    class: PublicationClass::Data,
                };
                let _ = self.broker.publish(publication).await.confirmation().await;
            }
            if !last {
                // Some lives end because there is nothing left to do.
                let _ = tokio::time::timeout(Duration::from_secs(2), fuse.burnt()).await;
                fuse.end();
                drop(rig);
                continue;
            }
            self.come_to_rest(&rig).await?;
            let c = rig.running().snapshot().counts;
            if c.received != c.done + c.parked + c.journaled + c.returned + c.in_flight {
                return Err(format!("the counts do not add up: {c:?}"));
            }
            rig.stop_now().await;
        }
        Ok(())
    }

    async fn come_to_rest(&self, rig: &Rig) -> Result<(), String> {
        let mut calm = 0;
        for _ in 0..4000 {
            let failed = |e: WorkError| e.text;
            let left = self.store.depth(&self.queue()).await.map_err(failed)?;
            let ready = self.broker.ready(&self.queue()).await.map_err(failed)?;
            let counts = rig.running().snapshot().counts;
            calm = match (left.messages, ready, counts.in_flight) {
                (0, 0, 0) if self.nothing_is_waited_for().await? => calm + 1,
                _ => 0,
            };
            if calm > 5 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!(
            "does not come to rest: {:?}",
            rig.running().snapshot().counts
        ))
    }

    /// Whether no receipt is waited for any more.
    async fn nothing_is_waited_for(&self) -> Result<bool, String> {
        for (_, id) in &self.sent {
            let row = self.store.row(id).await.map_err(|e| e.text)?;
            if row.is_some_and(|row| row.state == RowState::Unknown) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Demands what is promised.
    async fn judge(&self) -> Result<(), String> {
        let failed = |e: WorkError| e.text;
        let parked = set_aside(&*self.broker, &self.queue()).await?;
        let mut told: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        let events = format!("{}.event", self.connector);
        let declared = self.broker.declare(&QueueSpec::Data(events.clone())).await;
        declared.map_err(failed)?;
        let shelf = self.broker.shelf(&events, 10_000).await.map_err(failed)?;
        for raw in shelf.messages() {
            let event = Event::decode(&raw.body).map_err(|e| e.to_string())?;
            told.entry(event.user_message_id().to_owned())
                .or_default()
                .push(event);
        }
        shelf.close().await;
        let took = self.peer.took.lock().unwrap().clone();
        let mut order: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for (user, id) in &took {
            let times = times.entry(id).or_default();
            *times += 1;
            if *times == 1 {
                let place = self.sent.iter().position(|(_, sent)| sent == id);
                order
                    .entry(user)
                    .or_default()
                    .push(place.ok_or("what was not sent came")?);
            }
        }
        let mut late = BTreeSet::new();
        if self.policy == Policy::WaitThenRetry {
            // Its lane went on while a receipt was waited for.
            for (place, (_, id)) in self.sent.iter().enumerate() {
                let row = self.store.row(id).await.map_err(failed)?;
                let steps = row.iter().flat_map(|row| &row.steps);
                if steps
                    .into_iter()
                    .any(|s| s.state == Some(RowState::Unknown))
                {
                    late.insert(place);
                }
            }
        }
        for (user, places) in &order {
            if !places
                .iter()
                .filter(|place| !late.contains(place))
                .is_sorted()
            {
                return Err(format!("{user} got {places:?}"));
            }
        }
        for (_, id) in &self.sent {
            let (times, events) = (
                times.get(id.as_str()).copied().unwrap_or(0),
                told.remove(id),
            );
            let events = events.unwrap_or_default();
            let row = self.store.row(id).await.map_err(failed)?;
            let state = row.as_ref().map(|row| row.state);
            let about = || format!("{id}: taken {times} times, row {state:?}, told {events:?}");
            let retries = self.policy.retries();
            if times > 1 && !retries {
                return Err(format!("sent twice: {}", about()));
            }
            if parked.contains(id) {
                continue;
            }
            let mut verdicts: BTreeMap<&str, &Event> = BTreeMap::new();
            for event in events
                .iter()
                .filter(|e| e.event_type() != EventType::DeliveryReport)
            {
                let known = verdicts.entry(event.event_id()).or_insert(event);
                if known.encode() != event.encode() {
                    return Err(format!("a repeat differs: {}", about()));
                }
            }
            let verdicts: Vec<&&Event> = verdicts.values().collect();
            let [verdict] = verdicts[..] else {
                return Err(format!("not one ack or nack: {}", about()));
            };
            let lost = verdict
                .fate()
                .is_some_and(|f| f.code == codes::FATE_UNKNOWN.name);
            let right = match (verdict.event_type(), state) {
                (EventType::Ack, Some(RowState::SentFinal)) => times >= 1,
                (EventType::Nack, Some(RowState::Failed)) => times == 0 || lost || retries,
                (EventType::Ack, Some(RowState::Delivered)) => times >= 1,
                _ => false,
            };
            if !right {
                return Err(about());
            }
        }
        match told.is_empty() {
            true => Ok(()),
            false => Err(format!("told of what nobody sent: {told:?}")),
        }
    }
}

/// One seed on this store; what is wrong with it.
async fn live(seed: u64, store: Arc<dyn StateStore>, history: History) -> Result<(), String> {
    // A run of its own, though it may be of the same seed: what one kept in the store is not the other's.
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut lives = Lives {
        policy: Policy::drawn(&mut rng),
        broker: EmbeddedBroker::open(EmbeddedOptions::default()).unwrap(),
        store,
        peer: Arc::new(Peer {
            seed,
            trouble: [0, 20, 50, 80][rng.random_range(0..4usize)],
            history,
            asked: Mutex::default(),
            took: Mutex::default(),
        }),
        sent: Vec::new(),
        connector: format!("l{}", RUNS.fetch_add(1, Ordering::SeqCst)),
    };
    lives.run(rng).await?;
    lives.judge().await
}

/// One seed in time that stands still; what happened, and what is wrong with it.
fn lives(seed: u64, store: &Arc<dyn StateStore>) -> (Vec<String>, Result<(), String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    seeded::seed(seed);
    // Each seed begins at the same wall-clock time: which wake-ups fall together depends on it.
    clock::stop();
    let history = History::default();
    let log = history.clone();
    let found = runtime.block_on(async {
        let heard = log.clone();
        let prompt = Prompt::new(store, move |operation, end| {
            heard.add(format!("{operation} {end}"));
        });
        live(seed, Arc::new(prompt), log).await
    });
    (history.all(), found)
}

#[test]
fn whatever_operation_a_transport_dies_at_nothing_is_sent_twice_and_everything_ends() {
    let Some(process) = alone_in(PROCESSES) else {
        return;
    };
    let seeds = seeds("VUMI_LIVES", "0..600");
    let store = store();
    let (began, mut operations) = (std::time::Instant::now(), 0);
    for seed in seeds.skip(process).step_by(PROCESSES) {
        let (history, found) = lives(seed, &store);
        operations += history.len();
        if let Err(what) = found {
            let last = &history[history.len().saturating_sub(SHOWN)..];
            panic!(
                "seed {seed}: {what}\nthe last operations:\n  {}\nrun it again with VUMI_LIVES={seed}..{}",
                last.join("\n  "),
                seed + 1
            );
        }
    }
    println!("{operations} operations in {:?}", began.elapsed());
}

#[test]
fn whatever_operation_of_redis_a_transport_dies_at_nothing_is_sent_twice_and_everything_ends() {
    let runtime = two_threads();
    let Some((_redis, store)) = runtime.block_on(redis_store()) else {
        return;
    };
    let seeds = seeds("VUMI_LIVES_REDIS", "0..120");
    let runs = judge_seeds(&runtime, seeds, |seed| {
        let (store, history) = (Arc::clone(&store), History::default());
        tokio::spawn(async move {
            let found = live(seed, store, history.clone()).await;
            found.map_err(|what| format!("{what}\n  {}", history.all().join("\n  ")))
        })
    });
    println!("{} runs", runs.len());
}

#[test]
fn a_seed_repeats_what_happened() {
    if !alone() {
        return;
    }
    let store = store();
    for seed in 0..50 {
        let (once, again) = (lives(seed, &store).0, lives(seed, &store).0);
        assert_eq!(once, again, "seed {seed}");
    }
}
