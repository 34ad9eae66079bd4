//! The request/reply engine: serves requests, publishes their messages, holds them until the reply comes to this
//! replica or is forwarded to it (R19), sends what no request waits for, and says what became of every message. A transport
//! is a [`Provider`] on it.

use crate::front::Front;
use async_trait::async_trait;
use http::HeaderValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::DropGuard;
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::{Actor, FailureClass, UserMessage, derived_id};
use vumi_core::outcome::{Receipt, Refusal};
use vumi_core::reasons::{self, Reason};
use vumi_core::status::StatusLevel;
use vumi_core::worker::{Input, Output, Worker, WorkerContext};
use vumi_http::{Answer, Limits, Method, Request, Server, Service};

/// What one HTTP transport says about its provider: requests in, messages and answers out, and the other way round. Its
/// methods know nothing of time, retries, replicas or confirmations.
#[async_trait]
pub(crate) trait Provider: Send + Sync + 'static {
    /// Methods of requests to `below`, the path below `http.path`; others get 405. None if nothing is there.
    fn methods(&self, below: &str) -> Option<Vec<Method>>;

    /// Whether some requests are held until the application replies.
    fn holds(&self) -> bool;

    /// Whether requests may carry the provider's own id.
    fn has_ids(&self) -> bool {
        false
    }

    /// What a request carries, or the answer to one that is not as it should be.
    async fn request(&self, request: &Request, below: &str) -> Result<Received, Refused>;

    /// What a session comes to is written down. May be called once more after an error. With `repeat`, it was perhaps
    /// written before: then what is there stays.
    async fn moved(&self, session: &SessionMove, repeat: bool) -> Result<(), WorkError> {
        let _ = (session, repeat);
        Ok(())
    }

    /// Whether the request of this message waits for a reply, where requests do. Else an empty answer is enough.
    fn waits(&self, message: &UserMessage) -> bool {
        let _ = message;
        true
    }

    /// The answer that a reply makes, or why it makes none.
    fn reply(&self, message: &UserMessage) -> Result<Answer, WorkError>;

    /// Whether a reply must have a text.
    fn needs_content(&self) -> bool {
        true
    }

    /// A reply was written to whoever waited for it: what its session comes to.
    fn replied(&self, message: &UserMessage) -> Option<SessionMove> {
        let _ = message;
        None
    }

    /// Content type of replies, where another answer has to stand in for one.
    fn content_type(&self) -> Option<HeaderValue> {
        None
    }

    /// How long the network waits for the reply, if it is not known to wait as long as it takes.
    fn deadline(&self) -> Option<Duration> {
        None
    }

    /// Nobody will wait longer for the reply to `message`, because the network does not or we stop: what its user is told,
    /// and what the session comes to.
    fn cut_off(&self, message: &UserMessage) -> Result<(Answer, Option<SessionMove>), WorkError> {
        Ok((self.reply(message)?, None))
    }

    /// A reply came that its caller will not get any more. Whether it is kept for when they come again: then it comes as
    /// [`Carried::Late`].
    async fn late(&self, reply: &UserMessage) -> Result<bool, WorkError> {
        let _ = reply;
        Ok(false)
    }

    /// Whether messages that no request waits for can be sent.
    fn sends(&self) -> bool {
        false
    }

    /// Sends a message. Called only if [`Self::sends`].
    async fn send(&self, message: &UserMessage) -> Result<Sent, WorkError> {
        let _ = message;
        let text = "this provider is only answered";
        Err(WorkError::new(
            ErrorClass::Unroutable,
            codes::REPLY_NOT_EXPECTED,
            text,
        ))
    }
}

/// A request that is as it should be, or nearly so.
pub(crate) struct Received {
    /// What it carries.
    pub(crate) carried: Carried,
    /// What is odd about it all the same, as a status has it.
    pub(crate) odd: Option<(Reason, String)>,
}

/// What a request carries.
pub(crate) enum Carried {
    /// A message.
    Message(Box<Inbound>),
    /// Word of a message that was sent; the answer once it is taken over.
    Receipt(Receipt, Answer),
    /// Nothing for anybody; the answer.
    Nothing(Answer),
    /// Nothing for the application, whose reply to an earlier request is the answer.
    Late(Box<Late>),
}

/// A reply that came too late for its request, and is the answer to a later one.
pub(crate) struct Late {
    /// The reply.
    pub(crate) reply: UserMessage,
    /// The provider's own id of the request, by which repeats are recognised (R7).
    pub(crate) provider_id: Option<String>,
    /// The session that goes on with it, if one does.
    pub(crate) session: Option<SessionMove>,
    /// What its user has read is not kept longer: done once the answer is written.
    pub(crate) read: SessionMove,
}

/// A message that came in.
pub(crate) struct Inbound {
    /// The message. `message_id` is the request's, unless there is a provider's id.
    pub(crate) message: UserMessage,
    /// The provider's own id of it, by which repeats are recognised (R7).
    pub(crate) provider_id: Option<String>,
    /// What becomes of its session once the broker has it.
    pub(crate) session: Option<SessionMove>,
    /// The answer once the broker has it; none if the request waits for the reply.
    pub(crate) answer: Option<AnswerOnce>,
}

/// Makes the answer to a message that the broker has.
pub(crate) type AnswerOnce = Box<dyn FnOnce(&UserMessage) -> Result<Answer, WorkError> + Send>;

/// What becomes of a session.
pub(crate) enum SessionMove {
    /// It begins with these texts, perhaps in place of one that the deadline cut off.
    Begin(String, BTreeMap<String, String>, Option<Cut>),
    /// It ends.
    End(String),
    /// It is cut off while this message of it waits for its reply.
    CutOff(String, Box<UserMessage>),
    /// What was kept of one that was cut off is not needed any more.
    Forget(Cut),
}

impl SessionMove {
    /// Id of the session.
    pub(crate) fn id(&self) -> &str {
        match self {
            SessionMove::Begin(id, ..) | SessionMove::End(id) | SessionMove::CutOff(id, _) => id,
            SessionMove::Forget(cut) => &cut.session,
        }
    }
}

/// Names what is kept of a session that the deadline cut off.
pub(crate) struct Cut {
    /// Its user.
    pub(crate) user: String,
    /// Where such are kept of the service that the user had dialled.
    pub(crate) scope: String,
    /// Its id.
    pub(crate) session: String,
    /// Lets the user's next request wait until it is forgotten.
    pub(crate) _settles: Option<DropGuard>,
}

/// The id of the message in a request to which the provider gave this id: the same one whenever it comes again.
pub(crate) fn message_id(cx: &WorkerContext, provider_id: &str) -> String {
    derived_id(&["inbound", cx.transport_name(), provider_id])
}

/// A request that is not as it should be.
pub(crate) struct Refused {
    /// What its caller hears.
    pub(crate) answer: Box<Answer>,
    /// What is wrong, as a status has it; none if the answer is an ordinary one.
    pub(crate) why: Option<(Reason, String)>,
}

impl Refused {
    /// Refuses with a reason and a sentence, which hold nothing of the request.
    pub(crate) fn new(answer: Answer, reason: Reason, text: impl Into<String>) -> Self {
        Self {
            answer: Box::new(answer),
            why: Some((reason, text.into())),
        }
    }
}

/// What the provider said to a message.
pub(crate) enum Sent {
    /// It has it, under this id.
    Accepted(String),
    /// It will never take it.
    Refused(Refusal),
}

/// A running transport.
pub(crate) struct Engine {
    front: Arc<Front>,
    /// Where requests come in, if any do.
    door: Option<(String, u16)>,
    server: Server,
}

impl Engine {
    /// As [`Self::build`], for a provider that only makes requests: nothing works without a port for them.
    pub(crate) fn build_listening(
        provider: Arc<dyn Provider>,
        cx: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError> {
        if cx.resource().transport().is_none_or(|t| t.http.is_none()) {
            return Err(WorkError::new(
                ErrorClass::Config,
                codes::CONFIG_INVALID,
                "the transport listens for requests: add `http: {port: 8080}` to its spec",
            ));
        }
        Self::build(provider, cx)
    }

    /// A worker for `provider` that serves requests as the resource's `http` settings say, if it has them. Reads secrets,
    /// opens nothing.
    pub(crate) fn build(
        provider: Arc<dyn Provider>,
        cx: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError> {
        Self::within(Limits::default(), provider, cx)
    }

    /// As [`Self::build`], with these limits where the resource says none.
    pub(crate) fn within(
        mut limits: Limits,
        provider: Arc<dyn Provider>,
        cx: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError> {
        let http = cx.resource().transport().and_then(|t| t.http.clone());
        let auth = http.as_ref().and_then(|http| http.auth.as_ref());
        if let Some(auth) = auth {
            cx.secrets().resolve(&auth.password)?;
        }
        if let Some(size) = http.as_ref().and_then(|http| http.max_body) {
            limits.max_body = usize::try_from(size.0).unwrap_or(usize::MAX);
            // Some of the largest fit at one time.
            limits.max_bodies = limits.max_bodies.max(limits.max_body.saturating_mul(4));
        }
        Ok(Arc::new(Self {
            door: http
                .as_ref()
                .map(|http| (http.host().to_owned(), http.port)),
            server: Server::new(limits),
            front: Arc::new(Front::new(provider, http.as_ref(), cx)),
        }))
    }
}

fn refusal(class: FailureClass, code: codes::Code, text: &str) -> Refusal {
    Refusal::new(class, code, text, Actor::Campaign)
}

#[async_trait]
impl Worker for Engine {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let front = &self.front;
        let message = input.to_deliver()?;
        let nack = |refusal| front.cx.nack(message, input.attempt, refusal);
        if !front.is_for_a_request(message) && front.provider.sends() {
            return Ok(vec![match front.provider.send(message).await? {
                Sent::Accepted(id) => front.cx.ack(message, &id),
                Sent::Refused(refusal) => nack(refusal),
            }]);
        }
        if !front.provider.holds() {
            let text = "Requests of this transport are answered at once; it delivers no replies.";
            let code = codes::REPLY_NOT_EXPECTED;
            return Ok(vec![nack(refusal(FailureClass::Route, code, text))]);
        }
        let request = message.in_reply_to().filter(|id| !id.is_empty());
        let content = message.content().filter(|text| !text.is_empty());
        let content = content.or(Some("").filter(|_| !front.provider.needs_content()));
        let incomplete = || {
            let missing: Vec<&str> = [("in_reply_to", request), ("content", content)]
                .into_iter()
                .filter_map(|(name, value)| value.is_none().then_some(name))
                .collect();
            let text = format!("Missing fields: {}", missing.join(", "));
            nack(refusal(FailureClass::Content, codes::REPLY_FIELDS, &text))
        };
        let Some(request) = request else {
            return Ok(vec![incomplete()]);
        };
        if content.is_none() {
            // Here, at the replica that holds the request, so that the caller hears of it too.
            front
                .refuse_reply(message, request, codes::REPLY_FIELDS)
                .await;
            return Ok(vec![incomplete()]);
        }
        Ok(vec![match front.deliver(message, request).await? {
            None => front.cx.ack(message, message.message_id()),
            Some(refusal) => nack(refusal),
        }])
    }

    fn holds(&self, message: &UserMessage) -> bool {
        let request = message.in_reply_to();
        request.is_some_and(|request| self.front.pending.holds(request))
    }

    async fn run(&self, cx: Arc<WorkerContext>) -> Result<(), WorkError> {
        let front = &self.front;
        let Some((host, port)) = &self.door else {
            cx.closing().cancelled().await;
            return Ok(());
        };
        let listener = match cx.listen(host, *port).await {
            Ok(listener) => listener,
            Err(error) => {
                let text = error.to_string();
                front.report("listener", StatusLevel::Down, reasons::LISTEN_FAILED, text);
                return Err(error);
            }
        };
        let listening = || {
            let text = format!("listening on {host}:{port}");
            front.report("listener", StatusLevel::Ok, reasons::LISTENING, text);
        };
        listening();
        let service: Arc<dyn Service> = Arc::clone(front) as Arc<dyn Service>;
        let trouble = |trouble: Option<std::io::Error>| match trouble {
            None => listening(),
            Some(error) => {
                let text = format!("a connection could not be taken: {error}");
                front.report(
                    "listener",
                    StatusLevel::Degraded,
                    reasons::ACCEPT_FAILED,
                    text,
                );
            }
        };
        tokio::select! {
            () = self.server.serve(listener, cx.closing(), service, trouble) => {}
            () = front.forgive() => {}
        }
        front.intake.close();
        front.intake.wait().await;
        Ok(())
    }

    async fn drained(&self) {
        self.front.pending.empty().await;
    }

    async fn close(&self) {
        self.front.pending.give_up();
        self.server.close().await;
        self.front.settled().await;
    }
}
