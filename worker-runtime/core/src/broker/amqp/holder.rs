//! Who reads a queue: whoever consumes one says its name now and then under `<queue>.holder`, and a standby listens
//! (R9). A holder that never speaks is no worker of ours (S16). Nobody waits for any of this.

use super::channels::{self, OpenChannel};
use super::errors::Trouble;
use super::fence;
use super::profile::Profile;
use super::publisher::Announcer;
use super::topology;
use crate::broker::{
    ConsumerState, EXCHANGE, LinkState, Publication, PublicationClass, QueueSpec, Subscribe,
};
use crate::codes;
use crate::message::random_id;
use futures::future::FutureExt;
use futures::stream::StreamExt;
use lapin::options::BasicConsumeOptions;
use lapin::{Connection, Consumer};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// A holder speaks so often within the silence that makes it a foreigner.
const TURNS: u32 = 18;
/// Longest name that is shown.
const LONGEST_NAME: usize = 200;

/// One consumer's share in this: its own name, and what it takes to hear the others'.
pub(super) struct Herald {
    announcer: Announcer,
    link: watch::Receiver<LinkState>,
    silence: Duration,
    queue: String,
    name: String,
    /// Only data queues have readers that stand by for each other.
    takes_part: bool,
}

impl Herald {
    pub(super) fn new(
        subscribe: &Subscribe,
        announcer: Announcer,
        link: watch::Receiver<LinkState>,
        silence: Duration,
    ) -> Self {
        Self {
            announcer,
            link,
            silence,
            queue: subscribe.queue.name().to_owned(),
            name: subscribe.tag.clone(),
            takes_part: matches!(subscribe.queue, QueueSpec::Data(_)),
        }
    }

    fn key(&self) -> String {
        format!("{}.holder", self.queue)
    }

    /// Says our name while `reading`, for as long as it is polled. Never waits for the broker: a word that cannot be
    /// said now is left out.
    pub(super) async fn speak(&self, reading: impl Fn() -> bool) {
        if !self.takes_part {
            return std::future::pending().await;
        }
        let mut turn = tokio::time::interval(self.silence / TURNS);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            if reading() {
                self.announcer.announce(Publication {
                    exchange: EXCHANGE.into(),
                    routing_key: self.key(),
                    body: self.name.clone().into_bytes().into(),
                    message_id: None,
                    class: PublicationClass::Telemetry,
                });
            }
        }
    }

    /// Begins to listen on a channel of its own. Without the permission to, the holder stays unnamed and unaccused.
    pub(super) async fn listen(&self, connection: &Connection) -> Ear {
        let mut heard = None;
        if self.takes_part {
            match self.copy(connection).await {
                Ok(consumer) => heard = Some(consumer),
                Err(trouble) => {
                    tracing::debug!(
                        queue = self.queue,
                        ?trouble,
                        "cannot hear who holds the queue"
                    );
                }
            }
        }
        Ear {
            heard,
            link: self.link.clone(),
            silence: self.silence,
            last: Instant::now(),
            holder: None,
        }
    }

    async fn copy(&self, connection: &Connection) -> Result<(Consumer, OpenChannel), Trouble> {
        let opened = channels::open(connection).await;
        let channel = opened.map_err(|e| Trouble::of(&e))?;
        let copy = QueueSpec::Copy {
            name: format!("{}.standby.{}", self.queue, random_id()),
            exchange: EXCHANGE.into(),
            keys: vec![self.key()],
        };
        // A copy is the same in every profile.
        topology::declare_to_read(&channel, Profile::default(), &copy).await?;
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        // With the consumer the queue goes.
        let heard = fence::start(&channel, copy.name(), &self.name, options).await?;
        channel.unread(None);
        Ok((heard, channel))
    }
}

/// What a standby hears of the holder.
pub(super) struct Ear {
    heard: Option<(Consumer, OpenChannel)>,
    link: watch::Receiver<LinkState>,
    silence: Duration,
    last: Instant,
    holder: Option<String>,
}

impl Ear {
    /// What to show now. Returns at once.
    pub(super) fn state(&mut self) -> ConsumerState {
        while let Some(word) = self
            .heard
            .as_mut()
            .and_then(|(h, _)| h.next().now_or_never())
        {
            match word {
                Some(Ok(word)) => {
                    self.last = Instant::now();
                    self.holder = Some(name(&word.data));
                }
                _ => self.heard = None,
            }
        }
        // While we cannot publish, a holder of ours perhaps cannot either.
        if !matches!(*self.link.borrow(), LinkState::Up { .. }) {
            self.last = Instant::now();
        }
        if self.heard.is_some() && self.last.elapsed() >= self.silence {
            self.holder = None;
            let code = codes::BROKER_FOREIGN.name.into();
            let text = format!(
                "the queue is held by a consumer that is not ours: none of our workers has said for {} s that it reads it",
                self.silence.as_secs()
            );
            return ConsumerState::Refused(code, text);
        }
        ConsumerState::Standby(self.holder.clone())
    }
}

/// Anyone may publish under the key, so the name is cut and freed of what does not belong into one line.
fn name(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let printable = text.chars().filter(|c| !c.is_control());
    printable.take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_a_line() {
        assert_eq!(
            name(b"transport/telnet@host-1\r\n"),
            "transport/telnet@host-1"
        );
        assert_eq!(name(&[b'x'; 500]).len(), LONGEST_NAME);
        assert!(!name(&[0xff, b'a']).is_empty());
    }
}
