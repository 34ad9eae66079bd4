//! Which exchanges and queues were declared on this connection, so that a message is only sent where it can arrive.
//! Declared on a channel of their own: a refused declaration closes its channel, and must not take messages with it.

use super::super::errors::Trouble;
use super::super::profile::Profile;
use super::super::spare::{KeptChannel, Spare};
use super::super::topology;
use crate::broker::{Confirmation, Publication, PublicationClass, QueueSpec};
use lapin::Connection;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a refused queue is not asked for again.
const REFUSED: Duration = Duration::from_secs(1);
/// The same where asking takes long, and everything else that is published waits meanwhile.
const AWAY: Duration = Duration::from_secs(10);
const LONGEST_NAME: usize = 255;

pub(super) struct Routes {
    connection: Arc<Connection>,
    profile: Profile,
    spare: Arc<Spare>,
    channel: Option<KeptChannel>,
    /// The broker refused something, and may do so again.
    was_refused: bool,
    exchanges: HashSet<String>,
    queues: HashSet<String>,
    refused: HashMap<String, (Instant, Confirmation)>,
}

impl Routes {
    pub(super) fn new(connection: &Arc<Connection>, spare: &Arc<Spare>, profile: Profile) -> Self {
        Self {
            connection: Arc::clone(connection),
            profile,
            spare: Arc::clone(spare),
            channel: None,
            was_refused: false,
            exchanges: HashSet::from([String::new()]),
            queues: HashSet::new(),
            refused: HashMap::new(),
        }
    }

    /// Declares what the message needs unless done before. Returns its fate where it cannot be sent.
    pub(super) async fn prepare(
        &mut self,
        publication: &Publication,
    ) -> lapin::Result<Option<Confirmation>> {
        if publication
            .exchange
            .len()
            .max(publication.routing_key.len())
            > LONGEST_NAME
        {
            let why = "the exchange or routing key is longer than 255 bytes";
            return Ok(Some(Confirmation::Returned(why.into())));
        }
        let data = publication.class == PublicationClass::Data;
        if self.exchanges.contains(&publication.exchange)
            && (!data || self.queues.contains(&publication.routing_key))
        {
            return Ok(None);
        }
        self.declare(publication, data).await
    }

    /// A message for this queue came back: declare it again before the next one.
    pub(super) fn forget(&mut self, queue: &str) {
        self.queues.remove(queue);
    }

    async fn declare(
        &mut self,
        publication: &Publication,
        data: bool,
    ) -> lapin::Result<Option<Confirmation>> {
        let (exchange, key) = (&publication.exchange, &publication.routing_key);
        if let Some((until, fate)) = self.refused.get(key)
            && Instant::now() < *until
        {
            return Ok(Some(fate.clone()));
        }
        let channel = match self.channel.take().filter(|c| c.status().connected()) {
            Some(channel) => channel,
            None => self.open().await?,
        };
        if !self.exchanges.contains(exchange) {
            match topology::declare_exchange(&channel, exchange).await {
                Ok(()) => {}
                Err(error) => match Trouble::of(&error) {
                    // It exists and is someone else's; whether it takes the message is its matter.
                    Trouble::Differs(_) => {
                        self.exchanges.insert(exchange.clone());
                        return Box::pin(self.declare(publication, data)).await;
                    }
                    Trouble::Denied(why) => {
                        return Ok(Some(self.refuse(key, Confirmation::Returned(why))));
                    }
                    _ => return Err(error),
                },
            }
            self.exchanges.insert(exchange.clone());
        }
        if data && !self.queues.contains(key) {
            let queue = QueueSpec::Data(key.clone());
            let declared = topology::declare_queue(&channel, self.profile, &queue).await;
            if let Err(trouble) = declared {
                tracing::debug!(?trouble, queue = key, "the queue cannot be declared");
                let fate = match trouble {
                    Trouble::Lost(why) => return Err(io::Error::other(why).into()),
                    // It is there, and its node comes back.
                    Trouble::Down(_) => Confirmation::Nacked,
                    Trouble::Missing(why)
                    | Trouble::Held(why)
                    | Trouble::Differs(why)
                    | Trouble::Denied(why) => Confirmation::Returned(why),
                    Trouble::FenceIgnored => return Ok(Some(Confirmation::Nacked)),
                };
                return Ok(Some(self.refuse(key, fate)));
            }
            self.queues.insert(key.clone());
            self.refused.remove(key);
        }
        self.channel = Some(channel);
        Ok(None)
    }

    async fn open(&self) -> lapin::Result<KeptChannel> {
        let opened = match self.was_refused {
            true => self.spare.channel(&self.connection).await,
            false => KeptChannel::open(Arc::clone(&self.connection)).await,
        };
        opened.map_err(|trouble| io::Error::other(format!("{trouble:?}")).into())
    }

    fn refuse(&mut self, key: &str, fate: Confirmation) -> Confirmation {
        self.was_refused = true;
        let now = Instant::now();
        let pause = match fate {
            Confirmation::Nacked => AWAY,
            _ => REFUSED,
        };
        self.refused.retain(|_, (until, _)| now < *until);
        let refusal = (now + pause, fate.clone());
        self.refused.insert(key.to_owned(), refusal);
        fate
    }
}
