//! The request/reply engine: serves requests, publishes their messages, holds them until the reply comes to this
//! replica or is forwarded to it (R19), and says what became of every reply. A transport is a [`Declaration`] on it.

use crate::desk::Desk;
use async_trait::async_trait;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::task::TaskTracker;
use vumi_api::shared::HttpListener;
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::{Actor, FailureClass, UserMessage};
use vumi_core::outcome::Refusal;
use vumi_core::reasons;
use vumi_core::status::StatusLevel;
use vumi_core::worker::{Input, Output, Worker, WorkerContext};
use vumi_http::{Answer, Limits, Method, Request, Server, Service};

/// What one HTTP transport says about itself. Pure: requests in, messages and answers out.
pub(crate) trait Declaration: Send + Sync + 'static {
    /// Methods that carry messages; others get 405.
    fn methods(&self) -> &'static [Method];

    /// Whether requests are held until the application replies.
    fn holds(&self) -> bool;

    /// Whether requests may carry the provider's own id.
    fn has_ids(&self) -> bool {
        false
    }

    /// The message of a request, or the answer to a request that has none.
    fn inbound(&self, request: &Request) -> Result<Inbound, Box<Answer>>;

    /// The answer once the broker has the message, when requests are not held.
    fn accepted(&self, message_id: &str) -> Answer;

    /// The answer that a reply makes. Its content is neither null nor empty.
    fn reply(&self, message: &UserMessage) -> Answer;
}

/// What a request carries.
pub(crate) struct Inbound {
    /// The message. `message_id` is the request's, unless there is a provider's id.
    pub(crate) message: UserMessage,
    /// The provider's own id of it, by which repeats are recognised (R7).
    pub(crate) provider_id: Option<String>,
}

/// A running transport.
pub(crate) struct Engine {
    desk: Arc<Desk>,
    host: String,
    port: u16,
    server: Server,
}

impl Engine {
    /// A worker that serves `declaration` as the resource's `http` settings say. Reads secrets, opens nothing.
    pub(crate) fn build(
        declaration: impl Declaration,
        cx: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError> {
        let Some(http) = cx.resource().transport().and_then(|t| t.http.clone()) else {
            return Err(WorkError::new(
                ErrorClass::Config,
                codes::CONFIG_INVALID,
                "the transport listens for requests: add `http: {port: 8080}` to its spec",
            ));
        };
        if let Some(auth) = &http.auth {
            cx.secrets().resolve(&auth.password)?;
        }
        Ok(Arc::new(Self::new(Box::new(declaration), &http, cx)))
    }

    fn new(declaration: Box<dyn Declaration>, http: &HttpListener, cx: Arc<WorkerContext>) -> Self {
        let mut limits = Limits::default();
        if let Some(size) = http.max_body {
            limits.max_body = usize::try_from(size.0).unwrap_or(usize::MAX);
        }
        let or =
            |path: &Option<String>, default: &str| path.as_deref().unwrap_or(default).to_owned();
        Self {
            host: or(&http.host, "0.0.0.0"),
            port: http.port,
            server: Server::new(limits),
            desk: Arc::new(Desk {
                declaration,
                cx,
                path: or(&http.path, "/").trim_end_matches('/').to_owned(),
                health_path: or(&http.health_path, "/health"),
                auth: http.auth.clone(),
                request_timeout: http
                    .request_timeout
                    .map_or(Duration::from_secs(240), |d| d.0),
                pending: Arc::default(),
                intake: TaskTracker::new(),
                late: Mutex::default(),
            }),
        }
    }
}

#[async_trait]
impl Worker for Engine {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let desk = &self.desk;
        let message = input.to_deliver()?;
        let nack = |refusal| desk.cx.nack(message, input.attempt, refusal);
        if !desk.declaration.holds() {
            let text = "Requests of this transport are answered at once; it delivers no replies.";
            let code = codes::REPLY_NOT_EXPECTED;
            return Ok(vec![nack(Refusal::new(
                FailureClass::Route,
                code,
                text,
                Actor::Campaign,
            ))]);
        }
        let request = message.in_reply_to().filter(|id| !id.is_empty());
        let content = message.content().filter(|text| !text.is_empty());
        let incomplete = || {
            let missing: Vec<&str> = [("in_reply_to", request), ("content", content)]
                .into_iter()
                .filter_map(|(name, value)| value.is_none().then_some(name))
                .collect();
            let text = format!("Missing fields: {}", missing.join(", "));
            nack(Refusal::new(
                FailureClass::Content,
                codes::REPLY_FIELDS,
                text,
                Actor::Campaign,
            ))
        };
        let Some(request) = request else {
            return Ok(vec![incomplete()]);
        };
        if content.is_none() {
            // Here, at the replica that holds the request, so that the caller hears of it too.
            desk.refuse_reply(message, request, codes::REPLY_FIELDS)
                .await;
            return Ok(vec![incomplete()]);
        }
        Ok(vec![match desk.deliver(message, request).await {
            Ok(()) => desk.cx.ack(message, message.message_id()),
            Err(refusal) => nack(refusal),
        }])
    }

    fn holder_elsewhere(&self, message: &UserMessage) -> Option<String> {
        let answers = message.in_reply_to().is_some_and(|id| !id.is_empty());
        let holds = answers && self.desk.declaration.holds();
        holds.then(|| self.desk.holder_elsewhere(message))?
    }

    async fn run(&self, cx: Arc<WorkerContext>) -> Result<(), WorkError> {
        let desk = &self.desk;
        let listener = match cx.listen(&self.host, self.port).await {
            Ok(listener) => listener,
            Err(error) => {
                desk.report(
                    "listener",
                    StatusLevel::Down,
                    reasons::LISTEN_FAILED,
                    error.to_string(),
                );
                return Err(error);
            }
        };
        let listening = || {
            let text = format!("listening on {}:{}", self.host, self.port);
            desk.report("listener", StatusLevel::Ok, reasons::LISTENING, text);
        };
        listening();
        let service: Arc<dyn Service> = Arc::clone(desk) as Arc<dyn Service>;
        let trouble = |trouble: Option<std::io::Error>| match trouble {
            None => listening(),
            Some(error) => {
                let text = format!("a connection could not be taken: {error}");
                desk.report(
                    "listener",
                    StatusLevel::Degraded,
                    reasons::ACCEPT_FAILED,
                    text,
                );
            }
        };
        tokio::select! {
            () = self.server.serve(listener, cx.closing(), service, trouble) => {}
            () = desk.forgive_lateness() => {}
        }
        desk.intake.close();
        desk.intake.wait().await;
        Ok(())
    }

    async fn drained(&self) {
        self.desk.pending.empty().await;
    }

    async fn close(&self) {
        self.desk.pending.give_up();
        self.server.close().await;
    }
}
