//! A request that waits for its reply: until it comes, or nobody waits any longer.

use super::sessions::PATIENCE;
use super::{Front, Since, first_answer};
use crate::pending::Place;
use http::header::CONTENT_TYPE;
use std::sync::Arc;
use std::time::Duration;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::UserMessage;
use vumi_core::reasons;
use vumi_core::state::Person;
use vumi_core::status::StatusLevel;
use vumi_core::telemetry::HttpSeen;
use vumi_http::{Answer, Reply, StatusCode};

/// How often a repeat looks whether its request was answered by another replica.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Front {
    /// Waits for the reply to a request that was taken over before, and whose reply may come to another replica.
    pub(super) async fn wait_again(
        &self,
        place: Place,
        message: UserMessage,
        since: Since,
    ) -> Reply {
        place.accepted();
        // Only looks: where what was seen is forgotten meanwhile, the message is with the broker all the same.
        let told = async {
            loop {
                tokio::time::sleep(ASK_AGAIN).await;
                if let Ok(before) = self.cx.seen(message.message_id()).await
                    && let Some(first) = first_answer(&before)
                {
                    return first;
                }
            }
        };
        tokio::select! {
            reply = self.wait(place, &message, since) => reply,
            first = told => first.into(),
        }
    }

    /// A request that the broker has not taken, as far as is known. Where the network waits no longer anyway, its user
    /// is told to come again, rather than cut off by an error.
    pub(super) async fn not_taken(
        &self,
        error: &WorkError,
        place: Place,
        message: &UserMessage,
        since: Since,
    ) -> Reply {
        let network = self.provider.deadline();
        let Some(deadline) = network.filter(|_| error.class == ErrorClass::Connect) else {
            return self.refuse(error);
        };
        self.log_refusal(error);
        if since.head.elapsed() >= deadline {
            self.missed(deadline);
        }
        self.cut_off(place, message, false).await
    }

    /// The network's deadline has come before the reply.
    fn missed(&self, deadline: Duration) {
        let text = format!("No reply that could be delivered arrived within {deadline:?}.");
        self.cx.http(HttpSeen::DeadlineMissed);
        self.worse("response", StatusLevel::Down, reasons::DEADLINE, text);
    }

    /// The last answer to a request that waits in vain where the network has a deadline: its user is told to come again,
    /// and the session is kept. Repeats get the same, if the broker has `taken` the message.
    async fn cut_off(&self, place: Place, message: &UserMessage, taken: bool) -> Reply {
        let (answer, session) = match self.provider.cut_off(message) {
            Ok(told) => told,
            Err(error) => return self.refuse(&error),
        };
        let kept = (taken && self.provider.has_ids()).then(|| answer.kept_or_gone());
        let known = async {
            if let Some(kept) = kept {
                let (cx, id) = (Arc::clone(&self.cx), message.message_id().to_owned());
                let person = message.from_addr().map(Person::new);
                // To its end, although the caller leaves meanwhile.
                let known = self
                    .settling
                    .spawn(async move { cx.answered(&id, kept, person).await });
                let _ = tokio::time::timeout(PATIENCE, known).await;
            }
        };
        tokio::join!(known, self.settle(session, false));
        // From now on a reply is too late, and the provider may keep it.
        drop(place);
        answer.into()
    }

    /// Waits for the reply, up to the request's deadline or the network's.
    pub(super) async fn wait(
        &self,
        mut place: Place,
        message: &UserMessage,
        since: Since,
    ) -> Reply {
        let network = self.provider.deadline();
        let own = self.request_timeout.saturating_sub(since.whole.elapsed());
        let left = network.map(|deadline| deadline.saturating_sub(since.head.elapsed()));
        let left = left.map_or(own, |left| left.min(own));
        match tokio::time::timeout(left, &mut place.reply).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) if network.is_some() => self.cut_off(place, message, true).await,
            Ok(Err(_)) => {
                let text = "The service stopped before a reply arrived; please try again.";
                let answer = Answer::error(StatusCode::SERVICE_UNAVAILABLE, text);
                answer.retry_after(1).into()
            }
            Err(_) => match network {
                Some(deadline) => {
                    self.missed(deadline);
                    self.cut_off(place, message, true).await
                }
                None => {
                    // From now on a reply is too late.
                    drop(place);
                    let limit = self.request_timeout;
                    let text =
                        format!("No reply that could be delivered arrived within {limit:?}.");
                    let answer = self.timed_out(&text);
                    self.worse("response", StatusLevel::Down, reasons::NO_RESPONSE, text);
                    answer.into()
                }
            },
        }
    }

    fn timed_out(&self, text: &str) -> Answer {
        match &self.timeout {
            (status, Some(body)) => {
                let answer = Answer::text(*status, body.clone());
                // Whoever reads replies of one type reads this as one.
                match self.provider.content_type() {
                    Some(kind) => answer.with(CONTENT_TYPE, kind),
                    None => answer,
                }
            }
            (status, None) => Answer::error(*status, text),
        }
    }
}
