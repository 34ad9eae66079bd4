//! One transport's front: what every request goes through, how long it waits, and how a reply reaches its caller.

mod receipts;
mod replies;
mod sessions;
mod statuses;

pub(crate) use replies::HOLDER;

use crate::engine::{Carried, Inbound, Late, Provider, Refused, SessionMove};
use crate::pending::{Opened, Pending, Place};
use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use replies::{WRITE_TIMEOUT, unanswered};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use vumi_api::shared::{BasicAuth, HttpListener};
use vumi_core::error::WorkError;
use vumi_core::message::{UserMessage, derived_id};
use vumi_core::reasons;
use vumi_core::status::StatusLevel;
use vumi_core::telemetry::HttpSeen;
use vumi_core::worker::{Taken, Traffic, WorkerContext};
use vumi_http::{
    Answer, Ended, Head, Method, Reply, Request, Service, StatusCode, Trouble, status_class,
};

/// How long a request may wait for the broker.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a repeat looks whether its request was answered by another replica.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What requests and replies share.
pub(crate) struct Front {
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
    /// What sessions came to, and is not written down yet.
    settling: TaskTracker,
    /// Components whose last status is bad, and since when.
    bad: Mutex<BTreeMap<&'static str, Instant>>,
}

/// What is below `root`, if `path` is it or below it.
fn below<'p>(path: &'p str, root: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(root)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

#[async_trait]
impl Service for Front {
    fn by_head(&self, head: &Head) -> Option<Reply> {
        if below(&head.path, &self.health_path).is_some() {
            return Some(Reply::uncounted(self.health(&head.method)));
        }
        self.refused(head).map(Reply::from)
    }

    fn trouble(&self, trouble: &Trouble) {
        self.bad_request(trouble.reason(), trouble.to_string());
    }

    async fn answer(&self, request: Request) -> Reply {
        let started = Instant::now();
        self.cx.traffic(Traffic::Inbound);
        self.take(request, started).await
    }

    fn ended(&self, ended: Ended, took: Duration) {
        let result = match ended {
            Ended::Gone => "gone",
            Ended::Answered(status) => status_class(status),
        };
        self.cx.http(HttpSeen::Request {
            direction: Traffic::Inbound,
            result,
            took,
        });
    }
}

impl Front {
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
            settling: TaskTracker::new(),
            bad: Mutex::default(),
        }
    }

    /// The answer to a request that nobody here takes, or whose caller does not show who it is.
    fn refused(&self, head: &Head) -> Option<Answer> {
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
                    Carried::Late(late) => self.late(*late, started).await,
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

    /// A request whose answer is a reply that was too late for an earlier one. It is kept until it was read.
    async fn late(&self, late: Late, started: Instant) -> Reply {
        let Late {
            reply,
            session,
            read,
        } = late;
        let answered = async {
            let answer = self.provider.reply(&reply)?;
            if let Some(session) = &session {
                self.provider.moved(session, false).await?;
            }
            Ok(answer)
        };
        let answer = match answered.await {
            Ok(answer) => answer,
            Err(error) => return self.refuse(&error),
        };
        let (answer, written) = Reply::watched(answer);
        let (provider, cx) = (Arc::clone(&self.provider), Arc::clone(&self.cx));
        let id = reply.message_id().to_owned();
        self.settling.spawn(async move {
            if !matches!(
                tokio::time::timeout(WRITE_TIMEOUT, written).await,
                Ok(Ok(()))
            ) {
                return;
            }
            tracing::info!(
                worker = cx.worker_name(),
                message_id = id,
                "a reply that came too late is what its user read now"
            );
            sessions::settle(&*provider, &cx, &read, false).await;
        });
        self.cx.traffic(Traffic::Outbound);
        self.report_time(started.elapsed());
        answer
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
                self.moved(&published, session).await;
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
        self.moved(&taken, session).await;
        match taken {
            Ok(Taken::Now) => {
                self.report_time(started.elapsed());
                answer.into()
            }
            Ok(before) => first_answer(&before).unwrap_or(answer).into(),
            Err(error) => self.refuse(&error),
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
                let text = format!("No reply that could be delivered arrived within {limit:?}.");
                if network.is_none() {
                    // From now on a reply is too late.
                    drop(place);
                    let answer = self.timed_out(&text);
                    self.worse("response", StatusLevel::Down, reasons::NO_RESPONSE, text);
                    return answer.into();
                }
                self.cx.http(HttpSeen::DeadlineMissed);
                self.worse("response", StatusLevel::Down, reasons::DEADLINE, text);
                let told = self.provider.cut_off(message);
                let told = match told {
                    Ok((answer, session)) => {
                        self.settle(session, false).await;
                        answer.into()
                    }
                    Err(error) => self.refuse(&error),
                };
                // From now on a reply is too late, and the provider may keep it.
                drop(place);
                told
            }
        }
    }

    fn timed_out(&self, text: &str) -> Answer {
        match &self.timeout {
            (status, Some(body)) => {
                let answer = Answer::text(*status, body.clone());
                // Whoever reads replies of one type reads this as one.
                match self.provider.content_type() {
                    Some(kind) => answer.with(CONTENT_TYPE, kind),
                    None => answer,
                }
            }
            (status, None) => Answer::error(*status, text),
        }
    }
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
