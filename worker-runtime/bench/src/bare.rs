//! The baseline: the fastest plain lapin loop that gives the same guarantees. Consumes, publishes persistent and
//! mandatory with confirms in flight, and acknowledges in batches only what is confirmed.

use crate::AnyError;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};

#[derive(clap::Args)]
pub struct Options {
    #[arg(long)]
    url: String,
    #[arg(long)]
    input: String,
    #[arg(long)]
    output: String,
    #[arg(long, default_value_t = 200)]
    prefetch: u16,
}

/// Runs until it is killed.
pub async fn run(options: Options) -> Result<(), AnyError> {
    let properties = ConnectionProperties::default;
    let consuming = Connection::connect(&options.url, properties()).await?;
    let publishing = Connection::connect(&options.url, properties()).await?;
    let input = consuming.create_channel().await?;
    let output = publishing.create_channel().await?;
    output
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    input
        .basic_qos(options.prefetch, BasicQosOptions::default())
        .await?;
    let mut deliveries = input
        .basic_consume(
            options.input.as_str().into(),
            "bare".into(),
            BasicConsumeOptions {
                exclusive: true,
                ..BasicConsumeOptions::default()
            },
            FieldTable::default(),
        )
        .await?;
    let mut confirms = FuturesOrdered::new();
    let batch = usize::from(options.prefetch / 4).max(1);
    let mut unacknowledged = 0usize;
    loop {
        tokio::select! {
            biased;
            Some((tag, confirm)) = confirms.next(), if !confirms.is_empty() => {
                let confirm: Result<lapin::Confirmation, lapin::Error> = confirm;
                let lapin::Confirmation::Ack(None) = confirm? else {
                    return Err("a message was returned or refused".into());
                };
                unacknowledged += 1;
                if unacknowledged >= batch || confirms.is_empty() {
                    unacknowledged = 0;
                    input.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
                }
            }
            Some(delivery) = deliveries.next() => {
                let delivery = delivery?;
                let confirm = output
                    .basic_publish(
                        "vumi".into(),
                        options.output.as_str().into(),
                        BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() },
                        &delivery.data,
                        BasicProperties::default().with_delivery_mode(2),
                    )
                    .await?;
                let tag = delivery.delivery_tag;
                confirms.push_back(async move { (tag, confirm.await) });
            }
            else => return Ok(()),
        }
    }
}
