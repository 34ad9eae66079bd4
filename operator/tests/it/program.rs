//! The program itself: it gets ready, leads, and gives the lease back when it is told to stop. Its log says no secret, not even
//! of a broker that refuses it.

use crate::cluster::{BrokerPlace, Cluster, NAMESPACE, PLANTED, child, has_no_secret, until};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Ends with the test, however that ends.
struct Program(std::process::Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The status and body of an answer of the admin port.
fn asked(port: u16, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.to_owned(), body.to_owned()))
}

pub async fn it_leads_and_stops(cluster: &Cluster, broker: &BrokerPlace) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    // A password that is none.
    let refused = broker.url.replace(PLANTED, &format!("{PLANTED}-of-before"));
    assert_ne!(refused, broker.url);
    cluster.broker(&refused);
    // A Secret of which it is to hear at once.
    let secret = format!("/api/v1/namespaces/{NAMESPACE}/secrets/api-partner");
    let revision = || {
        let account = cluster.get(&child("ServiceAccount", "transport-api-full"));
        account.unwrap()["metadata"]["annotations"]["vumi.dev/secret-revision"].clone()
    };
    let before = revision();
    let kubeconfig = folder.path().join("kubeconfig");
    let text = cluster.server.kubeconfig("default");
    std::fs::write(&kubeconfig, text).unwrap();
    let port = vumi_testkit::free_port().unwrap();
    let program = Command::new(env!("CARGO_BIN_EXE_vumi-operator"))
        .env("KUBECONFIG", &kubeconfig)
        .args([
            "--lease-namespace",
            "vumi-system",
            "--lease-name",
            "program",
            "--identity",
            "program",
        ])
        .arg("--watch-secrets")
        .args([
            "--admin",
            &format!("127.0.0.1:{port}"),
            "--log-format",
            "json",
            "--log-level",
            "debug,vumi_operator=trace,vumi_core=trace",
        ])
        .stderr(Stdio::from(std::fs::File::create(&log).unwrap()))
        .spawn()
        .unwrap();
    let mut program = Program(program);
    let lease = "/apis/coordination.k8s.io/v1/namespaces/vumi-system/leases/program";
    let holder = || {
        cluster
            .get(lease)
            .map(|lease| lease["spec"]["holderIdentity"].clone())
    };
    until("the program to lead", || holder() == Some("program".into())).await;
    assert_eq!(
        asked(port, "/readyz").unwrap(),
        ("200".into(), "ok\n".into())
    );
    assert_eq!(asked(port, "/healthz").unwrap().0, "200");
    until("the broker to refuse it", || {
        let text = std::fs::read_to_string(&log).unwrap();
        let mut lines = text.lines();
        // One resource asks a port without TLS for TLS.
        lines.any(|line| line.contains("refuses us") && !line.contains("TLS"))
    })
    .await;
    until("the password to be told", || revision() != before).await;
    let first = revision();
    cluster.merge(
        &secret,
        &json!({"metadata": {"labels": {"vumi.dev/watch": "true"}}}),
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(revision(), first, "a label is no content");
    let began = Instant::now();
    let more = format!("{PLANTED}-of-later");
    cluster.merge(&secret, &json!({"stringData": {"more": more}}));
    until("the change to be noticed", || revision() != first).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "not in a minute: {took:?}");
    let (_, metrics) = asked(port, "/metrics").unwrap();
    assert!(metrics.contains("vumi_operator_leading 1"), "{metrics}");
    has_no_secret("the metrics", &metrics);
    let id = program.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let status = program.0.wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(holder(), Some("".into()));
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("the lease is given back"), "{log}");
    has_no_secret("the log", &log);
}
