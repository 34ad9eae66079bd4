//! Applications, one module each. An application handles user messages of its connector and answers on it; events are
//! taken and need no answer.

#[cfg(test)]
mod conformance_test;
mod echo;
#[cfg(test)]
mod examples_test;
mod static_reply;

use vumi_core::message::{Message, SessionEvent, UserMessage};
use vumi_core::worker::{Input, Output, Registration, WorkerContext};

/// The worker types of this family.
pub const WORKERS: &[Registration] = &[
    Registration::of::<echo::Def>(),
    Registration::of::<static_reply::Def>(),
];

/// The message to answer: neither an event nor the end of a session, after which nobody listens.
fn question(input: &Input) -> Option<&UserMessage> {
    match &input.message {
        Message::User(m) if m.session_event() != Some(SessionEvent::Close) => Some(m),
        _ => None,
    }
}

/// An answer on the application's own connector.
fn answer(cx: &WorkerContext, reply: UserMessage) -> Output {
    let port = vumi_api::Port::new(cx.transport_name(), vumi_api::Flow::Outbound);
    Output::new(port, reply)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use std::sync::Arc;
    use vumi_api::{Flow, Port};
    use vumi_core::conformance::stand_in::{StandIn, resource};
    use vumi_core::error::WorkError;
    use vumi_core::message::{Event, Message, SessionEvent, UserMessage, reply_id};
    use vumi_core::worker::{Input, Worker, WorkerType};

    async fn worker<T: WorkerType>(spec: serde_json::Value) -> Arc<dyn Worker> {
        let manifest =
            json!({"kind": "Application", "metadata": {"name": "app"}, "spec": spec.clone()});
        let resource = resource(&manifest).unwrap();
        let config = <T::Config as vumi_api::WorkerConfig>::pick(&resource)
            .unwrap()
            .clone();
        let cx = StandIn::new().context(resource, "one", Default::default());
        T::build(config, cx).await.unwrap()
    }

    async fn echo() -> Arc<dyn Worker> {
        worker::<crate::echo::Def>(json!({"echo": {}, "transportName": "ussd"})).await
    }

    async fn closed() -> Arc<dyn Worker> {
        let spec = json!({"staticReply": {"text": "We are closed."}, "transportName": "ussd"});
        worker::<crate::static_reply::Def>(spec).await
    }

    fn inbound(content: Option<&str>, session: Option<SessionEvent>) -> UserMessage {
        let mut message = UserMessage::new("ussd", Some("*120#"), Some("+2782"));
        message.set_transport_name("ussd_real");
        message.set_content(content);
        message.set_session_event(session);
        message.set_endpoint("menu");
        message
            .transport_metadata_mut()
            .insert("vumi_holder".into(), json!("ussd_real.reply.x"));
        message.helper_metadata_mut().insert("tag".into(), json!(1));
        message
    }

    async fn replies(
        worker: &Arc<dyn Worker>,
        message: impl Into<Message>,
        flow: Flow,
    ) -> Result<Vec<UserMessage>, WorkError> {
        let input = Input {
            port: Port::new("ussd", flow),
            message: message.into(),
            attempt: 1,
        };
        let outputs = worker.handle(input).await?;
        Ok(outputs
            .into_iter()
            .map(|output| {
                assert_eq!(output.port, Port::new("ussd", Flow::Outbound));
                match output.message {
                    Message::User(message) => message,
                    Message::Event(_) => panic!("an application publishes no events"),
                }
            })
            .collect())
    }

    #[tokio::test]
    async fn echo_answers_with_the_content_and_everything_a_reply_keeps() {
        let message = inbound(Some("Zoë ☃"), Some(SessionEvent::Resume));
        let replies = replies(&echo().await, message.clone(), Flow::Inbound)
            .await
            .unwrap();
        let reply = &replies[0];
        assert_eq!(replies.len(), 1);
        assert_eq!(reply.content(), Some("Zoë ☃"));
        assert_eq!(reply.session_event(), None);
        assert_eq!(
            (reply.to_addr(), reply.from_addr()),
            (Some("+2782"), Some("*120#"))
        );
        assert_eq!(reply.in_reply_to(), Some(message.message_id()));
        assert_eq!(reply.endpoint(), "menu");
        assert_eq!(reply.transport_name(), Some("ussd_real"));
        assert_eq!(reply.transport_metadata(), message.transport_metadata());
        assert_eq!(
            reply.field("helper_metadata"),
            message.field("helper_metadata")
        );
        let derived = reply_id(message.message_id(), "application/app", 0);
        assert_eq!(reply.message_id(), derived);
    }

    #[tokio::test]
    async fn the_same_input_gives_the_same_ids() {
        for worker in [echo().await, closed().await] {
            let message = inbound(Some("1"), None);
            let first = replies(&worker, message.clone(), Flow::Inbound)
                .await
                .unwrap();
            let again = replies(&worker, message, Flow::Inbound).await.unwrap();
            assert_eq!(first[0].message_id(), again[0].message_id());
        }
    }

    #[tokio::test]
    async fn what_each_session_event_gets() {
        use SessionEvent::{Close, New, Resume};
        let table = [
            (None, Some(New), Some("")),
            (Some("x"), Some(New), Some("x")),
            (Some("x"), Some(Resume), Some("x")),
            (Some("x"), None, Some("x")),
            (None, Some(Close), None),
            (Some("bye"), Some(Close), None),
        ];
        let (echo, closed) = (echo().await, closed().await);
        for (content, session, expected) in table {
            let message = inbound(content, session);
            let echoed = replies(&echo, message.clone(), Flow::Inbound)
                .await
                .unwrap();
            assert_eq!(echoed.first().and_then(|r| r.content()), expected);
            let fixed = replies(&closed, message, Flow::Inbound).await.unwrap();
            assert_eq!(fixed.len(), usize::from(expected.is_some()));
            if let Some(reply) = fixed.first() {
                assert_eq!(reply.content(), Some("We are closed."));
                assert_eq!(reply.session_event(), Some(Close));
            }
        }
    }

    #[tokio::test]
    async fn events_are_taken_and_cause_nothing() {
        for worker in [echo().await, closed().await] {
            let none = replies(&worker, Event::ack("m", "s"), Flow::Event)
                .await
                .unwrap();
            assert!(none.is_empty());
        }
    }
}
