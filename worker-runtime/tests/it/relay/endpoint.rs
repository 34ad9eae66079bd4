//! An endpoint, played by the test: it goes away, comes back, is slow, refuses, and knows secrets.

use crate::harness::{PATIENCE, http, wait_for};
use async_trait::async_trait;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vumi_http::webhook::signing_key;
use vumi_http::{Answer, Encoding, Head, Reply, Request, Service, Signed, StatusCode};

/// How an endpoint behaves.
#[derive(Clone, Default)]
pub(super) struct Manner {
    pub(super) delay: Duration,
    /// Whom it answers 404.
    pub(super) refuses: BTreeSet<String>,
    /// Secrets that it knows; others get 401.
    pub(super) secrets: Vec<&'static str>,
}

/// A delivery that was answered with 204.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) delivery: String,
    /// Id of the message or event.
    pub(super) id: String,
    user: Option<String>,
    content: Option<String>,
    pub(super) at: Instant,
}

/// An endpoint: what it took, and how it behaves. It keeps its port.
pub(super) struct Endpoint {
    pub(super) port: u16,
    manner: Mutex<Manner>,
    taken: Mutex<Vec<Taken>>,
    /// Requests that it refused, by status.
    pub(super) refused: Mutex<BTreeMap<u16, usize>>,
    open: Mutex<Option<CancellationToken>>,
}

struct Door(Arc<Endpoint>);

#[async_trait]
impl Service for Door {
    fn by_head(&self, _: &Head) -> Option<Reply> {
        None
    }

    async fn answer(&self, request: Request) -> Reply {
        let endpoint = &self.0;
        let manner = endpoint.manner.lock().unwrap().clone();
        tokio::time::sleep(manner.delay).await;
        let header = |name: &str| {
            request
                .head
                .headers
                .get(name)
                .map_or("", |v| v.to_str().unwrap())
        };
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let text = |key: &str| body[key].as_str().map(str::to_owned);
        let id = text("message_id").or_else(|| text("event_id")).unwrap();
        let sent = header("webhook-timestamp");
        let signed = Signed {
            id: Some(header("webhook-id")),
            timestamp: Some(sent),
            body: &request.body,
        };
        // A program knows one secret, or two while it learns another: either will do.
        let known = manner.secrets.iter().any(|secret| {
            let keys = [signing_key(secret).unwrap()];
            let given = header("webhook-signature");
            let (tolerance, now) = (Duration::from_secs(300), SystemTime::now());
            signed
                .verify(given, "v1,", Encoding::Base64, &keys, tolerance, now)
                .is_ok()
        });
        let status = match known {
            false => 401,
            true if manner.refuses.contains(&id) => 404,
            true => 204,
        };
        if status == 204 {
            endpoint.taken.lock().unwrap().push(Taken {
                delivery: header("webhook-id").to_owned(),
                id,
                user: text("from_addr"),
                content: text("content"),
                at: Instant::now(),
            });
        } else {
            *endpoint.refused.lock().unwrap().entry(status).or_default() += 1;
        }
        Answer::text(StatusCode::from_u16(status).unwrap(), "").into()
    }
}

impl Endpoint {
    pub(super) async fn open(secrets: &[&'static str]) -> Arc<Self> {
        let endpoint = Arc::new(Self {
            port: vumi_testkit::free_port().unwrap(),
            manner: Mutex::default(),
            taken: Mutex::default(),
            refused: Mutex::default(),
            open: Mutex::default(),
        });
        endpoint.behaves(|manner| manner.secrets = secrets.to_vec());
        endpoint.comes_back().await;
        endpoint
    }

    pub(super) fn behaves(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.manner.lock().unwrap());
    }

    pub(super) async fn comes_back(self: &Arc<Self>) {
        let socket = wait_for("the port is free", PATIENCE, || async {
            let bound = TcpListener::bind(("127.0.0.1", self.port)).await;
            bound.map_err(|error| error.to_string())
        })
        .await;
        let closing = CancellationToken::new();
        *self.open.lock().unwrap() = Some(closing.clone());
        http::serve(socket, Arc::new(Door(Arc::clone(self))), closing);
    }

    pub(super) fn goes_away(&self) {
        if let Some(closing) = self.open.lock().unwrap().take() {
            closing.cancel();
        }
    }

    pub(super) fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    pub(super) fn ids(&self) -> BTreeSet<String> {
        let taken = self.taken.lock().unwrap();
        taken.iter().map(|taken| taken.id.clone()).collect()
    }

    /// Waits until it took all of these, however many, as long as there are always more.
    pub(super) async fn gets(&self, ids: &BTreeSet<String>) {
        let (mut last, mut at) = (usize::MAX, Instant::now());
        loop {
            let missing = ids.difference(&self.ids()).count();
            if missing == 0 {
                return;
            }
            if missing < last {
                (last, at) = (missing, Instant::now());
            }
            assert!(
                at.elapsed() < PATIENCE,
                "{missing} of {} do not come",
                ids.len()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until it took all of these.
    pub(super) async fn has(&self, what: &str, ids: &BTreeSet<String>) {
        wait_for(what, PATIENCE, || async {
            let missing = ids.difference(&self.ids()).count();
            match missing {
                0 => Ok(()),
                _ => Err(format!("{missing} of {} are missing", ids.len())),
            }
        })
        .await;
    }
}

/// First deliveries of each user's messages must have growing numbers, and there must be so many users.
pub(super) fn in_order(endpoint: &Endpoint, users: usize) {
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for taken in endpoint.taken() {
        let (Some(user), Some(content)) = (taken.user, taken.content) else {
            continue;
        };
        let Ok(number) = content.parse::<i64>() else {
            continue;
        };
        if !seen.insert(taken.id) {
            continue;
        }
        let before = last.insert(user.clone(), number).unwrap_or(-1);
        assert!(number > before, "{user}: {number} came after {before}");
    }
    assert_eq!(last.len(), users);
}
