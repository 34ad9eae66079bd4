//! `httpApi`: other programs post messages by GET, POST or PUT (signed ones by POST alone), and wait for the reply if `replyExpected` is set. Field
//! names, checks and answers are those of Vumi's HTTP API; what made its requests hang is answered with 400 here.

use crate::described::Door;
use crate::engine::{
    AnswerOnce, Carried, Engine, Inbound, Provider, Received, Refused, SessionMove,
};
use crate::findings::Findings;
use crate::repeated::Repeated;
use async_trait::async_trait;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use vumi_api::transports::HttpApi;
use vumi_api::transports::generic_http::{DeadlineRule, Signature};
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::message::{SessionEvent, UserMessage};
use vumi_core::numbers::Numbers;
use vumi_core::reasons;
use vumi_core::worker::{Dedupe, Worker, WorkerContext, WorkerType};
use vumi_http::{Answer, Method, ParamError, Params, Request, StatusCode};

/// Fields that callers may set when the manifest does not say.
const ALLOWED: [&str; 5] = ["content", "to_addr", "from_addr", "group", "session_event"];
/// Fields that must come from somewhere, if callers may set them.
const REQUIRED: [&str; 3] = ["content", "to_addr", "from_addr"];

pub(crate) struct Def;

/// What the settings of a transport make of requests.
pub(crate) struct Api {
    holds: bool,
    allowed: Vec<String>,
    defaults: BTreeMap<String, String>,
    id_field: Option<String>,
    /// Every request has one, or is refused.
    needs_id: bool,
    methods: Vec<Method>,
    door: Option<Door>,
    numbers: Option<Numbers>,
    deadline: Option<DeadlineRule>,
    repeated: Repeated,
}

#[async_trait]
impl WorkerType for Def {
    type Config = HttpApi;
    const DEDUPE: Dedupe = Dedupe::ProviderId("the request field named by `idField`, if set");

    async fn build(config: HttpApi, cx: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        Engine::build_listening(Arc::new(Api::new(config, &cx)?), cx)
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: api}\nspec:\n  httpApi: {replyExpected: true}\n  http: {host: 127.0.0.1, port: {port}}\n",
            peer: Some(|port| Box::new(crate::peer::HttpPeer::new(port))),
        }
    }
}

impl Api {
    /// The config is a valid one: `HttpApi::validate` has seen it.
    ///
    /// # Errors
    /// A secret is not there, or a country is none.
    pub(crate) fn new(config: HttpApi, cx: &Arc<WorkerContext>) -> Result<Self, WorkError> {
        let allowed = config.allowed_fields;
        let (access, secrets) = (config.access, config.secrets);
        let signature = access.as_ref().and_then(|access| access.signature.as_ref());
        let methods = match signature {
            // It is of the body, and nobody reads that of another method.
            Some(_) => vec![Method::POST],
            None => vec![Method::GET, Method::POST, Method::PUT],
        };
        Ok(Self {
            holds: config.reply_expected.unwrap_or(false),
            allowed: allowed.unwrap_or_else(|| ALLOWED.map(str::to_owned).to_vec()),
            defaults: config.field_defaults.unwrap_or_default(),
            id_field: config.id_field,
            // Else a request that somebody recorded would be good for ever.
            needs_id: signature.is_some_and(Signature::is_timeless),
            methods,
            door: access
                .map(|access| Door::new(&access, secrets, cx))
                .transpose()?,
            numbers: Numbers::new(config.numbers_of.as_deref(), config.unclear_numbers, cx)?,
            deadline: config.deadline,
            repeated: Repeated::new(cx),
        })
    }

    /// The parameters of a request that shows who it is, and names of those that anybody may have added to a signed one.
    async fn params(&self, request: &Request) -> Result<(Params, Vec<String>), Refused> {
        let bad = |error: ParamError| unread(&error);
        let Some(door) = &self.door else {
            return Ok((Params::read(request).await.map_err(bad)?, Vec::new()));
        };
        // Whoever does not show who it is gets no JSON read: what that is made into takes many times its bytes.
        let inside = Params::may_hold_json(request);
        let outside = match inside {
            true => Params::encoded(&request.head.query, b""),
            false => Params::read(request).await,
        };
        let outside = outside.map_err(bad)?;
        door.check(request, &outside, inside)?;
        let params = match inside {
            true => Params::read(request).await.map_err(bad)?,
            false => outside,
        };
        if inside {
            door.check_inside(request, &params)?;
        }
        let unsigned = door.unsigned(request).map_err(bad)?;
        Ok((params, unsigned))
    }

    /// The user's number in its one spelling. One that is unclear was told already.
    fn number(&self, message: &mut UserMessage) -> Result<(), Refused> {
        let (Some(numbers), Some(number)) = (&self.numbers, message.from_addr()) else {
            return Ok(());
        };
        match numbers.came(number.to_owned()) {
            Ok(came) => {
                came.mark(message);
                Ok(())
            }
            Err(_) => {
                let mut findings = Findings::default();
                findings.add_ours("unclear_number", "from_addr");
                Err(Refused {
                    answer: Box::new(findings.answer()),
                    why: None,
                })
            }
        }
    }

    fn may_set(&self, name: &str) -> bool {
        self.allowed.iter().any(|field| field == name) || self.id_field.as_deref() == Some(name)
    }

    /// Whether a parameter is no field and may be there all the same.
    fn shows_who(&self, name: &str) -> bool {
        self.door.as_ref().is_some_and(|door| door.asks(name))
    }
}

/// Whether a field may have this text: an address names somebody, and of session events there are three.
fn may_be(field: &str, text: &str) -> bool {
    let events = [SessionEvent::New, SessionEvent::Resume, SessionEvent::Close];
    match field {
        "session_event" => events.iter().any(|event| event.as_str() == text),
        "to_addr" | "from_addr" => !text.trim().is_empty(),
        _ => true,
    }
}

/// A request whose parameters cannot be read.
fn unread(error: &ParamError) -> Refused {
    let answer = Answer::error(error.status(), &error.to_string());
    let why = match error {
        ParamError::TooMany => "a request has too many parameters",
        _ => "a request has a body that cannot be read",
    };
    Refused::new(answer, reasons::INVALID_REQUEST, why)
}

#[async_trait]
impl Provider for Api {
    fn methods(&self, _: &str) -> Option<Vec<Method>> {
        Some(self.methods.clone())
    }

    fn holds(&self) -> bool {
        self.holds
    }

    fn has_ids(&self) -> bool {
        self.id_field.is_some()
    }

    async fn request(&self, request: &Request, _: &str) -> Result<Received, Refused> {
        let (params, unsigned) = self.params(request).await?;
        let named = self.allowed.iter().chain(&self.id_field);
        let odd = self.repeated.look(&params, &BTreeSet::new(), named);
        let mut findings = Findings::default();
        for name in unsigned {
            findings.add("unsigned_parameter", &name);
        }
        let known = |name: &String| self.may_set(name) || self.shows_who(name);
        for name in params.names().filter(|name| !known(name)) {
            findings.add("unexpected_parameter", &name);
        }
        for name in REQUIRED.into_iter().filter(|name| self.may_set(name)) {
            if !self.defaults.contains_key(name) && params.get(name).is_none() {
                findings.add_ours("missing_parameter", name);
            }
        }
        let mut message = UserMessage::new("http_api", None, None);
        for (name, value) in &self.defaults {
            message.set_field(name, value.as_str());
        }
        for name in &self.allowed {
            match params.get(name) {
                None => {}
                Some(Ok(text)) if !may_be(name, text) => {
                    findings.add_ours("invalid_parameter", name);
                }
                Some(Ok(text)) => message.set_field(name, text),
                Some(Err(_)) => findings.add_ours("invalid_parameter", name),
            }
        }
        let mut provider_id = None;
        if let Some(field) = &self.id_field {
            match params.get(field) {
                Some(Ok(text)) if !text.is_empty() => provider_id = Some(text.to_owned()),
                Some(_) => findings.add_ours("invalid_parameter", field),
                None if self.needs_id => findings.add_ours("missing_parameter", field),
                None => {}
            }
        }
        if !findings.is_empty() {
            let (answer, text) = (findings.answer(), findings.sentence());
            return Err(Refused::new(answer, reasons::INVALID_REQUEST, text));
        }
        self.number(&mut message)?;
        let answer: AnswerOnce = Box::new(|message| {
            let body = json!({"message_id": message.message_id()});
            Ok(Answer::json(StatusCode::OK, &body))
        });
        let carried = Carried::Message(Box::new(Inbound {
            message,
            provider_id,
            session: None,
            answer: (!self.holds).then_some(answer),
        }));
        Ok(Received { carried, odd })
    }

    fn reply(&self, message: &UserMessage) -> Result<Answer, WorkError> {
        let text = message.content().unwrap_or_default().to_owned();
        Ok(Answer::text(StatusCode::OK, text))
    }

    fn deadline(&self) -> Option<Duration> {
        self.deadline.as_ref().map(|deadline| deadline.after.0)
    }

    fn cut_off(&self, message: &UserMessage) -> Result<(Answer, Option<SessionMove>), WorkError> {
        let text = self.deadline.as_ref().map(|deadline| &*deadline.text);
        let told = message.reply("deadline", 0, text, true);
        Ok((self.reply(&told)?, None))
    }
}
