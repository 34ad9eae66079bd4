//! A reply that came too late for its request, and is the answer to a later one.

use super::replies::WRITE_TIMEOUT;
use super::{Front, Since};
use crate::engine::{Late, message_id};
use std::sync::Arc;
use vumi_core::state::Person;
use vumi_core::worker::Traffic;
use vumi_http::Reply;

impl Front {
    /// A request whose answer is a reply that was too late for an earlier one. It is kept until it was read.
    pub(super) async fn late(&self, late: Late, since: Since) -> Reply {
        let Late {
            reply,
            provider_id,
            session,
            read,
        } = late;
        let answered = async {
            let answer = self.provider.reply(&reply)?;
            if let Some(session) = &session {
                self.provider.moved(session, false).await?;
            }
            Ok(answer)
        };
        let answer = match answered.await {
            Ok(answer) => answer,
            Err(error) => return self.refuse(&error),
        };
        let first = provider_id.map(|id| (message_id(&self.cx, &id), answer.kept_or_gone()));
        let (answer, written) = Reply::watched(answer);
        let (moves, cx) = (Arc::clone(&self.moves), Arc::clone(&self.cx));
        self.settling.spawn(async move {
            if !matches!(
                tokio::time::timeout(WRITE_TIMEOUT, written).await,
                Ok(Ok(()))
            ) {
                return;
            }
            tracing::info!(
                worker = cx.worker_name(),
                message_id = reply.message_id(),
                "a reply that came too late is what its user read now"
            );
            // Before it is forgotten: until then a repeat finds it as this request did.
            if let Some((id, kept)) = first {
                let person = reply.to_addr().map(Person::new);
                cx.answered(&id, kept, person).await;
            }
            drop(moves.add(read, false));
        });
        self.cx.traffic(Traffic::Outbound);
        self.report_time(since.whole.elapsed());
        answer
    }
}
