//! The broker suite over real RabbitMQ: 3.10, 4.0 with classic as the default queue type, 4.0 with quorum.
//! One broker of each version serves the whole binary; every rig has a virtual host of its own.

use crate::broker_suite::{PATIENCE, Rig, unique};
use async_trait::async_trait;
use lapin::options::ConfirmSelectOptions;
use std::sync::Arc;
use tokio::sync::OnceCell;
use vumi_core::broker::amqp::{AmqpBroker, AmqpConfig, Profile};
use vumi_core::broker::{Broker, LinkState};
use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};

/// The broker that tests which do it no harm share; none if it is not installed.
pub async fn shared(version: Version) -> Option<&'static RabbitMq> {
    static V3_10: OnceCell<Option<RabbitMq>> = OnceCell::const_new();
    static V4_0: OnceCell<Option<RabbitMq>> = OnceCell::const_new();
    let cell = match version {
        Version::V3_10 => &V3_10,
        Version::V4_0 => &V4_0,
    };
    let started = cell.get_or_init(|| start(version)).await;
    if started.is_none() {
        vumi_testkit::skip("RabbitMQ is not installed: run scripts/rabbitmq install");
    }
    started.as_ref()
}

/// Started on a thread with a runtime of its own, because the broker outlives the test that asks first.
async fn start(version: Version) -> Option<RabbitMq> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let _ = sender.send(runtime.block_on(RabbitMq::start(version)));
        // Child processes are reaped by the runtime that started them.
        runtime.block_on(std::future::pending::<()>());
    });
    match receiver.await.expect("the starting thread") {
        Ok(broker) => Some(broker),
        Err(vumi_testkit::rabbitmq::Error::NotInstalled(_)) => None,
        Err(error) => panic!("RabbitMQ {} does not start: {error}", version.as_str()),
    }
}

/// Waits until both connections are up.
pub async fn up(broker: &Arc<dyn Broker>) {
    let mut link = broker.link();
    let up = link.wait_for(|l| matches!(l, LinkState::Up { .. }));
    if tokio::time::timeout(PATIENCE, up).await.is_err() {
        panic!("the connection stays {:?}", *broker.link().borrow());
    }
}

/// The URL of a virtual host that is used in a profile.
pub fn in_profile(profile: Profile, url: &str) -> String {
    format!("{url}?profile={}", profile.as_str())
}

/// A connection that is up.
pub async fn connect(url: &str) -> Arc<dyn Broker> {
    let broker = AmqpBroker::connect(AmqpConfig::from_url(url).expect("url"));
    up(&broker).await;
    broker
}

/// A plain connection, and a channel of it that confirms.
pub async fn channel(url: &str) -> (lapin::Connection, lapin::Channel) {
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(url, properties);
    let connection = connection.await.expect("connection");
    let channel = connection.create_channel().await.expect("channel");
    let confirms = channel.confirm_select(ConfirmSelectOptions::default());
    confirms.await.expect("confirms");
    (connection, channel)
}

/// A virtual host of a shared broker.
pub struct VirtualHost {
    url: String,
    profile: Profile,
}

#[async_trait]
impl Rig for VirtualHost {
    async fn connect(&self) -> Arc<dyn Broker> {
        connect(&in_profile(self.profile, &self.url)).await
    }

    fn replicated(&self) -> bool {
        self.profile == Profile::Quorum
    }
}

/// A fresh virtual host; its URL.
pub async fn vhost(version: Version, default_queue_type: Option<&str>) -> Option<String> {
    let broker = shared(version).await?;
    let name = unique("vhost");
    broker
        .add_vhost(&name, default_queue_type)
        .await
        .expect("vhost");
    Some(broker.url(&name))
}

macro_rules! rig {
    ($version:ident, $default:expr, $profile:ident) => {
        match vhost(Version::$version, $default).await {
            Some(url) => VirtualHost {
                url,
                profile: Profile::$profile,
            },
            None => return,
        }
    };
}

crate::broker_suite!(rabbitmq_3_10, rig!(V3_10, None, Vumi));
crate::broker_suite!(rabbitmq_4_0_classic, rig!(V4_0, Some("classic"), Vumi));
crate::broker_suite!(rabbitmq_4_0_quorum, rig!(V4_0, Some("quorum"), Vumi));
crate::broker_suite!(rabbitmq_4_0_profile_quorum, rig!(V4_0, None, Quorum));

/// A broker for tests that harm it.
pub async fn own(version: Version, options: Options) -> Option<RabbitMq> {
    RabbitMq::start_or_skip(version, options).await
}
