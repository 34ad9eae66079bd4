//! Heartbeats: every worker says every 10 s that it lives, for Vumi's heartbeat monitor.

use crate::beacon;
use crate::broker::{Broker, HEALTH_EXCHANGE};
use crate::message::{HEARTBEAT_KEY, Heartbeat, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

/// Time between two beats; the first comes after it.
const INTERVAL: Duration = Duration::from_secs(10);

/// Who beats. The monitor tells instances of a worker apart by host name and process id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatInfo {
    /// Installation the worker belongs to; `global` where none is given.
    pub system_id: String,
    /// Name of the worker, the same for all its instances.
    pub worker_name: String,
    /// Host name, on a cluster the pod's name.
    pub hostname: String,
    /// Process id.
    pub pid: u32,
}

impl HeartbeatInfo {
    /// A worker of this process.
    pub fn of_this_process(system_id: impl Into<String>, worker_name: impl Into<String>) -> Self {
        Self {
            system_id: system_id.into(),
            worker_name: worker_name.into(),
            hostname: hostname(),
            pid: std::process::id(),
        }
    }
}

fn hostname() -> String {
    let of_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    of_kernel
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".into())
}

/// Beats until `stop`. A beat that the broker does not take is left out, never caught up.
pub async fn run(broker: Arc<dyn Broker>, info: HeartbeatInfo, stop: CancellationToken) {
    let mut ticks = interval_at(Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let beats = async {
        loop {
            ticks.tick().await;
            let beat = Heartbeat::new(
                &info.system_id,
                &info.worker_name,
                &info.hostname,
                info.pid,
                Timestamp::now().epoch(),
            );
            beacon::tell(
                broker.as_ref(),
                HEALTH_EXCHANGE,
                HEARTBEAT_KEY,
                beat.encode(),
            )
            .await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = beats => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beacon::testing::{Cuttable, next, silent};
    use serde_json::Value;

    fn info() -> HeartbeatInfo {
        HeartbeatInfo {
            system_id: "prod-za".into(),
            worker_name: "smpp_a".into(),
            hostname: "node7".into(),
            pid: 4121,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn beats_every_ten_seconds_with_the_body_of_vumi() {
        let broker = Cuttable::new();
        let mut copy = broker.copy("vumi.health", "heartbeat.inbound").await;
        let stop = CancellationToken::new();
        let start = Instant::now();
        let task = tokio::spawn(run(
            Arc::clone(&broker) as Arc<dyn Broker>,
            info(),
            stop.clone(),
        ));
        for n in 1..=3 {
            let body = next(&mut copy).await.body;
            assert_eq!(start.elapsed().as_secs(), 10 * n);
            let mut beat: Value = serde_json::from_slice(&body).unwrap();
            let time = beat["timestamp"].take().as_f64().unwrap();
            assert!((Timestamp::now().epoch() - time).abs() < 60.0);
            let expected = serde_json::json!({
                "version": "20130319", "worker_id": "prod-za:smpp_a", "system_id": "prod-za",
                "worker_name": "smpp_a", "hostname": "node7", "pid": 4121, "timestamp": null,
            });
            assert_eq!(beat, expected);
        }
        stop.cancel();
        task.await.unwrap();
        assert!(silent(&mut copy, Duration::from_secs(60)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_absent_broker_gets_no_heap_of_old_beats() {
        let broker = Cuttable::new();
        let mut copy = broker.copy(HEALTH_EXCHANGE, HEARTBEAT_KEY).await;
        let stop = CancellationToken::new();
        broker.cut();
        let task = tokio::spawn(run(
            Arc::clone(&broker) as Arc<dyn Broker>,
            info(),
            stop.clone(),
        ));
        assert!(silent(&mut copy, Duration::from_secs(95)).await);
        broker.restore();
        assert!(silent(&mut copy, Duration::from_secs(4)).await);
        next(&mut copy).await;
        assert!(silent(&mut copy, Duration::from_secs(9)).await);
        // Hanging in a publication, it still stops at once.
        broker.hang(true);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = Instant::now();
        stop.cancel();
        task.await.unwrap();
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[test]
    fn a_worker_of_this_process_has_its_host_and_pid() {
        let info = HeartbeatInfo::of_this_process("global", "a");
        assert_eq!(info.pid, std::process::id());
        assert!(!info.hostname.is_empty() && !info.hostname.contains('\n'));
    }
}
