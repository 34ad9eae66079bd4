//! Signs of life: a replica that sends says so in the store, so that a message which it has begun is not taken for lost
//! by another replica that has a copy. Given before the first message and kept up while any is in hand; an idle replica
//! writes nothing.

use super::book::{Book, Interrupted, stubborn};
use super::{Sending, Unpublished};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Between two signs.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// Whose last sign is older than this is dead, or frozen.
pub(super) const HOLD: Duration = Duration::from_secs(5);

/// When the last sign was given.
#[derive(Default)]
pub(super) struct Alive(Mutex<Option<Instant>>);

impl Alive {
    fn is_due(&self) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_none_or(|last| last.elapsed() >= BEAT)
    }

    fn given(&self, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }
}

/// Since when the store has answered without a break: while it was away nobody could give a sign of life.
#[derive(Default)]
pub(super) struct Answers(Option<Instant>);

impl Answers {
    /// It answered what was asked then; `at_once`: without a failure before.
    pub(super) fn note(&mut self, asked: Instant, at_once: bool) {
        if !at_once || asked.elapsed() >= HOLD {
            self.0 = None;
            return;
        }
        self.0.get_or_insert(asked);
    }

    /// Whether that is so long that whoever gave no sign meanwhile is dead.
    pub(super) fn are_steady(&self) -> bool {
        self.0.is_some_and(|since| since.elapsed() >= HOLD)
    }
}

impl Sending {
    /// Gives a sign, if one is due. Whoever is about to send must have given one.
    pub(super) async fn sign(
        &self,
        book: &Book,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        if !self.alive.is_due() {
            return Ok(());
        }
        let at = Instant::now();
        stubborn(interrupted, || book.store.live(book.life(), HOLD)).await?;
        self.alive.given(at);
        Ok(())
    }

    /// Gives signs while a message is in hand, until it is dropped.
    pub(in crate::engine) async fn live(&self) {
        let Some(book) = &self.book else { return };
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            if self.turns.is_idle() {
                continue;
            }
            match book.store.live(book.life(), HOLD).await {
                Ok(()) => self.alive.given(Instant::now()),
                // The next one is soon.
                Err(error) => {
                    tracing::debug!(code = %error.code, reason = %error, "no sign of life")
                }
            }
        }
    }
}
