//! One transport's desk: what every request goes through, how long it waits, and how a reply reaches its caller.

use crate::engine::{Carried, Inbound, Provider, Refused, SessionMove};
use crate::pending::{Finished, Opened, Pending, Place};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use vumi_api::shared::{BasicAuth, HttpListener};
use vumi_core::codes::{self, Code};
use vumi_core::error::WorkError;
use vumi_core::message::{Actor, FailureClass, UserMessage, derived_id};
use vumi_core::outcome::{Receipt, Refusal};
use vumi_core::reasons::{self, Reason};
use vumi_core::state::Person;
use vumi_core::status::{StatusLevel, StatusReport};
use vumi_core::telemetry::HttpSeen;
use vumi_core::worker::{Taken, Traffic, WorkerContext};
use vumi_http::{Answer, Head, Method, Reply, Request, Service, StatusCode, Trouble};

/// Key in `transport_metadata` that names the reply queue of the replica that holds the request.
const HOLDER: &str = "vumi_holder";
/// How long a request may wait for the broker.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a repeat looks whether its request was answered by another replica.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a caller may take to read their answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// A bad status that only requests bring is taken back when none was bad for so long.
const FORGIVEN: Duration = match cfg!(test) {
    true => Duration::from_millis(500),
    false => Duration::from_secs(60),
};

/// What requests and replies share.
pub(crate) struct Desk {
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) cx: Arc<WorkerContext>,
    path: String,
    health_path: String,
    auth: Option<BasicAuth>,
    request_timeout: Duration,
    /// Answer to a request whose reply did not come; none for the error as JSON.
    timeout: (StatusCode, Option<String>),
    /// Answers that took longer are reported as slow, and as very slow.
    slow: (Duration, Duration),
    pub(crate) pending: Arc<Pending>,
    /// Requests that may still be published.
    pub(crate) intake: TaskTracker,
    /// Components whose last status is bad, and since when.
    bad: Mutex<BTreeMap<&'static str, Instant>>,
}

/// What is below `root`, if `path` is it or below it.
fn below<'p>(path: &'p str, root: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(root)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

#[async_trait]
impl Service for Desk {
    fn by_head(&self, head: &Head) -> Option<Answer> {
        if below(&head.path, &self.health_path).is_some() {
            return Some(self.health(&head.method));
        }
        let methods = below(&head.path, &self.path).and_then(|rest| self.provider.methods(rest));
        let Some(methods) = methods else {
            let text = "There is nothing here.";
            return Some(Answer::error(StatusCode::NOT_FOUND, text));
        };
        if let Some(auth) = &self.auth {
            match self.cx.secrets().resolve(&auth.password) {
                Ok(password)
                    if vumi_http::credentials_match(&head.headers, &auth.username, &password) => {}
                Ok(_) => {
                    let text = "a request has wrong credentials, or none";
                    self.bad_request(reasons::WRONG_CREDENTIALS, text.into());
                    return Some(vumi_http::unauthorized());
                }
                Err(error) => {
                    tracing::error!(worker = self.cx.worker_name(), code = %error.code, reason = %error, "cannot check credentials");
                    return Some(Answer::refusal(&error));
                }
            }
        }
        (!methods.contains(&head.method)).then(|| not_allowed(&methods))
    }

    fn trouble(&self, trouble: &Trouble) {
        self.bad_request(trouble.reason(), trouble.to_string());
    }

    async fn answer(&self, request: Request) -> Reply {
        let started = Instant::now();
        self.cx.traffic(Traffic::Inbound);
        let reply = self.take(request, started).await;
        let result = match reply.status().as_u16() / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.cx.http(HttpSeen::Request {
            direction: Traffic::Inbound,
            result,
            took: started.elapsed(),
        });
        reply
    }
}

impl Desk {
    pub(crate) fn new(
        provider: Arc<dyn Provider>,
        http: Option<&HttpListener>,
        cx: Arc<WorkerContext>,
    ) -> Self {
        let or =
            |path: Option<&String>, default: &str| path.map_or(default, String::as_str).to_owned();
        let lasts = |limit: Option<vumi_api::Duration>, default| {
            limit.map_or(Duration::from_secs(default), |d| d.0)
        };
        let path = or(http.and_then(|h| h.path.as_ref()), "/");
        let status = http.and_then(|h| h.timeout_status);
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        Self {
            provider,
            cx,
            path: path.trim_end_matches('/').to_owned(),
            health_path: or(http.and_then(|h| h.health_path.as_ref()), "/health"),
            auth: http.and_then(|h| h.auth.clone()),
            request_timeout: lasts(http.and_then(|h| h.request_timeout), 240),
            timeout: (
                status.unwrap_or(StatusCode::GATEWAY_TIMEOUT),
                http.and_then(|h| h.timeout_body.clone()),
            ),
            slow: (
                lasts(http.and_then(|h| h.degraded_after), 1),
                lasts(http.and_then(|h| h.down_after), 10),
            ),
            pending: Arc::default(),
            intake: TaskTracker::new(),
            bad: Mutex::default(),
        }
    }

    /// One request, from its last byte to its answer.
    async fn take(&self, request: Request, started: Instant) -> Reply {
        let intake = self.intake.token();
        let path = below(&request.head.path, &self.path).unwrap_or_default();
        let carried = self.provider.request(&request, path).await;
        drop(request);
        match carried {
            Ok(carried) => {
                self.better("request", reasons::REQUEST_PARSED, "Requests are valid.");
                match carried {
                    Carried::Nothing(answer) => answer.into(),
                    Carried::Receipt(receipt, answer) => self.receipt(receipt, answer).await,
                    Carried::Message(inbound) => self.message(*inbound, intake, started).await,
                }
            }
            Err(Refused { answer, why }) => {
                if let Some((reason, text)) = why {
                    self.bad_request(reason, text);
                }
                (*answer).into()
            }
        }
    }

    async fn receipt(&self, receipt: Receipt, answer: Answer) -> Reply {
        let taken = tokio::time::timeout(ACCEPT_TIMEOUT, self.cx.receipt(receipt)).await;
        match taken {
            Ok(Ok(())) => answer.into(),
            Ok(Err(error)) => {
                if error.code == codes::RECEIPT_UNMATCHED {
                    self.cx.http(HttpSeen::Receipt("orphan"));
                }
                self.refuse(&error)
            }
            Err(_) => {
                let text = "The receipt could not be taken over in time; please send it again.";
                let answer = Answer::error(StatusCode::SERVICE_UNAVAILABLE, text);
                answer.retry_after(5).into()
            }
        }
    }

    async fn message(
        &self,
        inbound: Inbound,
        intake: tokio_util::task::task_tracker::TaskTrackerToken,
        started: Instant,
    ) -> Reply {
        let Inbound {
            mut message,
            provider_id,
            session,
            answer,
        } = inbound;
        let repeatable = provider_id.is_some();
        if let Some(id) = provider_id {
            message.set_message_id(&derived_id(&["inbound", self.cx.transport_name(), &id]));
        }
        if let Some(answer) = answer {
            return self
                .answer_at_once(message, repeatable, session, answer, started)
                .await;
        }
        let id = message.message_id().to_owned();
        message
            .transport_metadata_mut()
            .insert(HOLDER.into(), self.cx.reply_queue().into());
        let opened = self.pending.open(&id);
        self.cx.http(HttpSeen::Open(self.pending.len()));
        let reply = match opened {
            Opened::First(mut place) => {
                let published = self.publish(message.clone(), repeatable).await;
                let published = self.moved(published, session).await;
                drop(intake);
                match published {
                    Ok(Taken::Now) => {
                        place.accepted();
                        self.wait(place, &message, started).await
                    }
                    Ok(before) => match first_answer(&before) {
                        Some(first) => first.into(),
                        None if repeatable => self.wait_again(place, message, started).await,
                        None => self.wait(place, &message, started).await,
                    },
                    // The confirmation was lost, but the message was not: the reply is here.
                    Err(error) => place
                        .reply
                        .try_recv()
                        .unwrap_or_else(|_| self.refuse(&error)),
                }
            }
            Opened::Repeat(place) => {
                drop(intake);
                self.wait(place, &message, started).await
            }
            Opened::TooEarly => {
                let text = "The same request is being taken over; please try again.";
                let answer = Answer::error(StatusCode::SERVICE_UNAVAILABLE, text);
                answer.retry_after(1).into()
            }
        };
        self.cx.http(HttpSeen::Open(self.pending.len()));
        reply
    }

    /// A request that waits for nothing but the broker.
    async fn answer_at_once(
        &self,
        message: UserMessage,
        repeatable: bool,
        session: Option<SessionMove>,
        answer: crate::engine::AnswerOnce,
        started: Instant,
    ) -> Reply {
        // Before the message is published: what cannot be answered is not taken, and a repeat gets the first answer.
        let answer = match answer(&message) {
            Ok(answer) => answer,
            Err(error) => return self.refuse(&error),
        };
        let limit = ACCEPT_TIMEOUT.min(self.request_timeout);
        let taken = match repeatable {
            true => {
                let id = message.message_id().to_owned();
                self.cx
                    .accept_once(message, &id, answer.kept(), limit)
                    .await
            }
            false => self
                .cx
                .accept_within(message, limit)
                .await
                .map(|()| Taken::Now),
        };
        match self.moved(taken, session).await {
            Ok(Taken::Now) => {
                self.report_time(started.elapsed());
                answer.into()
            }
            Ok(before) => first_answer(&before).unwrap_or(answer).into(),
            Err(error) => self.refuse(&error),
        }
    }

    /// Moves the session of a message that the broker has.
    async fn moved(
        &self,
        taken: Result<Taken, WorkError>,
        session: Option<SessionMove>,
    ) -> Result<Taken, WorkError> {
        if let (Ok(Taken::Now), Some(session)) = (&taken, session) {
            self.provider.moved(session).await?;
        }
        taken
    }

    /// A request that is not as it should be: a log line and a status.
    fn bad_request(&self, reason: Reason, text: String) {
        tracing::warn!(
            worker = self.cx.worker_name(),
            reason = text,
            "request refused"
        );
        self.worse("request", StatusLevel::Degraded, reason, text);
    }

    fn worse(&self, component: &'static str, level: StatusLevel, reason: Reason, text: String) {
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        bad.insert(component, Instant::now());
        self.report(component, level, reason, text);
    }

    fn better(&self, component: &'static str, reason: Reason, text: &str) {
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        // That requests are valid is news only after one that was not.
        if bad.remove(component).is_some() || component == "response" {
            self.report(component, StatusLevel::Ok, reason, text.into());
        }
    }

    /// Number of held requests; 503 once the intake is closed, so that load balancers go elsewhere.
    fn health(&self, method: &Method) -> Answer {
        const METHODS: &[Method] = &[Method::GET, Method::HEAD];
        if !METHODS.contains(method) {
            return not_allowed(METHODS);
        }
        let status = if self.cx.closing().is_cancelled() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        };
        Answer::json(status, &json!({"pending_requests": self.pending.len()}))
    }

    async fn publish(&self, message: UserMessage, repeatable: bool) -> Result<Taken, WorkError> {
        let limit = ACCEPT_TIMEOUT.min(self.request_timeout);
        if repeatable {
            let id = message.message_id().to_owned();
            return self.cx.accept_once(message, &id, Bytes::new(), limit).await;
        }
        let taken = self.cx.accept_within(message, limit).await;
        taken.map(|()| Taken::Now)
    }

    /// Waits for the reply to a request that was taken over before, and whose reply may come to another replica.
    async fn wait_again(&self, place: Place, message: UserMessage, started: Instant) -> Reply {
        place.accepted();
        let told = async {
            loop {
                tokio::time::sleep(ASK_AGAIN).await;
                if let Ok(before) = self.publish(message.clone(), true).await
                    && let Some(first) = first_answer(&before)
                {
                    return first;
                }
            }
        };
        tokio::select! {
            reply = self.wait(place, &message, started) => reply,
            first = told => first.into(),
        }
    }

    fn refuse(&self, error: &WorkError) -> Reply {
        tracing::warn!(worker = self.cx.worker_name(), code = %error.code, reason = %error, "request refused");
        Answer::refusal(error).into()
    }

    /// Waits for the reply, up to the request's deadline or the network's.
    async fn wait(&self, mut place: Place, message: &UserMessage, started: Instant) -> Reply {
        let network = self.provider.deadline();
        let limit = network.map_or(self.request_timeout, |d| d.min(self.request_timeout));
        let left = limit.saturating_sub(started.elapsed());
        match tokio::time::timeout(left, &mut place.reply).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => {
                let text = "The service stopped before a reply arrived; please try again.";
                let answer = Answer::error(StatusCode::SERVICE_UNAVAILABLE, text);
                answer.retry_after(1).into()
            }
            Err(_) => {
                // From now on a reply is too late.
                drop(place);
                let text = format!("No reply that could be delivered arrived within {limit:?}.");
                if network.is_none() {
                    let answer = self.timed_out(&text);
                    self.worse("response", StatusLevel::Down, reasons::NO_RESPONSE, text);
                    return answer.into();
                }
                self.cx.http(HttpSeen::DeadlineMissed);
                self.worse("response", StatusLevel::Down, reasons::DEADLINE, text);
                match self.provider.cut_off(message).await {
                    Ok(answer) => answer.into(),
                    Err(error) => self.refuse(&error),
                }
            }
        }
    }

    fn timed_out(&self, text: &str) -> Answer {
        match &self.timeout {
            (status, Some(body)) => Answer::text(*status, body.clone()),
            (status, None) => Answer::error(*status, text),
        }
    }

    /// Whether a message answers a request that is, or was, held.
    pub(crate) fn is_for_a_request(&self, message: &UserMessage) -> bool {
        let answers = message.in_reply_to().is_some_and(|id| !id.is_empty());
        let metadata = message.transport_metadata();
        let held = metadata.is_some_and(|metadata| metadata.contains_key(HOLDER));
        self.provider.holds() && answers && (held || !self.provider.sends())
    }

    /// Gives `message` to the caller who waits for it; why it could not, if so.
    pub(crate) async fn deliver(
        &self,
        message: &UserMessage,
        request: &str,
    ) -> Result<Option<Refusal>, WorkError> {
        let closed = |text: &str| {
            self.cx.http(HttpSeen::LateReply);
            let (class, code) = (FailureClass::Window, codes::SESSION_CLOSED);
            Ok(Some(Refusal::new(class, code, text, Actor::Nobody)))
        };
        let answer = match self.provider.reply(message) {
            Ok(answer) => answer,
            Err(error) => {
                self.refuse_reply(message, request, error.code).await;
                return Err(error);
            }
        };
        let id = message.message_id();
        let (written, age) = match self.pending.finish(request, id, &answer) {
            Finished::Repeated => return Ok(None),
            Finished::Answered => return closed("The request is answered."),
            Finished::NotPending => {
                self.leave_unanswered(request, codes::SESSION_CLOSED).await;
                return closed("The request is answered, timed out, or its caller is gone.");
            }
            Finished::Handed(written, age) => (written, age),
        };
        let deadline = tokio::time::Instant::now() + WRITE_TIMEOUT;
        let mut reached = false;
        for receipt in written {
            reached |= matches!(tokio::time::timeout_at(deadline, receipt).await, Ok(Ok(())));
        }
        self.pending.written(request, id, reached);
        if !reached {
            self.leave_unanswered(request, codes::SESSION_CLOSED).await;
            return closed("The caller went away before the answer was written.");
        }
        self.provider.replied(message).await;
        if self.provider.has_ids() {
            let person = message.to_addr().map(Person::new);
            self.cx.answered(request, answer.kept(), person).await;
        }
        self.cx.traffic(Traffic::Outbound);
        self.report_time(age);
        Ok(None)
    }

    /// Ends the wait for a reply that is refused: none will come.
    pub(crate) async fn refuse_reply(&self, message: &UserMessage, request: &str, code: Code) {
        let (answer, id) = (unanswered(code), message.message_id());
        match self.pending.finish(request, id, &answer) {
            Finished::Handed(..) => self.pending.written(request, id, false),
            Finished::NotPending => {}
            Finished::Repeated | Finished::Answered => return,
        }
        self.leave_unanswered(request, code).await;
    }

    /// Whoever repeats a request whose reply cannot be delivered is told so, unless it was answered before.
    async fn leave_unanswered(&self, request: &str, code: Code) {
        if self.provider.has_ids() {
            let answer = unanswered(code).kept();
            self.cx.answered(request, answer, None).await;
        }
    }

    fn report_time(&self, took: Duration) {
        let (slow, very_slow) = self.slow;
        if took > very_slow {
            let text = format!("A response took longer than {very_slow:?}.");
            self.worse(
                "response",
                StatusLevel::Down,
                reasons::VERY_SLOW_RESPONSE,
                text,
            );
        } else if took > slow {
            let text = format!("A response took longer than {slow:?}.");
            self.worse(
                "response",
                StatusLevel::Degraded,
                reasons::SLOW_RESPONSE,
                text,
            );
        } else {
            self.better(
                "response",
                reasons::RESPONSE_SENT,
                "Responses are sent in time.",
            );
        }
    }

    /// Takes back a bad status when nothing was bad for a while: without requests there is no other word that would. Runs
    /// until it is dropped.
    pub(crate) async fn forgive(&self) {
        loop {
            tokio::time::sleep(FORGIVEN / 10).await;
            let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
            let over = |since: &Instant| since.elapsed() >= FORGIVEN;
            let forgiven: Vec<&str> = bad
                .iter()
                .filter_map(|(component, since)| over(since).then_some(*component))
                .collect();
            bad.retain(|_, since| !over(since));
            for component in forgiven {
                let (reason, text) = match component {
                    "response" => (
                        reasons::NO_LATE_RESPONSE,
                        format!("No response was late for {FORGIVEN:?}."),
                    ),
                    _ => (
                        reasons::NO_BAD_REQUEST,
                        format!("No request was refused for {FORGIVEN:?}."),
                    ),
                };
                self.report(component, StatusLevel::Ok, reason, text);
            }
        }
    }

    pub(crate) fn report(&self, component: &str, level: StatusLevel, reason: Reason, text: String) {
        self.cx
            .report(StatusReport::new(component, level, reason, text));
    }

    /// The reply queue to forward to: another replica of this transport holds the request, and nobody repeated it here.
    pub(crate) fn holder_elsewhere(&self, message: &UserMessage) -> Option<String> {
        if self.pending.holds(message.in_reply_to()?) {
            return None;
        }
        let holder = message.transport_metadata()?.get(HOLDER)?.as_str()?;
        // Never to a queue that is not ours, whatever a message says.
        let ours = format!("{}.reply.", self.cx.transport_name());
        let elsewhere = holder.starts_with(&ours) && holder != self.cx.reply_queue();
        elsewhere.then(|| holder.to_owned())
    }
}

/// What a caller gets whose reply will not come.
fn unanswered(code: Code) -> Answer {
    Answer::coded_error(StatusCode::BAD_GATEWAY, code)
}

/// What a repeat of a request is answered at once; none if it waits for the reply.
fn first_answer(taken: &Taken) -> Option<Answer> {
    match taken {
        Taken::Now => None,
        Taken::Before(first) => Answer::from_kept(first),
        Taken::Unanswered(code) => Some(unanswered(*code)),
    }
}

fn not_allowed(methods: &[Method]) -> Answer {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let names = names.join(", ");
    let text = format!("Use one of these methods: {names}.");
    let answer = Answer::error(StatusCode::METHOD_NOT_ALLOWED, &text);
    match names.parse() {
        Ok(allow) => answer.with(http::header::ALLOW, allow),
        Err(_) => answer,
    }
}
