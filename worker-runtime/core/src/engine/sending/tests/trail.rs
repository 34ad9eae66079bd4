//! Hops of messages.

use super::super::holding::Holding;
use super::*;

/// A store that counts operations, and carries none out before its gate is opened.
struct Gated {
    store: Arc<dyn StateStore>,
    operations: AtomicU32,
    gate: tokio::sync::Semaphore,
}

#[async_trait]
impl Around for Gated {
    fn inner(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    async fn before(&self, _: &'static str) -> Result<(), WorkError> {
        self.operations.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.acquire().await);
        Ok(())
    }
}

#[tokio::test]
async fn hops_that_come_together_are_stored_together() {
    let store = store();
    let gated = Arc::new(Gated {
        store: Arc::clone(&store),
        operations: AtomicU32::new(0),
        gate: tokio::sync::Semaphore::new(0),
    });
    let counted: Arc<dyn StateStore> = gated.clone();
    let names = Names {
        connector: "t".into(),
        by: "application/a@one".into(),
        keep: Duration::from_secs(3600),
        content: KeptContent::None,
        trail: Some(Duration::from_secs(3600)),
        reply_queue: None,
    };
    let metrics = Telemetry::new().worker("application/a");
    let trail = Arc::new(Trail::new(counted, &names, Arc::clone(&metrics)).unwrap());
    let messages: Vec<Message> = (0..200).map(|_| message().into()).collect();
    for (number, message) in messages.iter().enumerate() {
        let hop = Trail::hop(Flow::Inbound, message).unwrap();
        let happened = Happened::caused("to t.outbound".into(), vec!["reply".into()]);
        trail.note(trail.place().await, hop, happened);
        // The first is on its way, and nobody waited for it.
        while number == 0 && gated.operations.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }
    gated.gate.add_permits(1);
    trail.stored().await;
    for message in &messages {
        let steps = store.trail(message.id()).await.unwrap();
        assert_eq!(steps.len(), 1);
        assert_eq!(steps[0].caused, ["reply"]);
    }
    let operations = gated.operations.load(Ordering::SeqCst);
    assert_eq!(operations, 2, "the first hop, and all others");
    assert_eq!(metrics.trail_lost.get(), 0);
}

/// A reply names no replica, and nobody knows what it answers: the time that it waited in its lane counts.
#[tokio::test]
async fn what_nobody_knows_is_looked_for_until_its_note_would_be_there() {
    for (waited, looks) in [(0, 4), (320, 3), (460, 2), (500, 1), (3_600_000, 1)] {
        let gated = Arc::new(Gated {
            store: store(),
            operations: AtomicU32::new(0),
            gate: tokio::sync::Semaphore::new(1),
        });
        let counted: Arc<dyn StateStore> = gated.clone();
        let names = Names {
            connector: "t".into(),
            by: "transport/t@one".into(),
            keep: Duration::from_secs(3600),
            content: KeptContent::None,
            trail: Some(Duration::from_secs(3600)),
            reply_queue: Some("t.reply.one".into()),
        };
        let holding = Holding::new(&names, Some(&counted)).unwrap();
        let waited = Duration::from_millis(waited);
        let found = holding.look_up("nothing", waited, &|| false).await;
        assert!(matches!(found, Ok(None)));
        let operations = gated.operations.load(Ordering::SeqCst);
        assert_eq!(operations, looks, "{waited:?}");
    }
}
