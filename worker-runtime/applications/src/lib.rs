//! Applications, one module each. An application handles user messages of its connector and answers on it; events are
//! taken and need no answer. What remembers something is a [`conversation`].

mod calculator;
#[cfg(test)]
mod conformance_test;
mod conversation;
mod echo;
#[cfg(test)]
mod examples_test;
mod hangman;
mod http_relay;
mod memo_bot;
mod pairs;
mod reverse;
mod rock_paper_scissors;
mod static_reply;
#[cfg(test)]
mod testing;
mod tic_tac_toe;
mod word_count;

use vumi_core::message::{Message, SessionEvent, UserMessage};
use vumi_core::worker::{Input, Output, Registration, WorkerContext};

/// The worker types of this family.
pub const WORKERS: &[Registration] = &[
    Registration::of::<echo::Def>(),
    Registration::of::<static_reply::Def>(),
    Registration::of::<reverse::Def>(),
    Registration::of::<word_count::Def>(),
    Registration::of::<calculator::Def>(),
    Registration::of::<hangman::Def>(),
    Registration::of::<rock_paper_scissors::Def>(),
    Registration::of::<tic_tac_toe::Def>(),
    Registration::of::<memo_bot::Def>(),
    Registration::of::<http_relay::Def>(),
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

/// Answers a question with what is made of its content; the session goes on.
fn respond(
    cx: &WorkerContext,
    input: &Input,
    answer_to: impl FnOnce(Option<&str>) -> String,
) -> Vec<Output> {
    let reply = question(input).map(|message| {
        let text = answer_to(message.content());
        answer(cx, message.reply(cx.worker_name(), 0, Some(&text), false))
    });
    reply.into_iter().collect()
}

/// Where an application keeps its conversations, as Vumi names such places.
fn scope(what: &str, cx: &WorkerContext) -> String {
    format!("{what}:{}:{}", cx.transport_name(), cx.resource().name)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, handle};
    use serde_json::json;
    use vumi_api::{Flow, Port};
    use vumi_core::message::{Event, SessionEvent, UserMessage, reply_id};
    use vumi_core::worker::Input;

    async fn echo() -> Bench {
        Bench::open::<crate::echo::Def>(json!({"echo": {}})).await
    }

    async fn closed() -> Bench {
        let spec = json!({"staticReply": {"text": "We are closed."}});
        Bench::open::<crate::static_reply::Def>(spec).await
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

    #[tokio::test]
    async fn echo_answers_with_the_content_and_everything_a_reply_keeps() {
        let message = inbound(Some("Zoë ☃"), Some(SessionEvent::Resume));
        let replies = handle(&echo().await.worker(), &message).await.unwrap();
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
    async fn what_each_session_event_gets() {
        use SessionEvent::{Close, New, Resume};
        let table = [
            (None, Some(New), Some("Enter text to echo:")),
            (None, None, Some("Enter text to echo:")),
            (Some(""), Some(Resume), Some("")),
            (Some("x"), Some(New), Some("x")),
            (Some("x"), Some(Resume), Some("x")),
            (Some("x"), None, Some("x")),
            (None, Some(Close), None),
            (Some("bye"), Some(Close), None),
        ];
        let (echo, closed) = (echo().await, closed().await);
        for (content, session, expected) in table {
            // Each is handled twice and causes the same: the bench demands it.
            let message = echo.message("1", content, session);
            let expected: Vec<&str> = expected.into_iter().collect();
            assert_eq!(echo.hears(&message).await, expected);
            let fixed = closed.hears(&message).await;
            assert_eq!(fixed, vec!["We are closed. (end)"; expected.len()]);
        }
    }

    #[tokio::test]
    async fn events_are_taken_and_cause_nothing() {
        for worker in [echo().await.worker(), closed().await.worker()] {
            let input = Input {
                port: Port::new("ussd", Flow::Event),
                message: Event::ack("m", "s").into(),
                attempt: 1,
            };
            assert!(worker.handle(input).await.unwrap().is_empty());
        }
    }
}
