//! A broker of three nodes of which one dies, behind a Service: on profile quorum nothing is lost, nothing overtakes and the
//! flow goes on; on profile vumi the queue says that its node is away, and is whole when the node is back.

use crate::harness::campaign::Campaign;
use crate::harness::{PATIENCE, wait_for};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use vumi_core::broker::amqp::{AmqpBroker, AmqpConfig};
use vumi_core::broker::{
    Access, Broker, Confirmation, ConsumerState, EXCHANGE, Publication, PublicationClass,
    QueueSpec, Subscribe, Subscription,
};
use vumi_core::codes;
use vumi_core::conformance::oracle::{Demands, Oracle};
use vumi_core::message::UserMessage;
use vumi_testkit::forwarder::Forwarder;
use vumi_testkit::rabbitmq::{Cluster, Version};

const ECHO: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: echo}\nspec:\n  echo: {}\n  transportName: sms\n";
const USERS: usize = 20;
/// Between two messages of one user.
const PACE: Duration = Duration::from_millis(15);
/// At most so many messages are on the way: a machine that is slower than the users does not fall behind.
const ON_THE_WAY: usize = 10 * USERS;
/// After a node died, messages must come through again within: its peers choose new leaders in seconds, clients connect
/// anew, on a busy machine.
const RESUMES: Duration = Duration::from_secs(30);

/// What was confirmed and what came back.
struct Ledger {
    oracle: Mutex<Oracle>,
    /// One for each message that may still be sent before another came back.
    room: Semaphore,
    begin: Instant,
    done: AtomicBool,
}

impl Ledger {
    fn with<T>(&self, what: impl FnOnce(&mut Oracle, Duration) -> T) -> T {
        what(&mut self.oracle.lock().unwrap(), self.begin.elapsed())
    }

    /// Owed, and of these seen.
    fn progress(&self) -> (usize, usize) {
        self.with(|oracle, _| {
            let owed = oracle.judge(Demands::default()).owed;
            (owed, owed - oracle.open().len())
        })
    }

    async fn reaches(&self, what: &str, limit: Duration, seen: usize) {
        wait_for(what, limit, || async {
            match self.progress() {
                (_, now) if now >= seen => Ok(()),
                other => Err(format!("{other:?} owed and seen, {seen} wanted")),
            }
        })
        .await;
    }
}

fn connect(url: &str) -> Arc<dyn Broker> {
    AmqpBroker::connect(AmqpConfig::from_url(url).unwrap())
}

fn publication(body: &[u8]) -> Publication {
    Publication {
        exchange: EXCHANGE.into(),
        routing_key: "sms.inbound".into(),
        body: body.to_vec().into(),
        message_id: None,
        class: PublicationClass::Data,
    }
}

async fn consume(broker: &Arc<dyn Broker>, queue: &str) -> Subscription {
    let subscribe = Subscribe {
        queue: QueueSpec::Data(queue.into()),
        prefetch: 200,
        access: Access::Fenced,
        tag: "test".into(),
    };
    broker.subscribe(subscribe).await
}

/// One user, who says the next thing when the one before is confirmed and there is room.
async fn talk(broker: Arc<dyn Broker>, user: usize, ledger: Arc<Ledger>) {
    let address = format!("u{user}");
    for n in 0.. {
        if ledger.done.load(Ordering::SeqCst) {
            return;
        }
        ledger.room.acquire().await.unwrap().forget();
        let mut message = UserMessage::new("sms", Some("12345"), Some(&address));
        message.set_transport_name("sms");
        message.set_content(Some(&n.to_string()));
        let publication = publication(&message.encode());
        while broker
            .publish(publication.clone())
            .await
            .confirmation()
            .await
            != Confirmation::Confirmed
        {
            tokio::time::sleep(PACE).await;
        }
        ledger.with(|oracle, at| oracle.owe(message.message_id(), &address, at));
        tokio::time::sleep(PACE).await;
    }
}

async fn listen(mut replies: Subscription, ledger: Arc<Ledger>) {
    while let Some(delivery) = replies.deliveries.recv().await {
        let reply = UserMessage::decode(&delivery.body).unwrap();
        let (cause, output) = (reply.in_reply_to().unwrap(), reply.message_id());
        ledger.with(|oracle, at| oracle.observe(cause, "sms.outbound", output, at));
        ledger.room.add_permits(1);
        replies.acker.ack(delivery.generation, delivery.tag, true);
    }
}

async fn until(subscription: &Subscription, what: fn(&ConsumerState) -> bool) -> ConsumerState {
    let mut state = subscription.state.clone();
    match tokio::time::timeout(PATIENCE, state.wait_for(what)).await {
        Ok(state) => state.unwrap().clone(),
        Err(_) => panic!("it stays {:?}", *subscription.state.borrow()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_three_dies() {
    let Some(mut cluster) = Cluster::start_or_skip(Version::V4_0).await else {
        return;
    };
    for vhost in ["classic", "quorum"] {
        cluster.nodes[0].add_vhost(vhost, None).await.unwrap();
    }
    let service = Forwarder::to(&cluster.ports()).await.unwrap();
    let classic = service.through(&cluster.nodes[0].url("classic"));
    let quorum = service.through(&cluster.nodes[0].url("quorum"));
    let quorum = format!("{quorum}?profile=quorum");

    let single = connect(&classic);
    let mut reader = consume(&single, "sms.inbound").await;
    for body in ["1", "2"] {
        let fate = single
            .publish(publication(body.as_bytes()))
            .await
            .confirmation()
            .await;
        assert_eq!(fate, Confirmation::Confirmed);
    }
    for body in ["1", "2"] {
        assert_eq!(reader.deliveries.recv().await.unwrap().body, body);
    }

    // The first node has every connection and every leader.
    let campaign = Campaign::empty();
    let _workers = ["echo-a", "echo-b"].map(|name| campaign.worker_with(name, ECHO, &quorum));
    let ledger = Arc::new(Ledger {
        oracle: Mutex::default(),
        room: Semaphore::new(ON_THE_WAY),
        begin: Instant::now(),
        done: AtomicBool::new(false),
    });
    let (sender, receiver) = (connect(&quorum), connect(&quorum));
    let listening = tokio::spawn(listen(
        consume(&receiver, "sms.outbound").await,
        Arc::clone(&ledger),
    ));
    let talking: Vec<_> = (0..USERS)
        .map(|user| tokio::spawn(talk(Arc::clone(&sender), user, Arc::clone(&ledger))))
        .collect();
    ledger.reaches("messages flow", PATIENCE, 500).await;

    for victim in [0, 1] {
        cluster.nodes[victim].kill().await.unwrap();
        let killed = Instant::now();
        let (owed, _) = ledger.progress();
        // More than can have been on the way when it died.
        let beyond = owed + ON_THE_WAY;
        let what = format!("messages flow after the death of node {}", victim + 1);
        ledger.reaches(&what, RESUMES, beyond).await;
        eprintln!("{what}: {:.1} s", killed.elapsed().as_secs_f64());

        if victim == 0 {
            let away = |state: &ConsumerState| matches!(state, ConsumerState::Refused(..));
            let ConsumerState::Refused(code, text) = until(&reader, away).await else {
                unreachable!("waited for");
            };
            assert_eq!(code, codes::BROKER_QUEUE_DOWN.name);
            assert!(text.contains("sms.inbound"), "{text}");
            let error = single.depth("sms.inbound").await.unwrap_err();
            assert_eq!(error.code, codes::BROKER_QUEUE_DOWN);
            let fate = single.publish(publication(b"3")).await.confirmation().await;
            assert_eq!(fate, Confirmation::Nacked, "it may be tried again");
        }
        cluster.nodes[victim].restart().await.unwrap();
        cluster.formed().await.unwrap();
        ledger.with(|oracle, at| oracle.faults_ended(at));
        if victim == 0 {
            until(&reader, |state| *state == ConsumerState::Consuming).await;
            for body in ["1", "2"] {
                assert_eq!(reader.deliveries.recv().await.unwrap().body, body);
            }
        }
    }
    let (owed, _) = ledger.progress();
    ledger
        .reaches("messages flow at the end", PATIENCE, owed)
        .await;
    ledger.done.store(true, Ordering::SeqCst);
    for user in talking {
        user.await.unwrap();
    }
    wait_for("everything came back", PATIENCE, || async {
        match ledger.with(|oracle, _| oracle.open().len()) {
            0 => Ok(()),
            open => Err(format!("{open} are missing")),
        }
    })
    .await;
    let judgement = ledger.with(|oracle, _| {
        oracle.judge(Demands {
            order: true,
            within: Some(PATIENCE),
        })
    });
    eprintln!("a node of three dies, twice: {judgement}");
    judgement.require().unwrap();
    listening.abort();
}
