//! Requests and sessions that one replica of a transport holds in its process: their messages name the reply queue of
//! that replica, replies bring the name back, and whoever reads a reply for another replica hands it on to there.

use crate::message::UserMessage;
use crate::worker::{Worker, WorkerContext};

/// Key in `transport_metadata` that names the reply queue of the replica that holds what the message belongs to.
pub const HOLDER: &str = "vumi_holder";

/// The reply queue of a replica.
pub fn reply_queue(transport_name: &str, instance: &str) -> String {
    format!("{transport_name}.reply.{instance}")
}

/// Who holds what a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// This replica, or nobody: it is handled here.
    Here,
    /// The replica that has this reply queue.
    Elsewhere(String),
    /// The message does not say, and this replica does not know what it answers.
    Unsaid,
}

impl Holder {
    /// As the message says, at the replica of `transport_name` whose reply queue is `own`.
    pub fn of(message: &UserMessage, transport_name: &str, own: &str, worker: &dyn Worker) -> Self {
        // Only what answers something was held.
        let answers = message.in_reply_to().is_some_and(|id| !id.is_empty());
        if !answers || worker.holds(message) {
            return Self::Here;
        }
        let named = message.transport_metadata().and_then(|m| m.get(HOLDER));
        let Some(named) = named else {
            return Self::Unsaid;
        };
        let ours = reply_queue(transport_name, "");
        match named.as_str() {
            Some(queue) if queue != own && queue.starts_with(&ours) => {
                Self::Elsewhere(queue.to_owned())
            }
            // Never to a queue that is not ours, whatever a message says.
            _ => Self::Here,
        }
    }
}

impl WorkerContext {
    /// The reply queue of this replica.
    pub fn reply_queue(&self) -> String {
        reply_queue(self.transport_name(), self.instance())
    }

    /// Marks a message of a request or session that is held here: replies to it find this replica.
    pub fn hold(&self, message: &mut UserMessage) {
        let metadata = message.transport_metadata_mut();
        metadata.insert(HOLDER.into(), self.reply_queue().into());
    }
}
