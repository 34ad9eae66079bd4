//! Opening channels. The one place for it, since lapin keeps the error that ended a channel under the channel's number
//! for as long as the connection lives, and hands it to whoever gets that number next: thousands of channels later an
//! error about one queue would be told of another. Such a number is given up; when all are, the connection is.

use lapin::{Channel, Connection, Error, ErrorKind, Result};
use std::ops::Deref;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Longest wait for the broker's answer to a channel's end.
const CLOSING: Duration = Duration::from_secs(5);

/// A channel that ends when nobody has it any more. lapin's own does not where a consumer was asked for and nobody waited
/// for the answer: the broker would go on delivering to a consumer that nobody reads.
#[derive(Debug)]
pub(super) struct OpenChannel(Channel);

impl Deref for OpenChannel {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.0
    }
}

impl Drop for OpenChannel {
    fn drop(&mut self) {
        if !self.0.status().connected() {
            return;
        }
        // Where nothing runs any more, the connection ends as well.
        if let Ok(runtime) = Handle::try_current() {
            let channel = self.0.clone();
            runtime.spawn(async move {
                let _ = timeout(CLOSING, channel.close(200, "nobody reads".into())).await;
            });
        }
    }
}

/// A new channel.
pub(super) async fn open(connection: &Connection) -> Result<OpenChannel> {
    loop {
        match connection.create_channel().await {
            // Its number stays taken, so this ends.
            Err(error) if connection.status().connected() && is_stale(&error) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ChannelsLimitReached) => {
                tracing::info!("the connection to the broker has no channel left: it is replaced");
                let closing = connection.close(200, "no channel left".into());
                // Whoever keeps the connection sees its end, and makes a new one.
                let _ = closing.await;
                return Err(error);
            }
            opened => return opened.map(OpenChannel),
        }
    }
}

/// Opening a channel is answered with success or with the end of the connection: any other error is an old channel's.
fn is_stale(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ProtocolError(_) | ErrorKind::InvalidChannelState(..)
    )
}

#[cfg(test)]
mod tests {
    use super::super::errors::Trouble;
    use super::super::topology;
    use super::*;
    use lapin::ConnectionProperties;
    use lapin::options::QueueDeclareOptions;
    use lapin::types::FieldTable;
    use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};

    const CHANNELS: usize = 12;
    const ENDED: usize = 8;

    /// Most numbers ended with an error; those that are left work, and the last word is the end of the connection.
    #[tokio::test]
    async fn an_error_of_an_old_channel_is_not_told_of_a_new_one() {
        let Some(server) = RabbitMq::start_or_skip(Version::V4_0, Options::default()).await else {
            return;
        };
        let url = format!("{}?channel_max={CHANNELS}", server.url("/"));
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .unwrap();
        let there = open(&connection).await.unwrap();
        let declared = there.queue_declare(
            "there".into(),
            QueueDeclareOptions::durable(),
            FieldTable::default(),
        );
        declared.await.unwrap();
        for n in 0..ENDED {
            let channel = open(&connection).await.unwrap();
            let name = format!("missing-{n}");
            match topology::depth(&channel, &name).await {
                Err(Trouble::Missing(text)) => assert!(text.contains(&name), "{text}"),
                other => panic!("{name} is there: {other:?}"),
            }
        }
        // The numbers that are left come first, and then those that ended with an error.
        let mut opened = vec![there];
        while opened.len() < CHANNELS - ENDED {
            let channel = open(&connection).await.unwrap();
            assert!(topology::depth(&channel, "there").await.is_ok());
            opened.push(channel);
        }
        let error = open(&connection).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::ChannelsLimitReached),
            "{error}"
        );
        assert!(!connection.status().connected());
    }
}
