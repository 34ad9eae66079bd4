//! One transport's front: what every request goes through, how long it waits, and how a reply reaches its caller.

mod late;
mod orphans;
mod receipts;
mod replies;
mod sessions;
mod statuses;
mod waiting;

use crate::engine::{Carried, Inbound, Provider, Received, Refused, SessionMove, message_id};
use crate::pending::{Opened, Pending};
use async_trait::async_trait;
use bytes::Bytes;
use orphans::Orphans;
use replies::unanswered;
use serde_json::json;
use sessions::Moves;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use vumi_api::shared::{BasicAuth, HttpListener};
use vumi_core::error::WorkError;
use vumi_core::message::UserMessage;
use vumi_core::reasons;
use vumi_core::status::StatusLevel;
use vumi_core::telemetry::HttpSeen;
use vumi_core::worker::{Taken, Traffic, WorkerContext};
use vumi_http::{
    Answer, Ended, Head, Method, Reply, Request, Service, StatusCode, Trouble, status_class,
};

/// How long a request may wait for the broker.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// What is not written down yet.
    settling: TaskTracker,
    moves: Arc<Moves>,
    orphans: Orphans,
    /// Components whose last status is bad, and since when.
    bad: Mutex<BTreeMap<&'static str, Instant>>,
}

/// Since when a request is here.
#[derive(Clone, Copy)]
struct Since {
    /// Its head: the network waits from then on.
    head: Instant,
    /// Its last byte.
    whole: Instant,
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
        let since = Since {
            head: request.began,
            whole: Instant::now(),
        };
        self.cx.traffic(Traffic::Inbound);
        self.take(request, since).await
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
        let settling = TaskTracker::new();
        let moves = Moves::new(Arc::clone(&provider), Arc::clone(&cx), settling.clone());
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
            settling,
            moves,
            orphans: Orphans::default(),
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
        // RFC 9110, 9.3.2: HEAD is where GET is, and changes nothing. So it says what is there, and makes no message.
        if head.method == Method::HEAD && methods.contains(&Method::GET) {
            let stays = !self.cx.closing().is_cancelled();
            return stays.then(|| self.nothing());
        }
        (!methods.contains(&head.method)).then(|| not_allowed(&methods))
    }

    /// One request, from its last byte to its answer.
    async fn take(&self, request: Request, since: Since) -> Reply {
        // What is made of a body is held as long as its request, and counts as the body does.
        let _room = request.room();
        let intake = self.intake.token();
        let path = below(&request.head.path, &self.path).unwrap_or_default();
        let received = self.provider.request(&request, path).await;
        drop(request);
        match received {
            Ok(Received { carried, odd }) => {
                match odd {
                    Some((reason, text)) => {
                        self.worse("request", StatusLevel::Degraded, reason, text);
                    }
                    None => self.better("request", reasons::REQUEST_PARSED, "Requests are valid."),
                }
                match carried {
                    Carried::Nothing(answer) => answer.into(),
                    Carried::Receipt(receipt, answer) => self.receipt(receipt, answer).await,
                    Carried::Message(inbound) => self.message(*inbound, intake, since).await,
                    Carried::Late(late) => self.late(*late, since).await,
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

    async fn message(
        &self,
        inbound: Inbound,
        intake: tokio_util::task::task_tracker::TaskTrackerToken,
        since: Since,
    ) -> Reply {
        let Inbound {
            mut message,
            provider_id,
            session,
            answer,
        } = inbound;
        let repeatable = provider_id.is_some();
        if let Some(id) = provider_id {
            message.set_message_id(&message_id(&self.cx, &id));
        }
        if let Some(answer) = answer {
            return self
                .answer_at_once(message, repeatable, session, answer, since)
                .await;
        }
        self.cx.hold(&mut message);
        if !self.provider.waits(&message) {
            let nothing = self.nothing();
            let answer = Box::new(|_: &UserMessage| Ok(nothing));
            return self
                .answer_at_once(message, repeatable, session, answer, since)
                .await;
        }
        let id = message.message_id().to_owned();
        let opened = self.pending.open(&id).await;
        self.cx.http(HttpSeen::Open(self.pending.len()));
        let reply = match opened {
            Opened::First(mut place) => {
                let published = self.publish(message.clone(), repeatable, since).await;
                self.moved(&published, session).await;
                drop(intake);
                match published {
                    Ok(Taken::Now) => {
                        place.accepted();
                        self.wait(place, &message, since).await
                    }
                    Ok(before) => match first_answer(&before) {
                        Some(first) => first.into(),
                        None if repeatable => self.wait_again(place, message, since).await,
                        None => self.wait(place, &message, since).await,
                    },
                    // The confirmation was lost, but the message was not: the reply is here.
                    Err(error) => match place.reply.try_recv() {
                        Ok(reply) => reply,
                        Err(_) => self.not_taken(&error, place, &message, since).await,
                    },
                }
            }
            Opened::Repeat(place) => {
                drop(intake);
                self.cx.http(HttpSeen::Repeat);
                self.wait(place, &message, since).await
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
        since: Since,
    ) -> Reply {
        // Before the message is published: what cannot be answered is not taken, and a repeat gets the first answer.
        let answer = match answer(&message) {
            Ok(answer) => answer,
            Err(error) => return self.refuse(&error),
        };
        let limit = self.patience(since);
        let taken = match repeatable {
            true => {
                let id = message.message_id().to_owned();
                // One that is too long to be kept is made again from the repeat.
                let kept = answer.kept().unwrap_or_default();
                self.cx.accept_once(message, &id, kept, limit).await
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
                self.report_time(since.whole.elapsed());
                answer.into()
            }
            Ok(before) => first_answer(&before).unwrap_or(answer).into(),
            Err(error) => self.refuse(&error),
        }
    }

    /// Number of held requests; 503 once the intake is closed, so that load balancers go elsewhere.
    fn health(&self, method: &Method) -> Answer {
        if ![Method::GET, Method::HEAD].contains(method) {
            return not_allowed(&[Method::GET]);
        }
        let status = if self.cx.closing().is_cancelled() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        };
        Answer::json(status, &json!({"pending_requests": self.pending.len()}))
    }

    /// How long a request may wait for the broker: no longer than the network waits for us.
    fn patience(&self, since: Since) -> Duration {
        let limit = ACCEPT_TIMEOUT.min(self.request_timeout);
        let network = self.provider.deadline();
        let left = network.map(|deadline| deadline.saturating_sub(since.head.elapsed()));
        left.map_or(limit, |left| left.min(limit))
    }

    async fn publish(
        &self,
        message: UserMessage,
        repeatable: bool,
        since: Since,
    ) -> Result<Taken, WorkError> {
        let limit = self.patience(since);
        if repeatable {
            let id = message.message_id().to_owned();
            return self.cx.accept_once(message, &id, Bytes::new(), limit).await;
        }
        let taken = self.cx.accept_within(message, limit).await;
        taken.map(|()| Taken::Now)
    }

    /// An answer without a word, of the type that replies have.
    fn nothing(&self) -> Answer {
        let answer = Answer::text(StatusCode::OK, "");
        match self.provider.content_type() {
            Some(kind) => answer.with(http::header::CONTENT_TYPE, kind),
            None => answer,
        }
    }

    fn refuse(&self, error: &WorkError) -> Reply {
        self.log_refusal(error);
        Answer::refusal(error).into()
    }

    fn log_refusal(&self, error: &WorkError) {
        tracing::warn!(worker = self.cx.worker_name(), code = %error.code, reason = %error, "request refused");
    }
}

/// What a repeat of a request is answered at once; none if it waits for the reply.
pub(crate) fn first_answer(taken: &Taken) -> Option<Answer> {
    match taken {
        Taken::Now => None,
        Taken::Before(first) => Answer::from_kept(first),
        Taken::Unanswered(code) => Some(unanswered(*code)),
    }
}

/// 405, with the methods that there are: where GET is, HEAD is.
fn not_allowed(methods: &[Method]) -> Answer {
    let head = methods.contains(&Method::GET).then_some(&Method::HEAD);
    let names: Vec<&str> = methods.iter().chain(head).map(Method::as_str).collect();
    let names = names.join(", ");
    let text = format!("Use one of these methods: {names}.");
    let answer = Answer::error(StatusCode::METHOD_NOT_ALLOWED, &text);
    match names.parse() {
        Ok(allow) => answer.with(http::header::ALLOW, allow),
        Err(_) => answer,
    }
}
