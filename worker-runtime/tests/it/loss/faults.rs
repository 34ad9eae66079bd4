//! What goes wrong in the loss test, in an order that the seed decides.

use super::HEARTBEAT;
use super::fleet::{Fleet, MEMBERS, RELOADED};
use rand::seq::SliceRandom;
use std::fmt;
use std::time::Duration;
use vumi_testkit::rabbitmq::RabbitMq;
use vumi_testkit::redis::Redis;

/// Longest time of one operation of the store.
const OPERATION: Duration = Duration::from_secs(5);

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
            Fault::FrozenStore => write!(f, "SIGSTOP and SIGCONT of Redis"),
        }
    }
}

impl Fault {
    /// Every worker is killed and frozen, one of each kind rolled and reloaded, the broker restarted twice,
    /// the store killed twice and frozen once; shuffled.
    pub fn plan(random: &mut impl rand::Rng) -> Vec<Fault> {
        use Fault::{Broker, Freeze, FrozenStore, Kill, Reload, Roll, Store};
        let mut plan = vec![
            Roll("http"),
            Roll("talk"),
            Roll("join-a"),
            Roll("echo-b"),
            Broker,
            Broker,
            Store,
            Store,
            FrozenStore,
        ];
        plan.extend(MEMBERS.map(Kill));
        plan.extend(MEMBERS.map(Freeze));
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
        Fault::FrozenStore => {
            store.freeze().await.unwrap();
            tokio::time::sleep(OPERATION + Duration::from_secs(2)).await;
            store.thaw().await.unwrap();
        }
    }
}
