//! Messages that wait in a transport's queue, or in its journal behind another one of the same user, before it begins with them:
//! what neither the ledger nor a batch counts, but for those that came back.

use super::Reach;
use crate::audit::account_of;
use crate::state::Journal;
use vumi_api::shared::Class;
use vumi_api::{Flow, Port};

impl Reach {
    /// How many messages are ready in the queues of a transport, or stand behind the first of a lane in their journals, before
    /// it begins with them, of any batch; none where no broker or store answers that. What waits in the queue of a class has a row.
    pub(super) async fn unbegun(&self, account: &str) -> Option<u64> {
        let intake = Port::new(account, Flow::Outbound).queue();
        let mut sum = None;
        for (queue, at) in &self.queues {
            let is_class = queue
                .strip_prefix(&intake)
                .and_then(|part| part.strip_prefix('.')?.split('.').next())
                .is_some_and(|part| Class::find(part).is_some());
            if account_of(queue) != Some(account) || is_class {
                continue;
            }
            let ready = at.broker.as_ref()?.ready(queue).await.ok()?;
            let behind = match at.store {
                Some(store) => {
                    let depth = Journal::depth(&*self.stores[store], queue).await.ok()?;
                    depth.messages.saturating_sub(depth.lanes)
                }
                None => 0,
            };
            *sum.get_or_insert(0) += u64::from(ready) + behind;
        }
        sum
    }
}
