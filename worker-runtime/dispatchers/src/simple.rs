//! `simple`: copies inbound messages and events of a transport to exposed names, and sends outbound messages to the
//! transport they name.

use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vumi_api::dispatchers::Simple;
use vumi_api::{Flow, Port};
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::worker::{Input, Output, Worker, WorkerContext, WorkerType};

pub(crate) struct Def;

struct SimpleRouter {
    /// Transport → exposed names.
    routes: BTreeMap<String, Vec<String>>,
    transports: BTreeSet<String>,
    mappings: BTreeMap<String, String>,
}

#[async_trait]
impl WorkerType for Def {
    type Config = Simple;

    async fn build(config: Simple, _: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        Ok(Arc::new(SimpleRouter::new(config)))
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Dispatcher\nmetadata: {name: simple}\nspec:\n  simple:\n    transports: [telnet, sms]\n    exposed: [app]\n",
            peer: None,
        }
    }
}

impl SimpleRouter {
    fn new(config: Simple) -> Self {
        let exposed = config.exposed;
        let routes = config.routes.unwrap_or_else(|| {
            let all = |t: &String| (t.clone(), exposed.clone());
            config.transports.iter().map(all).collect()
        });
        Self {
            routes,
            transports: config.transports.into_iter().collect(),
            mappings: config.transport_mappings.unwrap_or_default(),
        }
    }

    /// Exposed names for a message or event: by the transport it names, else by the queue it came from, because events
    /// of older workers name none.
    fn exposed(&self, named: Option<&str>, connector: &str) -> Option<&Vec<String>> {
        named
            .and_then(|name| self.routes.get(name))
            .or_else(|| self.routes.get(connector))
            .filter(|targets| !targets.is_empty())
    }

    /// The transport of an outbound message.
    fn transport(&self, named: Option<&str>) -> Result<&str, WorkError> {
        let Some(name) = named else {
            return Err(crate::no_route(
                "the outbound message names no transport: set transport_name, or use a routingTable dispatcher".into(),
            ));
        };
        let target = self.mappings.get(name).map_or(name, String::as_str);
        self.transports
            .get(target)
            .map(String::as_str)
            .ok_or_else(|| {
                crate::no_route(format!(
                    "transport {target:?} is not one of simple.transports: add it, or map the name in transportMappings"
                ))
            })
    }
}

#[async_trait]
impl Worker for SimpleRouter {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let flow = input.port.flow;
        let named = input.message.transport_name();
        if flow == Flow::Outbound {
            let port = Port::new(self.transport(named)?, flow);
            return Ok(vec![Output::new(port, input.message)]);
        }
        let connector = &input.port.connector;
        let targets = self.exposed(named, connector).ok_or_else(|| {
            crate::no_route(format!(
                "transport {connector:?} has no row in simple.routes: add one"
            ))
        })?;
        Ok(targets
            .iter()
            .map(|name| Output::new(Port::new(name, flow), input.message.clone()))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vumi_core::codes;
    use vumi_core::error::ErrorClass;
    use vumi_core::message::{DeliveryStatus, Event, Message, UserMessage};

    fn router(config: serde_json::Value) -> SimpleRouter {
        SimpleRouter::new(serde_json::from_value(config).unwrap())
    }

    fn fan_out() -> SimpleRouter {
        router(json!({
            "transports": ["sms", "ussd"], "exposed": ["survey", "log"],
            "routes": {"sms": ["survey", "log"], "ussd": ["survey"]},
            "transportMappings": {"old_sms": "sms"},
        }))
    }

    fn user(transport: Option<&str>) -> Message {
        let mut message = UserMessage::new("sms", Some("555"), Some("+27"));
        if let Some(name) = transport {
            message.set_transport_name(name);
        }
        message.set_field("customer_extension", json!({"kept": [1, 2]}));
        message.into()
    }

    async fn route(
        router: &SimpleRouter,
        queue: &str,
        message: Message,
    ) -> Result<Vec<(String, Message)>, WorkError> {
        let (connector, flow) = queue.rsplit_once('.').unwrap();
        let flow = match flow {
            "inbound" => Flow::Inbound,
            "outbound" => Flow::Outbound,
            _ => Flow::Event,
        };
        let input = Input {
            port: Port::new(connector, flow),
            message,
            attempt: 1,
        };
        let outputs = router.handle(input).await?;
        Ok(outputs
            .into_iter()
            .map(|o| (o.port.queue(), o.message))
            .collect())
    }

    fn queues(routed: &[(String, Message)]) -> Vec<&str> {
        routed.iter().map(|(queue, _)| queue.as_str()).collect()
    }

    #[tokio::test]
    async fn every_copy_is_the_message_itself() {
        let message = user(Some("sms"));
        let routed = route(&fan_out(), "sms.inbound", message.clone())
            .await
            .unwrap();
        assert_eq!(queues(&routed), ["survey.inbound", "log.inbound"]);
        for (_, copy) in &routed {
            assert_eq!(copy, &message);
        }
    }

    #[tokio::test]
    async fn the_named_transport_wins_over_the_queue_and_the_queue_over_nothing() {
        for (named, queue, expected) in [
            (Some("ussd"), "sms.inbound", vec!["survey.inbound"]),
            (None, "ussd.inbound", vec!["survey.inbound"]),
            (Some("unknown"), "ussd.inbound", vec!["survey.inbound"]),
        ] {
            let routed = route(&fan_out(), queue, user(named)).await.unwrap();
            assert_eq!(queues(&routed), expected, "{named:?} on {queue}");
        }
    }

    #[tokio::test]
    async fn events_without_transport_name_go_by_their_queue() {
        let event = Event::delivery_report("m1", "r1", DeliveryStatus::Delivered);
        let routed = route(&fan_out(), "sms.event", event.clone().into())
            .await
            .unwrap();
        assert_eq!(queues(&routed), ["survey.event", "log.event"]);
        assert_eq!(routed[0].1, Message::Event(event));
    }

    #[tokio::test]
    async fn outbound_goes_to_the_named_or_mapped_transport_unchanged() {
        for (named, expected) in [("ussd", "ussd.outbound"), ("old_sms", "sms.outbound")] {
            let message = user(Some(named));
            let routed = route(&fan_out(), "survey.outbound", message.clone())
                .await
                .unwrap();
            assert_eq!(queues(&routed), [expected]);
            assert_eq!(routed[0].1, message);
        }
    }

    #[tokio::test]
    async fn outbound_without_a_transport_is_refused_with_the_cure() {
        for named in [Some("nowhere"), None] {
            let error = route(&fan_out(), "survey.outbound", user(named))
                .await
                .unwrap_err();
            assert_eq!(error.class, ErrorClass::Unroutable);
            assert_eq!(error.code, codes::ROUTE_NONE);
        }
    }

    #[tokio::test]
    async fn without_routes_everything_goes_to_the_only_exposed_name() {
        let router = router(json!({"transports": ["a", "b"], "exposed": ["app"]}));
        for transport in ["a", "b"] {
            let queue = format!("{transport}.inbound");
            let routed = route(&router, &queue, user(Some(transport))).await.unwrap();
            assert_eq!(queues(&routed), ["app.inbound"]);
        }
    }

    #[tokio::test]
    async fn an_empty_row_is_no_row() {
        let router = router(json!({"transports": ["a"], "exposed": ["x"], "routes": {"a": []}}));
        let error = route(&router, "a.inbound", user(Some("a")))
            .await
            .unwrap_err();
        assert_eq!(error.code, codes::ROUTE_NONE);
    }
}
