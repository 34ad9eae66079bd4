//! What the end-to-end tests share: processes of the real binary, campaigns in temporary folders, small clients for
//! HTTP, telnet and AMQP, and waiting for conditions with deadlines.

pub mod amqp;
pub mod backlog;
pub mod campaign;
pub mod http;
pub mod operator;
pub mod process;
pub mod telnet;

use std::future::Future;
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;
use vumi_testkit::rabbitmq::{Error, Options, RabbitMq, Version};

/// Long enough for a debug build on a busy machine; a test that needs less never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `question` again until it answers; panics with `what` and the last objection after `limit`.
pub async fn wait_for<T, F>(what: &str, limit: Duration, question: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let answer = ask(limit, question).await;
    answer.unwrap_or_else(|last| panic!("{what}: not within {limit:?}; last: {last}"))
}

/// Asks `question` again until it answers; the last objection after `limit`.
pub async fn ask<T, F>(limit: Duration, mut question: impl FnMut() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let objection = match question().await {
            Ok(answer) => return Ok(answer),
            Err(objection) => objection,
        };
        process::assert_expected_live();
        if Instant::now() > deadline {
            return Err(objection);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A virtual host of its own on the RabbitMQ 4.0 that all tests of this binary share; none if it is not installed,
/// which is said loudly. Tests that stop or block the broker start their own.
pub async fn vhost(name: &str) -> Option<String> {
    vhost_with(name, None).await
}

/// Like [`vhost`], with a default queue type of its own.
pub async fn vhost_with(name: &str, default_queue_type: Option<&str>) -> Option<String> {
    let broker = shared_broker().await?;
    // The broker serves AMQP a moment before it can be told things.
    wait_for("a virtual host is made", PATIENCE, || async {
        let made = broker.add_vhost(name, default_queue_type).await;
        made.map_err(|error| error.to_string())
    })
    .await;
    Some(broker.url(name))
}

/// The RabbitMQ 4.0 that all tests of this binary share; none if it is not installed, which is said loudly.
pub async fn shared_broker() -> Option<&'static RabbitMq> {
    static BROKER: OnceCell<Result<RabbitMq, String>> = OnceCell::const_new();
    let broker = BROKER
        .get_or_init(|| async {
            match RabbitMq::start_with(Version::V4_0, Options::default()).await {
                Ok(broker) => Ok(broker),
                Err(Error::NotInstalled(reason)) => Err(reason),
                Err(error) => panic!("RabbitMQ does not start: {error}"),
            }
        })
        .await;
    match broker {
        Ok(broker) => Some(broker),
        Err(reason) => {
            vumi_testkit::skip(reason);
            None
        }
    }
}
