//! A message whose handling ends the process, again and again: a real process, killed while its endpoint has that message,
//! over RabbitMQ and with a store that outlives it.

use crate::harness::amqp::{Amqp, user_message};
use crate::harness::campaign::Campaign;
use crate::harness::process::{Process, run, said};
use crate::harness::{PATIENCE, http, vhost, wait_for};
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vumi_http::{Answer, Head, Reply, Request, Service, StatusCode};

const POISON: &str = "poison";
/// Messages of others, in hand together with the one that kills.
const NEIGHBOURS: usize = 6;

/// An endpoint that never answers to [`POISON`], and to nobody while it is closed.
struct Endpoint {
    /// How often it got the message that kills.
    met: AtomicUsize,
    /// Others that it did not answer.
    in_hand: AtomicUsize,
    open: AtomicBool,
    taken: Mutex<Vec<String>>,
}

struct Door(Arc<Endpoint>);

#[async_trait]
impl Service for Door {
    fn by_head(&self, _: &Head) -> Option<Reply> {
        None
    }

    async fn answer(&self, request: Request) -> Reply {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let id = body["message_id"].as_str().unwrap().to_owned();
        if id == POISON {
            self.0.met.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        if !self.0.open.load(Ordering::SeqCst) {
            self.0.in_hand.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        self.0.taken.lock().unwrap().push(id);
        Answer::text(StatusCode::NO_CONTENT, "").into()
    }
}

async fn endpoint() -> (Arc<Endpoint>, u16) {
    let endpoint = Arc::new(Endpoint {
        met: AtomicUsize::new(0),
        in_hand: AtomicUsize::new(0),
        open: AtomicBool::new(false),
        taken: Mutex::default(),
    });
    let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let door = Arc::new(Door(Arc::clone(&endpoint)));
    http::serve(socket, door, CancellationToken::new());
    (endpoint, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_ends_three_processes_is_set_aside_by_the_fourth() {
    let Some(url) = vhost("poison").await else {
        return;
    };
    let (endpoint, port) = endpoint().await;
    let campaign = Campaign::empty();
    campaign.write(
        "crm.yaml",
        &format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {{name: crm}}\nspec:\n  httpRelay: {{url: 'http://127.0.0.1:{port}/'}}\n  transportName: crm\n  client: {{answerTimeout: 1m}}\n"
        ),
    );
    let state = campaign.path().join("state");
    let state = state.to_str().unwrap();
    let start = || campaign.run(&["--broker", &url, "--state", state, "--admin", "none"]);
    let consumes = async || {
        campaign
            .until_ready(&["--state", state], "application/crm")
            .await;
    };
    let amqp = Amqp::connect(&url).await;
    let publish = async |id: &str, user: usize| {
        let mut message = user_message(id, "crm", "hello");
        message["from_addr"] = format!("+2782000{user:04}").into();
        amqp.publish("crm.inbound", message.to_string().as_bytes())
            .await;
    };
    let neighbours: Vec<String> = (1..=NEIGHBOURS).map(|n| format!("neighbour-{n}")).collect();

    let mut process: Process = start();
    consumes().await;
    for (n, id) in neighbours.iter().enumerate() {
        if n == NEIGHBOURS / 2 {
            publish(POISON, 0).await;
            publish("behind", 0).await;
        }
        publish(id, n + 1).await;
    }
    wait_for("all are in hand", PATIENCE, || async {
        match endpoint.in_hand.load(Ordering::SeqCst) {
            NEIGHBOURS => Ok(()),
            others => Err(others.to_string()),
        }
    })
    .await;
    for death in 1..=3 {
        wait_for("the endpoint has what kills", PATIENCE, || async {
            match endpoint.met.load(Ordering::SeqCst) {
                met if met == death => Ok(()),
                met => Err(format!("{met} times")),
            }
        })
        .await;
        process.kill();
        endpoint.open.store(true, Ordering::SeqCst);
        process = start();
    }
    let mut all: BTreeSet<String> = neighbours.into_iter().collect();
    all.insert("behind".into());
    wait_for("the others are served", PATIENCE, || async {
        let taken: BTreeSet<String> = endpoint.taken.lock().unwrap().iter().cloned().collect();
        let missing: Vec<_> = all.difference(&taken).collect();
        match missing.as_slice() {
            [] => Ok(()),
            missing => Err(format!("{missing:?}")),
        }
    })
    .await;
    let listed = wait_for("it is set aside", PATIENCE, || async {
        let arguments = ["parked", "list", "--format", "json", "--state", state];
        let output = run(campaign.path(), &arguments);
        let listed: Value = serde_json::from_slice(&output.stdout).map_err(|_| said(&output))?;
        match listed.as_array().is_some_and(|all| !all.is_empty()) {
            true => Ok(listed),
            false => Err("nothing is".to_owned()),
        }
    })
    .await;
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    let text = listed[0].to_string();
    assert!(
        text.contains(POISON) && text.contains("bug.crash_loop"),
        "{text}"
    );
    assert_eq!(endpoint.met.load(Ordering::SeqCst), 3, "not a fourth time");
    // It goes on.
    publish("later", 0).await;
    wait_for("a later message is served", PATIENCE, || async {
        let taken = endpoint.taken.lock().unwrap();
        match taken.iter().any(|id| id == "later") {
            true => Ok(()),
            false => Err("not yet".to_owned()),
        }
    })
    .await;
    process.assert_running();
}
