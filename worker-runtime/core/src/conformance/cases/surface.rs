//! What a worker type shows: its manifest and its statuses.

use crate::broker::{Access, EXCHANGE, QueueSpec, Subscribe};
use crate::conformance::inside::Inside;
use crate::conformance::rig::{LIMITS, MARK, Rig, eventually, within};
use crate::message::TransportStatus;
use crate::status::{StatusIdentity, StatusLevel};
use serde_json::Value;
use vumi_api::manifest::{Target, load};

/// The registration fits its resource, the fixture is valid, and an unknown key is refused at every depth.
pub(super) async fn manifest(rig: &mut Rig<Inside>) -> Result<(), String> {
    let (registration, resource) = (&rig.under.registration, &rig.under.resource);
    let findings = resource.validate();
    if !findings.is_empty() {
        return Err(format!("its fixture is not valid: {findings:?}"));
    }
    let listed = resource.worker_type().ok_or("no worker type is set")?;
    let fits = (registration.matches)(resource)
        && listed.key == registration.type_name
        && listed.kind == registration.kind
        && listed.ordering == registration.ordering;
    if !fits || rig.under.running()?.snapshot().type_name != registration.type_name {
        return Err(format!(
            "registered as {}, its fixture is a {}",
            registration.type_name, listed.key
        ));
    }
    let mut places = Vec::new();
    objects(&rig.under.document["spec"], "/spec", &mut places);
    for place in places {
        let mut document = rig.under.document.clone();
        if let Some(object) = document.pointer_mut(&place).and_then(Value::as_object_mut) {
            object.insert("zzz".into(), 1.into());
        }
        let loaded = load(&[("fixture.json", document.to_string())], Target::Local);
        if !loaded.has_errors() {
            return Err(format!("an unknown key is accepted in {place}"));
        }
    }
    Ok(())
}

fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    if let Value::Object(map) = value {
        found.push(at.to_owned());
        for (key, value) in map {
            let key = key.replace('~', "~0").replace('/', "~1");
            objects(value, &format!("{at}/{key}"), found);
        }
    }
}

/// It reports its components as Vumi status messages on its own routing key, all well, and says nothing of contents.
pub(super) async fn statuses(rig: &mut Rig<Inside>) -> Result<(), String> {
    rig.stop(LIMITS).await?;
    let identity = StatusIdentity::of(&rig.under.resource, &rig.under.instance);
    let key = TransportStatus::routing_key(&identity.connector);
    let mut copy = rig
        .broker
        .subscribe(Subscribe {
            queue: QueueSpec::Copy {
                name: format!("{}.statuses", rig.under.instance),
                exchange: EXCHANGE.into(),
                keys: vec![key.clone()],
            },
            prefetch: 100,
            access: Access::Shared,
            tag: "conformance".into(),
        })
        .await;
    let consuming = crate::broker::ConsumerState::Consuming;
    let ready = copy.state.wait_for(|state| *state == consuming);
    tokio::time::timeout(crate::conformance::far_end::patience(), ready)
        .await
        .map_err(|_| "the suite cannot read statuses")?
        .map_err(|e| e.to_string())?;
    rig.run().await?;
    for port in rig.answering() {
        let id = rig.send(&port, &rig.message(&port, 0, 0)).await?;
        rig.far_end.output_of(&id).await?;
    }
    let mut last = std::collections::BTreeMap::new();
    // A lost connection takes the copy's queue along; then everything is told again within a minute.
    let time = crate::conformance::far_end::patience() * 3;
    within(
        time,
        &format!("every component's status on {key}"),
        async || {
            while let Ok(delivery) = copy.deliveries.try_recv() {
                let status = TransportStatus::decode(&delivery.body).map_err(|e| e.to_string())?;
                last.insert(status.report().component, status.report());
            }
            let components = rig.under.running()?.snapshot().components;
            let told = components.iter().all(|c| last.get(&c.component) == Some(c));
            match told && !components.is_empty() {
                true => Ok(()),
                false => Err(format!("published {last:?}, components {components:?}")),
            }
        },
    )
    .await?;
    if let Some(bad) = last.values().find(|s| s.level != StatusLevel::Ok) {
        return Err(format!("all is well and a status says {bad:?}"));
    }
    match last.values().any(|s| s.message.contains(MARK)) {
        true => Err("a status quotes a message".into()),
        false => rig.settle().await.map(drop),
    }
}

/// The standard metrics of a consumed queue, and the count that each must show.
const STANDARD: [&str; 5] = [
    "vumi_messages_received_total",
    "vumi_messages_done_total",
    "vumi_messages_parked_total",
    "vumi_messages_retried_total",
    "vumi_messages_returned_total",
];

/// The metrics say exactly what the counts say, and every published message is counted.
pub(super) async fn metrics(rig: &mut Rig<Inside>) -> Result<(), String> {
    let ports: Vec<_> = rig.consumed().cloned().collect();
    for port in &ports {
        rig.feed(&port.queue(), bytes::Bytes::from_static(b"{}"))
            .await?;
        let id = rig.send(port, &rig.message(port, 0, 0)).await?;
        if rig.answers(port) {
            rig.far_end.output_of(&id).await?;
        }
    }
    eventually("half is done and half is parked", async || {
        match rig.counts()? {
            c if c.done == c.parked && c.done == ports.len() as u64 => Ok(()),
            c => Err(format!("{c:?}")),
        }
    })
    .await?;
    let counts = rig.settle().await?;
    let text = rig.under.metrics();
    let expected = [
        counts.received,
        counts.done,
        counts.parked,
        counts.retried,
        counts.returned,
    ];
    for (name, expected) in STANDARD.into_iter().zip(expected) {
        let shown = sum(&text, name, &rig.under.resource.key());
        if shown != expected {
            return Err(format!(
                "{name} shows {shown} where the counts have {expected}"
            ));
        }
    }
    let published = sum(&text, "vumi_published_total", &rig.under.resource.key());
    eventually(
        "every message that was counted as published arrives",
        async || match rig.far_end.seen().len() as u64 {
            seen if seen == published => Ok(()),
            seen => Err(format!("vumi_published_total shows {published} of {seen}")),
        },
    )
    .await
}

/// Sum of a metric's series of one worker, in Prometheus' text.
fn sum(text: &str, name: &str, worker: &str) -> u64 {
    let worker = format!("worker=\"{worker}\"");
    let series = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('{')) && line.contains(&worker)
    });
    let values = series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}
