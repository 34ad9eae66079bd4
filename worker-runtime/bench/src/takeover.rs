//! How long nobody handles a fenced queue after the replica that did was killed or frozen, with a standby beside it.

use crate::AnyError;
use crate::process::{Measured, until_ready, vumi_worker};
use crate::report::{Report, median};
use crate::rig::{ANSWERED, ECHO, Rig, channel, message};
use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use std::time::{Duration, Instant};
use vumi_core::message::UserMessage;
use vumi_testkit::free_port;

/// Seconds between heartbeats: fewer than the default, so that rows take less time.
const HEARTBEAT: f64 = 4.0;
/// Runs for one value, at most.
const TRIES: usize = 5;

/// The rows of this file.
pub async fn rows(report: &mut Report, rig: &Rig, runs: usize) -> Result<(), AnyError> {
    for profile in ["vumi", "quorum"] {
        let vhost = format!("takeover-{profile}");
        rig.broker().add_vhost(&vhost, None).await?;
        let url = format!(
            "{}?profile={profile}&heartbeat={HEARTBEAT}",
            rig.broker().url(&vhost)
        );
        let plain = rig.broker().url(&vhost);
        let (mut killed, mut frozen) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            killed.push(takeover(&url, &plain, false).await?);
            frozen.push(after_a_freeze(&url, &plain).await?);
        }
        let killed = median(killed);
        report.row(
            &format!("takeover after kill -9, profile `{profile}`"),
            format!("{killed} s"),
            "≤ 0.1 s",
            Some(killed.value <= 0.1),
        );
        let frozen = median(frozen);
        report.row(
            &format!("takeover after a freeze, profile `{profile}`, × heartbeat"),
            frozen.to_string(),
            "≤ 3",
            // To the hundredth, as it is printed: the broker itself waits for three heartbeats.
            Some(frozen.value < 3.005),
        );
    }
    Ok(())
}

async fn replica(url: &str) -> Result<Measured, AnyError> {
    let admin = format!("127.0.0.1:{}", free_port()?);
    let port = admin.rsplit(':').next().unwrap_or_default().parse()?;
    let process = vumi_worker(ECHO, &["--broker", url, "--admin", &admin])?;
    until_ready(port, "/readyz").await?;
    Ok(process)
}

/// Heartbeats from the freeze of the holder to the first answer of the standby. A run that measured something else is made again.
async fn after_a_freeze(url: &str, plain: &str) -> Result<f64, AnyError> {
    for _ in 0..TRIES {
        let gap = takeover(url, plain, true).await? / HEARTBEAT;
        if is_takeover(gap) {
            return Ok(gap);
        }
        eprintln!("after {gap:.2} heartbeats no broker takes a queue away: this run is made again");
    }
    Err(format!("in {TRIES} runs the queue was never taken over after a freeze").into())
}

/// Whether so many heartbeats can be a takeover: the broker takes nothing away before two were missed. Sooner, the holder
/// answered before it stood still, or another replica held the queue.
fn is_takeover(heartbeats: f64) -> bool {
    heartbeats >= 1.0
}

/// Seconds from the loss of the holder to the first answer of the standby.
async fn takeover(url: &str, plain: &str, freeze: bool) -> Result<f64, AnyError> {
    let holder = replica(url).await?;
    let channel = channel(plain).await?;
    let mut answers = channel
        .basic_consume(
            ANSWERED.output.into(),
            "answers".into(),
            BasicConsumeOptions {
                no_ack: true,
                ..BasicConsumeOptions::default()
            },
            FieldTable::default(),
        )
        .await?;
    let asked = publish(&channel).await?;
    answered(&mut answers, &asked).await?;
    let standby = replica(url).await?;
    let began = Instant::now();
    let frozen = match freeze {
        true => {
            holder.signal("STOP").await?;
            Some(holder)
        }
        false => {
            holder.stop().await;
            None
        }
    };
    let asked = publish(&channel).await?;
    answered(&mut answers, &asked).await?;
    let gap = began.elapsed().as_secs_f64();
    standby.stop().await;
    if let Some(holder) = frozen {
        holder.stop().await;
    }
    channel.close(200, "done".into()).await?;
    Ok(gap)
}

/// Until the reply to this message comes; a late one to another is not it.
async fn answered(answers: &mut Consumer, asked: &UserMessage) -> Result<(), AnyError> {
    let answer = async {
        while let Some(answer) = answers.next().await {
            let answer = UserMessage::decode(&answer?.data)?;
            if answer.in_reply_to() == Some(asked.message_id()) {
                return Ok(());
            }
        }
        Err(AnyError::from("the broker ended the consumer"))
    };
    tokio::time::timeout(Duration::from_secs(60), answer)
        .await
        .map_err(|_| "nobody took over within 60 s")?
}

async fn publish(channel: &Channel) -> Result<UserMessage, AnyError> {
    let message = message("12345", "27820000001");
    channel
        .basic_publish(
            "vumi".into(),
            ANSWERED.input.into(),
            BasicPublishOptions::default(),
            &message.encode(),
            Default::default(),
        )
        .await?
        .await?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::is_takeover;

    #[test]
    fn what_came_before_the_broker_missed_anything_is_no_takeover() {
        assert!(!is_takeover(0.0) && !is_takeover(0.5));
        assert!(is_takeover(2.0) && is_takeover(3.0));
    }
}
