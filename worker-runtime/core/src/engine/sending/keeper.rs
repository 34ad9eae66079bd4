//! Looks after a transport's ledger while it runs: ends what waited too long, counts rows, and says how it stands.

use super::alive::Answers;
use super::book::{Interrupted, News, now, stubborn};
use super::{OnUnknown, Sending, Unpublished, alive, patience, standing, unknown};
use crate::broker::ConsumerState;
use crate::clock::millis;
use crate::codes;
use crate::engine::forwarded::Replies;
use crate::engine::marks::Mark;
use crate::error::WorkError;
use crate::message::{Event, FateState};
use crate::reasons::{self, Reason};
use crate::state::ledger::{Content, LeftTo, Put, Row, RowState};
use crate::status::{StatusDesk, StatusLevel, StatusReport};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vumi_api::Flow;
use vumi_api::Port;
use vumi_api::shared::UnknownThen;

/// Rows are looked at so often.
const TICK: Duration = match cfg!(test) {
    true => Duration::from_millis(50),
    false => Duration::from_secs(1),
};
/// Rows looked at in one turn.
pub(super) const AT_ONCE: usize = 1000;
/// Rows that are left to a person, looked at from time to time for what they need not keep.
const FEW: usize = 10;
const FORGETS: Duration = Duration::from_secs(10);

/// A mark that stands behind others for so long: those have more time.
const SLOW: Duration = Duration::from_secs(5);

/// How far the look-out is.
#[derive(Default)]
pub(super) struct Round {
    /// So many overdue rows were looked at and left.
    from: usize,
    /// The same of those that are left to a person, and when some of them were looked at.
    alarms_from: usize,
    forgot: Option<Instant>,
    answers: Answers,
    /// A mark under way in our own reply queue, and when it was sent: for us, and in milliseconds since 1970.
    mark: Option<(Mark, Instant, u64)>,
    /// What was in our own reply queue then has come.
    swept: Option<u64>,
    /// Which holders have a queue, as far as was asked in this look.
    holders: HashMap<String, Option<bool>>,
    /// Messages whose rows cannot be read, of which that was said.
    unreadable: HashSet<String>,
}

/// The look-out of one transport.
pub(in crate::engine) struct Keeper {
    pub(in crate::engine) sending: Arc<Sending>,
    pub(in crate::engine) status: Arc<StatusDesk>,
    /// The reply queue of this replica, if it holds anything.
    pub(in crate::engine) replies: Option<Arc<Replies>>,
    /// Its consumers: a standby leaves the ledger alone.
    pub(in crate::engine) consumers: Vec<watch::Receiver<ConsumerState>>,
    /// Fires when the worker gives up whatever still waits.
    pub(in crate::engine) abandoned: CancellationToken,
}

impl Keeper {
    /// Runs until it is dropped.
    pub(in crate::engine) async fn run(self) {
        let Some(book) = &self.sending.book else {
            let text = "there is no state store: a message that comes again may be sent again, and `vumi why` knows nothing of it";
            self.report(StatusLevel::Ok, reasons::LEDGER_OFF, text);
            return self.watch_rate().await;
        };
        self.report(
            StatusLevel::Ok,
            reasons::LEDGER_ON,
            "every message has a row",
        );
        let mut turn = tokio::time::interval(TICK);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut round = Round::default();
        let mut ours = false;
        loop {
            turn.tick().await;
            self.rate().await;
            if !self
                .consumers
                .iter()
                .any(|c| *c.borrow() == ConsumerState::Consuming)
            {
                round = Round::default();
                if std::mem::take(&mut ours) {
                    self.leave();
                }
                continue;
            }
            ours = true;
            let interrupted = || self.abandoned.is_cancelled();
            let looked = self.look(book, &mut round, &interrupted).await;
            match looked {
                Ok(0) => self.report(
                    StatusLevel::Ok,
                    reasons::LEDGER_ON,
                    "every message has a row",
                ),
                Ok(overdue) => {
                    let text = format!(
                        "{overdue} messages are without news for too long: `vumi ledger overdue` lists them"
                    );
                    self.report(StatusLevel::Degraded, reasons::OVERDUE, &text);
                }
                Err(Unpublished::Interrupted) => return,
                Err(Unpublished::Failed(error)) => {
                    tracing::debug!(code = %error.code, reason = %error, "the ledger cannot be looked at");
                }
            }
        }
    }

    /// Whoever reads the queue counts the rows from now on: nothing of what was counted here may stand beside that.
    fn leave(&self) {
        let metrics = &self.sending.metrics;
        for state in RowState::ALL {
            metrics.ledger_rows(state.as_str(), 0);
        }
        metrics.ledger_overdue.set(0);
        let text = "every message has a row; the replica that reads the queue looks after them";
        self.report(StatusLevel::Ok, reasons::LEDGER_ON, text);
    }

    async fn watch_rate(&self) {
        let mut turn = tokio::time::interval(TICK);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            self.rate().await;
        }
    }

    async fn rate(&self) {
        if let Some(rate) = &self.sending.rate {
            rate.report(&self.status).await;
        }
    }

    /// Handles what is overdue, the next page of it; how many rows still are.
    pub(super) async fn look(
        &self,
        book: &super::Book,
        round: &mut Round,
        interrupted: Interrupted<'_>,
    ) -> Result<u64, Unpublished> {
        let sending = &self.sending;
        let began = Instant::now();
        // If the look fails, they begin anew.
        let mut answers = std::mem::take(&mut round.answers);
        round.holders.clear();
        if let (Some(own), Some((mark, _, at))) = (&self.replies, round.mark)
            && own.marks().has_arrived(mark)
        {
            round.swept = Some(at);
            round.mark = None;
        }
        let page = |left_to, from, limit| book.store.overdue(book.account(), left_to, from, limit);
        let (count, ids) = page(LeftTo::Rules, round.from, AT_ONCE).await?;
        // Those are counted, however many they are.
        let (alarms, few) = page(LeftTo::Person, round.alarms_from, FEW).await?;
        answers.note(began, true);
        let mut answered = Instant::now();
        // Rows that need time must not hide others: the next turn looks behind a full page.
        round.from = match ids.len() {
            AT_ONCE => round.from + AT_ONCE,
            _ => 0,
        };
        let mut handled = 0;
        for id in ids {
            let asked = Instant::now();
            let loaded = book.load(&id, interrupted).await;
            // A failure before shows by the time that it took only. A look may take long, if there is much to end.
            let at_once = asked.elapsed() < alive::BEAT;
            answers.note(answered, at_once);
            answered = Instant::now();
            let row = match loaded {
                Ok(Some(row)) => row,
                Ok(None) => continue,
                Err(Unpublished::Failed(error)) => {
                    // It stays overdue, and those behind it go on.
                    if round.unreadable.insert(id.clone()) {
                        sending.metrics.error(&error);
                        tracing::warn!(message_id = id, code = %error.code, reason = %error, "the row of a message cannot be read");
                    }
                    continue;
                }
                Err(interrupted) => return Err(interrupted),
            };
            let is_over = row.deadline.is_some_and(|deadline| deadline <= now());
            let is_judged = standing::sender(&row).is_none() || answers.are_steady();
            let done = match is_over && is_judged {
                false => false,
                true => self.judge(book, round, row, interrupted).await?,
            };
            handled += u64::from(done);
        }
        if round.forgot.is_none_or(|at| at.elapsed() >= FORGETS) {
            round.forgot = Some(Instant::now());
            round.alarms_from = match few.len() {
                FEW => round.alarms_from + FEW,
                _ => 0,
            };
            for id in few {
                if let Ok(Some(row)) = book.load(&id, interrupted).await
                    && row.is_external()
                {
                    sending.forget_content(book, &row, interrupted).await?;
                }
            }
        }
        for ((account, state), rows) in book.store.counts().await? {
            if account == book.account() {
                sending.metrics.ledger_rows(state.as_str(), rows);
            }
        }
        answers.note(answered, true);
        round.answers = answers;
        let overdue = count.saturating_sub(handled) + alarms;
        sending
            .metrics
            .ledger_overdue
            .set(i64::try_from(overdue).unwrap_or(i64::MAX));
        Ok(overdue)
    }

    /// Handles a row whose time is over; false if it stays overdue.
    async fn judge(
        &self,
        book: &super::Book,
        round: &mut Round,
        row: Row,
        interrupted: Interrupted<'_>,
    ) -> Result<bool, Unpublished> {
        let (sending, id) = (&self.sending, &row.message_id);
        let own = self.replies.as_ref();
        let in_hand = sending.turns.is_busy(id) || own.is_some_and(|own| own.has(id));
        let Some(holder) = standing::holder(&row) else {
            // Whoever works on it here decides.
            return match in_hand {
                true => Ok(sending.is_under_way(book, &row, interrupted).await?
                    && sending.give_time(book, &row, interrupted).await?),
                false => sending.end_wait(book, row, interrupted).await,
            };
        };
        let lost = match in_hand {
            true => Some(false),
            false => self.is_lost(round, holder, &row).await,
        };
        match lost {
            // The next look knows.
            None => {}
            Some(true) => return sending.end_wait(book, row, interrupted).await,
            Some(false) => {
                let more = row.waiting(now(), patience::FORWARDED);
                book.put(&row, &more, interrupted).await?;
            }
        }
        Ok(true)
    }

    /// Whether the only copy of a message is lost with the reply queue of its holder. None: it is not known yet.
    async fn is_lost(&self, round: &mut Round, holder: &str, row: &Row) -> Option<bool> {
        let Some(own) = self.replies.as_ref().filter(|own| own.queue() == holder) else {
            return self.is_gone(round, holder, row).await;
        };
        // It is not in hand. If it has not come although a mark has that was sent long after it, the broker lost it with a
        // life of our queue, or an earlier process of our name had it.
        let given = row.since();
        let long = millis(patience::FORWARDED);
        if round.swept >= Some(given.saturating_add(long)) {
            return Some(true);
        }
        match round.mark {
            Some((mark, sent, _)) if !own.marks().is_lost(mark) => {
                (sent.elapsed() >= SLOW).then_some(false)
            }
            _ => {
                let (sent, at) = (Instant::now(), now());
                round.mark = Some((own.marks().send().await, sent, at));
                None
            }
        }
    }

    /// The same of another replica, which gives its messages more time itself as long as it can.
    async fn is_gone(&self, round: &mut Round, holder: &str, row: &Row) -> Option<bool> {
        let hold = millis(alive::HOLD);
        if row.deadline.unwrap_or_default().saturating_add(hold) > now() {
            return None;
        }
        if let Some(known) = round.holders.get(holder) {
            return *known;
        }
        let gone = match self.sending.outlet.is_there(holder).await {
            Ok(is_there) => Some(!is_there),
            Err(error) => {
                tracing::debug!(queue = holder, code = %error.code, reason = %error, "it is not known whether a holder is there");
                None
            }
        };
        round.holders.insert(holder.to_owned(), gone);
        gone
    }

    fn report(&self, level: StatusLevel, reason: Reason, text: &str) {
        self.status
            .report(StatusReport::new("ledger", level, reason, text));
    }
}

impl Sending {
    /// Ends the wait of an overdue row; false if only a person can.
    pub(super) async fn end_wait(
        &self,
        book: &super::Book,
        row: Row,
        interrupted: Interrupted<'_>,
    ) -> Result<bool, Unpublished> {
        let again = matches!(self.on_unknown, OnUnknown::Wait(_, UnknownThen::Retry));
        if standing::being_told(&row).is_some() {
            self.end(book, row, None, interrupted).await?;
            return Ok(true);
        }
        match row.state {
            // Its only copy is gone.
            _ if standing::holder(&row).is_some() => {
                let nack = self.holder_gone(&row.message_id, row.attempt);
                self.end(book, row, Some(nack), interrupted).await?;
            }
            RowState::Unknown if again && row.body.is_some() && self.doubts.allow(&row, now()) => {
                self.send_back(book, row, interrupted).await?;
            }
            // The failure worker may be slow, or not run, and what it gave back waits in our queue without a word in the row:
            // it is an alarm, and a person is to look ([`LeftTo::Person`]).
            RowState::Queued if row.is_external() => return Ok(false),
            RowState::Queued if row.body.is_some() => {
                self.send_back(book, row, interrupted).await?;
            }
            RowState::Unknown => {
                let error =
                    unknown("no receipt came in time: nobody knows whether the peer has it");
                let nack = self.failed(&row, &error);
                self.end(book, row, Some(nack), interrupted).await?;
            }
            // Whoever sends it will say what came of it.
            RowState::Sending if self.is_under_way(book, &row, interrupted).await? => {
                return self.give_time(book, &row, interrupted).await;
            }
            // Nobody works on it, and it did not come again: its process ended, and its queue with it.
            RowState::Sending => {
                let error = unknown("the process that sent it ended without an answer");
                if matches!(self.on_unknown, OnUnknown::Wait(..)) {
                    if let Some(mut case) = self.case_of(&row.message_id) {
                        case.row = Some(row);
                        self.wait(&mut case, &error, interrupted).await?;
                    }
                    return Ok(true);
                }
                let nack = self.failed(&row, &error);
                self.end(book, row, Some(nack), interrupted).await?;
            }
            RowState::Sent => {
                let text = "no receipt came; none is expected any more";
                let news = || News::coded(codes::RECEIPT_MISSING, text);
                book.advance(row, interrupted, |row| {
                    let waits = row.state == RowState::Sent;
                    waits.then(|| book.moved(row, RowState::SentFinal, Duration::ZERO, news()))?
                })
                .await?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether we are sending it, or another replica that lives is.
    async fn is_under_way(
        &self,
        book: &super::Book,
        row: &Row,
        interrupted: Interrupted<'_>,
    ) -> Result<bool, Unpublished> {
        match standing::sender(row) {
            Some(sender) if sender == book.life() => Ok(self.turns.is_busy(&row.message_id)),
            Some(sender) => stubborn(interrupted, || book.store.lives(sender)).await,
            None => Ok(false),
        }
    }

    /// Gives more time to who is sending a message that dies with it; false if it had all of it, or its clock was stepped.
    async fn give_time(
        &self,
        book: &super::Book,
        row: &Row,
        interrupted: Interrupted<'_>,
    ) -> Result<bool, Unpublished> {
        let (now, until) = (now(), standing::sent_until(row));
        if until <= row.deadline.max(Some(now)) {
            return Ok(false);
        }
        let next = row.waiting(now, patience::FORWARDED);
        // Whoever moved it meanwhile has said what came of it.
        book.put(row, &next, interrupted).await?;
        Ok(true)
    }

    /// Drops the content of a row that may never end, once one that ended would be gone with its row.
    async fn forget_content(
        &self,
        book: &super::Book,
        row: &Row,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let keep = millis(book.keep());
        if row.body.is_some() && row.since().saturating_add(keep) <= now() {
            // Whoever moved it meanwhile knows more.
            let next = row.without_content();
            book.put(row, &next, interrupted).await?;
        }
        Ok(())
    }

    fn failed(&self, row: &Row, error: &WorkError) -> Event {
        let fate = error.fate(FateState::Failed, row.attempt);
        self.event(Event::nack(&row.message_id, &fate))
    }

    /// Tells the sender how a message ended. Written down first where it is found again, since nothing brings it back
    /// if this process dies.
    async fn end(
        &self,
        book: &super::Book,
        row: Row,
        nack: Option<Event>,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let Some(mut case) = self.case_of(&row.message_id) else {
            return Ok(());
        };
        let mut row = row;
        if let Some(nack) = nack {
            self.leave_unanswered(&row, &nack, interrupted).await?;
            let Some(next) = self.answered(book, &row, std::slice::from_ref(&nack), false) else {
                return Ok(());
            };
            // Where it leads says whether that is kept.
            let next = Row {
                body: next.body.or_else(|| row.body.clone()),
                ..next
            };
            match book.put(&row, &next, interrupted).await? {
                Put::Stored => row = next,
                // Somebody else knows better.
                Put::Conflict(_) => return Ok(()),
            }
            self.note_nack(&nack);
        }
        case.row = Some(row);
        self.tell_again(&mut case, book, interrupted).await
    }

    /// Publishes a message again to its own queue, to be sent again.
    async fn send_back(
        &self,
        book: &super::Book,
        row: Row,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let Some(mut message) = row.body.as_ref().and_then(Content::message) else {
            return Ok(());
        };
        message.forget_retries();
        let next = match row.state {
            // Somebody was about to publish it.
            RowState::Queued => Some(row.waiting(now(), patience::SENT_BACK)),
            _ => {
                let text = "no receipt came in time: to be sent again";
                let news = News::coded(codes::FATE_SENT_AGAIN, text);
                book.moved(&row, RowState::Queued, patience::SENT_BACK, news)
            }
        };
        let Some(mut next) = next else { return Ok(()) };
        next.body.clone_from(&row.body);
        if let Put::Conflict(_) = book.put(&row, &next, interrupted).await? {
            return Ok(());
        }
        let queue = Port::new(&self.connector, Flow::Outbound).queue();
        let (id, body) = (message.message_id(), message.encode());
        // If no queue takes it, the row is overdue again soon.
        if self.outlet.offer(&queue, id, body, interrupted).await? {
            let given = next.published(now(), patience::CLASS);
            // Whoever moved it meanwhile has the message.
            book.put(&next, &given, interrupted).await?;
        }
        Ok(())
    }
}
