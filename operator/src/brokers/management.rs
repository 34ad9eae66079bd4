//! RabbitMQ's management API, as far as the depth of queues goes: one request for a virtual host.
//! Source of the format: RabbitMQ's HTTP API reference, `/api/overview` and `/api/queues/{vhost}`.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use std::collections::BTreeMap;
use vumi_api::shared::{BrokerRef, CallTls, Duration, HttpClient, Size};
use vumi_core::broker::amqp::AmqpConfig;
use vumi_core::outside::Outside;
use vumi_core::secrets::Secrets;
use vumi_http::{Call, Caller, Client};
use vumi_plan::{Queue, Unread};

/// Largest answer: some hundred thousand queues.
const LARGEST: u64 = 64 << 20;
/// What is asked of each queue.
const COLUMNS: &str = "name,messages_ready,messages_unacknowledged,consumers,message_stats.publish_details.rate,message_stats.ack_details.rate,message_stats.deliver_no_ack_details.rate";

/// The management API of one broker.
pub struct Management {
    client: Client,
    base: String,
    vhost: String,
    headers: HeaderMap,
    /// Whether the broker keeps rates; none until it was asked.
    rates: Option<bool>,
}

#[derive(Deserialize)]
struct Overview {
    #[serde(default)]
    rates_mode: String,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    #[serde(default)]
    messages_ready: u64,
    #[serde(default)]
    messages_unacknowledged: u64,
    consumers: Option<u32>,
    #[serde(default)]
    message_stats: Stats,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stats {
    publish_details: Rate,
    ack_details: Rate,
    deliver_no_ack_details: Rate,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rate {
    rate: f64,
}

impl Management {
    /// The API of a resource's broker.
    ///
    /// # Errors
    /// Its address or its authority cannot be used, in a sentence.
    pub fn new(config: &AmqpConfig, broker: &BrokerRef, secrets: &Secrets) -> Result<Self, String> {
        let text = |error: vumi_core::error::WorkError| error.text;
        let identity = config.identity().map_err(text)?;
        let (user, password) = config.credentials().map_err(text)?;
        let host = match identity.host.contains(':') {
            true => format!("[{}]", identity.host),
            false => identity.host,
        };
        let base = match (&broker.management, identity.encrypted) {
            (Some(management), _) => management.url.trim_end_matches('/').to_owned(),
            (None, true) => format!("https://{host}:15671"),
            (None, false) => format!("http://{host}:15672"),
        };
        let settings = HttpClient {
            answer_timeout: Some(Duration(std::time::Duration::from_secs(10))),
            max_answer: Some(Size(LARGEST)),
            tls: broker.tls.as_ref().map(|tls| CallTls {
                ca_secret_ref: tls.ca_secret_ref.clone(),
                certificate_secret_ref: None,
            }),
            ..HttpClient::default()
        };
        let client = Client::new(&settings, secrets, Outside::default()).map_err(text)?;
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, basic(&user, &password)?);
        Ok(Self {
            client,
            base,
            vhost: percent_encoded(&identity.vhost),
            headers,
            rates: None,
        })
    }

    /// All queues of the virtual host.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub async fn queues(&mut self) -> Result<BTreeMap<String, Queue>, Unread> {
        let rates = match self.rates {
            Some(rates) => rates,
            None => {
                let overview: Overview = self.get("overview?columns=rates_mode").await?;
                *self.rates.insert(overview.rates_mode != "none")
            }
        };
        let path = format!("queues/{}?columns={COLUMNS}", self.vhost);
        let rows: Vec<Row> = self.get(&path).await?;
        let queue = |row: Row| {
            let stats = &row.message_stats;
            let handled = stats.ack_details.rate + stats.deliver_no_ack_details.rate;
            let queue = Queue {
                ready: row.messages_ready,
                unacked: Some(row.messages_unacknowledged),
                consumers: row.consumers,
                arriving: rates.then_some(stats.publish_details.rate),
                handled: rates.then_some(handled),
            };
            (row.name, queue)
        };
        Ok(rows.into_iter().map(queue).collect())
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, Unread> {
        let unreachable = |why: String| Unread::Management(format!("{}: {why}", self.base));
        let url = format!("{}/api/{path}", self.base);
        let url = url.parse().map_err(|_| unreachable("is no URL".into()))?;
        let call = Call {
            method: Method::GET,
            url,
            headers: self.headers.clone(),
            body: bytes::Bytes::new(),
        };
        let answer = self.client.call(call).await;
        let answer = answer.map_err(|error| unreachable(error.to_string()))?;
        match answer.status {
            StatusCode::OK => serde_json::from_slice(&answer.body)
                .map_err(|_| unreachable("the answer is not that of RabbitMQ's management".into())),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Unread::Forbidden(format!(
                "{} refuses the user of the broker's Secret: give it the tag `monitoring`",
                self.base
            ))),
            status => Err(unreachable(format!("it answers {status}"))),
        }
    }
}

/// The header of HTTP Basic (RFC 7617).
fn basic(user: &str, password: &str) -> Result<HeaderValue, String> {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let encoded = engine.encode(format!("{user}:{password}"));
    let value = HeaderValue::from_str(&format!("Basic {encoded}"));
    let mut value = value.map_err(|error| error.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}

/// A name as part of a path.
fn percent_encoded(name: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let encoded = name.bytes().map(|byte| match plain(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_part_of_a_path_whatever_they_are() {
        assert_eq!(percent_encoded("/"), "%2F");
        assert_eq!(percent_encoded("a b/ü"), "a%20b%2F%C3%BC");
    }
}
