//! Replicas that share the partitions of one queue on RabbitMQ, killed, frozen, stopped and added while users talk: no
//! message is lost, each user's stay in order, and the shares are fair whenever things are calm (R2, S12).

use crate::harness::amqp::{Amqp, user_message};
use crate::harness::campaign::Campaign;
use crate::harness::process::Process;
use crate::harness::{PATIENCE, vhost, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vumi_core::conformance::oracle::{Demands, Oracle};

const PARTITIONS: usize = 8;
const USERS: usize = 300;
const PUBLISHERS: usize = 6;
/// Seconds between heartbeats of the replicas' connections.
const HEARTBEAT: u64 = 2;

const ECHO: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: echo}\n\
     spec:\n  echo: {}\n  transportName: sms\n  ordering: {mode: perUser, partitions: 8}\n";

struct Fleet {
    campaign: Campaign,
    url: String,
    live: BTreeMap<String, Process>,
}

impl Fleet {
    fn add(&mut self, name: &str) {
        let url = format!("{}?heartbeat={HEARTBEAT}", self.url);
        let process = self.campaign.worker_with(name, ECHO, &url);
        self.live.insert(name.to_owned(), process);
    }

    /// How many partitions of inbound messages each live replica reads.
    fn shares(&self) -> Result<Vec<usize>, String> {
        let share = |name: &String| {
            let status = self.campaign.status_of(&["--name", name])?;
            let worker = status.worker("application/echo")?;
            let queues = worker["queues"].as_array().cloned().unwrap_or_default();
            let shown = queues.iter().find_map(|queue| {
                let text = queue["queue"].as_str()?;
                let (here, _) = text.strip_prefix("sms.inbound.p0–p7: ")?.split_once(' ')?;
                here.parse().ok()
            });
            shown.ok_or_else(|| format!("{name}: {worker}"))
        };
        self.live.keys().map(share).collect()
    }

    /// Waits until every partition has one reader and the shares differ by one at most; how long that took.
    async fn calm(&self, after: &str) -> Duration {
        let began = Instant::now();
        wait_for(&format!("fair shares after {after}"), PATIENCE, || async {
            let shares = self.shares()?;
            let (least, most) = (shares.iter().min(), shares.iter().max());
            let fair = least
                .zip(most)
                .is_some_and(|(least, most)| most - least <= 1);
            match fair && shares.iter().sum::<usize>() == PARTITIONS {
                true => Ok(()),
                false => Err(format!("{shares:?}")),
            }
        })
        .await;
        println!(
            "after {after}: fair shares of {} within {:?}",
            self.live.len(),
            began.elapsed()
        );
        began.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn order_is_kept_and_nothing_lost_while_replicas_come_and_go() {
    let Some(url) = vhost("rebalance").await else {
        return;
    };
    let mut fleet = Fleet {
        campaign: Campaign::empty(),
        url: url.clone(),
        live: BTreeMap::new(),
    };
    for name in ["one", "two", "three"] {
        fleet.add(name);
    }
    fleet.calm("the start").await;

    let oracle = Arc::new(Mutex::new(Oracle::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let mut talking = Vec::new();
    for publisher in 0..PUBLISHERS {
        let (noted, stopping) = (Arc::clone(&oracle), Arc::clone(&stop));
        let broker = Amqp::connect(&url).await;
        talking.push(tokio::spawn(async move {
            for n in 0.. {
                if stopping.load(Ordering::Relaxed) {
                    break;
                }
                for user in (publisher..USERS).step_by(PUBLISHERS) {
                    let id = format!("{user}-{n}");
                    let mut message = user_message(&id, "sms", &n.to_string());
                    message["from_addr"] = format!("2782{user:07}").into();
                    let body = message.to_string();
                    broker.publish("sms.inbound", body.as_bytes()).await;
                    let mut oracle = noted.lock().unwrap();
                    oracle.owe(&id, &user.to_string(), began.elapsed());
                }
            }
        }));
    }
    let observer = Amqp::connect(&url).await;
    let seen = Arc::clone(&oracle);
    let observing = tokio::spawn(async move {
        let saw = |body: &[u8], _: bool| {
            let reply: Value = serde_json::from_slice(body).unwrap();
            let text = |key: &str| reply[key].as_str().unwrap_or_default().to_owned();
            let (cause, id) = (text("in_reply_to"), text("message_id"));
            seen.lock()
                .unwrap()
                .observe(&cause, "sms.outbound", &id, began.elapsed());
        };
        observer
            .consume("sms.outbound", 500, Duration::from_secs(20), saw)
            .await
    });

    fleet.live.remove("one").unwrap().kill();
    fleet.calm("a kill").await;
    fleet.add("four");
    fleet.add("five");
    fleet.calm("two newcomers").await;
    fleet.live["two"].signal("STOP");
    let frozen = fleet.live.remove("two").unwrap();
    // The broker gives up the connection of a frozen replica after three heartbeats at most.
    let took = fleet.calm("a freeze").await;
    assert!(took < PATIENCE, "{took:?}");
    frozen.signal("CONT");
    fleet.live.insert("two".into(), frozen);
    fleet.calm("the end of the freeze").await;
    let mut leaving = fleet.live.remove("three").unwrap();
    assert_eq!(leaving.stop(PATIENCE).await, Some(143));
    fleet.calm("a stop").await;

    stop.store(true, Ordering::Relaxed);
    for publisher in talking {
        publisher.await.unwrap();
    }
    wait_for("every message has its reply", PATIENCE, || async {
        match oracle.lock().unwrap().open().len() {
            0 => Ok(()),
            open => Err(format!("{open} open")),
        }
    })
    .await;
    let demands = Demands {
        order: true,
        within: None,
    };
    let judgement = oracle.lock().unwrap().judge(demands);
    println!(
        "{} messages, {} repeated",
        judgement.owed, judgement.duplicates
    );
    judgement.require().unwrap();
    observing.abort();
}
