//! Sessions of users with the network, in the state store. The key of a session travels with its messages, so that a reply
//! finds it at every replica.

use super::scope::Scope;
use super::{failed, template};
use crate::engine::{Cut, SessionMove};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};
use vumi_api::template::{Template, Value};
use vumi_api::transports::generic_http::{Redial, SessionRule};
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::{UserMessage, derived_id};
use vumi_core::state::StateStore;
use vumi_core::worker::WorkerContext;

use super::answers::Answers;

/// Key in `transport_metadata` that names the session of a message.
const SESSION: &str = "vumi_session";
/// Key in `helper_metadata` of the first message of a user who dialled again.
pub(super) const REDIAL: &str = "redial";
/// Key in `transport_metadata` that names the service which the user dialled.
const SERVICE: &str = "vumi_service";
/// How long a user's next request waits until what the user reads now is forgotten.
const SETTLES: Duration = Duration::from_secs(1);
/// Field of what is kept of a session that was cut off: the reply that came too late for it.
const LATE: &str = "vumi_late";

/// The sessions of one transport.
pub(super) struct SessionBook {
    cx: Arc<WorkerContext>,
    scope: String,
    id: Template,
    begins: Option<Template>,
    store: Vec<(String, Template)>,
    keep: Duration,
    keep_closed: bool,
    redial: Option<Duration>,
    /// Users who are being answered with what came too late.
    reading: Mutex<HashMap<String, CancellationToken>>,
    /// The answer to a request of a session that is not known.
    pub(super) unknown: Option<Answers>,
}

/// Where a request stands in its session.
pub(super) struct Found {
    pub(super) id: String,
    pub(super) begins: bool,
    /// What was kept of its first request; nothing if it is not known.
    pub(super) stored: Option<BTreeMap<String, String>>,
}

/// What is kept of a session that the deadline cut off.
pub(super) struct Redialled {
    /// What the session held.
    pub(super) fields: BTreeMap<String, String>,
    /// The reply that came too late for it.
    pub(super) late: Option<UserMessage>,
    /// Where it is kept.
    pub(super) cut: Cut,
}

impl Found {
    /// As templates see it.
    pub(super) fn value(&self) -> Value {
        match &self.stored {
            None => Value::from(()),
            Some(stored) => {
                let fields = stored.iter();
                Value::from_pairs(fields.map(|(name, text)| (name.as_str(), text.as_str())))
            }
        }
    }
}

impl SessionBook {
    pub(super) fn new(rule: &SessionRule, cx: &Arc<WorkerContext>) -> Result<Self, WorkError> {
        let store = rule.store.iter().flatten();
        let store = store.map(|(name, source)| Ok((name.clone(), template(source)?)));
        let lasts = |limit: Option<vumi_api::Duration>, default: u64| {
            limit.map_or(Duration::from_secs(default), |d| d.0)
        };
        Ok(Self {
            cx: Arc::clone(cx),
            scope: cx.transport_name().to_owned(),
            id: template(&rule.id)?,
            begins: rule.begins.as_deref().map(template).transpose()?,
            store: store.collect::<Result<_, WorkError>>()?,
            keep: lasts(rule.keep, 600),
            keep_closed: rule.keep_closed.unwrap_or(false),
            redial: (rule.redial == Some(Redial::Resume)).then(|| lasts(rule.redial_within, 300)),
            reading: Mutex::default(),
            unknown: rule.unknown.as_ref().map(Answers::new).transpose()?,
        })
    }

    fn store(&self) -> Result<Arc<dyn StateStore>, WorkError> {
        self.cx.state().ok_or_else(|| {
            let text = "sessions are kept in a state store, and there is none";
            WorkError::new(ErrorClass::Config, codes::STATE_NONE, text)
        })
    }

    /// The session of a request; none if the request names none.
    pub(super) async fn find(&self, scope: &Scope) -> Result<Option<Found>, WorkError> {
        let values = scope.value();
        let id = self.id.text(&values).map_err(|e| failed(&e))?;
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return Ok(None);
        };
        let stored = self.store()?.load(&self.scope, &id).await?;
        let begins = match &self.begins {
            None => stored.is_none(),
            Some(begins) => begins.holds(&values).map_err(|e| failed(&e))?,
        };
        let stored = stored.filter(|_| !begins);
        Ok(Some(Found { id, begins, stored }))
    }

    /// What is kept of a first request.
    pub(super) fn first(&self, scope: &Scope) -> Result<BTreeMap<String, String>, WorkError> {
        let values = scope.value();
        let mut fields = BTreeMap::new();
        for (name, template) in &self.store {
            if let Some(text) = template.text(&values).map_err(|e| failed(&e))? {
                fields.insert(name.clone(), text);
            }
        }
        Ok(fields)
    }

    /// The session with this service that the deadline cut off from this user a moment ago. It is kept until it is
    /// forgotten: what it leads to may fail.
    pub(super) async fn redialled(
        &self,
        user: &str,
        service: Option<&str>,
    ) -> Result<Option<Redialled>, WorkError> {
        if self.redial.is_none() {
            return Ok(None);
        }
        let being_read = {
            let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
            reading.get(user).cloned()
        };
        if let Some(being_read) = being_read {
            let _ = tokio::time::timeout(SETTLES, being_read.cancelled()).await;
        }
        let scope = self.redials(&service_key(service));
        let Some(mut fields) = self.store()?.load(&scope, user).await? else {
            return Ok(None);
        };
        let session = fields.remove(SESSION).unwrap_or_default();
        let late = fields.remove(LATE);
        let late = late.and_then(|late| UserMessage::decode(late.as_bytes()).ok());
        let settles = late.is_some().then(|| self.reads(user));
        let cut = Cut {
            user: user.to_owned(),
            scope,
            session,
            _settles: settles,
        };
        Ok(Some(Redialled { fields, late, cut }))
    }

    /// A user reads what came too late, until the guard is dropped.
    fn reads(&self, user: &str) -> DropGuard {
        let token = CancellationToken::new();
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        reading.retain(|_, token| !token.is_cancelled());
        reading.insert(user.to_owned(), token.clone());
        token.drop_guard()
    }

    /// Keeps a reply that came after its session was cut off, for when its user dials again; false if nobody will see it.
    pub(super) async fn keep_late(&self, reply: &UserMessage) -> Result<bool, WorkError> {
        let (Some(id), Some(service)) = (said(reply, SESSION), said(reply, SERVICE)) else {
            return Ok(false);
        };
        let (Some(user), Some(_)) = (reply.to_addr(), self.redial) else {
            return Ok(false);
        };
        let (store, scope) = (self.store()?, self.redials(service));
        let Some(cut) = store.load(&scope, user).await? else {
            return Ok(false);
        };
        if cut.get(SESSION).is_none_or(|session| session != id) {
            return Ok(false);
        }
        let written = String::from_utf8_lossy(&reply.encode()).into_owned();
        if let Some(kept) = cut.get(LATE) {
            // The first reply is the answer; this may be it once more.
            let kept = UserMessage::decode(kept.as_bytes()).ok();
            return Ok(kept.is_some_and(|kept| kept.message_id() == reply.message_id()));
        }
        let late = BTreeMap::from([(LATE.to_owned(), written)]);
        store.save(&scope, user, late).await
    }

    /// Where the sessions with a service are kept that were cut off.
    fn redials(&self, service: &str) -> String {
        format!("{}:redial:{service}", self.scope)
    }

    /// What a message brings along, so that its reply finds the session.
    pub(super) fn marks(&self, session: String, message: &mut UserMessage) {
        let service = self.redial.map(|_| service_key(message.to_addr()));
        let metadata = message.transport_metadata_mut();
        metadata.insert(SESSION.into(), session.into());
        if let Some(service) = service {
            metadata.insert(SERVICE.into(), service.into());
        }
    }

    pub(super) async fn moved(&self, session: &SessionMove, repeat: bool) -> Result<(), WorkError> {
        let store = self.store()?;
        match session {
            SessionMove::Begin(id, fields, cut) => {
                if !repeat || store.load(&self.scope, id).await?.is_none() {
                    store
                        .create(&self.scope, id, fields.clone(), Some(self.keep))
                        .await?;
                }
                if let Some(cut) = cut {
                    self.forget(&*store, cut).await?;
                }
            }
            SessionMove::End(id) => {
                store.clear(&self.scope, id).await?;
            }
            SessionMove::CutOff(id, message) => self.cut(&*store, id, message).await?,
            SessionMove::Forget(cut) => self.forget(&*store, cut).await?,
        }
        Ok(())
    }

    /// Forgets a session that was cut off, unless another one was since.
    async fn forget(&self, store: &dyn StateStore, cut: &Cut) -> Result<(), WorkError> {
        let kept = store.load(&cut.scope, &cut.user).await?;
        if kept.is_some_and(|kept| kept.get(SESSION) == Some(&cut.session)) {
            store.clear(&cut.scope, &cut.user).await?;
        }
        Ok(())
    }

    /// What a reply that closes the session makes of it.
    pub(super) fn closed(&self, reply: &UserMessage) -> Option<SessionMove> {
        let id = said(reply, SESSION).filter(|_| !self.keep_closed)?;
        Some(SessionMove::End(id.to_owned()))
    }

    /// What becomes of the session of `message`, which nobody answers in time.
    pub(super) fn cut_off(&self, message: &UserMessage) -> Option<SessionMove> {
        let id = said(message, SESSION).filter(|_| self.redial.is_some())?;
        let message = Box::new(message.clone());
        Some(SessionMove::CutOff(id.to_owned(), message))
    }

    /// The session `id` ended before its `message` was answered: kept for when its user dials again.
    async fn cut(
        &self,
        store: &dyn StateStore,
        id: &str,
        message: &UserMessage,
    ) -> Result<(), WorkError> {
        let Some(within) = self.redial else {
            return Ok(());
        };
        let (Some(user), Some(service)) = (message.from_addr(), said(message, SERVICE)) else {
            return Ok(());
        };
        if let Some(mut fields) = store.load(&self.scope, id).await? {
            fields.insert(SESSION.into(), id.to_owned());
            let scope = self.redials(service);
            store.create(&scope, user, fields, Some(within)).await?;
        }
        Ok(())
    }
}

/// What a message brings along, or its reply brings back.
fn said<'m>(message: &'m UserMessage, key: &str) -> Option<&'m str> {
    message.transport_metadata()?.get(key)?.as_str()
}

/// The service that a user dialled, as part of a key: what callers send may be of any length.
fn service_key(service: Option<&str>) -> String {
    derived_id(&["service", service.unwrap_or_default()])
}
