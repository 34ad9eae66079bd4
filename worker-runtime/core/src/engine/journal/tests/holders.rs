//! Heads that a dead replica had claimed.

use super::super::{REPLAYS, millis};
use super::*;
use crate::codes;
use crate::parking;
use crate::state::journal::{About, Append, Due, Entry, Lane as Place};

fn message(text: &str) -> UserMessage {
    let mut message = UserMessage::new("sms", Some("555"), Some("a"));
    message.set_transport_name("t");
    message.set_content(Some(text));
    message
}

/// A message in a lane, due now.
fn waits(number: u64, message: &UserMessage) -> Append {
    let about = About {
        reason: Reason::Backoff,
        since: millis(crate::clock::now()),
        attempts: 1,
        counted: 1,
        code: String::new(),
        text: String::new(),
        routing_key: QUEUE.into(),
        amqp_message_id: None,
    };
    Append {
        lane: Place {
            group: String::new(),
            number,
        },
        due: Due::After(Duration::ZERO),
        entry: Entry {
            about,
            body: message.encode(),
        },
    }
}

/// Without order, what a dead replica had claimed is suspect whenever its turn comes, and nothing else is.
#[tokio::test]
async fn without_order_what_a_dead_replica_had_claimed_is_suspect() {
    const OTHERS: u64 = 2 * REPLAYS as u64;
    let store = store();
    let killer = message("killer");
    let first = vec![waits(0, &killer)];
    store.append(QUEUE, first).await.unwrap();
    // The last of the replicas that died of it; the others are due before its claim ends.
    let lease = Duration::from_millis(500);
    let had = store.claim(QUEUE, "", 1, lease).await.unwrap();
    assert_eq!(had.len(), 1);
    let others: Vec<UserMessage> = (0..OTHERS).map(|n| message(&n.to_string())).collect();
    let appends = (1..).zip(&others).map(|(n, one)| waits(n, one)).collect();
    store.append(QUEUE, appends).await.unwrap();
    for one in others.iter().chain([&killer]) {
        for life in [1, 2] {
            let keep = Duration::from_secs(3600);
            let begun = store.suspect(QUEUE, one.message_id(), life, keep).await;
            begun.unwrap();
        }
    }
    let mut settings = restless();
    settings["ordering"] = json!({"mode": "none"});
    let rig = Rig::on(
        with(&store, settings),
        |i, cx| async move { Ok(echo(&i, &cx)) },
    )
    .await;
    rig.until("all but one are handled", |s| {
        (s.counts.done, s.counts.parked) == (OTHERS, 1)
    })
    .await;
    let parked = parking::list(&*rig.broker, QUEUE, 10).await.unwrap();
    assert_eq!(parked[0].code, codes::BUG_CRASH_LOOP.name);
    assert_eq!(parked[0].message_id.as_deref(), Some(killer.message_id()));
    until_empty(&store, QUEUE).await;
}
