//! What goes wrong in the loss test, in an order that the seed decides.

use super::HEARTBEAT;
use super::fleet::{Fleet, MEMBERS, RELOADED};
use rand::seq::SliceRandom;
use std::fmt;
use std::time::Duration;
use vumi_testkit::rabbitmq::RabbitMq;
use vumi_testkit::redis::Redis;

/// Longer than an order takes to be obeyed.
const PAUSED: Duration = Duration::from_secs(3);
/// Longest time of one operation of the store.
const OPERATION: Duration = Duration::from_secs(5);

/// Of members that share their work one is frozen; of a holder and its standby both, so that one of them is the holder.
const FROZEN: [&str; 8] = [
    "http", "talk", "telnet", "join-a", "join-b", "echo-b", "sms-a", "pager",
];

/// One fault.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// SIGKILL, and a new process.
    Kill(&'static str),
    /// SIGSTOP for longer than the broker waits, then SIGCONT.
    Freeze(&'static str),
    /// SIGTERM, and a new process when it has ended.
    Roll(&'static str),
    /// Its manifest is edited while it runs.
    Reload(&'static str),
    /// RabbitMQ is stopped and started.
    Broker,
    /// SIGKILL of Redis, and the same data again.
    Store,
    /// The batch of the campaign is paused, and resumed.
    Pause,
    /// SIGSTOP of Redis for longer than an operation may take, then SIGCONT.
    FrozenStore,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(name) => write!(f, "SIGKILL of {name}"),
            Fault::Freeze(name) => write!(f, "SIGSTOP and SIGCONT of {name}"),
            Fault::Roll(name) => write!(f, "SIGTERM of {name}"),
            Fault::Reload(name) => write!(f, "reload of {name}"),
            Fault::Broker => write!(f, "restart of RabbitMQ"),
            Fault::Store => write!(f, "SIGKILL of Redis"),
            Fault::Pause => write!(f, "pause of a batch"),
            Fault::FrozenStore => write!(f, "SIGSTOP and SIGCONT of Redis"),
        }
    }
}

impl Fault {
    /// Every worker is killed, at least one of each kind frozen, rolled and reloaded, the broker restarted twice, the
    /// store killed twice and frozen once, a batch paused; shuffled.
    pub fn plan(random: &mut impl rand::Rng) -> Vec<Fault> {
        use Fault::{Broker, Freeze, FrozenStore, Kill, Pause, Reload, Roll, Store};
        let mut plan = vec![
            Roll("http"),
            Roll("talk"),
            Roll("join-a"),
            Roll("echo-b"),
            Broker,
            Broker,
            Store,
            Store,
            Roll("sms-b"),
            FrozenStore,
            Pause,
        ];
        plan.extend(MEMBERS.map(Kill));
        plan.extend(FROZEN.map(Freeze));
        plan.extend(RELOADED.map(Reload));
        plan.shuffle(random);
        plan
    }
}

/// Lets it happen, and heals it.
pub async fn play(fault: &Fault, fleet: &mut Fleet, broker: &mut RabbitMq, store: &mut Redis) {
    match fault {
        Fault::Kill(name) => {
            fleet.member(name).process.kill();
            tokio::time::sleep(Duration::from_millis(200)).await;
            fleet.restart(name);
        }
        Fault::Freeze(name) => {
            fleet.member(name).process.signal("STOP");
            tokio::time::sleep(HEARTBEAT * 3 + Duration::from_secs(1)).await;
            fleet.member(name).process.signal("CONT");
        }
        Fault::Roll(name) => {
            let code = fleet
                .member(name)
                .process
                .stop(Duration::from_secs(60))
                .await;
            assert_eq!(code, Some(143), "{name} ends as documented");
            fleet.restart(name);
        }
        Fault::Reload(name) => {
            let before = fleet.starts(name);
            fleet.edit(name);
            fleet.edited(name, before).await;
        }
        Fault::Broker => {
            broker.stop().await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            broker.restart().await.unwrap();
        }
        Fault::Store => {
            store.kill().await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            store.restart().await.unwrap();
        }
        Fault::Pause => {
            fleet.order("pause").await;
            tokio::time::sleep(PAUSED).await;
            fleet.order("resume").await;
        }
        Fault::FrozenStore => {
            store.freeze().await.unwrap();
            tokio::time::sleep(OPERATION + Duration::from_secs(2)).await;
            store.thaw().await.unwrap();
        }
    }
}
