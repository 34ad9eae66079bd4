//! The loss test: numbered messages by HTTP and telnet → dispatcher → echo application → back, every worker a process
//! of its own over RabbitMQ 4.0, while workers are killed, frozen past the heartbeat, rolled and reloaded, RabbitMQ is
//! stopped and started, and the Redis that keeps their state is killed and frozen. The oracle judges what the peers saw:
//! nothing owed is lost, first occurrences of one user are in order before and behind the application, repeats are equal,
//! and the flow goes on after every fault. Meanwhile another application sends a campaign to networks that lose answers
//! (see [`network`]).
//!
//! Telnet users and a part of the HTTP users hear their own numbers again. The others are answered at once; that their
//! replies came back is known from the transport's events.
//!
//! A copy is what the application gets once more: a message to it, or a reply that it made again. Each is a message of its
//! own on the broker; what the observer itself is given again, because the broker ended under it, is none.
//!
//! `VUMI_LOSS_MESSAGES` chooses how many messages, `VUMI_LOSS_ROUNDS` how often every fault happens, `VUMI_LOSS_SEED`
//! repeats the faults of an earlier run, `VUMI_LOSS_PROFILE` (`vumi`, `quorum`) the kind of queues that else follows from the
//! seed, `VUMI_LOSS_ONLY` the faults whose names contain it, and `VUMI_LOSS_REPEATED` how many copies there may be, in thousandths. `make loss` runs nothing else, and `make soak`
//! a million messages.

mod clients;
mod faults;
mod fleet;
mod network;
mod observer;

use crate::harness::ask;
use crate::harness::process::assert_expected_live;
use clients::{Pace, http_client, talk_user, telnet_user};
use faults::{Fault, play};
use fleet::Fleet;
use network::Network;
use observer::{Ledger, watch};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch as channel;
use tokio::task::JoinHandle;
use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};
use vumi_testkit::redis::{self, Redis};

/// Messages when nobody says how many.
const MESSAGES: usize = 100_000;
/// One of so many is sent to a network by an application, without anybody asking.
const NETWORK_SHARE: usize = 10;
/// One of so many of the others is said by telnet, the rest by HTTP.
const TELNET_SHARE: usize = 50;
/// One of so many waits for its reply in an HTTP request.
const TALK_SHARE: usize = 5;
/// Their users, each with one request under way at a time.
const TALK_USERS: usize = 300;
/// Users of the HTTP API that answers at once.
const HTTP_USERS: usize = 240;
/// Connections that carry them.
const HTTP_CLIENTS: usize = 48;
const TELNET_USERS: usize = 8;
/// A frozen connection is given up by the broker after three of these.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// After a fault, something new must arrive within: detection, takeover or reconnect, on a busy machine.
const RESUMES: Duration = Duration::from_secs(60);
/// Longest time without any message while some are owed; and between the last fault, or the OK, and the effect.
const SETTLES: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_under_faults() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let messages = number("VUMI_LOSS_MESSAGES").map_or(MESSAGES, |n| n as usize);
    let rounds = number("VUMI_LOSS_ROUNDS").unwrap_or(1);
    let seed = number("VUMI_LOSS_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    // Copies beyond the first that may be seen at each place, in so many thousandths of all messages.
    let limit = number("VUMI_LOSS_REPEATED").map(|share| messages * share as usize / 1000);
    let few = |place: &str, copies: usize| {
        if let Some(limit) = limit {
            assert!(
                copies < limit,
                "{place}: {copies} copies too many, {limit} are allowed"
            );
        }
    };
    let profile = std::env::var("VUMI_LOSS_PROFILE").unwrap_or_else(|_| {
        let quorum = seed.is_multiple_of(3);
        if quorum { "quorum" } else { "vumi" }.to_owned()
    });
    eprintln!("loss test: {messages} messages, seed {seed}, profile {profile}");
    let Some(broker) = RabbitMq::start_or_skip(Version::V4_0, Options::default()).await else {
        return;
    };
    let options = redis::Options {
        append: redis::Append::EverySec,
        ..redis::Options::default()
    };
    let Some(mut store) = Redis::start_or_skip(options).await else {
        return;
    };
    let url = broker.url("/");
    let mut fleet = Fleet::start(
        &format!("{url}?heartbeat={}&profile={profile}", HEARTBEAT.as_secs()),
        &store.url(0),
    );
    let ledger = Arc::new(Ledger::new());
    let network = Arc::new(Network::new());
    let observing = [
        watch(url.clone(), Arc::clone(&ledger)).await,
        network::watch(url.clone(), Arc::clone(&network)),
    ];
    fleet.ready().await;

    let sent_messages = messages / NETWORK_SHARE;
    let messages = messages - sent_messages;
    let telnet_messages = messages / TELNET_SHARE;
    let talk_messages = messages / TALK_SHARE;
    let http_messages = messages - telnet_messages - talk_messages;
    let (allow, pace) = channel::channel(0.0);
    let pace = Pace(pace);
    let mut clients = Vec::new();
    for client in 0..HTTP_CLIENTS {
        let users = (client..HTTP_USERS).step_by(HTTP_CLIENTS);
        let share = users
            .map(|user| (user, share(http_messages, HTTP_USERS, user)))
            .collect();
        clients.push(tokio::spawn(http_client(
            fleet.http_port,
            share,
            Arc::clone(&ledger),
            pace.clone(),
        )));
    }
    for user in 0..TALK_USERS {
        clients.push(tokio::spawn(talk_user(
            fleet.talk_port,
            user,
            share(talk_messages, TALK_USERS, user),
            Arc::clone(&ledger),
            pace.clone(),
        )));
    }
    for user in 0..TELNET_USERS {
        let lines = share(telnet_messages, TELNET_USERS, user);
        clients.push(tokio::spawn(telnet_user(
            fleet.telnet_port,
            user,
            lines,
            Arc::clone(&ledger),
            pace.clone(),
        )));
    }

    for transport in ["sms", "pager"] {
        clients.push(tokio::spawn(network::campaign(
            url.clone(),
            transport,
            sent_messages / 2,
            Arc::clone(&network),
            pace.clone(),
        )));
    }

    let began = Instant::now();
    let mut broker = broker;
    let mut random = StdRng::seed_from_u64(seed);
    let mut plan: Vec<Fault> = (0..rounds).flat_map(|_| Fault::plan(&mut random)).collect();
    if let Ok(only) = std::env::var("VUMI_LOSS_ONLY") {
        plan.retain(|fault| fault.to_string().contains(&only));
    }
    let count = plan.len();
    for (n, fault) in plan.iter().enumerate() {
        // Spread over the messages, so that every fault meets traffic.
        let due = messages * (n + 1) / (count + 2);
        let share = |steps: usize| (n + steps) as f64 / (count + 2) as f64;
        allow.send_replace(share(3));
        let flows = until(&ledger, || ledger.progress().1 >= due || finished(&clients));
        must(flows.await, &format!("before {fault}"), &broker).await;
        play(fault, &mut fleet, &mut broker, &mut store).await;
        allow.send_replace(share(4));
        let (healed, before) = (Instant::now(), ledger.progress());
        ledger.faults_ended();
        network.faults_ended();
        let flows = ask(RESUMES, || {
            let now = ledger.progress();
            let flows = now.0 > before.0 && now.1 > before.1;
            let done = finished(&clients) && ledger.open() == 0;
            async move {
                match flows || done {
                    true => Ok(()),
                    false => Err(format!("{before:?} then, {now:?} now")),
                }
            }
        });
        must(flows.await, &format!("after {fault}"), &broker).await;
        eprintln!(
            "loss test: {:5.1} s: {fault}; {before:?} messages there and back, going on after {:.1} s, {:?} repeated so far",
            began.elapsed().as_secs_f64(),
            healed.elapsed().as_secs_f64(),
            ledger.repeated(),
        );
    }
    allow.send_replace(1.0);
    for client in clients {
        client.await.unwrap();
    }
    let sent = began.elapsed();
    let complete = until(&ledger, || ledger.open() == 0).await;
    if complete.is_err() {
        for (what, reply) in ledger.missing() {
            let why = reply.map(|id| format!("{id}: {}", fleet.why(&id)));
            eprintln!("loss test: missing: {what}; {}", why.unwrap_or_default());
        }
    }
    must(complete, "at the end", &broker).await;
    let all_ended = quiet_until(|| network.progress(), || network.progress().0 == 0);
    must(all_ended.await, "at the end of the campaign", &broker).await;
    eprintln!(
        "loss test: accepted in {:.1} s, all back after {:.1} s",
        sent.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    fleet.assert_running();
    // Repeats that are still under way belong to the judgement.
    ledger.quiet(Duration::from_secs(2)).await;
    observing.iter().for_each(JoinHandle::abort);
    for (side, judgement) in network.judge(SETTLES) {
        eprintln!("loss test: {side} of the campaign: {judgement}");
        for user in network.disorder(&judgement) {
            eprintln!("loss test: out of order: {user}");
        }
        let good = judgement.require();
        good.unwrap_or_else(|finding| panic!("{side}: {finding}"));
        few(side, judgement.duplicates);
    }
    assert_eq!(network.contradicted(), Vec::<String>::new());
    let (unsure, failed) = network.unknown();
    eprintln!("loss test: {unsure} answers of networks were waited for, {failed} given up");
    assert!(unsure > 0 && failed > 0, "networks lost answers");
    for (side, judgement) in ledger.judge(SETTLES) {
        eprintln!("loss test: {side}: {judgement}");
        let good = judgement.require();
        good.unwrap_or_else(|finding| panic!("{side}: {finding}"));
        assert!(
            judgement.owed >= messages,
            "{side}: every message was accepted"
        );
        few(side, judgement.duplicates);
    }
    let (copies, left) = (ledger.repeated(), ledger.left_unanswered());
    eprintln!(
        "loss test: copies beyond the first to and from the application: {copies:?}; {left} people were told that their answer is lost"
    );
    copies
        .iter()
        .for_each(|copies| few("the application", *copies));
    // One ack or nack per reply, ever, whatever happened between writing it and telling of it.
    assert_eq!(ledger.contradicted(), Vec::<String>::new());
    eprintln!("loss test: {}", fleet.audit().await);
    assert_eq!(
        ledger.parked(&fleet.url).await,
        Vec::<String>::new(),
        "nothing is set aside"
    );
}

/// Waits until `done`, as long as messages arrive at all: how fast the machine is does not matter.
async fn until(ledger: &Ledger, done: impl FnMut() -> bool) -> Result<(), String> {
    let flows = quiet_until(|| ledger.progress(), done).await;
    flows.map_err(|now| format!("{now} there and back, {} owed are missing", ledger.open()))
}

/// The same for anything that moves; else what did not.
async fn quiet_until<T: PartialEq + std::fmt::Debug>(
    progress: impl Fn() -> T,
    mut done: impl FnMut() -> bool,
) -> Result<(), String> {
    let (mut last, mut moved) = (progress(), Instant::now());
    while !done() {
        assert_expected_live();
        let now = progress();
        if now != last {
            (last, moved) = (now, Instant::now());
        } else if moved.elapsed() > SETTLES {
            return Err(format!("{now:?}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Shows where the messages stand if they do not flow.
async fn must(flows: Result<(), String>, when: &str, broker: &RabbitMq) {
    if let Err(last) = flows {
        let columns = [
            "name",
            "messages_ready",
            "messages_unacknowledged",
            "consumers",
        ];
        let state = broker.ctl(&[&["list_queues"], &columns[..]].concat()).await;
        let state = state.unwrap_or_else(|error| error.to_string());
        panic!("no flow {when}: {last}\n{state}");
    }
}

fn finished(clients: &[JoinHandle<()>]) -> bool {
    clients.iter().all(JoinHandle::is_finished)
}

/// How many of `total` fall to `user` of `users`.
fn share(total: usize, users: usize, user: usize) -> usize {
    total / users + usize::from(user < total % users)
}
