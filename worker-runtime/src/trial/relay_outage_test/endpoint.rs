//! An endpoint that keeps what it took, checks signatures, and is away, slow or wrong as a test says.

use async_trait::async_trait;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vumi_core::worker::Listener;
use vumi_http::webhook::signing_key;
use vumi_http::{
    Answer, Encoding, Head, Limits, Reply, Request, Server, Service, Signed, StatusCode,
};
use vumi_testkit::free_port;

/// How an endpoint behaves.
#[derive(Clone, Default)]
pub(super) struct Manner {
    pub(super) delay: Duration,
    /// Users whose messages it answers with this status.
    pub(super) answers: BTreeMap<usize, u16>,
    /// Secrets that it knows; others get 401.
    pub(super) secrets: Vec<&'static str>,
}

/// An endpoint, what it took and what it refused. It keeps its port.
pub(super) struct Endpoint {
    pub(super) port: u16,
    manner: Mutex<Manner>,
    /// User and number of each message, in the order in which they were taken.
    taken: Mutex<Vec<(usize, usize)>>,
    /// Message and kind of each event, in the order in which they were taken.
    told: Mutex<Vec<(String, String)>>,
    /// How often it gave a user this status.
    refused: Mutex<BTreeMap<(u16, usize), usize>>,
    open: Mutex<Option<CancellationToken>>,
}

/// What it reads of a message or an event.
#[derive(Deserialize)]
#[serde(tag = "message_type", rename_all = "snake_case")]
enum Body {
    UserMessage {
        from_addr: String,
        content: String,
    },
    Event {
        user_message_id: String,
        event_type: String,
    },
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
        if !manner.delay.is_zero() {
            tokio::time::sleep(manner.delay).await;
        }
        let header = |name: &str| {
            let value = request.head.headers.get(name);
            value.map_or("", |value| value.to_str().unwrap())
        };
        let sent = header("webhook-timestamp");
        let signed = Signed {
            id: Some(header("webhook-id")),
            timestamp: Some(sent),
            body: &request.body,
        };
        let keys = manner.secrets.iter().map(|secret| signing_key(secret));
        let keys: Vec<Vec<u8>> = keys.collect::<Result<_, _>>().unwrap();
        let given = header("webhook-signature");
        let (tolerance, now) = (Duration::from_secs(300), vumi_core::clock::now());
        let known = signed
            .verify(given, "v1,", Encoding::Base64, &keys, tolerance, now)
            .is_ok();
        let body: Body = serde_json::from_slice(&request.body).unwrap();
        let user = match &body {
            Body::UserMessage { from_addr, .. } => Some(user_at(from_addr)),
            Body::Event { .. } => None,
        };
        let status = match (known, user.and_then(|user| manner.answers.get(&user))) {
            (false, _) => 401,
            (true, Some(status)) => *status,
            (true, None) => 204,
        };
        match (status, body, user) {
            (204, Body::UserMessage { content, .. }, Some(user)) => {
                let (number, _) = content.split_once(' ').unwrap();
                let taken = (user, number.parse().unwrap());
                endpoint.taken.lock().unwrap().push(taken);
            }
            (
                204,
                Body::Event {
                    user_message_id,
                    event_type,
                },
                _,
            ) => {
                let told = (user_message_id, event_type);
                endpoint.told.lock().unwrap().push(told);
            }
            (_, _, Some(user)) => {
                let mut refused = endpoint.refused.lock().unwrap();
                *refused.entry((status, user)).or_default() += 1;
            }
            (_, _, None) => {}
        }
        Answer::text(StatusCode::from_u16(status).unwrap(), "").into()
    }
}

impl Endpoint {
    pub(super) async fn open(secrets: &[&'static str]) -> Arc<Self> {
        let endpoint = Arc::new(Self {
            // None of those for outgoing connections: a call to one that nobody listens on may reach itself.
            port: free_port().unwrap(),
            manner: Mutex::default(),
            taken: Mutex::default(),
            told: Mutex::default(),
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
        let socket = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let closing = CancellationToken::new();
        *self.open.lock().unwrap() = Some(closing.clone());
        let door: Arc<dyn Service> = Arc::new(Door(Arc::clone(self)));
        tokio::spawn(async move {
            let server = Server::new(Limits::default());
            let listener = Listener::new(Arc::new(socket));
            server.serve(listener, &closing, door, |_| {}).await;
        });
    }

    pub(super) fn goes_away(&self) {
        if let Some(closing) = self.open.lock().unwrap().take() {
            closing.cancel();
        }
    }

    pub(super) fn taken(&self) -> Vec<(usize, usize)> {
        self.taken.lock().unwrap().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    pub(super) fn told(&self) -> Vec<(String, String)> {
        self.told.lock().unwrap().clone()
    }

    /// Users who got this status, with how often.
    pub(super) fn refused(&self, status: u16) -> BTreeMap<usize, usize> {
        let refused = self.refused.lock().unwrap();
        let with = refused.iter().filter(|((of, _), _)| *of == status);
        with.map(|((_, user), count)| (*user, *count)).collect()
    }
}

pub(super) fn address(user: usize) -> String {
    format!("+2782{user:07}")
}

fn user_at(address: &str) -> usize {
    address.strip_prefix("+2782").unwrap().parse().unwrap()
}
