//! Getting in, and what is refused: TLS with a private authority, Secrets that rotate, wrong credentials, queues that
//! exist with other properties.

use crate::amqp::{connect, in_profile, own, shared, up, vhost};
use crate::broker_suite::{
    PATIENCE, consume, consuming, data, next, number, publish, send, unique, until,
};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use vumi_api::shared::{BrokerRef, ClientTls, SecretRef};
use vumi_core::broker::amqp::{AmqpBroker, AmqpConfig, Profile};
use vumi_core::broker::{Access, Broker, Confirmation, ConsumerState, Durability, LinkState};
use vumi_core::codes;
use vumi_core::secrets::Secrets;
use vumi_testkit::rabbitmq::{Options, Version};

async fn refused(broker: &Arc<dyn Broker>, refused: bool) -> String {
    let mut link = broker.link();
    let wanted = link.wait_for(
        |l| matches!(l, LinkState::Connecting { error: Some(_), refused: r, .. } if *r == refused),
    );
    match tokio::time::timeout(PATIENCE, wanted)
        .await
        .map(|state| state.map(|s| s.clone()))
    {
        Ok(Ok(LinkState::Connecting {
            error: Some(error), ..
        })) => error,
        _ => panic!("the connection stays {:?}", *broker.link().borrow()),
    }
}

fn reference(name: &str, tls: Option<ClientTls>) -> BrokerRef {
    BrokerRef {
        secret_ref: SecretRef { name: name.into() },
        vhost: None,
        management: None,
        profile: None,
        tls,
    }
}

fn write(folder: &Path, secret: &str, pairs: &[(&str, &str)]) {
    let folder = folder.join(secret);
    std::fs::create_dir_all(&folder).expect("folder");
    for (key, value) in pairs {
        std::fs::write(folder.join(key), format!("{value}\n")).expect("file");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_private_authority() {
    for version in [Version::V3_10, Version::V4_0] {
        let options = Options {
            tls: true,
            ..Options::default()
        };
        let Some(server) = own(version, options).await else {
            return;
        };
        let url = format!("amqps://guest:guest@localhost:{}/", server.tls_port());
        let config = AmqpConfig::from_url(&url)
            .expect("url")
            .with_ca_file(server.ca_file());
        let trusting = AmqpBroker::connect(config);
        up(&trusting).await;
        let queue = unique("tls");
        send(&trusting, &queue, 1..=10).await;
        let large = publish(&trusting, data(&queue, vec![b'x'; 1 << 20])).await;
        assert_eq!(large, Confirmation::Confirmed);

        // Through a port that was forwarded: the certificate is that of the broker that is meant.
        for (host, trusted) in [("localhost", true), ("rabbit.example.net", false)] {
            let config = AmqpConfig::from_url(&format!("amqps://guest:guest@{host}:1/"))
                .expect("url")
                .with_ca_file(server.ca_file())
                .through(server.tls_port());
            let forwarded = AmqpBroker::connect(config);
            if trusted {
                up(&forwarded).await;
            } else {
                let why = refused(&forwarded, false).await;
                assert!(why.contains("certificate"), "{why}");
            }
        }

        let strict = AmqpBroker::connect(AmqpConfig::from_url(&url).expect("url"));
        let why = refused(&strict, false).await;
        assert!(why.contains("certificate"), "{why}");

        for (scheme, port, says) in [
            ("amqp", server.tls_port(), "speaks TLS"),
            ("amqps", server.port(), "does not speak TLS"),
        ] {
            let url = format!("{scheme}://guest:guest@localhost:{port}/");
            let other = AmqpBroker::connect(AmqpConfig::from_url(&url).expect("url"));
            let why = refused(&other, true).await;
            assert!(why.contains(says), "{version:?}, {scheme}: {why}");
        }

        // The same from Secrets: the authority under `ca.crt`.
        let pem = std::fs::read_to_string(server.ca_file()).expect("authority");
        let folder = tempfile::tempdir().expect("folder");
        write(folder.path(), "ca", &[("ca.crt", &pem)]);
        write(folder.path(), "broker", &[("connection_string", &url)]);
        let secrets = Arc::new(Secrets::new(BTreeMap::new(), Some(folder.path().into())));
        let tls = ClientTls {
            ca_secret_ref: Some(SecretRef { name: "ca".into() }),
        };
        let broker = AmqpBroker::connect(AmqpConfig::from_secret(
            secrets,
            &reference("broker", Some(tls)),
        ));
        up(&broker).await;
        let mut subscription = consume(&broker, &queue, 20, Access::Fenced).await;
        assert_eq!(number(&next(&mut subscription).await), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_rotate_while_running() {
    let Some(server) = own(Version::V4_0, Options::default()).await else {
        return;
    };
    let folder = tempfile::tempdir().expect("folder");
    let port = server.port().to_string();
    let layout = [
        ("host", "127.0.0.1"),
        ("port", &port),
        ("username", "guest"),
        ("password", "wrong-secret"),
    ];
    write(folder.path(), "broker", &layout);
    let secrets = Arc::new(Secrets::new(BTreeMap::new(), Some(folder.path().into())));
    let broker = AmqpBroker::connect(AmqpConfig::from_secret(secrets, &reference("broker", None)));
    let why = refused(&broker, true).await;
    assert!(!why.contains("wrong-secret"), "{why}");
    assert!(!broker.describe().contains("wrong-secret"));
    assert_eq!(broker.durability(), Durability::Process, "not known yet");

    write(folder.path(), "broker", &[("password", "guest")]);
    up(&broker).await;
    let queue = unique("rotate");
    let mut subscription = consume(&broker, &queue, 5, Access::Fenced).await;
    consuming(&subscription).await;
    send(&broker, &queue, 1..=1).await;
    let first = next(&mut subscription).await;

    // A change while connected tears nothing down; the next connection uses it.
    server
        .ctl(&["add_user", "second", "second-secret"])
        .await
        .expect("user");
    server
        .ctl(&["set_permissions", "second", ".*", ".*", ".*"])
        .await
        .expect("permissions");
    write(
        folder.path(),
        "broker",
        &[("username", "second"), ("password", "second-secret")],
    );
    assert!(subscription.acker.ack(first.generation, first.tag, false));
    send(&broker, &queue, 2..=2).await;
    let described = broker.describe();
    assert!(described.contains("//guest@"), "not moved yet: {described}");
    assert_eq!(next(&mut subscription).await.generation, first.generation);
    server.close_connections().await.expect("close");
    loop {
        let delivery = next(&mut subscription).await;
        if delivery.generation > first.generation {
            break;
        }
    }
    up(&broker).await;
    assert_eq!(
        broker.describe(),
        format!("rabbitmq amqp://second@127.0.0.1:{port}//")
    );
    let users = server
        .ctl(&["list_connections", "user", "client_properties"])
        .await
        .expect("connections");
    assert_eq!(users.matches("second\t").count(), 2, "{users}");
    assert!(
        users.contains("(publish)") && users.contains("(consume)"),
        "named: {users}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_refuses_or_lacks() {
    for version in [Version::V3_10, Version::V4_0] {
        let Some(server) = shared(version).await else {
            return;
        };
        let absent = AmqpBroker::connect(AmqpConfig::from_url(&server.url("absent")).expect("url"));
        let why = refused(&absent, true).await;
        assert!(why.contains("absent"), "{why}");
        assert!(absent.depth("x").await.is_err(), "an error is never zero");
        let stranger = server.url_as("nobody", "some-secret", "/");
        let stranger = AmqpBroker::connect(AmqpConfig::from_url(&stranger).expect("url"));
        let why = refused(&stranger, true).await;
        assert!(!why.contains("some-secret"), "{why}");
    }
    let port = vumi_testkit::free_port().expect("port");
    let nobody = AmqpConfig::from_url(&format!("amqp://127.0.0.1:{port}")).expect("url");
    refused(&AmqpBroker::connect(nobody), false).await;
    let empty = Arc::new(Secrets::default());
    let missing = AmqpBroker::connect(AmqpConfig::from_secret(empty, &reference("broker", None)));
    let why = refused(&missing, false).await;
    assert!(why.contains("Secret \"broker\""), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_and_durability() {
    let (v3, v4) = ("RabbitMQ 3.10.", "RabbitMQ 4.0.");
    for (version, profile, word, durability) in [
        (Version::V3_10, Profile::Vumi, v3, Durability::Host),
        (Version::V4_0, Profile::Vumi, v4, Durability::Process),
        (Version::V4_0, Profile::Quorum, v4, Durability::Host),
    ] {
        let Some(url) = vhost(version, None).await else {
            return;
        };
        let broker = connect(&in_profile(profile, &url)).await;
        match &*broker.link().borrow() {
            LinkState::Up { server } => assert!(server.starts_with(word), "{server}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(broker.durability(), durability);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profile_quorum_is_refused_below_rabbitmq_4() {
    let Some(url) = vhost(Version::V3_10, None).await else {
        return;
    };
    let config = AmqpConfig::from_url(&in_profile(Profile::Quorum, &url)).expect("url");
    let broker = AmqpBroker::connect(config);
    let why = refused(&broker, true).await;
    let code = codes::BROKER_TOO_OLD.name;
    assert!(
        why.starts_with(code) && why.contains("4.0 or newer, this is RabbitMQ 3.10."),
        "{why}"
    );
    let classic = connect(&url).await;
    assert_eq!(classic.depth(&unique("none")).await.expect("depth"), None);
}

#[tokio::test]
async fn that_nobody_is_there_is_said_in_every_profile() {
    for profile in [Profile::Vumi, Profile::Quorum] {
        // Port 1 is for a service that nobody runs.
        let url = in_profile(profile, "amqp://guest:guest@127.0.0.1:1/");
        let broker = AmqpBroker::connect(AmqpConfig::from_url(&url).expect("url"));
        let why = refused(&broker, false).await;
        assert!(why.contains("Connection refused"), "{profile:?}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_virtual_host_serves_one_profile() {
    for (first, second) in [
        (Profile::Vumi, Profile::Quorum),
        (Profile::Quorum, Profile::Vumi),
    ] {
        let Some(url) = vhost(Version::V4_0, None).await else {
            return;
        };
        let queue = unique("mixed");
        let (here, other) = (
            connect(&in_profile(first, &url)).await,
            connect(&in_profile(second, &url)).await,
        );
        send(&here, &queue, 1..=1).await;
        let refused = consume(&other, &queue, 5, Access::Fenced).await;
        until(&refused, |s| matches!(s, ConsumerState::Refused(..))).await;
        let vhost = url.rsplit('/').next().expect("vhost");
        let profile = format!("profile {}", second.as_str());
        let is_told = |text: &str| text.contains(&profile) && text.contains(vhost);
        match &*refused.state.borrow() {
            ConsumerState::Refused(code, text) => {
                assert_eq!(code, codes::BROKER_QUEUE_TYPE.name);
                assert!(is_told(text), "{text}");
            }
            other => panic!("{other:?}"),
        }
        let fate = publish(&other, data(&queue, "2")).await;
        assert!(
            matches!(&fate, Confirmation::Returned(why) if is_told(why)),
            "{fate:?}"
        );
        let mut reader = consume(&here, &queue, 5, Access::Fenced).await;
        assert_eq!(number(&next(&mut reader).await), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_of_another_kind_are_refused_until_cured() {
    for (version, arguments) in [
        (Version::V3_10, ("x-max-priority", AMQPValue::LongInt(5))),
        (Version::V4_0, ("x-max-priority", AMQPValue::LongInt(5))),
        (
            Version::V4_0,
            ("x-queue-type", AMQPValue::LongString("quorum".into())),
        ),
    ] {
        let Some(url) = vhost(version, Some("quorum")).await else {
            return;
        };
        let queue = unique("foreign");
        let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default())
            .await
            .expect("connection");
        let channel = connection.create_channel().await.expect("channel");
        let mut table = FieldTable::default();
        if arguments.0 == "x-max-priority" {
            table.insert(
                "x-queue-type".into(),
                AMQPValue::LongString("classic".into()),
            );
        }
        table.insert(arguments.0.into(), arguments.1);
        channel
            .queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), table)
            .await
            .expect("foreign queue");

        let broker = connect(&url).await;
        let mut subscription = consume(&broker, &queue, 5, Access::Fenced).await;
        until(&subscription, |s| matches!(s, ConsumerState::Refused(..))).await;
        match &*subscription.state.borrow() {
            ConsumerState::Refused(code, text) => {
                assert_eq!(code, codes::BROKER_QUEUE_TYPE.name);
                assert!(text.contains("inequivalent arg"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        let fate = publish(&broker, data(&queue, "1")).await;
        assert!(
            matches!(&fate, Confirmation::Returned(why) if why.contains("inequivalent")),
            "{fate:?}"
        );
        let spec = vumi_core::broker::QueueSpec::Data(queue.clone());
        let error = broker.declare(&spec).await.expect_err("declare");
        assert_eq!(error.code, codes::BROKER_QUEUE_TYPE);

        channel
            .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
            .await
            .expect("cured");
        consuming(&subscription).await;
        let mut fate = publish(&broker, data(&queue, "2")).await;
        while matches!(fate, Confirmation::Returned(_)) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            fate = publish(&broker, data(&queue, "2")).await;
        }
        assert_eq!(fate, Confirmation::Confirmed);
        assert_eq!(number(&next(&mut subscription).await), 2);
    }
}
