//! `kubectl vumi status --live` through a real API server, which leads to what a pod serves: a port of this machine.

use crate::place::Place;
use crate::unread::reader;
use serde_json::{Value, json};
use std::net::{IpAddr, UdpSocket};
use tokio::net::TcpListener;
use vumi_api::shared::shapes::ADMIN_PORT;
use vumi_core::admin;
use vumi_core::telemetry::Telemetry;

const WORKER: &str = "application/echo";

/// An address of this machine at which the API server takes a pod to be: not the loopback.
fn address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: which way it would go says the address.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// A pod that runs, as a kubelet tells of it. Returns its path.
fn pod(place: &Place, address: IpAddr) -> String {
    let pod = place.pod("live", "Application", "echo");
    let container = json!({
        "name": "worker", "image": "vumi", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {}},
    });
    let address = address.to_string();
    let status = json!({
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "containerStatuses": [container],
    });
    place.merge(&format!("{pod}/status"), &json!({"status": status}));
    pod
}

pub async fn figures_come_through_the_api_server(place: &Place) {
    let asked = place.vumi(&["status", "--live"]);
    assert!(asked.out.contains("QUEUE  WAIT  FLIGHT"), "{asked:?}");
    asked.says(&[
        "application/echo: no pod runs, so that nothing is counted",
        "transport/program: a program of its own",
    ]);
    let Some(address) = address() else {
        return vumi_testkit::skip("this machine has no address at which a pod may be");
    };
    let pod = pod(place, address);
    let asked = place.vumi(&["status", WORKER, "--live"]);
    asked.says(&["application/echo: no metrics of live: ", "refused"]);
    let Ok(listener) = TcpListener::bind((address, ADMIN_PORT)).await else {
        return vumi_testkit::skip("the admin port of workers is taken");
    };
    let telemetry = Telemetry::new();
    let worker = telemetry.worker(WORKER);
    worker.broker_up.set(1);
    let queue = worker.queue("telnet.inbound");
    queue.ready.set(12);
    queue.in_flight.set(3);
    queue.oldest.set(1.5);
    queue.kept.set(2);
    let answer = move |_, path: String| {
        assert_eq!(path, "/metrics");
        // So many between two reads.
        queue.received.inc_by(100);
        let page = telemetry.render();
        async move { admin::metrics(page) }
    };
    let answer = std::sync::Arc::new(answer);
    let serving = tokio::spawn(admin::serve(listener, move |method, path| {
        answer(method, path)
    }));
    let asked = place.vumi(&["status", WORKER, "--live"]);
    let row = asked.out.lines().nth(1).unwrap_or_default();
    let words: Vec<&str> = row.split_whitespace().rev().collect();
    assert_eq!(words[2..7], ["2", "1.5s", "3", "0", "12"], "{asked:?}");
    let asked = place.vumi(&["status", WORKER, "--live", "--format", "json"]);
    let said: Value = serde_json::from_str(&asked.out).unwrap();
    let live = &said[0]["live"];
    assert_eq!(live["notes"], json!([]), "{live}");
    assert_eq!(
        (&live["queued"], &live["inFlight"]),
        (&json!(12), &json!(3))
    );
    let rate = live["inPerSecond"].as_f64().unwrap();
    assert!((20.0..=100.0).contains(&rate), "{live}");
    let kubeconfig = reader(place);
    let asked = place.vumi(&["status", WORKER, "--live", "--kubeconfig", &kubeconfig]);
    asked.says(&["application/echo: you may not get pods/proxy in namespace campaign"]);
    serving.abort();
    place.delete(&pod);
}
