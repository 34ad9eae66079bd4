//! Middleware: an ordered chain run around every message of a worker, with Vumi's order rules. Consumed messages pass
//! in ascending `consumePriority`, published ones in ascending `publishPriority`; ties in list order, reversed when
//! publishing, so that equal priorities nest.

mod address_translation;
mod logging;
mod session_length;

use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::message::Message;
use crate::state::StateStore;
use address_translation::Translator;
use async_trait::async_trait;
use logging::Logger;
use session_length::SessionClock;
use std::collections::HashSet;
use std::sync::Arc;
use vumi_api::Port;
use vumi_api::shared::MiddlewareItem;

/// One middleware. What it does depends on the flow of the port (towards the application or towards the transport),
/// never on the kind of worker it runs in.
#[async_trait]
trait Middleware: Send + Sync {
    /// A message from the broker, before the worker handles it.
    async fn consume(&self, port: &Port, message: Message) -> Result<Message, WorkError>;
    /// A message of the worker, before the broker gets it.
    async fn publish(&self, port: &Port, message: Message) -> Result<Message, WorkError>;
}

/// The middleware of one worker, in both orders.
#[derive(Clone, Default)]
pub struct Chain {
    consume: Vec<Arc<dyn Middleware>>,
    publish: Vec<Arc<dyn Middleware>>,
}

impl Chain {
    /// Builds the chain of `worker` (kind and name, for log lines and errors). Names must be unique and each item of
    /// exactly one type; the rest is for `Resource::validate`.
    pub fn build(
        items: &[MiddlewareItem],
        worker: &str,
        store: Option<&Arc<dyn StateStore>>,
    ) -> Result<Self, WorkError> {
        let mut names = HashSet::new();
        let mut placed = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let invalid = |problem: String| {
                WorkError::new(
                    ErrorClass::Config,
                    codes::CONFIG_INVALID,
                    format!(
                        "{worker}: spec.middleware[{index}] ({:?}): {problem}",
                        item.name
                    ),
                )
            };
            if !names.insert(item.name.as_str()) {
                return Err(invalid("another item has this name; rename one".into()));
            }
            let built = instance(item, worker, store).map_err(invalid)?;
            placed.push((item, built));
        }
        // The sorts are stable: ties keep the order they come in.
        let mut consume: Vec<_> = placed.iter().collect();
        consume.sort_by_key(|(item, _)| item.consume_priority.unwrap_or_default());
        let mut publish: Vec<_> = placed.iter().rev().collect();
        publish.sort_by_key(|(item, _)| item.publish_priority.unwrap_or_default());
        let instances = |sorted: Vec<&(_, Arc<dyn Middleware>)>| {
            sorted.into_iter().map(|(_, m)| Arc::clone(m)).collect()
        };
        Ok(Self {
            consume: instances(consume),
            publish: instances(publish),
        })
    }

    /// Whether messages pass unchanged and unseen.
    pub fn is_empty(&self) -> bool {
        self.consume.is_empty()
    }

    /// Runs a consumed message through the chain, one middleware after the other.
    pub async fn consume(&self, port: &Port, message: Message) -> Result<Message, WorkError> {
        let mut message = message;
        for middleware in &self.consume {
            message = middleware.consume(port, message).await?;
        }
        Ok(message)
    }

    /// Runs a message to be published through the chain, one middleware after the other.
    pub async fn publish(&self, port: &Port, message: Message) -> Result<Message, WorkError> {
        let mut message = message;
        for middleware in &self.publish {
            message = middleware.publish(port, message).await?;
        }
        Ok(message)
    }
}

/// The middleware behind the one type key of an item; the error says what is wrong with the item.
fn instance(
    item: &MiddlewareItem,
    worker: &str,
    store: Option<&Arc<dyn StateStore>>,
) -> Result<Arc<dyn Middleware>, String> {
    // Written out without `..`, so that a new type does not compile until it is built here.
    let MiddlewareItem {
        name,
        consume_priority: _,
        publish_priority: _,
        logging,
        address_translation,
        session_length,
    } = item;
    match (logging, address_translation, session_length) {
        (Some(config), None, None) => Ok(Arc::new(Logger::new(config, worker, name))),
        (None, Some(config), None) => Ok(Arc::new(Translator::new(config))),
        (None, None, Some(config)) => match store {
            Some(store) => Ok(Arc::new(SessionClock::new(
                config,
                Arc::clone(store),
                worker,
            ))),
            None => Err("sessionLength needs a state store, and there is none".into()),
        },
        (None, None, None) => Err("has no type; give exactly one type key, such as logging".into()),
        _ => Err("has several types; make an item of each".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::UserMessage;
    use std::sync::Mutex;
    use vumi_api::Flow;
    use vumi_api::shared::{AddressTranslation, Logging, SessionLength};

    fn translating(name: &str, from: &str, to: &str) -> MiddlewareItem {
        MiddlewareItem {
            name: name.into(),
            consume_priority: None,
            publish_priority: None,
            logging: None,
            address_translation: Some(AddressTranslation {
                outbound_map: [(from.to_owned(), to.to_owned())].into(),
            }),
            session_length: None,
        }
    }

    fn prioritised(mut item: MiddlewareItem, consume: i32, publish: i32) -> MiddlewareItem {
        item.consume_priority = Some(consume);
        item.publish_priority = Some(publish);
        item
    }

    fn outbound(to: &str) -> (Port, Message) {
        let message = UserMessage::new("sms", Some(to), Some("151"));
        (Port::new("t", Flow::Outbound), message.into())
    }

    fn to_addr(message: &Message) -> Option<&str> {
        match message {
            Message::User(m) => m.to_addr(),
            Message::Event(_) => None,
        }
    }

    /// Where `a` ends: two translations that follow each other show in which order they ran.
    async fn ends(items: &[MiddlewareItem], published: bool) -> String {
        let chain = Chain::build(items, "transport/t", None).unwrap();
        let (port, message) = outbound("a");
        let message = if published {
            chain.publish(&port, message).await
        } else {
            chain.consume(&port, message).await
        };
        to_addr(&message.unwrap()).unwrap().to_owned()
    }

    #[tokio::test]
    async fn ties_run_in_list_order_when_consuming_and_reversed_when_publishing() {
        let items = [translating("one", "a", "b"), translating("two", "b", "c")];
        assert_eq!(ends(&items, false).await, "c");
        assert_eq!(ends(&items, true).await, "b");
        let reversed = [translating("two", "b", "c"), translating("one", "a", "b")];
        assert_eq!(ends(&reversed, false).await, "b");
        assert_eq!(ends(&reversed, true).await, "c");
    }

    #[tokio::test]
    async fn lower_priority_runs_first_on_each_side_by_itself() {
        let items = [
            prioritised(translating("one", "a", "b"), 5, -1),
            prioritised(translating("two", "b", "c"), 1, 0),
        ];
        assert_eq!(ends(&items, false).await, "b", "two, then one");
        assert_eq!(ends(&items, true).await, "c", "one, then two");
        let mixed = [
            translating("late", "b", "c"),
            prioritised(translating("early", "a", "b"), -1, -1),
        ];
        assert_eq!(ends(&mixed, false).await, "c", "the default is 0");
        assert_eq!(ends(&mixed, true).await, "c");
    }

    /// Gives way to others in the middle of its work and notes begin and end.
    struct Slow(&'static str, Arc<Mutex<Vec<String>>>);

    #[async_trait]
    impl Middleware for Slow {
        async fn consume(&self, _: &Port, message: Message) -> Result<Message, WorkError> {
            self.1.lock().unwrap().push(format!("{} begins", self.0));
            tokio::task::yield_now().await;
            self.1.lock().unwrap().push(format!("{} ends", self.0));
            Ok(message)
        }

        async fn publish(&self, port: &Port, message: Message) -> Result<Message, WorkError> {
            self.consume(port, message).await
        }
    }

    #[tokio::test]
    async fn asynchronous_middlewares_run_one_after_the_other() {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let chain = Chain {
            consume: vec![
                Arc::new(Slow("one", Arc::clone(&notes))),
                Arc::new(Slow("two", Arc::clone(&notes))),
            ],
            publish: Vec::new(),
        };
        let (port, message) = outbound("a");
        chain.consume(&port, message).await.unwrap();
        let seen = notes.lock().unwrap().clone();
        assert_eq!(seen, ["one begins", "one ends", "two begins", "two ends"]);
    }

    #[tokio::test]
    async fn an_empty_chain_changes_nothing() {
        let chain = Chain::build(&[], "transport/t", None).unwrap();
        assert!(chain.is_empty());
        let (port, message) = outbound("a");
        assert_eq!(
            chain.publish(&port, message.clone()).await.unwrap(),
            message
        );
    }

    #[test]
    fn wrong_items_are_refused_with_place_and_reason() {
        let two_types = MiddlewareItem {
            logging: Some(Logging::default()),
            ..translating("both", "a", "b")
        };
        let no_type = MiddlewareItem {
            address_translation: None,
            ..translating("none", "a", "b")
        };
        let sessions = MiddlewareItem {
            session_length: Some(SessionLength::default()),
            ..no_type.clone()
        };
        let one = translating("one", "a", "b");
        for (items, expected) in [
            (vec![one.clone(), one], "middleware[1] (\"one\")"),
            (vec![two_types], "several types"),
            (vec![no_type], "no type"),
            (vec![sessions], "needs a state store"),
        ] {
            let error = Chain::build(&items, "transport/t", None).err().unwrap();
            assert_eq!(error.class, ErrorClass::Config);
            assert!(error.text.contains(expected), "{}", error.text);
            assert!(error.text.contains("transport/t"), "{}", error.text);
        }
    }
}
