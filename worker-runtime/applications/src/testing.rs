//! A worker with a store in memory, spoken to as users do. Every message is handled twice, and must cause the same.

use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use vumi_api::{Flow, Port, Resource};
use vumi_core::conformance::stand_in::{StandIn, resource};
use vumi_core::error::WorkError;
use vumi_core::message::{Message, SessionEvent, UserMessage};
use vumi_core::state::StateStore;
use vumi_core::worker::{Input, Services, Worker, WorkerContext, WorkerType};

pub(crate) struct Bench {
    worker: Arc<dyn Worker>,
    stand_in: Arc<StandIn>,
    resource: Resource,
    said: AtomicUsize,
}

impl Bench {
    /// The application `app` on the connector `ussd`, with this type in its spec.
    pub(crate) async fn open<T: WorkerType>(mut spec: Value) -> Self {
        spec["transportName"] = "ussd".into();
        let manifest = json!({"kind": "Application", "metadata": {"name": "app"}, "spec": spec});
        let resource = resource(&manifest).unwrap();
        let stand_in = StandIn::new();
        Self {
            worker: build::<T>(&stand_in, &resource).await,
            stand_in,
            resource,
            said: AtomicUsize::new(0),
        }
    }

    /// Another replica: the same resource and store.
    pub(crate) async fn replica<T: WorkerType>(&self) -> Arc<dyn Worker> {
        build::<T>(&self.stand_in, &self.resource).await
    }

    pub(crate) fn worker(&self) -> Arc<dyn Worker> {
        Arc::clone(&self.worker)
    }

    pub(crate) fn store(&self) -> Arc<dyn StateStore> {
        self.stand_in.state().unwrap()
    }

    pub(crate) fn cx(&self) -> Arc<WorkerContext> {
        self.stand_in
            .context(self.resource.clone(), "one", Default::default())
    }

    /// The next message of `user`, with an id of its own.
    pub(crate) fn message(
        &self,
        user: &str,
        content: Option<&str>,
        event: Option<SessionEvent>,
    ) -> UserMessage {
        let n = self.said.fetch_add(1, Ordering::Relaxed);
        let mut message = UserMessage::new("ussd", Some("*120#"), Some(user));
        message.set_message_id(&format!("m{n}"));
        message.set_transport_name("ussd_real");
        message.set_content(content);
        message.set_session_event(event);
        message
            .transport_metadata_mut()
            .insert("request".into(), n.into());
        message
    }

    /// What a text of `user` causes: texts; those to others behind their address and `:`, or `!` if they answer nothing;
    /// ` (end)` where the session ends.
    pub(crate) async fn says(&self, user: &str, text: &str) -> Vec<String> {
        let event = Some(SessionEvent::Resume);
        self.hears(&self.message(user, Some(text), event)).await
    }

    /// As [`Self::says`], for a new session.
    pub(crate) async fn opens(&self, user: &str) -> Vec<String> {
        let event = Some(SessionEvent::New);
        self.hears(&self.message(user, None, event)).await
    }

    /// As [`Self::says`], for a message without content.
    pub(crate) async fn nothing(&self, user: &str) -> Vec<String> {
        let event = Some(SessionEvent::Resume);
        self.hears(&self.message(user, None, event)).await
    }

    /// As [`Self::says`], for the end of a session.
    pub(crate) async fn closes(&self, user: &str) -> Vec<String> {
        let event = Some(SessionEvent::Close);
        self.hears(&self.message(user, None, event)).await
    }

    /// As [`Self::says`], for this message.
    pub(crate) async fn hears(&self, message: &UserMessage) -> Vec<String> {
        let first = handle(&self.worker, message).await.unwrap();
        let again = handle(&self.worker, message).await.unwrap();
        assert_eq!(ids(&first), ids(&again));
        assert_eq!(texts(message, &first), texts(message, &again));
        texts(message, &first)
    }
}

async fn build<T: WorkerType>(stand_in: &Arc<StandIn>, resource: &Resource) -> Arc<dyn Worker> {
    let config = <T::Config as vumi_api::WorkerConfig>::pick(resource)
        .unwrap()
        .clone();
    let cx = stand_in.context(resource.clone(), "one", Default::default());
    T::build(config, cx).await.unwrap()
}

/// What a worker says to a message.
pub(crate) async fn handle(
    worker: &Arc<dyn Worker>,
    message: &UserMessage,
) -> Result<Vec<UserMessage>, WorkError> {
    let input = Input {
        port: Port::new("ussd", Flow::Inbound),
        message: message.clone().into(),
        attempt: 1,
    };
    let outputs = worker.handle(input).await?;
    let said = outputs.into_iter().map(|output| {
        assert_eq!(output.port, Port::new("ussd", Flow::Outbound));
        match output.message {
            Message::User(message) => message,
            Message::Event(_) => panic!("an application publishes no events"),
        }
    });
    Ok(said.collect())
}

/// The ids of messages, which must differ.
pub(crate) fn ids(said: &[UserMessage]) -> Vec<String> {
    let ids: Vec<String> = said.iter().map(|m| m.message_id().to_owned()).collect();
    let mut unique = ids.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "two messages of one id");
    ids
}

/// What was said, as [`Bench::says`] has it.
pub(crate) fn texts(cause: &UserMessage, said: &[UserMessage]) -> Vec<String> {
    let text = |said: &UserMessage| {
        let to = said.to_addr().unwrap();
        let text = said.content().unwrap();
        let end = match said.session_event() {
            Some(SessionEvent::Close) => " (end)",
            Some(_) => panic!("a reply opens no session"),
            None => "",
        };
        assert_eq!(said.from_addr(), Some("*120#"));
        assert_eq!(said.transport_name(), Some("ussd_real"));
        let request = said.transport_metadata().unwrap().get("request").cloned();
        match said.in_reply_to() {
            Some(id) if id == cause.message_id() => {
                assert_eq!(said.transport_metadata(), cause.transport_metadata());
                assert_eq!(Some(to), cause.from_addr());
                format!("{text}{end}")
            }
            // Ids of the bench are numbered as the requests are.
            Some(id) => {
                assert_eq!(Some(format!("m{}", request.unwrap())), Some(id.to_owned()));
                format!("{to}: {text}{end}")
            }
            None => format!("{to}! {text}{end}"),
        }
    };
    said.iter().map(text).collect()
}
