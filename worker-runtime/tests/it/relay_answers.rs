//! What an endpoint of an `httpRelay` may do to a message, through the whole engine: hang, fail, send in a circle, or answer
//! 100 MB. Each is one line about the message and one about the endpoint, takes little time and memory, and loses nothing.

use crate::harness::amqp::{Amqp, user_message};
use crate::harness::campaign::Campaign;
use crate::harness::process::{run, said};
use crate::harness::{PATIENCE, http, vhost, wait_for};
use ::http::HeaderName;
use ::http::header::LOCATION;
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vumi_http::{Answer, Head, Reply, Request, Service, StatusCode};
use vumi_testkit::resident_of;

const HUGE: usize = 100 << 20;
const REPLY: HeaderName = HeaderName::from_static("x-vumi-httprelay-reply");

/// What an endpoint does.
#[derive(Clone, Copy)]
enum Manner {
    Hangs,
    Fails,
    Circles,
    Huge,
    Takes,
}

/// One relay and what becomes of its message.
struct Case {
    name: &'static str,
    manner: Manner,
    /// Code of the message.
    code: &'static str,
    /// Reason in the endpoint's status.
    reason: &'static str,
    is_set_aside: bool,
}

static CASES: [Case; 4] = [
    Case {
        name: "hangs",
        manner: Manner::Hangs,
        code: "peer.timeout",
        reason: "endpoint_lost",
        is_set_aside: false,
    },
    Case {
        name: "fails",
        manner: Manner::Fails,
        code: "peer.failed",
        reason: "endpoint_failed",
        is_set_aside: false,
    },
    Case {
        name: "circles",
        manner: Manner::Circles,
        code: "relay.redirected",
        reason: "endpoint_refuses",
        is_set_aside: true,
    },
    Case {
        name: "huge",
        manner: Manner::Huge,
        code: "relay.reply_unusable",
        reason: "endpoint_refuses",
        is_set_aside: true,
    },
];

impl Case {
    fn queue(&self) -> String {
        format!("{}.inbound", self.name)
    }

    fn id(&self) -> String {
        format!("message-{}", self.name)
    }

    fn manifest(&self, port: u16) -> String {
        let name = self.name;
        format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {{name: {name}}}\nspec:\n  httpRelay: {{url: 'http://127.0.0.1:{port}/in'}}\n  transportName: {name}\n  client: {{answerTimeout: 3s, connectTimeout: 3s}}\n  retry: {{backoff: {{initial: 50ms, max: 200ms}}}}\n  holdLimit: 1s\n"
        )
    }
}

struct Endpoint {
    port: u16,
    manner: Mutex<Manner>,
    /// Requests, and those of them that it took.
    asked: AtomicUsize,
    taken: AtomicUsize,
}

struct Door(Arc<Endpoint>);

#[async_trait]
impl Service for Door {
    fn by_head(&self, _: &Head) -> Option<Reply> {
        None
    }

    async fn answer(&self, _: Request) -> Reply {
        let endpoint = &self.0;
        endpoint.asked.fetch_add(1, Ordering::SeqCst);
        let manner = *endpoint.manner.lock().unwrap();
        let answer = match manner {
            Manner::Hangs => std::future::pending().await,
            Manner::Fails => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, ""),
            Manner::Circles => {
                let here = format!("http://127.0.0.1:{}/in", endpoint.port);
                Answer::text(StatusCode::FOUND, "").with(LOCATION, here.parse().unwrap())
            }
            Manner::Huge => {
                Answer::text(StatusCode::OK, vec![b'x'; HUGE]).with(REPLY, "true".parse().unwrap())
            }
            Manner::Takes => {
                endpoint.taken.fetch_add(1, Ordering::SeqCst);
                Answer::text(StatusCode::NO_CONTENT, "")
            }
        };
        answer.into()
    }
}

impl Endpoint {
    async fn open(manner: Manner) -> Arc<Self> {
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = Arc::new(Self {
            port: socket.local_addr().unwrap().port(),
            manner: Mutex::new(manner),
            asked: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
        });
        let door = Arc::new(Door(Arc::clone(&endpoint)));
        http::serve(socket, door, CancellationToken::new());
        endpoint
    }
}

/// The lines of a log that hold all of this.
fn lines<'l>(log: &'l str, parts: &[&str]) -> Vec<&'l str> {
    let all = log.lines();
    all.filter(|line| parts.iter().all(|part| line.contains(part)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_endpoint_does_is_said_once_and_its_message_is_tried_again_or_set_aside() {
    let Some(url) = vhost("relay-answers").await else {
        return;
    };
    let campaign = Campaign::empty();
    let mut endpoints = Vec::new();
    for case in &CASES {
        let endpoint = Endpoint::open(case.manner).await;
        let file = format!("{}.yaml", case.name);
        campaign.write(&file, &case.manifest(endpoint.port));
        endpoints.push(endpoint);
    }
    let state = campaign.path().join("state");
    let state = state.to_str().unwrap();
    let mut process = campaign.run(&["--broker", &url, "--state", state, "--admin", "none"]);
    wait_for("all relays consume", PATIENCE, || async {
        let status = campaign.status_of(&["--state", state])?;
        for case in &CASES {
            let worker = status.worker(&format!("application/{}", case.name))?;
            if worker["ready"] != true {
                return Err(worker.to_string());
            }
        }
        Ok(())
    })
    .await;
    let id = process.id().to_string();
    let before = resident_of(&id, "VmHWM");
    let amqp = Amqp::connect(&url).await;
    for case in &CASES {
        let message = user_message(&case.id(), case.name, "hello").to_string();
        amqp.publish(&case.queue(), message.as_bytes()).await;
    }

    // What asks for another try is tried again, out of the journal; what nobody can take is set aside.
    let listed = |what: &str| -> Result<Vec<Value>, String> {
        let arguments = [what, "list", "--format", "json", "--state", state];
        let output = run(campaign.path(), &arguments);
        serde_json::from_slice(&output.stdout).map_err(|_| said(&output))
    };
    let codes = |listed: &[Value]| -> BTreeMap<String, String> {
        let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
        let all = listed.iter();
        all.map(|one| (text(one, "messageId"), text(one, "code")))
            .collect()
    };
    let expected = |is_set_aside: bool| -> BTreeMap<String, String> {
        let those = CASES
            .iter()
            .filter(|case| case.is_set_aside == is_set_aside);
        those
            .map(|case| (case.id(), case.code.to_owned()))
            .collect()
    };
    wait_for("each is where it belongs", PATIENCE, || async {
        let (waits, parked) = (listed("journal")?, listed("parked")?);
        let tries = waits.iter().all(|one| one["attempts"].as_u64() >= Some(3));
        match tries && codes(&waits) == expected(false) && codes(&parked) == expected(true) {
            true => Ok(()),
            false => Err(format!("waits: {waits:?}, set aside: {parked:?}")),
        }
    })
    .await;
    for (case, endpoint) in CASES.iter().zip(&endpoints) {
        let asked = endpoint.asked.load(Ordering::SeqCst);
        match case.is_set_aside {
            true => assert_eq!(asked, 1, "{}: neither followed nor repeated", case.name),
            false => assert!(asked >= 3, "{}: {asked}", case.name),
        }
    }
    let grown = (resident_of(&id, "VmHWM") - before) << 10;
    assert!((grown as usize) < HUGE / 2, "{grown} bytes more");

    // Once the endpoints take messages, none is lost.
    for (case, endpoint) in CASES.iter().zip(&endpoints) {
        *endpoint.manner.lock().unwrap() = Manner::Takes;
        if case.is_set_aside {
            let queue = case.queue();
            let arguments = ["parked", "requeue", &queue, "--code", case.code, "--yes"];
            let arguments = [&arguments[..], &["--state", state]].concat();
            let output = run(campaign.path(), &arguments);
            assert!(output.status.success(), "{}", said(&output));
        }
        wait_for("it is taken", PATIENCE, || async {
            match endpoint.taken.load(Ordering::SeqCst) {
                0 => Err(case.name.to_owned()),
                _ => Ok(()),
            }
        })
        .await;
    }
    wait_for("nothing waits or is set aside", PATIENCE, || async {
        match (&*listed("journal")?, &*listed("parked")?) {
            ([], []) => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    process.assert_running();
    let log = process.log();
    for (case, endpoint) in CASES.iter().zip(&endpoints) {
        let name = case.name;
        assert_eq!(endpoint.taken.load(Ordering::SeqCst), 1, "{name}: once");
        let of_message = lines(&log, &[&case.id()]);
        assert_eq!(of_message.len(), 1, "{name}: {of_message:#?}");
        assert!(of_message[0].contains(case.code), "{}", of_message[0]);
        let worker = format!("application/{name}");
        let of_endpoint = lines(&log, &[&worker, case.reason]);
        assert_eq!(of_endpoint.len(), 1, "{name}: {of_endpoint:#?}");
    }
}
