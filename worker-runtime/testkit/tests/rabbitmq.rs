//! The kit itself: both versions start, obey, restart with their data and leave nothing behind.

#![allow(clippy::unwrap_used)]

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};

async fn channel(url: &str) -> Channel {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    connection.create_channel().await.unwrap()
}

async fn whole_life(version: Version) {
    let Some(mut broker) = RabbitMq::start_or_skip(
        version,
        Options {
            tls: true,
            ..Options::default()
        },
    )
    .await
    else {
        return;
    };
    broker.add_vhost("/other", None).await.unwrap();
    broker.add_vhost("quorum", Some("quorum")).await.unwrap();
    assert!(
        broker
            .ctl(&["list_vhosts"])
            .await
            .unwrap()
            .contains("/other")
    );
    let product = broker.eval("rabbit_misc:version()").await.unwrap();
    assert!(product.contains(version.as_str()), "{product}");
    assert!(broker.ca_file().is_file());

    let url = broker.url("/other");
    let first = channel(&url).await;
    first
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    first
        .queue_declare("kept".into(), durable, FieldTable::default())
        .await
        .unwrap();
    let persistent = BasicProperties::default().with_delivery_mode(2);
    first
        .basic_publish(
            "".into(),
            "kept".into(),
            BasicPublishOptions::default(),
            b"kept",
            persistent,
        )
        .await
        .unwrap()
        .await
        .unwrap();

    // 3.10 keeps a new queue's definition in a write buffer for up to two seconds: killed earlier, it forgets the queue.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    broker.kill().await.unwrap();
    assert!(
        Connection::connect(&url, ConnectionProperties::default())
            .await
            .is_err()
    );
    broker.restart().await.unwrap();
    let second = channel(&url).await;
    let kept = second
        .basic_get("kept".into(), BasicGetOptions::default())
        .await
        .unwrap();
    assert_eq!(
        kept.expect("the message survives kill -9").delivery.data,
        b"kept"
    );
    if version == Version::V4_0 {
        let other = channel(&broker.url("quorum")).await;
        other
            .queue_declare("q".into(), durable, FieldTable::default())
            .await
            .unwrap();
        let queues = broker
            .ctl(&["list_queues", "-p", "quorum", "name", "type"])
            .await
            .unwrap();
        assert!(queues.contains("quorum"), "{queues}");
    }
    broker.close_connections().await.unwrap();
    broker.memory_alarm(true).await.unwrap();
    broker.memory_alarm(false).await.unwrap();
    broker.stop().await.unwrap();
    broker.restart().await.unwrap();
    channel(&url).await;

    // Erlang dumps its memory where it stands when it crashes, and that is not the source tree.
    let crash = broker.eval("erlang:halt(\"a crash for the test\")");
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), crash).await;
    while Connection::connect(&url, ConnectionProperties::default())
        .await
        .is_ok()
    {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(!std::path::Path::new("erl_crash.dump").exists());
}

#[tokio::test]
async fn version_3_10() {
    whole_life(Version::V3_10).await;
}

#[tokio::test]
async fn version_4_0() {
    whole_life(Version::V4_0).await;
}
