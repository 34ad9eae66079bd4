//! `devNull`: a network that accepts, refuses, reports and answers by percentages. What becomes of a message is drawn
//! from its id, so that a repeat ends as the first did.

use crate::receipts::{Place, Receipts};
use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use vumi_api::transports::DevNull;
use vumi_api::{Flow, Port};
use vumi_core::codes;
use vumi_core::conformance::Fixture;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::{Actor, DeliveryStatus, Event, FailureClass, UserMessage, derived_id};
use vumi_core::outcome::table::{ErrorTable, ProviderCode};
use vumi_core::outcome::{Receipt, ReceiptOutcome, Refusal};
use vumi_core::worker::{Input, Output, Traffic, Worker, WorkerContext, WorkerType};

/// How long the network asks a sender to wait who is above its capacity.
const SLOW_DOWN: Duration = Duration::from_secs(1);
/// How long after a lost answer the receipt comes.
const RECEIPT_AFTER: Duration = Duration::from_millis(500);

pub(crate) struct Def;

struct Network {
    config: DevNull,
    cx: Arc<WorkerContext>,
    /// What its refusals mean.
    errors: ErrorTable,
    /// When the present second began, and what was taken in it.
    taken: Mutex<(Instant, u32)>,
    /// What it has yet to say.
    receipts: Receipts,
}

#[async_trait]
impl WorkerType for Def {
    type Config = DevNull;
    const RECEIPTS: bool = true;

    async fn build(config: DevNull, cx: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        let errors = ErrorTable::parse(include_str!("dev_null.codes.yaml"))?;
        let taken = Mutex::new((Instant::now(), 0));
        let receipts = Receipts::new(Arc::clone(&cx));
        Ok(Arc::new(Network {
            config,
            cx,
            errors,
            taken,
            receipts,
        }))
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: nowhere}\nspec:\n  devNull: {}\n",
            peer: None,
        }
    }
}

/// What is drawn for `what` of the message `id`: a number below `count`.
fn draw(what: &str, id: &str, count: u32) -> u32 {
    let digits = derived_id(&["devNull", what, id]);
    let number = u32::from_str_radix(&digits[..8], 16).unwrap_or_default();
    number % count.max(1)
}

/// Whether the message `id` falls into the first `percent` of what is drawn for `what`.
fn drawn(what: &str, id: &str, percent: Option<u32>, default: u32) -> bool {
    draw(what, id, 100) < percent.unwrap_or(default)
}

/// Why the message `id` is refused: one of the rows, always the same.
fn reason<'t>(rows: impl Iterator<Item = &'t ProviderCode>, id: &str) -> Option<Refusal> {
    let rows: Vec<&ProviderCode> = rows.collect();
    let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let row = rows.get(usize::try_from(draw("code", id, count)).ok()?)?;
    Some(Refusal::from(*row))
}

fn slow_down(why: &str) -> WorkError {
    let class = ErrorClass::Throttled(Some(SLOW_DOWN));
    WorkError::new(class, codes::PEER_THROTTLED, why)
}

impl Network {
    fn has_capacity(&self) -> bool {
        let Some(capacity) = self.config.capacity else {
            return true;
        };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.0.elapsed() >= Duration::from_secs(1) {
            *taken = (Instant::now(), 0);
        }
        taken.1 += 1;
        taken.1 <= capacity
    }

    /// Why the network does not take a message.
    fn refused(&self, id: &str) -> Refusal {
        reason(self.errors.codes.iter(), id).unwrap_or_else(|| self.errors.refusal(""))
    }

    /// Why it cannot deliver one that it took, if it cannot: a matter of the recipient.
    fn undelivered(&self, id: &str) -> Option<Refusal> {
        let of_recipient = |row: &&ProviderCode| row.class == FailureClass::Recipient;
        drawn("failure", id, self.config.failure_percent, 0)
            .then(|| reason(self.errors.codes.iter().filter(of_recipient), id))?
    }

    /// Room for what it may have to say of a message later, if it may.
    fn place(&self) -> Result<Option<Place>, WorkError> {
        let loses = self.config.lost_percent.is_some_and(|percent| percent > 0);
        if !loses && self.config.receipt_after.is_none() {
            return Ok(None);
        }
        let place = self.receipts.place();
        place.map(Some).ok_or_else(|| {
            slow_down("the simulated network has as many receipts under way as it can hold")
        })
    }

    /// What the network has to say of a message that it took, `after` a while. Of one whose answer it lost it knows our id
    /// (as `known`), of others it names its own alone.
    fn report_later(
        &self,
        place: Place,
        id: &str,
        known: Option<&str>,
        remote_id: String,
        after: Duration,
    ) {
        let outcome = match self.undelivered(id) {
            Some(refusal) => ReceiptOutcome::Failed(refusal),
            None => ReceiptOutcome::Delivered,
        };
        let receipt = Receipt {
            message_id: known.map(str::to_owned),
            remote_id: Some(remote_id),
            outcome,
        };
        self.receipts.later(place, receipt, after);
    }

    /// What became of a message that it took, told with its answer.
    fn report(&self, id: &str, remote_id: &str, attempt: u32) -> Output {
        let undelivered = self.undelivered(id);
        let status = match undelivered {
            Some(_) => DeliveryStatus::Failed,
            None => DeliveryStatus::Delivered,
        };
        let mut report = Event::delivery_report(id, remote_id, status);
        if let Some(refusal) = undelivered {
            report.set_fate(&refusal.fate(attempt));
        }
        report.set_transport_name(self.cx.transport_name());
        Output::new(Port::new(self.cx.transport_name(), Flow::Event), report)
    }

    /// What the recipient says.
    fn answer(&self, message: &UserMessage) -> UserMessage {
        let kind = self.config.transport_type.as_deref().unwrap_or("sms");
        let mut answer = UserMessage::new(kind, message.from_addr(), message.to_addr());
        answer.set_message_id(&derived_id(&["devNull", "answer", message.message_id()]));
        answer.set_transport_name(self.cx.transport_name());
        answer.set_field("provider", "devnull");
        match &self.config.reply_copy {
            Some(text) => answer.set_field("content", text.as_str()),
            None => answer.set_field("content", message.content()),
        }
        answer
    }
}

#[async_trait]
impl Worker for Network {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let message = input.to_deliver()?;
        let id = message.message_id();
        if message.to_addr().is_none() {
            let text = "Missing fields: to_addr";
            let refusal = Refusal::new(
                FailureClass::Content,
                codes::REPLY_FIELDS,
                text,
                Actor::Campaign,
            );
            return Ok(vec![self.cx.nack(message, input.attempt, refusal)]);
        }
        if !self.has_capacity() {
            return Err(slow_down("the simulated network is above its capacity"));
        }
        let place = self.place()?;
        if let Some(latency) = self.config.latency {
            tokio::time::sleep(latency.0).await;
        }
        self.cx.traffic(Traffic::Outbound);
        // Each attempt is drawn anew: a later one may be answered.
        let attempt = format!("{id}/{}", input.attempt);
        let accepted = drawn("ack", id, self.config.ack_percent, 100);
        let remote_id = derived_id(&["devNull", "sent", id]);
        if drawn("lost", &attempt, self.config.lost_percent, 0) {
            if let Some(place) = place.filter(|_| accepted) {
                self.report_later(place, id, Some(id), remote_id, RECEIPT_AFTER);
            }
            return Err(WorkError::new(
                ErrorClass::Timeout,
                codes::PEER_TIMEOUT,
                "the answer of the simulated network is lost",
            ));
        }
        if !accepted {
            let refusal = self.refused(id);
            return Ok(vec![self.cx.nack(message, input.attempt, refusal)]);
        }
        let mut outputs = vec![self.cx.ack(message, &remote_id)];
        match (self.config.receipt_after, place) {
            // Once it closes there may be no later: it is told with the answer.
            (Some(after), Some(place)) if !self.cx.closing().is_cancelled() => {
                self.report_later(place, id, None, remote_id, after.0);
            }
            _ => outputs.push(self.report(id, &remote_id, input.attempt)),
        }
        if drawn("reply", id, self.config.reply_percent, 0) {
            let port = Port::new(self.cx.transport_name(), Flow::Inbound);
            outputs.push(Output::new(port, self.answer(message)));
            self.cx.traffic(Traffic::Inbound);
        }
        Ok(outputs)
    }

    /// What the network has to say of what it took is said before the worker ends.
    async fn drained(&self) {
        self.receipts.all_told().await;
    }

    async fn close(&self) {
        self.receipts.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;
    use tokio_util::sync::CancellationToken;
    use vumi_api::WorkerConfig;
    use vumi_core::conformance::stand_in::{StandIn, resource};
    use vumi_core::message::{EventType, Message};

    #[test]
    fn shares_are_about_right_and_repeats_are_equal() {
        let ids: Vec<String> = (0..10_000).map(|n| format!("message {n}")).collect();
        for percent in [0, 1, 30, 99, 100] {
            let hit = |id: &&String| drawn("ack", id, Some(percent), 50);
            let count = ids.iter().filter(hit).count();
            assert_eq!(count, ids.iter().filter(hit).count());
            let expected = percent as usize * 100;
            assert!(count.abs_diff(expected) < 200, "{percent} %: {count}");
            if percent % 100 == 0 {
                assert_eq!(count, expected, "none and all are exact");
            }
        }
        let both = |id: &&String| drawn("ack", id, Some(50), 0) && drawn("reply", id, Some(50), 0);
        let both = ids.iter().filter(both).count();
        assert!(both.abs_diff(2500) < 200, "draws are independent: {both}");
    }

    #[test]
    fn every_code_of_the_table_is_drawn_and_a_repeat_has_the_same() {
        let table = ErrorTable::parse(include_str!("dev_null.codes.yaml")).unwrap();
        let fate = |n: u32| {
            let refusal = reason(table.codes.iter(), &format!("message {n}")).unwrap();
            refusal.fate(1)
        };
        let codes: BTreeSet<String> = (0..1000).map(|n| fate(n).code).collect();
        let known: BTreeSet<String> = table.codes.iter().map(|row| row.code.clone()).collect();
        assert_eq!(codes, known);
        assert!((0..100).all(|n| fate(n) == fate(n)));
        assert!((0..100).all(|n| table.refusal(&fate(n).code).fate(1) == fate(n)));
    }

    /// A network of this config.
    async fn network(config: serde_json::Value) -> Arc<dyn Worker> {
        let spec = json!({"devNull": config});
        let manifest = json!({"kind": "Transport", "metadata": {"name": "nowhere"}, "spec": spec});
        let resource = resource(&manifest).unwrap();
        let config = DevNull::pick(&resource).unwrap().clone();
        let cx = StandIn::new().context(resource, "one", Default::default());
        Def::build(config, cx).await.unwrap()
    }

    /// Nobody else knows of the receipts that are under way: a stop brings them, each once.
    #[tokio::test]
    async fn a_stop_loses_no_receipt() {
        let spec = json!({"devNull": {"receiptAfter": "1h"}});
        let manifest = json!({"kind": "Transport", "metadata": {"name": "nowhere"}, "spec": spec});
        let resource = resource(&manifest).unwrap();
        let config = DevNull::pick(&resource).unwrap().clone();
        let (stand_in, closing) = (StandIn::new(), CancellationToken::new());
        let cx = stand_in.context(resource, "one", closing.clone());
        let network = Def::build(config, cx).await.unwrap();
        let send = async |id: &str| {
            let mut message = UserMessage::new("sms", Some("+27820000001"), Some("12345"));
            message.set_message_id(id);
            let input = Input {
                port: Port::new("nowhere", Flow::Outbound),
                message: message.into(),
                attempt: 1,
            };
            network.handle(input).await.unwrap()
        };
        let began = Instant::now();
        assert_eq!(send("early").await.len(), 1, "an ack alone");
        assert!(stand_in.receipts().is_empty());
        closing.cancel();
        assert_eq!(send("late").await.len(), 2, "with what became of it");
        network.drained().await;
        network.close().await;
        let receipts = stand_in.receipts();
        let remote: Vec<_> = receipts.iter().map(|r| r.remote_id.clone()).collect();
        let early = derived_id(&["devNull", "sent", "early"]);
        assert_eq!(remote, [Some(early)]);
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    /// Vumi's vectors: for one outbound message all that its rates say.
    #[tokio::test]
    async fn what_vumis_rates_lead_to() {
        let texts = |outputs: &[Output]| -> Vec<String> {
            let text = |output: &Output| match &output.message {
                Message::User(_) => "echo".to_owned(),
                Message::Event(event) => match event.delivery_status() {
                    Some(status) => status.as_str().to_owned(),
                    None => event.event_type().as_str().to_owned(),
                },
            };
            outputs.iter().map(text).collect()
        };
        let mut message = UserMessage::new("sms", Some("+27820000001"), Some("12345"));
        message.set_content(Some("hello"));
        let handled = async |config| {
            let input = Input {
                port: Port::new("nowhere", Flow::Outbound),
                message: message.clone().into(),
                attempt: 1,
            };
            network(config).await.handle(input).await.unwrap()
        };
        let all = json!({"ackPercent": 100, "failurePercent": 0, "replyPercent": 100});
        let outputs = handled(all).await;
        assert_eq!(texts(&outputs), ["ack", "delivered", "echo"]);
        let Message::User(echo) = &outputs[2].message else {
            panic!("a message");
        };
        assert_eq!(outputs[2].port, Port::new("nowhere", Flow::Inbound));
        assert_eq!(
            (echo.from_addr(), echo.to_addr()),
            (Some("+27820000001"), Some("12345"))
        );
        assert_eq!(echo.content(), Some("hello"));
        for (field, value) in [
            ("provider", json!("devnull")),
            ("transport_type", json!("sms")),
            ("session_event", json!(null)),
            ("in_reply_to", json!(null)),
            ("transport_metadata", json!({})),
            ("helper_metadata", json!({})),
        ] {
            assert_eq!(echo.field(field), Some(&value), "{field}");
        }
        let copy = json!({"replyPercent": 100, "replyCopy": "thanks", "transportType": "ussd"});
        let Message::User(copy) = &handled(copy).await[2].message.clone() else {
            panic!("a message");
        };
        assert_eq!(copy.content(), Some("thanks"));
        assert_eq!(copy.field("transport_type"), Some(&json!("ussd")));
        let failing = json!({"failurePercent": 100});
        assert_eq!(texts(&handled(failing).await), ["ack", "failed"]);
        let refusing = json!({"ackPercent": 0, "failurePercent": 100, "replyPercent": 100});
        assert_eq!(texts(&handled(refusing).await), ["nack"]);
    }

    /// Acceptance test of the error table: every code of it ends a message in its class, with its sentence and its actor.
    #[tokio::test]
    async fn every_code_of_the_table_ends_in_its_class_with_its_sentence_and_actor() {
        let table = ErrorTable::parse(include_str!("dev_null.codes.yaml")).unwrap();
        let refusing = network(json!({"ackPercent": 0})).await;
        let failing = network(json!({"failurePercent": 100})).await;
        for (network, kind) in [
            (refusing, EventType::Nack),
            (failing, EventType::DeliveryReport),
        ] {
            let mut seen = BTreeSet::new();
            for n in 0..1000 {
                let mut message = UserMessage::new("sms", Some("1"), Some("2"));
                message.set_message_id(&format!("message {n}"));
                let input = Input {
                    port: Port::new("nowhere", Flow::Outbound),
                    message: message.into(),
                    attempt: 1,
                };
                let outputs = network.handle(input).await.unwrap();
                let Message::Event(event) = &outputs.last().unwrap().message else {
                    panic!("an event");
                };
                assert_eq!(event.event_type(), kind);
                let fate = event.fate().unwrap();
                let row = table
                    .codes
                    .iter()
                    .find(|row| row.code == fate.code)
                    .unwrap();
                assert_eq!(fate.class, row.class.as_str());
                assert_eq!(
                    (fate.text.as_str(), fate.who.as_str()),
                    (row.text.as_str(), row.who.as_str())
                );
                assert!(fate.is_final);
                seen.insert(fate.code);
            }
            let expected = table
                .codes
                .iter()
                .filter(|row| kind == EventType::Nack || row.class == FailureClass::Recipient);
            assert_eq!(seen, expected.map(|row| row.code.clone()).collect());
        }
    }
}
