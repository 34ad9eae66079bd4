//! State stores: one per distinct identity, shared, opened for the first worker that uses it, closed after the last.

use super::*;
use crate::broker::{Publication, PublicationClass, QueueSpec};
use crate::parking::{Envelope, parked_queue};
use crate::state::journal::{About, Append, Due, Entry, Lane, Reason};

fn stores_of(supervisor: &Supervisor) -> Vec<String> {
    let stores = supervisor.stores().into_iter();
    stores.map(|(identity, _)| identity).collect()
}

fn uses(world: &World, key: &str, store: &str) {
    lock(&world.stores).insert(key.to_owned(), store.to_owned());
}

#[tokio::test]
async fn workers_of_one_store_share_it_and_another_address_moves_only_those_who_use_it() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    uses(&world, "application/a", "first");
    uses(&world, "application/b", "first");
    let resources = || set(&[echo("a", "a", 1), echo("b", "b", 1), echo("c", "c", 1)]);
    supervisor.apply(resources()).await;
    assert_eq!(stores_of(&supervisor), ["first"]);
    assert_eq!(world.stores_opened.load(Ordering::SeqCst), 1);
    let with_store = |key: &str| world.times(&format!("store of application/{key}"));
    assert_eq!(["a", "b", "c"].map(with_store), [1, 1, 0]);
    let text = supervisor.telemetry().render();
    assert!(text.contains("vumi_state_up{store=\"embedded\"}"), "{text}");

    uses(&world, "application/a", "second");
    supervisor.secrets_changed(BTreeMap::new()).await;
    assert_eq!(["a", "b", "c"].map(with_store), [2, 1, 0]);
    assert_eq!(stores_of(&supervisor), ["first", "second"]);
    uses(&world, "application/b", "second");
    until(
        "b followed by itself, and the first store is closed",
        async || with_store("b") == 2 && stores_of(&supervisor) == ["second"],
    )
    .await;
    assert_eq!(world.stores_opened.load(Ordering::SeqCst), 2);
    supervisor.apply(set(&[echo("c", "c", 1)])).await;
    assert_eq!(stores_of(&supervisor), [""; 0], "nobody uses one any more");
    assert_eq!(world.times("start application/c"), 1, "c was left alone");
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_worker_that_needs_a_store_waits_for_one_and_says_so() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let manifest = format!(
        "---\napiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: h}}\nspec: {{httpApi: {{idField: id}}, dedupe: {{}}, http: {{host: 127.0.0.1, port: {}}}}}\n",
        free_port()
    );
    supervisor.apply(set(&[manifest, echo("e", "h", 1)])).await;
    let waiting = snapshot(&supervisor, "transport/h").await;
    assert_eq!((waiting.state, waiting.ready), ("stalled", false));
    assert!(
        waiting.why.contains("dedupe needs a state store"),
        "{}",
        waiting.why
    );
    assert_eq!(world.times("build transport/h"), 0);
    assert_eq!(
        snapshot(&supervisor, "application/e").await.state,
        "running"
    );
    uses(&world, "transport/h", "first");
    until("it starts once there is one", async || {
        world.times("store of transport/h") == 1
    })
    .await;
    supervisor.shutdown().await;
}

#[tokio::test]
async fn parked_messages_are_put_out_when_their_time_is_over() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let manifest = echo("a", "a", 1).replace("echo: {}", "echo: {}, retention: {parked: 1h}");
    supervisor.apply(set(&[manifest])).await;
    let resources = supervisor.resources();
    let broker = supervisor.broker_of(&resources[0]).await.expect("open");
    let parking = parked_queue("a.inbound");
    broker
        .declare(&QueueSpec::Parking(parking.clone()))
        .await
        .expect("declared");
    for (body, time) in [("old", 1_000.0), ("without a time", 0.0)] {
        let envelope = Envelope {
            origin: "a.inbound".into(),
            code: "message.not_json".into(),
            reason: "no JSON".into(),
            class: "bad_input".into(),
            worker: "application/a".into(),
            attempts: 1,
            time,
            message_id: None,
            amqp_message_id: None,
            body: body.into(),
        };
        let publication = Publication {
            class: PublicationClass::Direct,
            ..envelope.publication()
        };
        let receipt = broker.publish(publication).await;
        receipt.confirmation().await;
    }
    until("the old one is gone and the other stays", async || {
        let depth = broker.depth(&parking).await.expect("read");
        depth.is_some_and(|depth| depth.ready == 1)
    })
    .await;
    let left = crate::parking::list(&*broker, "a.inbound", 10)
        .await
        .expect("listed");
    assert_eq!((left.len(), left[0].time), (1, 0.0));
    supervisor.shutdown().await;
}

#[tokio::test]
async fn what_waits_too_long_in_a_journal_ends_and_is_counted() {
    let world = Arc::new(World::default());
    uses(&world, "application/a", "first");
    let supervisor = supervisor(&world);
    let manifest = echo("a", "a", 1).replace(
        "echo: {}",
        "echo: {}, retention: {journal: 48h}, retry: {maxAge: 47h}",
    );
    supervisor.apply(set(&[manifest])).await;
    let (_, store) = supervisor.stores().pop().expect("one store");
    let metrics = supervisor.telemetry().worker("application/a");
    let counted = metrics.queue("a.inbound.p1").journal_expired;
    let now = crate::message::Timestamp::now().epoch();
    for (number, hours) in [(1, 49.0), (2, 47.0)] {
        let append = Append {
            lane: Lane {
                group: String::new(),
                number,
            },
            due: Due::Released,
            entry: Entry {
                about: About {
                    reason: Reason::Held,
                    since: ((now - hours * 3600.0) * 1e3) as u64,
                    attempts: 0,
                    counted: 0,
                    code: String::new(),
                    text: String::new(),
                    routing_key: "a.inbound".into(),
                    amqp_message_id: None,
                },
                body: "{}".into(),
            },
        };
        // Of a part of its queue, as partitions have.
        let append = store.append("a.inbound.p1", vec![append]);
        append.await.expect("appended");
    }
    let left = async || {
        let depth = store.depth("a.inbound.p1").await.expect("depth");
        depth.messages == 1
    };
    until("the old one is gone", left).await;
    until("it is counted", async || counted.get() == 1).await;
    assert!(left().await, "and the young one stays");
    supervisor.shutdown().await;
}
