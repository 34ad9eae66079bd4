//! What a message costs the state store: how many operations, each of which is one round trip to a Redis and one transaction
//! of the embedded store. `docs/state.md` has these figures.

use super::partitions::scripted;
use super::*;
use crate::state::around::Around;
use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use std::collections::BTreeMap;

const MESSAGES: usize = 200;
/// What a worker asks by the clock, so the more often the slower the machine is.
const BY_THE_CLOCK: [&str; 4] = [
    "batches.orders",
    "ledger.counts",
    "ledger.live",
    "ledger.overdue",
];

/// A store that counts what it is asked.
struct Counting {
    store: Arc<dyn StateStore>,
    asked: Mutex<BTreeMap<&'static str, usize>>,
}

#[async_trait]
impl Around for Counting {
    fn inner(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    async fn before(&self, operation: &'static str) -> Result<(), WorkError> {
        *self.asked.lock().unwrap().entry(operation).or_default() += 1;
        Ok(())
    }
}

/// Operations that one message of so many users costs.
async fn operations(
    kind: Kind,
    settings: serde_json::Value,
    attempts: u32,
    takes: bool,
) -> BTreeMap<&'static str, f64> {
    let name = scripted(move |input, cx| async move {
        if input.attempt < attempts {
            return Err(temporary());
        }
        if takes {
            let mut said = UserMessage::new("sms", Some("555"), Some("u"));
            said.set_message_id(&format!("from the peer {}", input.message.id()));
            cx.hold(&mut said);
            cx.accept(said).await?;
        }
        Ok(match (&input.message, kind) {
            (Message::User(message), Kind::Transport) => vec![cx.ack(message, "remote")],
            _ => echo(&input, &cx),
        })
    });
    let store = EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap();
    let counting = Arc::new(Counting {
        store,
        asked: Mutex::default(),
    });
    let setup = Setup {
        kind,
        name,
        state: Some(Arc::clone(&counting) as Arc<dyn StateStore>),
        ..Setup::new(settings)
    };
    let rig = Rig::replica(setup, "one").await;
    let queue = match kind {
        Kind::Transport => "t.outbound",
        _ => "t.inbound",
    };
    let send = async |n: usize| {
        let user = format!("u{n}");
        let mut message = UserMessage::new("sms", Some(&user), Some("555"));
        if kind != Kind::Transport {
            message = UserMessage::new("sms", Some("555"), Some(&user));
        }
        message.set_transport_name("t");
        message.set_content(Some("x"));
        rig.publish(queue, message.encode()).await;
    };
    let done = async |count: usize| {
        rig.until("done", |s| {
            s.counts.done == count as u64 && s.counts.in_flight == 0
        })
        .await;
        // What is noted of hops goes to the store together, a little later.
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    send(MESSAGES).await;
    done(1).await;
    counting.asked.lock().unwrap().clear();
    for n in 0..MESSAGES {
        send(n).await;
    }
    done(MESSAGES + 1).await;
    let asked = std::mem::take(&mut *counting.asked.lock().unwrap());
    rig.stop_now().await;
    let each = |(name, count): (_, usize)| (name, count as f64 / MESSAGES as f64);
    let of_messages = |(name, _): &(&str, f64)| !BY_THE_CLOCK.contains(name);
    asked.into_iter().map(each).filter(of_messages).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_costs_the_store_no_more_operations_than_the_page_says() {
    let held =
        json!({"holdLimit": "1ms", "retry": {"backoff": {"initial": "20ms", "max": "20ms"}}});
    let none = json!({"retention": {"trail": "0s"}});
    let rate = json!({"rateLimit": {"rate": 5000, "burst": 5000}});
    let transport = operations(Kind::Transport, json!({}), 1, false).await;
    // Who holds it goes along with the hop of a message of the peer.
    let takes = operations(Kind::Transport, json!({}), 1, true).await;
    let sum = |operations: &BTreeMap<&str, f64>| operations.values().sum::<f64>();
    println!("a transport that takes a message each: {takes:?}");
    assert!(
        sum(&takes) <= sum(&transport) + 0.5,
        "{takes:?}, {transport:?}"
    );
    for (what, kind, settings, attempts, most) in [
        ("a transport", Kind::Transport, json!({}), 1, 2.3),
        ("it, with a rate limit", Kind::Transport, rate, 1, 3.3),
        ("it, with a retry", Kind::Transport, held.clone(), 2, 8.0),
        ("an application", Kind::Application, json!({}), 1, 0.5),
        ("it, with a retry", Kind::Application, held, 2, 4.0),
        ("it, without a trail", Kind::Application, none, 1, 0.0),
    ] {
        let operations = operations(kind, settings, attempts, false).await;
        let sum: f64 = operations.values().sum();
        println!("{what}: {sum:.2}, {operations:?}");
        assert!(sum <= most, "{what}: {sum:.2}, {operations:?}");
    }
}
