//! Channels that RabbitMQ ends under a worker which has finished what they delivered: what comes again is acknowledged and
//! not done again, unless it may be something else.

use super::partitions::{holding_fence, scripted};
use super::*;
use crate::broker::ConsumerState;
use crate::broker::amqp::{AmqpBroker, AmqpConfig};
use crate::conformance::faults::{Faults, Mischief};
use vumi_testkit::rabbitmq::{self, RabbitMq};

const INBOUND: &str = "t.inbound";

/// A server with a virtual host for each profile; where they are.
pub(super) async fn servers() -> Option<(RabbitMq, Vec<String>)> {
    let version = rabbitmq::Version::V4_0;
    let server = RabbitMq::start_or_skip(version, rabbitmq::Options::default()).await?;
    let mut urls = Vec::new();
    for profile in ["vumi", "quorum"] {
        server.add_vhost(profile, None).await.unwrap();
        urls.push(format!("{}?profile={profile}", server.url(profile)));
    }
    Some((server, urls))
}

pub(super) fn connect(url: &str) -> Arc<dyn Broker> {
    AmqpBroker::connect(AmqpConfig::from_url(url).unwrap())
}

/// A replica that has finished some messages, and whose acknowledgements did not get to the broker.
struct Finished {
    rig: Rig,
    faults: Arc<Faults>,
    calls: Arc<AtomicU32>,
    /// What it finished.
    bodies: Vec<bytes::Bytes>,
}

impl Finished {
    async fn of(url: &str, count: u64) -> Self {
        let calls = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&calls);
        let name = scripted(move |input, cx| {
            counter.fetch_add(1, Ordering::SeqCst);
            async move { Ok(echo(&input, &cx)) }
        });
        let faults = Faults::new(connect(url));
        let setup = Setup {
            broker: faults.clone(),
            name,
            ..Setup::new(json!({}))
        };
        let rig = Rig::replica(setup, "one").await;
        faults.swallow_acks(true);
        let mut bodies = Vec::new();
        for n in 0..count {
            let mut message = UserMessage::new("sms", Some("555"), Some(&format!("u{n}")));
            message.set_transport_name("t");
            bodies.push(message.encode());
            rig.publish(INBOUND, message.encode()).await;
        }
        rig.until("all are done", |s| s.counts.done == count).await;
        while faults.acks_tried() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        faults.swallow_acks(false);
        Self {
            rig,
            faults,
            calls,
            bodies,
        }
    }

    fn called(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn done(&self, count: u64) {
        let counts = self.rig.until("done", |s| s.counts.done == count).await;
        balanced(&counts.counts);
    }

    /// Nothing is left at the broker, and so nothing comes again.
    async fn leaves_nothing(mut self, test: &Arc<dyn Broker>) {
        let running = self.rig.running.take().unwrap();
        running.stop(StopLimits::default()).await;
        self.rig.broker.close(Duration::from_secs(5)).await;
        let depth = test.depth(INBOUND).await.unwrap();
        assert_eq!(depth.map(|depth| depth.ready), Some(0));
    }
}

/// As another replica that reads the queue: it gets these, and dies with them in hand.
async fn held_by_another(test: &Arc<dyn Broker>, bodies: &[bytes::Bytes]) {
    let mut other = holding_fence(test, INBOUND).await;
    for _ in bodies {
        let next = tokio::time::timeout(Duration::from_secs(60), other.deliveries.recv());
        let delivery = next.await.expect("it gets it").unwrap();
        assert!(bodies.contains(&delivery.body));
    }
    other.acker.close();
    let closed = other.state.wait_for(|s| *s == ConsumerState::Stopped);
    tokio::time::timeout(Duration::from_secs(60), closed)
        .await
        .expect("it ends")
        .ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_finished_is_acknowledged_when_rabbitmq_ended_its_channel() {
    let Some((server, urls)) = servers().await else {
        return;
    };
    for url in urls {
        for connection in [true, false] {
            let (test, finished) = (connect(&url), Finished::of(&url, 5).await);
            if connection {
                server.close_connections().await.unwrap();
            } else {
                // Precondition failed: the broker knows of no such delivery, and ends the channel.
                for acker in finished.rig.running().ackers() {
                    // That of events may not have begun yet.
                    if let Some(generation) = acker.generation() {
                        acker.ack(generation, 1 << 40, false);
                    }
                }
            }
            let all = |s: &WorkerSnapshot| s.counts.received == 10;
            finished.rig.until("all came again", all).await;
            finished.done(10).await;
            assert_eq!(finished.called(), 5, "{url}, connection: {connection}");
            finished.rig.send("u0", "more").await;
            finished.done(11).await;
            assert_eq!(finished.called(), 6);
            finished.rig.read("t.outbound", 6).await;
            finished.leaves_nothing(&test).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_replica_had_meanwhile_is_worked_on() {
    let Some((_server, urls)) = servers().await else {
        return;
    };
    for url in urls {
        let (test, finished) = (connect(&url), Finished::of(&url, 3).await);
        finished.faults.go_away();
        let other = holding_fence(&test, INBOUND).await;
        let mut state = other.state.clone();
        let has_it = state.wait_for(|s| *s == ConsumerState::Consuming);
        tokio::time::timeout(Duration::from_secs(60), has_it)
            .await
            .expect("it takes over")
            .unwrap();
        finished.faults.come_back();
        let standby = |s: &(String, ConsumerState)| matches!(s.1, ConsumerState::Standby(_));
        let stands_by = |s: &WorkerSnapshot| s.consumers.iter().any(standby);
        finished.rig.until("it stands by", stands_by).await;
        drop(other.deliveries);
        other.acker.close();
        finished.done(6).await;
        assert_eq!(finished.called(), 6, "{url}");
        finished.leaves_nothing(&test).await;
    }
}

/// Another replica set the message aside and died, and a person sent it back; all while this one was away and saw nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_sent_back_meanwhile_is_worked_on() {
    let Some((_server, urls)) = servers().await else {
        return;
    };
    for url in urls {
        let (test, finished) = (connect(&url), Finished::of(&url, 1).await);
        finished.faults.go_away();
        let other = scripted(|_, _| async {
            let (class, code) = (ErrorClass::BadInput, codes::MESSAGE_INVALID);
            Err(WorkError::new(class, code, "another opinion"))
        });
        let setup = Setup {
            broker: connect(&url),
            name: other,
            ..Setup::new(json!({}))
        };
        let mut other = Rig::replica(setup, "two").await;
        other.until("set aside", |s| s.counts.parked == 1).await;
        let running = other.running.take().unwrap();
        running.stop(StopLimits::default()).await;
        other.broker.close(Duration::from_secs(5)).await;
        let all = parking::Selection::All;
        let back = parking::requeue(&*test, INBOUND, &all).await.unwrap();
        assert_eq!(back.done, 1);
        held_by_another(&test, &finished.bodies).await;
        finished.faults.come_back();
        finished.done(2).await;
        assert_eq!(finished.called(), 2, "{url}");
        finished.leaves_nothing(&test).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_message_that_equals_a_finished_one_is_worked_on() {
    let Some((_server, urls)) = servers().await else {
        return;
    };
    for url in urls {
        let (test, finished) = (connect(&url), Finished::of(&url, 2).await);
        finished.faults.go_away();
        for body in &finished.bodies {
            let publication = Publication {
                exchange: EXCHANGE.into(),
                routing_key: INBOUND.into(),
                body: body.clone(),
                message_id: None,
                class: PublicationClass::Data,
            };
            let receipt = test.publish(publication).await;
            let confirmed = crate::broker::Confirmation::Confirmed;
            assert_eq!(receipt.confirmation().await, confirmed);
        }
        finished.faults.come_back();
        finished.done(6).await;
        assert_eq!(finished.called(), 4, "two are new: {url}");
        finished.leaves_nothing(&test).await;
    }
}
