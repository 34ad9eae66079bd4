//! Sessions of users with the network, in the state store. The key of a session travels with its messages, so that a reply
//! finds it at every replica.

use super::scope::Scope;
use super::{failed, template};
use crate::engine::SessionMove;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vumi_api::template::{Template, Value};
use vumi_api::transports::generic_http::{Redial, SessionRule};
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::UserMessage;
use vumi_core::state::StateStore;
use vumi_core::worker::WorkerContext;

use super::answers::Answers;

/// Key in `transport_metadata` that names the session of a message.
pub(super) const SESSION: &str = "vumi_session";
/// Key in `helper_metadata` of the first message of a user who dialled again.
pub(super) const REDIAL: &str = "redial";
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

    /// The session that the deadline cut off from this user a moment ago. It is given once.
    pub(super) async fn redialled(&self, user: &str) -> Result<Option<Redialled>, WorkError> {
        if self.redial.is_none() {
            return Ok(None);
        }
        let cut = self.store()?.clear(&self.redials(), user).await?;
        Ok(cut.map(|mut fields| {
            fields.remove(SESSION);
            let late = fields.remove(LATE);
            let late = late.and_then(|late| UserMessage::decode(late.as_bytes()).ok());
            Redialled { fields, late }
        }))
    }

    /// Keeps a reply that came after its session was cut off, for when its user dials again; false if nobody will see it.
    pub(super) async fn keep_late(&self, reply: &UserMessage) -> Result<bool, WorkError> {
        let (Some(id), Some(user), Some(_)) = (session_of(reply), reply.to_addr(), self.redial)
        else {
            return Ok(false);
        };
        let store = self.store()?;
        let Some(cut) = store.load(&self.redials(), user).await? else {
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
        store.save(&self.redials(), user, late).await
    }

    fn redials(&self) -> String {
        format!("{}:redial", self.scope)
    }

    pub(super) async fn moved(&self, session: SessionMove) -> Result<(), WorkError> {
        let store = self.store()?;
        match session {
            SessionMove::Begin(id, fields) => {
                store
                    .create(&self.scope, &id, fields, Some(self.keep))
                    .await?;
            }
            SessionMove::End(id) => {
                store.clear(&self.scope, &id).await?;
            }
        }
        Ok(())
    }

    /// A reply that closes the session was written.
    pub(super) async fn closed(&self, reply: &UserMessage) {
        if self.keep_closed {
            return;
        }
        if let Some(id) = session_of(reply) {
            self.tell(self.moved(SessionMove::End(id.to_owned())).await);
        }
    }

    /// The network ended the session of `message` before it was answered.
    pub(super) async fn cut_off(&self, message: &UserMessage) {
        let done = async {
            let (Some(id), Some(within)) = (session_of(message), self.redial) else {
                return Ok(());
            };
            let store = self.store()?;
            if let (Some(user), Some(mut fields)) =
                (message.from_addr(), store.load(&self.scope, id).await?)
            {
                fields.insert(SESSION.into(), id.to_owned());
                store
                    .create(&self.redials(), user, fields, Some(within))
                    .await?;
            }
            Ok(())
        };
        self.tell(done.await);
    }

    fn tell(&self, done: Result<(), WorkError>) {
        if let Err(error) = done {
            tracing::warn!(worker = self.cx.worker_name(), code = %error.code, reason = %error, "a session is kept until its time is over");
        }
    }
}

fn session_of(message: &UserMessage) -> Option<&str> {
    message.transport_metadata()?.get(SESSION)?.as_str()
}
