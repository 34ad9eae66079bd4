//! Which replica a reply is for (R19): the message names it, or the trail of what it answers does. Applications of others
//! may have dropped the name.

use super::book::{Interrupted, stubborn};
use super::{Case, Names};
use crate::engine::outlet::Unpublished;
use crate::holding::{HOLDER, Holder};
use crate::message::{Message, UserMessage};
use crate::state::StateStore;
use crate::worker::{Input, Worker};
use std::sync::Arc;
use std::time::Duration;

/// The hop of what is answered is noted beside it, so a quick reply may come before: the trail is read again after these
/// waits, until it has that hop.
const LOOKS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(300),
];
/// No longer than so after the reply was delivered. What it waited behind others in its lane counts, so that many replies to
/// what nobody knows hold up their user together as long as one.
const NOTED: Duration = Duration::from_millis(500);

/// How one replica of a transport that holds requests or sessions finds the others.
pub(super) struct Holding {
    transport_name: String,
    /// Its own reply queue.
    own: String,
    /// How the trail names replicas of this worker: `transport/telnet@`.
    replicas: String,
    /// Where trails are; none where there are none.
    store: Option<Arc<dyn StateStore>>,
}

impl Holding {
    /// None for a worker that holds nothing.
    pub(super) fn new(names: &Names, store: Option<&Arc<dyn StateStore>>) -> Option<Self> {
        let (worker, _) = names.by.split_once('@')?;
        Some(Self {
            transport_name: names.connector.clone(),
            own: names.reply_queue.clone()?,
            replicas: format!("{worker}@"),
            // Without trails there is nothing to look for.
            store: store.filter(|_| names.trail.is_some()).cloned(),
        })
    }

    /// The reply queue to hand the message on to, if another replica holds what it is for. A name that was looked up is
    /// put back into the message, here and for that replica.
    pub(super) async fn elsewhere(
        &self,
        case: &mut Case,
        worker: &dyn Worker,
        input: &mut Input,
        interrupted: Interrupted<'_>,
    ) -> Result<Option<String>, Unpublished> {
        let Message::User(message) = &mut input.message else {
            return Ok(None);
        };
        match Holder::of(message, &self.transport_name, &self.own, worker) {
            Holder::Here => return Ok(None),
            Holder::Elsewhere(queue) => return Ok(Some(queue)),
            Holder::Unsaid => {}
        }
        let holder = match &case.looked_up {
            Some(holder) => holder.clone(),
            None => {
                let request = message.in_reply_to().unwrap_or_default();
                let holder = self.look_up(request, case.been_here, interrupted).await?;
                case.looked_up = Some(holder.clone());
                if let Some(holder) = &holder {
                    case.body = case.body.take().map(|body| named(&body, holder));
                }
                holder
            }
        };
        let Some(holder) = holder else {
            return Ok(None);
        };
        name(message, &holder);
        Ok((holder != self.own).then_some(holder))
    }

    /// The reply queue of the replica that took this message over and holds what it belongs to, if anybody knows it so long
    /// after the reply came.
    pub(super) async fn look_up(
        &self,
        request: &str,
        mut since: Duration,
        interrupted: Interrupted<'_>,
    ) -> Result<Option<String>, Unpublished> {
        let Some(store) = &self.store else {
            return Ok(None);
        };
        for wait in LOOKS {
            tokio::time::sleep(wait).await;
            let trail = stubborn(interrupted, || store.trail(request)).await?;
            let hops = trail.iter().rev();
            let mut ours = hops.filter(|step| step.worker.starts_with(&self.replicas));
            if let Some(hop) = ours.next() {
                return Ok(hop.holder.clone());
            }
            if interrupted() {
                return Err(Unpublished::Interrupted);
            }
            since += wait;
            if since >= NOTED {
                break;
            }
        }
        Ok(None)
    }
}

fn name(message: &mut UserMessage, holder: &str) {
    let metadata = message.transport_metadata_mut();
    metadata.insert(HOLDER.into(), holder.into());
}

/// The message as it was delivered, with the name put back.
fn named(body: &bytes::Bytes, holder: &str) -> bytes::Bytes {
    match UserMessage::decode(body) {
        Ok(mut message) => {
            name(&mut message, holder);
            message.encode()
        }
        Err(_) => body.clone(),
    }
}
