//! What goes in comes out, whole and in order.

use super::{judge, owe};
use crate::conformance::inside::Inside;
use crate::conformance::oracle::Oracle;
use crate::conformance::rig::{Rig, UnderTest};
use crate::message::Message;
use serde_json::{Value, json};

/// Every consumed queue is handled, and every message that asks for an output causes one.
pub(super) async fn everything_flows<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let ports: Vec<_> = rig.consumed().cloned().collect();
    for port in &ports {
        let id = rig.send(port, &rig.message(port, 0, 0)).await?;
        if rig.answers(port) {
            rig.far_end.output_of(&id).await?;
        }
    }
    rig.under.finished(ports.len() as u64, 0).await
}

/// `transport_metadata` of a message is that of what it causes: forwarded, or in the reply.
pub(super) async fn metadata_is_kept<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    is_kept(rig, "transport_metadata").await
}

/// So is `helper_metadata`.
pub(super) async fn helper_metadata_is_kept<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    is_kept(rig, "helper_metadata").await
}

async fn is_kept<W: UnderTest>(rig: &mut Rig<W>, key: &str) -> Result<(), String> {
    let metadata = json!({"conformance": {"n": [1, null, "é"], "big": 12345678901234567890_u64}});
    for port in rig.answering() {
        let Message::User(mut message) = rig.message(&port, 0, 0) else {
            continue;
        };
        message.set_field(key, metadata.clone());
        let id = rig.send(&port, &message.into()).await?;
        let seen = rig.far_end.output_of(&id).await?;
        let Message::User(output) = &seen.message else {
            continue;
        };
        if output.field(key) != Some(&metadata) {
            return Err(format!("{port}: {key} became {:?}", output.field(key)));
        }
    }
    rig.settle().await.map(drop)
}

/// A dispatcher forwards messages with everything it does not know.
pub(super) async fn unknown_fields_are_kept(rig: &mut Rig<Inside>) -> Result<(), String> {
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
pub(super) async fn order_per_user<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    const USERS: usize = 5;
    const EACH: usize = 20;
    let mut oracle = Oracle::default();
    for port in rig.answering() {
        for (user, id) in rig.send_many(&port, 0..USERS, 0..EACH).await? {
            owe(&mut oracle, &port, user, &id);
        }
    }
    judge(rig, oracle).await
}
