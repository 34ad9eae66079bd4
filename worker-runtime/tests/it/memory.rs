//! Memory of a worker whose journal is deep. `VUMI_JOURNAL=MESSAGES,LANES` sets its size: 1000000,100000 is the budget's.

use crate::harness::amqp::{Amqp, user_message};
use crate::harness::campaign::Campaign;
use crate::harness::{PATIENCE, backlog, vhost, wait_for};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use vumi_core::state::Journal;
use vumi_core::state::journal::{Depth, Filter};
use vumi_testkit::redis::{self, Redis};
use vumi_testkit::resident_of;

const QUEUE: &str = "net.outbound";
/// Most memory of its own that the process may ever have. Beside it there is the program itself, of which a debug build
/// maps very much.
const MEMORY_KIB: u64 = 40 << 10;
/// Messages that come meanwhile, and go behind those that wait.
const FRESH: usize = 3000;
/// Most memory that it may get beside that: what it maps of files, and what of these is in memory. A debug build maps much
/// at its start, and no more with its journal.
const MAPPED_KIB: u64 = 40 << 10;
/// Messages to users of whom nothing is in the journal.
const OTHERS: usize = 100;
/// What the median of these may differ by on a machine that is busy. Whoever waits for the journal waits for hours.
const SLACK: Duration = Duration::from_millis(50);

fn message(lane: usize, number: usize) -> serde_json::Value {
    let mut message = user_message(&format!("{lane}/{number}"), "net", &number.to_string());
    message["to_addr"] = format!("u{lane}").into();
    message
}

/// What the provider got: numbers by user.
type Got = Arc<Mutex<BTreeMap<String, Vec<usize>>>>;

/// A provider that takes every `GET /USER/NUMBER`, over connections that stay.
async fn provider(port: u16) -> Got {
    let got = Got::default();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let log = Arc::clone(&got);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let (mut read, mut some) = (String::new(), [0; 4096]);
                while let Ok(size @ 1..) = stream.read(&mut some).await {
                    read.push_str(&String::from_utf8_lossy(&some[..size]));
                    let Some((request, rest)) = read.split_once("\r\n\r\n") else {
                        continue;
                    };
                    let path = request.split(' ').nth(1).unwrap();
                    let (user, number) = path[1..].split_once('/').unwrap();
                    let number = number.parse().unwrap();
                    log.lock()
                        .unwrap()
                        .entry(user.to_owned())
                        .or_default()
                        .push(number);
                    read = rest.to_owned();
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    got
}

/// How long a message takes to one of many users who are new, in the median.
async fn others(amqp: &Amqp, got: &Got, name: &str) -> Duration {
    let mut times = Vec::new();
    for n in 0..OTHERS {
        let user = format!("{name}{n}");
        let mut body = message(0, 0);
        body["message_id"] = user.clone().into();
        body["to_addr"] = user.clone().into();
        let began = Instant::now();
        amqp.publish(QUEUE, body.to_string().as_bytes()).await;
        while !got.lock().unwrap().contains_key(&user) {
            assert!(began.elapsed() < PATIENCE, "{user} gets nothing");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(began.elapsed());
    }
    times.sort_unstable();
    println!("{name}: {:?} at most", times[OTHERS - 1]);
    times[OTHERS / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_journal_in_redis_takes_no_memory_of_its_worker() {
    let sizes = std::env::var("VUMI_JOURNAL").unwrap_or_else(|_| "50000,5000".into());
    let (messages, lanes) = sizes.split_once(',').unwrap();
    let (messages, lanes): (usize, usize) = (messages.parse().unwrap(), lanes.parse().unwrap());
    let options = redis::Options {
        append: redis::Append::EverySec,
        ..redis::Options::default()
    };
    let (Some(url), Some(redis)) = (vhost("memory").await, Redis::start_or_skip(options).await)
    else {
        return;
    };
    let store = backlog::opened(&redis.url(0)).await;
    let began = Instant::now();
    let whose = |lane, number| (format!("u{lane}"), message(lane, number));
    backlog::fill(&*store, QUEUE, messages, lanes, whose).await;
    println!(
        "{messages} messages in {lanes} lanes filled in {:?}",
        began.elapsed()
    );
    let depth = async || store.depth(QUEUE).await.unwrap();
    let full = |more: usize| Depth {
        messages: (messages + more) as u64,
        lanes: lanes as u64,
    };
    assert_eq!(depth().await, full(0));

    let campaign = Campaign::empty();
    let port = vumi_testkit::free_port().unwrap();
    let send = format!(
        "{{method: GET, url: 'http://127.0.0.1:{port}/{{{{ message.to_addr }}}}/{{{{ message.content }}}}'}}"
    );
    // Nobody reads its events.
    let manifest = format!(
        "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: net}}\n\
         spec:\n  genericHttp: {{send: {send}}}\n  ordering: {{mode: perUser}}\n  backlogLimit: 4000000\n"
    );
    campaign.place("net", &manifest);
    let place = ["--redis", &redis.url(0)];
    let mut worker = campaign.alone(["worker", "--manifests"], "net", &url, &place);
    let id = worker.id().to_string();
    let memory = || resident_of(&id, "RssAnon");
    let all = || resident_of(&id, "VmRSS");
    let mut highest = 0;
    wait_for("it consumes", PATIENCE, || async {
        let status = campaign.status_of(&["--name", "net"])?;
        let worker = status.worker("transport/net")?.to_string();
        match worker.contains("consuming") {
            true => Ok(()),
            false => Err(worker),
        }
    })
    .await;
    let (amqp, begun) = (Amqp::connect(&url).await, all());
    for n in 0..FRESH {
        let body = message(n % lanes, messages / lanes + n / lanes).to_string();
        amqp.publish(QUEUE, body.as_bytes()).await;
        highest = memory().max(highest);
    }
    wait_for("they are behind the others", 3 * PATIENCE, || async {
        match depth().await {
            now if now == full(FRESH) => Ok(()),
            now => Err(format!("{now:?}")),
        }
    })
    .await;
    // Whoever has nothing in the journal does not notice it.
    let got = provider(port).await;
    let beside = others(&amqp, &got, "beside").await;
    assert_eq!(depth().await, full(FRESH), "those wait on");
    let waiting = memory().max(highest);
    let began = Instant::now();
    Journal::release(&*store, QUEUE, &Filter::default())
        .await
        .unwrap();
    let count = || {
        let got = got.lock().unwrap();
        let waited = got.iter().filter(|(user, _)| user.starts_with('u'));
        waited.map(|(_, numbers)| numbers.len()).sum::<usize>()
    };
    let (mut last, mut at) = (0, Instant::now());
    while count() < messages + FRESH {
        if count() > last {
            (last, at) = (count(), Instant::now());
        }
        if at.elapsed() > PATIENCE {
            let status = campaign.status_of(&["--name", "net"]);
            let worker = status.map(|status| status.worker("transport/net").map(|w| w.to_string()));
            let left = depth().await;
            panic!("{last} replayed, and no more: {left:?}, {worker:?}");
        }
        worker.assert_running();
        tokio::time::sleep(Duration::from_millis(20)).await;
        highest = memory().max(highest);
    }
    let most = resident_of(&id, "VmHWM");
    println!(
        "{waiting} KiB while they wait, {highest} KiB at most, with the program {} KiB; {} replayed in {:?}",
        most,
        count(),
        began.elapsed()
    );
    for (user, numbers) in &*got.lock().unwrap() {
        assert!(
            numbers.iter().copied().eq(0..numbers.len()),
            "{user}: {numbers:?}"
        );
    }
    wait_for("nothing is left", PATIENCE, || async {
        match depth().await.messages {
            0 => Ok(()),
            left => Err(left.to_string()),
        }
    })
    .await;
    let alone = others(&amqp, &got, "alone").await;
    println!("others are served after {beside:?} beside the journal, and {alone:?} without it");
    assert!(beside <= 2 * alone + SLACK, "{beside:?}, {alone:?} alone");
    assert!(highest <= MEMORY_KIB, "{highest} KiB");
    let grown = most.saturating_sub(begun);
    assert!(grown <= MEMORY_KIB + MAPPED_KIB, "{grown} KiB more in all");
}
