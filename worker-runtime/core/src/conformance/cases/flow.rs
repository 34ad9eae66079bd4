//! What goes in comes out, whole and in order.

use crate::conformance::oracle::{Demands, Oracle};
use crate::conformance::rig::Rig;
use crate::message::Message;
use serde_json::{Value, json};
use vumi_api::{Flow, Kind, OrderingMode};

/// Every consumed queue is handled, and every message that asks for an output causes one.
pub(super) async fn everything_flows(rig: &mut Rig) -> Result<(), String> {
    let ports: Vec<_> = rig.consumed().cloned().collect();
    for port in &ports {
        let id = rig.send(port, &rig.message(port, 0, 0)).await?;
        if rig.answers(port) {
            rig.far_end.output_of(&id).await?;
        }
    }
    let all = ports.len() as u64;
    super::super::rig::eventually("every message is done", async || match rig.counts()? {
        c if c.done == all => Ok(()),
        c => Err(format!("{c:?}")),
    })
    .await?;
    let counts = rig.settle().await?;
    match (counts.received, counts.parked) {
        (received, 0) if received == all => Ok(()),
        _ => Err(format!(
            "{all} messages went in, and the counts are {counts:?}"
        )),
    }
}

/// `transport_metadata` and `helper_metadata` of a message are those of what it causes: forwarded, or in the reply.
pub(super) async fn metadata_is_kept(rig: &mut Rig) -> Result<(), String> {
    let metadata = json!({"conformance": {"n": [1, null, "é"], "big": 12345678901234567890_u64}});
    for port in rig.answering() {
        let Message::User(mut message) = rig.message(&port, 0, 0) else {
            continue;
        };
        message.set_field("transport_metadata", metadata.clone());
        message.set_field("helper_metadata", metadata.clone());
        let id = rig.send(&port, &message.into()).await?;
        let seen = rig.far_end.output_of(&id).await?;
        let Message::User(output) = &seen.message else {
            continue;
        };
        for key in ["transport_metadata", "helper_metadata"] {
            if output.field(key) != Some(&metadata) {
                return Err(format!("{port}: {key} became {:?}", output.field(key)));
            }
        }
    }
    rig.settle().await.map(drop)
}

/// A dispatcher forwards messages with everything it does not know.
pub(super) async fn unknown_fields_are_kept(rig: &mut Rig) -> Result<(), String> {
    for port in rig.answering() {
        let mut message = rig.message(&port, 0, 0);
        let extra = json!({"a": [1, {"b": null}], "z": 1.25, "text": "ж😀"});
        match &mut message {
            Message::User(m) => m.set_field("customer_extension", extra),
            Message::Event(e) => e.set_field("customer_extension", extra),
        }
        let id = rig.send(&port, &message).await?;
        let seen = rig.far_end.output_of(&id).await?;
        let (before, after) = (body(&message), body(&seen.message));
        let routing = ["routing_metadata", "transport_name"];
        for (key, value) in before.as_object().into_iter().flatten() {
            if !routing.contains(&key.as_str()) && after.get(key) != Some(value) {
                return Err(format!("{port}: field {key} became {:?}", after.get(key)));
            }
        }
    }
    rig.settle().await.map(drop)
}

fn body(message: &Message) -> Value {
    serde_json::from_slice(&message.encode()).unwrap_or_default()
}

/// Twenty messages of each of five users, mixed: all come out, and those of one user in their order, where the worker
/// type keeps order.
pub(super) async fn order_per_user(rig: &mut Rig) -> Result<(), String> {
    const USERS: usize = 5;
    const EACH: usize = 20;
    let mut oracle = Oracle::default();
    for port in rig.answering() {
        for n in 0..EACH {
            for user in 0..USERS {
                let id = rig.send(&port, &rig.message(&port, user, n)).await?;
                // Each event is about another message, and order is promised per message only.
                let whose = match port.flow {
                    Flow::Event => id.clone(),
                    _ => format!("{port} {user}"),
                };
                oracle.owe(&id, &whose, Default::default());
            }
        }
    }
    let ids: Vec<String> = oracle.open().into_iter().map(str::to_owned).collect();
    for id in &ids {
        rig.far_end.output_of(id).await?;
    }
    rig.settle().await?;
    for seen in rig.far_end.seen() {
        let cause = cause(&rig.registration.kind, &seen.message);
        let place = seen.port.queue();
        oracle.observe(&cause, &place, seen.message.id(), Default::default());
    }
    let order = rig.resource.ordering_mode() != OrderingMode::None;
    let judgement = oracle.judge(Demands {
        order,
        within: None,
    });
    judgement.require()
}

/// The message that caused an output: itself for a dispatcher, which only forwards.
fn cause(kind: &Kind, message: &Message) -> String {
    let id = match (kind, message) {
        (Kind::Dispatcher, m) => m.id(),
        (_, Message::User(m)) => m.in_reply_to().unwrap_or_default(),
        (_, Message::Event(e)) => e.user_message_id(),
    };
    id.to_owned()
}
