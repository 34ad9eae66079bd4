//! Messages that are sent at a time of their own, and messages that something else holds.

use super::*;
use crate::message::{Actor, Event, EventType, FailureClass};
use crate::outcome::Refusal;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};
use vumi_api::Kind;

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

fn to(user: &str, text: &str, schedule: Option<Value>) -> UserMessage {
    let mut message = UserMessage::new("sms", Some(user), Some("555"));
    message.set_transport_name("t");
    message.set_content(Some(text));
    if let Some(schedule) = schedule {
        message
            .helper_metadata_mut()
            .insert("schedule".into(), schedule);
    }
    message
}

/// What a transport's peer got: id and content.
type Sent = Arc<Mutex<Vec<(String, String)>>>;

async fn transport(state: Option<Arc<dyn StateStore>>, mode: &str) -> (Rig, Sent) {
    let sent = Sent::default();
    let log = Arc::clone(&sent);
    let mut settings = restless();
    settings["ordering"] = json!({"mode": mode});
    let setup = Setup {
        kind: Kind::Transport,
        state,
        ..Setup::new(settings)
    };
    let rig = Rig::on(setup, move |i, cx| {
        let message = i.to_deliver().unwrap().clone();
        let text = content(&i);
        let result = match text.as_str() {
            "fails once" if i.attempt == 1 => Err(temporary()),
            "refused" => Ok(vec![cx.nack(
                &message,
                1,
                Refusal::new(
                    FailureClass::Recipient,
                    crate::codes::ROUTE_NONE,
                    "no",
                    Actor::Nobody,
                ),
            )]),
            _ => Ok(vec![cx.ack(&message, "remote")]),
        };
        if result.is_ok() {
            log.lock()
                .unwrap()
                .push((message.message_id().to_owned(), text));
        }
        async { result }
    })
    .await;
    (rig, sent)
}

async fn until_sent(sent: &Sent, count: usize) -> Vec<(String, String)> {
    for _ in 0..2000 {
        let so_far = sent.lock().unwrap().clone();
        if so_far.len() >= count {
            return so_far;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("only {:?}", sent.lock().unwrap());
}

#[tokio::test]
async fn a_scheduled_message_is_sent_at_its_time_and_holds_nobody() {
    for mode in ["perUser", "none"] {
        let store = store();
        let (rig, sent) = transport(Some(Arc::clone(&store)), mode).await;
        let at = now() + 1.0;
        let messages = [
            to("a", "past", Some(json!({"at": now() - 5.0}))),
            to("a", "fails once", Some(json!({"at": at}))),
            to("a", "at once", None),
            to("a", "far", Some(json!({"at": now() + 3600.0}))),
        ];
        for message in &messages {
            rig.publish("t.outbound", message.encode()).await;
        }
        let first = until_sent(&sent, 2).await;
        let texts: Vec<&str> = first.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["past", "at once"], "{mode}");
        let all = until_sent(&sent, 3).await;
        assert!(now() >= at, "{mode}");
        assert_eq!(
            all[2],
            (messages[1].message_id().to_owned(), "fails once".to_owned())
        );
        rig.until("at rest", |s| s.counts.in_flight == 0).await;
        let listed = waiting(&store, "t.outbound").await;
        assert_eq!(listed.len(), 1, "{mode}");
        assert_eq!(listed[0].entry.about.reason, Reason::Schedule);
        assert_eq!(listed[0].entry.body, messages[3].encode());
        let events = rig.read("t.event", 3).await;
        let acked = |id: &str| {
            events.iter().any(|e| {
                let event = Event::decode(e).unwrap();
                event.event_type() == EventType::Ack && event.user_message_id() == id
            })
        };
        assert!(
            messages[..3].iter().all(|m| acked(m.message_id())),
            "{mode}"
        );
        rig.at_rest().await;
    }
}

/// Every occurrence has an id of its own, which follows from message and time; the schedule ends at `until`.
#[tokio::test]
async fn a_recurring_message_is_sent_again_and_again() {
    use crate::state::journal::{About, Append, Due, Entry, Lane};
    let store = store();
    let daily = json!({"recurring": "daily", "time": "12:00:00", "until": now() + 36.0 * 3600.0});
    let message = to("a", "good morning", Some(daily));
    // As if it had been scheduled for an hour ago.
    let since = ((now() - 3600.0) * 1000.0) as u64;
    let entry = |since| Entry {
        about: About {
            reason: Reason::Schedule,
            since,
            attempts: 0,
            counted: 0,
            code: String::new(),
            text: String::new(),
            routing_key: "t.outbound".into(),
            amqp_message_id: None,
        },
        body: message.encode(),
    };
    let lane = Lane {
        group: "@schedule".into(),
        number: 7,
    };
    let due = Append {
        lane: lane.clone(),
        due: Due::After(Duration::ZERO),
        entry: entry(since),
    };
    store.append("t.outbound", vec![due]).await.unwrap();
    let (rig, sent) = transport(Some(Arc::clone(&store)), "perUser").await;
    let first = until_sent(&sent, 1).await.remove(0);
    assert_ne!(first.0, message.message_id());
    rig.until("at rest", |s| s.counts.in_flight == 0 && s.counts.done == 1)
        .await;
    // It waits for the next noon, whole.
    let listed = loop {
        let listed = waiting(&store, "t.outbound").await;
        match listed.first() {
            Some(one) if one.entry.about.since != since => break listed,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(listed[0].entry.body, message.encode());
    let next = listed[0].due.unwrap();
    assert_eq!(listed[0].entry.about.since, next);
    let ahead = next as f64 / 1000.0 - now();
    assert!((0.0..=24.5 * 3600.0).contains(&ahead), "{ahead}");
    assert_eq!(next / 1000 % 86_400, 12 * 3600);
    // Released early it is sent under another id.
    Journal::release(&*store, "t.outbound", &Filter::default())
        .await
        .unwrap();
    let second = until_sent(&sent, 2).await.remove(1);
    assert_ne!(second.0, first.0);
    assert_eq!(second.1, first.1);
    rig.at_rest().await;
}

#[tokio::test]
async fn what_cannot_be_scheduled_is_set_aside() {
    let past = json!({"recurring": "daily", "time": "12:00:00", "until": 5});
    let never = json!({"recurring": "never"});
    let bad = [json!({"at": "tomorrow"}), json!({}), past, never];
    let (rig, sent) = transport(Some(store()), "perUser").await;
    for schedule in bad.clone() {
        let message = to("a", "x", Some(schedule));
        rig.publish("t.outbound", message.encode()).await;
    }
    rig.until("set aside", |s| s.counts.parked == 4).await;
    let parked = crate::parking::list(&*rig.broker, "t.outbound", 10)
        .await
        .unwrap();
    assert!(
        parked
            .iter()
            .all(|p| p.code == crate::codes::SCHEDULE_INVALID.name)
    );
    assert!(
        parked[0].reason.contains("helper_metadata.schedule.at"),
        "{}",
        parked[0].reason
    );
    assert!(sent.lock().unwrap().is_empty());
    let (rig, sent) = transport(None, "perUser").await;
    let message = to("a", "later", Some(json!({"at": now() + 60.0})));
    rig.publish("t.outbound", message.encode()).await;
    rig.until("set aside", |s| s.counts.parked == 1).await;
    let parked = crate::parking::list(&*rig.broker, "t.outbound", 10)
        .await
        .unwrap();
    assert_eq!(parked[0].code, crate::codes::SCHEDULE_NO_STORE.name);
    assert!(sent.lock().unwrap().is_empty());
}
