//! `routingTable`: routes by the connector a message arrived on and its endpoint, in all three flows; the transport
//! name plays no part and stays as it is.

use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;
use vumi_api::Port;
use vumi_api::dispatchers::{Route, RoutingTable};
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::worker::{Input, Output, Worker, WorkerContext, WorkerType};

pub(crate) struct Def;

struct TableRouter {
    table: BTreeMap<String, BTreeMap<String, Route>>,
}

#[async_trait]
impl WorkerType for Def {
    type Config = RoutingTable;

    async fn build(
        config: RoutingTable,
        _: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError> {
        Ok(Arc::new(TableRouter {
            table: config.table,
        }))
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Dispatcher\nmetadata: {name: table}\nspec:\n  routingTable:\n    transports: [telnet]\n    exposed: [app]\n    table:\n      telnet: {default: {connector: app}}\n      app: {default: {connector: telnet}}\n",
            peer: None,
        }
    }
}

#[async_trait]
impl Worker for TableRouter {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let (from, endpoint) = (&input.port.connector, input.message.endpoint());
        let route = self
            .table
            .get(from)
            .and_then(|rows| rows.get(endpoint))
            .ok_or_else(|| {
                crate::no_route(format!(
                    "routingTable.table has no row for endpoint {endpoint:?} of {from:?}: add one"
                ))
            })?;
        let mut message = input.message;
        message.set_endpoint(route.endpoint.as_deref().unwrap_or("default"));
        let port = Port::new(&route.connector, input.port.flow);
        Ok(vec![Output::new(port, message)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vumi_api::Flow;
    use vumi_core::codes;
    use vumi_core::error::ErrorClass;
    use vumi_core::message::{Event, Message, UserMessage};

    /// The table of the Vumi documentation, in our words.
    fn router() -> TableRouter {
        let config: RoutingTable = serde_json::from_value(json!({
            "transports": ["smpp_a", "ussd_b"], "exposed": ["survey"],
            "table": {
                "smpp_a": {"default": {"connector": "survey", "endpoint": "sms"}},
                "ussd_b": {"default": {"connector": "survey"}},
                "survey": {"sms": {"connector": "smpp_a"}, "default": {"connector": "ussd_b", "endpoint": "menu"}},
            },
        }))
        .unwrap();
        TableRouter {
            table: config.table,
        }
    }

    async fn route(
        connector: &str,
        flow: Flow,
        endpoint: Option<&str>,
    ) -> Result<(String, String), WorkError> {
        let mut message: Message = match flow {
            Flow::Event => Event::ack("m1", "r1").into(),
            _ => UserMessage::new("sms", Some("1"), Some("2")).into(),
        };
        message.set_transport_name("left_alone");
        if let Some(endpoint) = endpoint {
            message.set_endpoint(endpoint);
        }
        let id = message.id().to_owned();
        let input = Input {
            port: Port::new(connector, flow),
            message,
            attempt: 1,
        };
        let mut outputs = router().handle(input).await?;
        assert_eq!(outputs.len(), 1);
        let output = outputs.remove(0);
        assert_eq!(output.message.id(), id);
        assert_eq!(output.message.transport_name(), Some("left_alone"));
        Ok((output.port.queue(), output.message.endpoint().to_owned()))
    }

    #[tokio::test]
    async fn rows_of_all_flows() {
        for (connector, flow, endpoint, queue, target) in [
            ("smpp_a", Flow::Inbound, None, "survey.inbound", "sms"),
            ("smpp_a", Flow::Event, None, "survey.event", "sms"),
            (
                "ussd_b",
                Flow::Inbound,
                Some("default"),
                "survey.inbound",
                "default",
            ),
            (
                "survey",
                Flow::Outbound,
                Some("sms"),
                "smpp_a.outbound",
                "default",
            ),
            ("survey", Flow::Outbound, None, "ussd_b.outbound", "menu"),
        ] {
            let routed = route(connector, flow, endpoint).await.unwrap();
            assert_eq!(routed, (queue.to_owned(), target.to_owned()));
        }
    }

    #[tokio::test]
    async fn a_missing_row_is_an_error_that_names_it() {
        for (connector, flow, endpoint) in [
            ("survey", Flow::Outbound, Some("fax")),
            ("smpp_a", Flow::Inbound, Some("other")),
            ("ussd_b", Flow::Event, Some("other")),
        ] {
            let error = route(connector, flow, endpoint).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::Unroutable);
            assert_eq!(error.code, codes::ROUTE_NONE);
            assert!(error.text.contains(endpoint.unwrap()), "{}", error.text);
            assert!(error.text.contains(connector), "{}", error.text);
        }
    }
}
