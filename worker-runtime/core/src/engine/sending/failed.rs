//! What becomes of a message whose attempt failed: another attempt, the end, parking, or waiting for a receipt because
//! nobody knows whether the peer has it (R17).

use super::*;
use std::borrow::Cow;
use vumi_api::shared::Retry;

/// What is done with a message of which nobody knows whether the peer has it (R17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum OnUnknown {
    /// A receipt is waited for so long; then it fails, or is sent again.
    Wait(Duration, UnknownThen),
    /// It has failed.
    Fail,
    /// It is sent again, at the risk of a second copy.
    Retry,
}

impl OnUnknown {
    /// As the manifest says; by default receipts are waited for where they come and can be kept account of.
    pub(super) fn of(resource: &Resource, receipts: bool, has_store: bool) -> Self {
        let written = resource.transport().and_then(|t| t.on_unknown.as_ref());
        let Some(written) = written else {
            return match receipts && has_store {
                true => OnUnknown::Wait(patience::UNKNOWN, UnknownThen::Fail),
                false => OnUnknown::Fail,
            };
        };
        let deadline = written.deadline.map_or(patience::UNKNOWN, |d| d.0);
        match written.policy {
            UnknownPolicy::Retry => OnUnknown::Retry,
            UnknownPolicy::Wait if has_store => {
                OnUnknown::Wait(deadline, written.then.unwrap_or(UnknownThen::Fail))
            }
            UnknownPolicy::Wait | UnknownPolicy::Fail => OnUnknown::Fail,
        }
    }
}

/// How often a message is sent because no receipt came: each time begins anew, with attempts of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubts {
    /// `retry.maxAttempts`: sent so often in all.
    most: u32,
    /// `retry.maxAge`; once it is sent again however old it is.
    pub(super) longest: Duration,
}

impl Doubts {
    pub(super) fn of(resource: &Resource) -> Self {
        let age = resource.settings().retry.and_then(|retry| retry.max_age);
        Self {
            most: resource.attempts(),
            longest: age.map_or(Retry::MAX_AGE, |age| age.0),
        }
    }

    /// Whether an unknown message may be sent once more.
    pub(super) fn allow(self, row: &Row, now: u64) -> bool {
        let age = Duration::from_millis(now.saturating_sub(row.born));
        row.doubts < self.most && (row.doubts <= 1 || age < self.longest)
    }
}

/// That nobody knows whether the peer has a message.
pub(super) fn unknown(why: &str) -> WorkError {
    WorkError::new(ErrorClass::Timeout, codes::FATE_UNKNOWN, why)
}

/// Where a message waits here for its next attempt, and how long; none if there is none.
fn waits(next: &Next) -> Option<(RowState, Duration)> {
    match next {
        Next::Again(wait) => Some((RowState::Queued, *wait)),
        Next::Later(_, wait) => Some((RowState::Held, *wait)),
        Next::External(_) | Next::GiveUp(_) | Next::Park(_) | Next::Wait(_) => None,
    }
}

impl Sending {
    /// What a failed attempt leads to, given what it would lead to if the message had not been begun.
    pub(in crate::engine) fn next(&self, case: &Case, error: &WorkError, next: Next) -> Next {
        let begun = case.is_sending() || self.book.is_none();
        let next = match next {
            // Where the peer was not asked, or has it already, there is nothing for the failure worker to have repeated.
            Next::External(own) if !begun => *own,
            next => next,
        };
        if case.is_told() {
            // Only telling failed: there is nothing to give up.
            return match next {
                Next::GiveUp(error) => Next::Park(error),
                next => next,
            };
        }
        match error.class {
            ErrorClass::Timeout if begun => match (self.on_unknown, next) {
                (
                    OnUnknown::Retry,
                    next @ (Next::Again(_) | Next::Later(..) | Next::External(_)),
                ) => next,
                (OnUnknown::Wait(..), _) => Next::Wait(error.clone()),
                _ => {
                    let mut error = error.clone();
                    error.code = codes::FATE_UNKNOWN;
                    Next::GiveUp(error)
                }
            },
            // It is not known how far it got, so that another attempt could make a second copy.
            ErrorClass::Bug if case.is_sending() => Next::Park(error.clone()),
            _ => next,
        }
    }

    /// It will be tried again: the peer has not taken it, or the policy is to send it again. A row of what Vumi's failure
    /// worker is about to be given says so.
    pub(in crate::engine) async fn again(
        &self,
        case: &mut Case,
        message: &UserMessage,
        error: &WorkError,
        next: &Next,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        case.room = None;
        let external = matches!(next, Next::External(_));
        let (state, wait) = match next {
            Next::External(_) => (RowState::Queued, Duration::ZERO),
            next => match waits(next) {
                Some(waits) => waits,
                None => return Ok(()),
            },
        };
        if let (ErrorClass::Throttled(after), Some(rate)) = (error.class, &self.rate) {
            rate.slow_down(message, case.sent, after).await;
        }
        let (Some(book), Some(row)) = (&self.book, case.row.clone()) else {
            return Ok(());
        };
        if !case.is_sending() {
            return Ok(());
        }
        let news = || match error.class {
            ErrorClass::Timeout => News::coded(codes::FATE_SENT_AGAIN, error.text.as_str()),
            _ => News::from(error),
        };
        let lasting = case.lasting;
        let (row, _) = book
            .advance(row, interrupted, |row| {
                let lost = standing::standing(row) == Standing::Begun;
                let from = match lasting {
                    true => row.freed(),
                    false => Cow::Borrowed(row),
                };
                let next =
                    lost.then(|| book.moved(&from, state, patience::QUEUED + wait, news()))??;
                match external {
                    true => self.given_away(book, &next, case.body.as_ref()),
                    false => Some(next),
                }
            })
            .await?;
        case.row = Some(row);
        Ok(())
    }

    /// The row of a message that Vumi's failure worker is given.
    fn given_away(&self, book: &Book, row: &Row, body: Option<&Bytes>) -> Option<Row> {
        let text = "given to Vumi's failure worker, which is to give it back";
        let news = News::coded(codes::RETRY_EXTERNAL, text);
        let patience = patience::EXTERNAL.min(self.doubts.longest);
        let next = book.moved(row, RowState::Queued, patience, news)?;
        Some(book.with_content(next, body))
    }

    /// Whether a message is to be given to Vumi's failure worker: not if somebody moved its row meanwhile.
    pub(in crate::engine) fn may_give_away(&self, case: &Case) -> bool {
        case.row.as_ref().is_some_and(Row::is_external)
    }

    /// Vumi's failure worker could not be given it: its row says where it waits instead.
    pub(in crate::engine) async fn not_given_away(
        &self,
        case: &mut Case,
        error: &WorkError,
        next: &Next,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let (Some(book), Some(row)) = (&self.book, case.row.clone()) else {
            return Ok(());
        };
        let Some((state, wait)) = waits(next) else {
            // It ends, and its row with it.
            return Ok(());
        };
        let (row, _) = book
            .advance(row, interrupted, |row| {
                let patience = patience::QUEUED + wait;
                let given = row.is_external();
                given.then(|| book.moved(row, state, patience, error.into()))?
            })
            .await?;
        case.row = Some(row);
        Ok(())
    }

    /// It is set aside: the copy is with the broker.
    pub(in crate::engine) async fn parked(
        &self,
        case: Option<Case>,
        message: Option<&UserMessage>,
        error: &WorkError,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let Some(book) = &self.book else {
            return Ok(());
        };
        let known = case.and_then(|case| case.row);
        let row = known.or_else(|| message.map(|m| book.opened(m)));
        let Some(row) = row else { return Ok(()) };
        book.advance(row, interrupted, |row| {
            let told = standing::standing(row) == Standing::Told;
            (!told).then(|| book.moved(row, RowState::Parked, patience::PARKED, error.into()))?
        })
        .await?;
        Ok(())
    }

    /// Nobody knows whether the peer has it: that is written down, its sender is told that it is pending, and the
    /// delivery ends. A receipt, or the deadline, decides.
    pub(in crate::engine) async fn wait(
        &self,
        case: &mut Case,
        error: &WorkError,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let (Some(book), Some(row)) = (&self.book, case.row.clone()) else {
            return Ok(());
        };
        let OnUnknown::Wait(deadline, then) = self.on_unknown else {
            return Ok(());
        };
        let mut pending = self.event(Event::delivery_report(
            &row.message_id,
            "",
            DeliveryStatus::Pending,
        ));
        pending.set_fate(&Fate {
            state: crate::message::FateState::Unknown,
            class: FailureClass::Ours.as_str().to_owned(),
            code: error.code.name.to_owned(),
            text: error.text.clone(),
            who: Actor::Nobody.as_str().to_owned(),
            attempt: row.attempt,
            is_final: false,
        });
        let (row, moved) = book
            .advance(row, interrupted, |row| {
                if standing::standing(row) != Standing::Begun {
                    return None;
                }
                let mut next = book.moved(row, RowState::Unknown, deadline, error.into())?;
                let body = String::from_utf8_lossy(&pending.encode()).into_owned();
                if !next.told.contains(&body) {
                    next.told.push(body);
                }
                if then == UnknownThen::Retry {
                    // The keeper has no other than the row's.
                    let body = case.body.as_deref().map(Content::of);
                    next.body = body.or(next.body.take());
                }
                Some(book.with_content(next, case.body.as_ref()))
            })
            .await?;
        if moved {
            self.metrics.unknown.inc();
        }
        case.row = Some(row);
        self.tell_again(case, book, interrupted).await
    }
}
