//! Session length, as Vumi's middleware: notes in every message of a session when it began, and in its last one when it
//! ended, so that a provider's bill can be checked. Both directions share the user's clock.

use super::Middleware;
use crate::error::WorkError;
use crate::message::{Message, SessionEvent, Timestamp, UserMessage};
use crate::state::StateStore;
use async_trait::async_trait;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use vumi_api::shared::{SessionLength, SessionNamespace};
use vumi_api::{Flow, Port};

const START: &str = "session_start";
const END: &str = "session_end";

pub(super) struct SessionClock {
    store: Arc<dyn StateStore>,
    timeout: Duration,
    namespace: SessionNamespace,
    field: String,
    worker: String,
}

impl SessionClock {
    pub(super) fn new(config: &SessionLength, store: Arc<dyn StateStore>, worker: &str) -> Self {
        Self {
            store,
            timeout: config.session_timeout(),
            namespace: config.namespace.unwrap_or_default(),
            field: config.field_name().to_owned(),
            worker: worker.to_owned(),
        }
    }

    /// The same whether a message is consumed or published: only its direction counts.
    async fn note(&self, port: &Port, mut message: Message) -> Result<Message, WorkError> {
        let Message::User(user) = &mut message else {
            return Ok(message);
        };
        let address = match port.flow {
            Flow::Inbound => user.from_addr(),
            Flow::Outbound => user.to_addr(),
            Flow::Event => return Ok(message),
        };
        let (Some(namespace), Some(address)) = (self.name(user), address.map(str::to_owned)) else {
            tracing::error!(
                worker = self.worker,
                message_id = user.message_id(),
                "sessionLength: the message has no address, or not what namespace says, so it passes without times"
            );
            return Ok(message);
        };
        let known = user.helper_metadata();
        let known = known.and_then(|helper| helper.get(&self.field)?.as_object());
        let has = |key| known.is_some_and(|times| times.contains_key(key));
        let (started, ended) = (has(START), has(END));
        let store = &self.store;
        let (start, end) = match user.session_event() {
            Some(SessionEvent::New) if started => (None, None),
            Some(SessionEvent::New) => {
                let begun = store.begin(&namespace, &address, self.timeout).await?;
                (Some(begun), None)
            }
            Some(SessionEvent::Close) => {
                let now = (!ended).then(|| Timestamp::now().epoch());
                match started {
                    true => (None, now),
                    false => (store.end(&namespace, &address).await?, now),
                }
            }
            _ if started => (None, None),
            _ => (store.begun(&namespace, &address).await?, None),
        };
        if start.is_none() && end.is_none() {
            return Ok(message);
        }
        let times = user
            .helper_metadata_mut()
            .entry(self.field.clone())
            .or_insert_with(|| Map::new().into());
        // Somebody else's value of that name stays.
        if let Value::Object(times) = times {
            times.extend(start.map(|at| (START.to_owned(), at.into())));
            times.extend(end.map(|at| (END.to_owned(), at.into())));
        }
        Ok(message)
    }

    fn name(&self, message: &UserMessage) -> Option<String> {
        match self.namespace {
            SessionNamespace::TransportName => message.transport_name().map(str::to_owned),
            SessionNamespace::Tag => {
                let tag = message.helper_metadata()?.get("tag")?.get("tag")?;
                let text = |n: usize| tag.get(n)?.as_str();
                Some(format!("{}:{}", text(0)?, text(1)?))
            }
        }
    }
}

#[async_trait]
impl Middleware for SessionClock {
    async fn consume(&self, port: &Port, message: Message) -> Result<Message, WorkError> {
        self.note(port, message).await
    }

    async fn publish(&self, port: &Port, message: Message) -> Result<Message, WorkError> {
        self.note(port, message).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
    use serde_json::json;

    struct World(SessionClock);

    impl World {
        fn new(config: Value) -> Self {
            let config = serde_json::from_value(config).unwrap();
            let store = EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap();
            Self(SessionClock::new(&config, store, "transport/t"))
        }

        /// What is noted in a message of the user after it passed.
        async fn pass(&self, flow: Flow, event: Option<SessionEvent>, helper: Value) -> Value {
            let mut message = match flow {
                Flow::Inbound => UserMessage::new("ussd", Some("*120#"), Some("+27821")),
                _ => UserMessage::new("ussd", Some("+27821"), Some("*120#")),
            };
            message.set_transport_name("ussd_za");
            message.set_session_event(event);
            if let Value::Object(helper) = helper {
                *message.helper_metadata_mut() = helper;
            }
            let passed = self.0.consume(&Port::new("t", flow), message.into()).await;
            let Message::User(passed) = passed.unwrap() else {
                unreachable!()
            };
            Value::Object(passed.helper_metadata().cloned().unwrap_or_default())
        }
    }

    #[tokio::test]
    async fn every_message_of_a_session_has_its_beginning_and_the_last_one_its_end() {
        let world = World::new(json!({}));
        let none = || json!({});
        let before = world.pass(Flow::Inbound, None, none()).await;
        assert_eq!(before, none(), "no session yet");
        let first = world
            .pass(Flow::Inbound, Some(SessionEvent::New), none())
            .await;
        let start = first["session"]["session_start"].as_f64().unwrap();
        assert!((start - Timestamp::now().epoch()).abs() < 60.0);
        let reply = world.pass(Flow::Outbound, None, none()).await;
        assert_eq!(reply, first);
        let resume = Some(SessionEvent::Resume);
        assert_eq!(world.pass(Flow::Inbound, resume, none()).await, first);
        let last = world
            .pass(Flow::Outbound, Some(SessionEvent::Close), none())
            .await;
        assert_eq!(last["session"]["session_start"], json!(start));
        assert!(last["session"]["session_end"].as_f64().unwrap() >= start);
        let after = world.pass(Flow::Inbound, resume, none()).await;
        assert_eq!(after, none(), "it is over");
        // Over without a beginning that anybody remembers.
        let last = world
            .pass(Flow::Inbound, Some(SessionEvent::Close), none())
            .await;
        assert!(last["session"].get("session_start").is_none());
        assert!(last["session"]["session_end"].is_f64());
    }

    #[tokio::test]
    async fn what_an_earlier_hop_noted_stays() {
        let world = World::new(json!({"fieldName": "billing"}));
        let noted = json!({"billing": {"session_start": 1.5}, "session": "mine"});
        for event in [Some(SessionEvent::New), Some(SessionEvent::Resume), None] {
            assert_eq!(world.pass(Flow::Inbound, event, noted.clone()).await, noted);
        }
        let closed = json!({"billing": {"session_start": 1.5, "session_end": 2.5}});
        let close = Some(SessionEvent::Close);
        assert_eq!(
            world.pass(Flow::Outbound, close, closed.clone()).await,
            closed
        );
        let other = json!({"billing": "text"});
        let new = Some(SessionEvent::New);
        assert_eq!(world.pass(Flow::Inbound, new, other.clone()).await, other);
    }

    #[tokio::test]
    async fn sessions_are_apart_by_tag_where_that_is_asked_for() {
        let world = World::new(json!({"namespace": "tag"}));
        let tagged = |name| json!({"tag": {"tag": ["pool", name]}});
        let new = Some(SessionEvent::New);
        let untagged = world.pass(Flow::Inbound, new, json!({})).await;
        assert_eq!(untagged, json!({}), "it passes as it is");
        let first = world.pass(Flow::Inbound, new, tagged("one")).await;
        assert!(first["session"]["session_start"].is_f64());
        assert_eq!(world.pass(Flow::Outbound, None, tagged("one")).await, first);
        let other = world.pass(Flow::Outbound, None, tagged("two")).await;
        assert_eq!(other, tagged("two"));
    }
}
