//! Providers that are described, not programmed: [`GenericHttp`] is the description, read from the manifest for
//! `genericHttp` and from a file beside its module for a built-in provider; here it is carried out.

mod answers;
mod requests;
mod scope;
mod sending;
mod sessions;
mod xml;

use crate::engine::{Engine, Provider, Received, Refused, Sent, SessionMove};
use answers::Answers;
use async_trait::async_trait;
use http::HeaderValue;
pub(crate) use requests::Door;
use requests::Requests;
use scope::{Config, Scope};
use sending::Sending;
use sessions::SessionBook;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vumi_api::SecretValue;
use vumi_api::template::{Template, TemplateError};
use vumi_api::transports::GenericHttp;
use vumi_api::transports::generic_http::{NumberForm, UnclearNumbers};
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::{SessionEvent, UserMessage};
use vumi_core::numbers::Numbers;
use vumi_core::outcome::table::ErrorTable;
use vumi_core::reasons;
use vumi_core::worker::{Worker, WorkerContext};
use vumi_http::{Answer, Caller, Client, Method, Request};

/// A description, made ready to be carried out.
pub(crate) struct Described {
    config: Config,
    requests: Requests,
    reply: Answers,
    sessions: Option<SessionBook>,
    deadline: Option<(Duration, String)>,
    sending: Option<Sending>,
    holds: bool,
    has_ids: bool,
}

impl Described {
    /// Compiles a description. `caller` makes the calls to the provider.
    ///
    /// # Errors
    /// A template that cannot be read, or a secret that is not there.
    pub(crate) fn new(
        provider: &GenericHttp,
        caller: Arc<dyn Caller>,
        cx: &Arc<WorkerContext>,
    ) -> Result<Self, WorkError> {
        let config = Config::new(provider, Arc::clone(cx));
        // What is missing now is said now; what is rotated later is read when it is used.
        config.value()?;
        let table = Arc::new(ErrorTable {
            source: "the description".into(),
            codes: provider.codes.clone().unwrap_or_default(),
        });
        let (region, unclear) = (provider.numbers_of.as_deref(), provider.unclear_numbers);
        let numbers = Numbers::new(region, unclear, cx)?.map(Arc::new);
        let sending = provider.send.as_ref();
        let sessions = provider.session.as_ref();
        Ok(Self {
            requests: Requests::new(provider, Arc::clone(&table), numbers.clone(), cx)?,
            reply: match &provider.reply {
                Some(reply) => Answers::new(reply)?,
                None => Answers::of_content()?,
            },
            sessions: sessions
                .map(|rule| SessionBook::new(rule, cx))
                .transpose()?,
            deadline: provider
                .deadline
                .as_ref()
                .map(|d| (d.after.0, d.text.clone())),
            sending: sending
                .map(|rule| Sending::new(rule, numbers, table, caller, &config))
                .transpose()?,
            holds: provider.holds(),
            has_ids: provider.has_ids(),
            config,
        })
    }
}

impl Described {
    /// What a message's templates have beside it. A secret that is not there is waited for: a rotation may be half done.
    fn scope(&self) -> Result<Scope, WorkError> {
        self.config.scope().map_err(|mut error| {
            error.class = ErrorClass::Auth;
            error
        })
    }
}

/// What a built-in provider's manifest sets, for its templates to find under `config`.
#[derive(Default)]
pub(crate) struct Settings {
    /// What may be set.
    names: Vec<&'static str>,
    texts: BTreeMap<String, String>,
    secrets: BTreeMap<String, SecretValue>,
    /// The country of its numbers, what becomes of unclear ones, and how they go out.
    numbers: Option<(String, Option<UnclearNumbers>, NumberForm)>,
}

impl Settings {
    /// As well a text, if it is set.
    pub(crate) fn text(mut self, name: &'static str, text: Option<String>) -> Self {
        self.names.push(name);
        self.texts.extend(text.map(|text| (name.to_owned(), text)));
        self
    }

    /// As well how numbers are read, if the manifest names their country, and how they go out then.
    pub(crate) fn numbers(
        mut self,
        country: Option<String>,
        unclear: Option<UnclearNumbers>,
        form: NumberForm,
    ) -> Self {
        self.numbers = country.map(|country| (country, unclear, form));
        self
    }

    /// As well a secret, if it is set.
    pub(crate) fn secret(mut self, name: &'static str, secret: Option<SecretValue>) -> Self {
        self.names.push(name);
        let secret = secret.map(|secret| (name.to_owned(), secret));
        self.secrets.extend(secret);
        self
    }
}

impl Described {
    /// A worker for a built-in provider: `description` is a file beside its module.
    ///
    /// # Errors
    /// The description is wrong, or a secret is not there.
    pub(crate) fn build(
        description: &str,
        settings: Settings,
        cx: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError> {
        let wrong = |text: String| {
            let text = format!("the description of the provider: {text}");
            WorkError::new(ErrorClass::Bug, codes::TEMPLATE_FAILED, text)
        };
        let mut provider: GenericHttp =
            serde_yaml::from_str(description).map_err(|error| wrong(error.to_string()))?;
        provider
            .settings
            .get_or_insert_default()
            .extend(settings.texts);
        provider
            .secrets
            .get_or_insert_default()
            .extend(settings.secrets);
        if let Some((country, unclear, form)) = settings.numbers {
            provider.numbers_of = Some(country);
            provider.unclear_numbers = unclear;
            if let Some(send) = &mut provider.send {
                send.numbers_as = Some(form);
            }
        }
        if let Some((path, text)) = provider.check(&settings.names).into_iter().next() {
            return Err(wrong(format!("{path}: {text}")));
        }
        Self::worker(&provider, cx)
    }

    /// A worker for a description.
    ///
    /// # Errors
    /// As [`Self::new`], or the client cannot be made.
    pub(crate) fn worker(
        provider: &GenericHttp,
        cx: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError> {
        let caller = caller(&cx)?;
        let described = Self::new(provider, caller, &cx)?;
        Engine::build(Arc::new(described), cx)
    }
}

/// What calls the provider of a worker.
fn caller(cx: &WorkerContext) -> Result<Arc<dyn Caller>, WorkError> {
    #[cfg(test)]
    if let Ok(made) = MADE.try_with(Arc::clone) {
        return Ok(made);
    }
    let settings = cx.resource().transport().and_then(|t| t.client.clone());
    Ok(Arc::new(Client::new(
        &settings.unwrap_or_default(),
        cx.secrets(),
        cx.outside().clone(),
    )?))
}

#[cfg(test)]
tokio::task_local! {
    /// A provider that a test makes up: workers that are built within its scope call it and nobody else.
    pub(crate) static MADE: Arc<dyn Caller>;
}

/// A template of the manifest; one that lint has seen compiles.
fn template(source: &str) -> Result<Template, WorkError> {
    Template::new(source).map_err(|error| {
        let text = format!("a template of the manifest: {error}");
        WorkError::new(ErrorClass::Config, codes::CONFIG_INVALID, text)
    })
}

/// That a template has no value for one message or request: that one is at fault, and others go on.
fn failed(error: &TemplateError) -> WorkError {
    unfit(format!("a template of the manifest: {error}"))
}

/// That what a template makes of one message or request cannot be used.
fn unfit(text: String) -> WorkError {
    WorkError::new(ErrorClass::BadInput, codes::TEMPLATE_FAILED, text)
}

fn closes(message: &UserMessage) -> bool {
    message.session_event() == Some(SessionEvent::Close)
}

#[async_trait]
impl Provider for Described {
    fn methods(&self, below: &str) -> Option<Vec<Method>> {
        self.requests.methods(below)
    }

    fn holds(&self) -> bool {
        self.holds
    }

    fn has_ids(&self) -> bool {
        self.has_ids
    }

    async fn request(&self, request: &Request, below: &str) -> Result<Received, Refused> {
        let config = self.config.value();
        let config = config.map_err(|error| Refused {
            answer: Box::new(Answer::refusal(&error)),
            why: Some((reasons::CANNOT_ANSWER, error.text)),
        })?;
        let sessions = self.sessions.as_ref();
        self.requests.read(request, below, config, sessions).await
    }

    async fn moved(&self, session: &SessionMove, repeat: bool) -> Result<(), WorkError> {
        match &self.sessions {
            Some(sessions) => sessions.moved(session, repeat).await,
            None => Ok(()),
        }
    }

    fn waits(&self, message: &UserMessage) -> bool {
        // Whoever ended the session has left.
        !closes(message)
    }

    fn reply(&self, message: &UserMessage) -> Result<Answer, WorkError> {
        let scope = self.scope()?.with_message(message);
        self.reply.answer(&scope.with("close", closes(message)))
    }

    fn needs_content(&self) -> bool {
        // Closing a session without a last word is a reply of its own.
        self.sessions.is_none()
    }

    fn replied(&self, message: &UserMessage) -> Option<SessionMove> {
        let sessions = self.sessions.as_ref().filter(|_| closes(message))?;
        sessions.closed(message)
    }

    fn content_type(&self) -> Option<HeaderValue> {
        Some(self.reply.content_type())
    }

    fn deadline(&self) -> Option<Duration> {
        self.deadline.as_ref().map(|(after, _)| *after)
    }

    fn cut_off(&self, message: &UserMessage) -> Result<(Answer, Option<SessionMove>), WorkError> {
        let text = self.deadline.as_ref().map(|(_, text)| text.as_str());
        let told = message.reply("deadline", 0, text, true);
        let sessions = self.sessions.as_ref();
        let cut = sessions.and_then(|sessions| sessions.cut_off(message));
        Ok((self.reply(&told)?, cut))
    }

    async fn late(&self, reply: &UserMessage) -> Result<bool, WorkError> {
        match &self.sessions {
            Some(sessions) => sessions.keep_late(reply).await,
            None => Ok(false),
        }
    }

    fn sends(&self) -> bool {
        self.sending.is_some()
    }

    async fn send(&self, message: &UserMessage) -> Result<Sent, WorkError> {
        let scope = self.scope()?.with_message(message);
        let scope = scope.with("close", closes(message));
        match &self.sending {
            Some(sending) => sending.send(message, scope).await,
            None => Err(WorkError::new(
                ErrorClass::Bug,
                codes::REPLY_NOT_EXPECTED,
                "the description has no send",
            )),
        }
    }
}
