//! What follows a failed attempt: when the next one is made, and where the message waits until then.

use super::*;

/// Attempts of a message whose handling panics or fails by our own mistake.
const BUG_ATTEMPTS: u32 = 3;

/// How a failed message stands.
pub(super) struct Stay {
    /// How long it is held here.
    pub(super) held: Duration,
    /// How long ago it was delivered first.
    pub(super) age: Duration,
    /// It came out of the journal.
    pub(super) replayed: bool,
    pub(super) lane: Lane,
}

/// Attempts that were made in vain and count.
#[derive(Clone, Copy)]
pub(super) struct Made {
    /// Those that count towards `retry.maxAttempts`.
    pub(super) counted: u32,
    /// Those that failed by our own mistake, this time.
    pub(super) bugs: u32,
}

impl Made {
    /// One more. Who cannot be reached, does not know us, or asks to slow down, says nothing about the message, however long
    /// that lasts: only `retry.maxAge` ends it, or `holdLimit` where there is no store.
    pub(super) fn note(&mut self, error: &WorkError) {
        match error.class {
            ErrorClass::Bug => self.bugs += 1,
            _ if counts(error) => self.counted = self.counted.saturating_add(1),
            _ => {}
        }
    }

    /// The attempts in words: only those that count are called so, and `all` is how many there were.
    fn told(self, all: u32) -> String {
        let plural = |n: u32| if n == 1 { "" } else { "s" };
        let (counted, others) = (self.counted, all.saturating_sub(self.counted));
        match (counted, others) {
            (_, 0) => format!("{counted} attempt{}", plural(counted)),
            (0, _) => format!(
                "{others} attempt{} in which nobody judged it",
                plural(others)
            ),
            _ => format!(
                "{counted} attempt{}, and {others} in which nobody judged it",
                plural(counted)
            ),
        }
    }
}

/// Whether somebody judged the message, unless it was we who failed.
fn counts(error: &WorkError) -> bool {
    match error.class {
        // That a queue is missing, the broker itself says.
        ErrorClass::Connect => error.code == codes::ROUTE_NO_QUEUE,
        ErrorClass::Throttled(_) | ErrorClass::Auth | ErrorClass::Bug => false,
        _ => true,
    }
}

pub(super) fn reason_of(error: &WorkError) -> Reason {
    match error.class {
        ErrorClass::Throttled(_) => Reason::Throttle,
        _ => Reason::Backoff,
    }
}

impl Desk {
    /// Waits for the next attempt; true if the lane of the message is to leave the window before.
    pub(super) async fn sleep(&self, lane: Lane, wait: Duration) -> bool {
        match &self.exit {
            Some(exit) => exit.sleep(lane, wait).await,
            None => {
                tokio::time::sleep(wait).await;
                false
            }
        }
    }

    /// The first retry of a message is news, the others are not.
    pub(super) fn note_retry(
        &self,
        raw: &RawDelivery,
        error: &WorkError,
        attempt: u32,
        wait: Duration,
    ) {
        self.metrics.retried.inc();
        self.counters.retried.fetch_add(1, Ordering::Relaxed);
        let id = Message::decode(self.port.flow, &raw.body).map(|m| m.id().to_owned());
        let id = id.unwrap_or_default();
        let wait_ms = wait.as_millis() as u64;
        if attempt == 1 {
            tracing::info!(worker = self.key, queue = self.queue, message_id = id, code = %error.code, class = error.class.label(), attempt, wait_ms, reason = %error, "failed, will be tried again");
        } else {
            tracing::debug!(worker = self.key, queue = self.queue, message_id = id, code = %error.code, attempt, wait_ms, reason = %error, "failed again");
        }
    }

    pub(super) fn next(&self, error: &WorkError, attempt: u32, made: Made, stay: &Stay) -> Next {
        match error.class.disposition() {
            Disposition::Park => Next::Park(error.clone()),
            Disposition::GiveUp => Next::GiveUp(error.clone()),
            Disposition::RetryThenPark => {
                if made.bugs >= BUG_ATTEMPTS {
                    Next::Park(error.clone())
                } else {
                    Next::Again(self.policy.backoff.after(made.bugs))
                }
            }
            Disposition::Retry => {
                let wait = match error.class {
                    ErrorClass::Throttled(Some(wait)) => wait,
                    _ => self.policy.backoff.after(attempt),
                };
                let over = |code, why: &str| {
                    let attempts = made.told(attempt);
                    let text = format!("{why} after {attempts}, last: {error}");
                    let mut over = WorkError::new(error.class, code, text);
                    over.provider_code.clone_from(&error.provider_code);
                    Next::GiveUp(over)
                };
                if made.counted >= self.policy.max_attempts {
                    over(codes::RETRY_EXHAUSTED, "given up")
                } else if stay.age + wait > self.policy.max_age {
                    over(
                        codes::RETRY_EXPIRED,
                        "retried as long as retry.maxAge allows",
                    )
                } else {
                    let own = self.place(error, wait, stay).unwrap_or_else(|| {
                        over(codes::RETRY_NO_STORE, "held as long as holdLimit allows")
                    });
                    match self.is_for_failure_worker(error, &own) {
                        true => Next::External(Box::new(own)),
                        false => own,
                    }
                }
            }
        }
    }

    /// Where a message waits for its next attempt; none if there is no place for it.
    pub(super) fn place(&self, error: &WorkError, wait: Duration, stay: &Stay) -> Option<Next> {
        let short = stay.held + wait <= self.policy.hold_limit;
        let later = || Some(Next::Later(reason_of(error), wait));
        match &self.exit {
            // It stands at the head of its list, whose place in hand another can use meanwhile.
            Some(_) if stay.replayed => later(),
            Some(exit) => match exit.takes() {
                Takes::Yes if short && !exit.is_crowded(stay.lane) => Some(Next::Again(wait)),
                Takes::Yes => later(),
                Takes::Away => Some(Next::Again(wait)),
                Takes::Never => short.then_some(Next::Again(wait)),
            },
            None => short.then_some(Next::Again(wait)),
        }
    }

    /// Whether Vumi's failure worker is to have the next attempt made, rather than `own`: where somebody judged the message,
    /// or it could stay here no longer. What a queue of ours lacks is no matter of the peer's.
    fn is_for_failure_worker(&self, error: &WorkError, own: &Next) -> bool {
        self.policy.external
            && self.lasting
            && self.sending.as_ref().is_some_and(|s| s.has_rows())
            && error.code != codes::ROUTE_NO_QUEUE
            && (counts(error) || matches!(own, Next::GiveUp(_)))
    }

    /// Gives a message to Vumi's failure worker, which will put it into our queue again (R12). If it cannot be given, what
    /// becomes of it here.
    pub(super) async fn give_away(
        &self,
        raw: &RawDelivery,
        case: &mut Option<Case>,
        error: &WorkError,
        made: Made,
        own: Next,
        cause: Cause<'_>,
    ) -> Result<Option<Next>, Verdict> {
        let Some((sending, case)) = self.sending.as_ref().zip(case.as_mut()) else {
            return Ok(Some(own));
        };
        let message = UserMessage::decode(&raw.body).ok();
        let Some(mut message) = message.filter(|_| sending.may_give_away(case)) else {
            return Ok(Some(own));
        };
        // It counts this attempt by itself, and knows nothing of those that were made here because it was not there.
        let before = made.counted.saturating_sub(u32::from(counts(error)));
        if before > message.retries() {
            message.set_retries(before);
        }
        let id = message.message_id();
        let failure = FailureMessage::new(&message, FailureCode::Temporary, &error.to_string());
        let (key, body) = (
            FailureMessage::routing_key(&self.port.connector),
            failure.encode(),
        );
        // What comes back is smaller than the record, and nobody reads more.
        let why = if body.len() > MAX_BODY {
            format!("with its failure record the message has more than {MAX_BODY} bytes")
        } else {
            match self.outlet.entrust(key.clone(), body, cause).await {
                Ok(true) => {
                    self.metrics.retried.inc();
                    self.counters.retried.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(worker = self.key, queue = self.queue, message_id = id, code = %error.code, class = error.class.label(), reason = %error, "failed, given to Vumi's failure worker");
                    return Ok(None);
                }
                Ok(false) => {
                    format!("there is no queue {key}: no failure worker has ever run here")
                }
                Err(Unpublished::Interrupted) => return Err(Verdict::Returned),
                Err(Unpublished::Failed(error)) => error.text,
            }
        };
        let why = WorkError::new(ErrorClass::Connect, codes::ROUTE_NO_QUEUE, why);
        tracing::warn!(worker = self.key, queue = self.queue, message_id = id, code = %why.code, reason = %why, "Vumi's failure worker cannot be given a message: what follows is decided here");
        let corrected = sending.not_given_away(case, &why, &own, cause.interrupted);
        match corrected.await {
            Ok(()) => Ok(Some(own)),
            Err(Unpublished::Interrupted) => Err(Verdict::Returned),
            Err(Unpublished::Failed(error)) => {
                Err(self.park(raw, &error, 0, None, cause.interrupted).await)
            }
        }
    }

    /// The ledger learns that a message will be tried again.
    pub(super) async fn put_back(
        &self,
        raw: &RawDelivery,
        case: &mut Option<Case>,
        error: &WorkError,
        next: &Next,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Verdict> {
        let Some((sending, case)) = self.sending.as_ref().zip(case.as_mut()) else {
            return Ok(());
        };
        let Ok(message) = UserMessage::decode(&raw.body) else {
            return Ok(());
        };
        match sending
            .again(case, &message, error, next, interrupted)
            .await
        {
            Ok(()) => Ok(()),
            Err(Unpublished::Interrupted) => Err(Verdict::Returned),
            Err(Unpublished::Failed(error)) => {
                Err(self.park(raw, &error, 0, None, interrupted).await)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_that_is_told_is_the_one_that_decides() {
        let mut made = Made {
            counted: 0,
            bugs: 0,
        };
        let one = |class, code| WorkError::new(class, code, "no");
        for _ in 0..4 {
            made.note(&one(ErrorClass::Connect, codes::PEER_UNREACHABLE));
            made.note(&one(ErrorClass::Auth, codes::PEER_CREDENTIALS));
            made.note(&one(ErrorClass::Throttled(None), codes::PEER_THROTTLED));
        }
        assert_eq!(made.told(12), "12 attempts in which nobody judged it");
        made.note(&one(ErrorClass::RemoteTemporary, codes::PEER_FAILED));
        made.note(&one(ErrorClass::Timeout, codes::PEER_TIMEOUT));
        assert_eq!(made.counted, 2);
        assert_eq!(
            made.told(14),
            "2 attempts, and 12 in which nobody judged it"
        );
        assert_eq!(made.told(2), "2 attempts");
    }
}
