//! Everything before a worker sees a message: what was done with it before, the replica that holds its request, its turn
//! under the rate limit, and the word in the ledger that it is being sent.

use super::alive::Answers;
use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// Between two looks at what another replica is sending.
const LOOK: Duration = Duration::from_millis(250);

/// What became of a reply that was to be handed to the replica that holds its request or session.
enum Forwarded {
    /// That replica has it, or its sender was told that there is none.
    Done,
    /// Somebody moved its row meanwhile, to this one.
    Moved(Row),
    /// That replica has no queue any more, and had begun to send it, as this row says.
    Lost(Row),
}

impl Sending {
    /// Everything before the worker sees the message: what was done with it before, the replica that holds its request,
    /// its turn under the rate limit, and the word in the ledger that it is being sent.
    pub(in crate::engine) async fn before(
        &self,
        case: &mut Case,
        worker: &dyn Worker,
        input: &mut Input,
        halt: &CancellationToken,
        interrupted: Interrupted<'_>,
    ) -> Result<Before, Unpublished> {
        let elsewhere = match &self.holding {
            Some(holding) => holding.elsewhere(case, worker, input, interrupted).await?,
            None => None,
        };
        let message = input.to_deliver()?;
        let labels = Labels::of(&input.message);
        let Some(book) = &self.book else {
            if let Some(holder) = elsewhere {
                let (id, body) = (message.message_id(), case.body.clone().unwrap_or_default());
                if !self.outlet.offer(&holder, id, body, interrupted).await? {
                    let gone = self.holder_gone(message.message_id(), input.attempt);
                    self.note_nack(&gone);
                    self.outlet.publish(self.output(gone), interrupted).await?;
                }
                return Ok(Before::Nothing);
            }
            self.wait_for_turn(case, worker, message, &labels, halt)
                .await?;
            return Ok(Before::Send);
        };
        // With classes the intake opened a row.
        if case.row.is_none() && (case.redelivered || self.default_class.is_some()) {
            case.row = book.load(message.message_id(), interrupted).await?;
        }
        let (mut paced, mut lost) = (false, false);
        loop {
            let order = self.order(&labels, interrupted).await?;
            // What was handed on before the pause has no other copy and no journal: held here, it would fill our window, and
            // replies to all others would wait behind it.
            let order = order.filter(|order| case.lasting || *order != Order::Pause);
            let mut row = match case.row.take() {
                // It was handed over before; perhaps the process ended before it was published.
                Some(row)
                    if row.account != book.account()
                        && order == Some(Order::Reroute(row.account.clone())) =>
                {
                    if standing::standing(&row) == Standing::Free {
                        self.hand_over(&row.account, case, interrupted).await?;
                    }
                    return Ok(Before::Nothing);
                }
                Some(row) => row,
                None => book.opened(message),
            };
            let standing = standing::standing(&row);
            // Somebody routed it here that another transport had. What that one sent or ended stays its own.
            if matches!(standing, Standing::Free)
                || (standing == Standing::SetAside && !case.redelivered)
            {
                row = book.taken(row, message);
            }
            match standing {
                Standing::Free => {
                    if let Some(order) = order {
                        let what = (book, row);
                        match self.obey(order, case, what, &labels, interrupted).await? {
                            Before::Again => continue,
                            obeyed => return Ok(obeyed),
                        }
                    }
                }
                Standing::Told => {
                    case.row = Some(row);
                    self.tell_again(case, book, interrupted).await?;
                    return Ok(Before::Nothing);
                }
                // Whoever holds the request knows more about it than we do, as long as it can be asked.
                Standing::Begun if elsewhere.is_some() && !lost => {}
                Standing::Begun => {
                    case.room = None;
                    if let Some(moved) = self.outcome(case, book, &row, halt, interrupted).await? {
                        case.row = Some(moved);
                        paced = false;
                        continue;
                    }
                    case.row = Some(row);
                    let why = "an earlier attempt ended without an answer: the peer may have it";
                    return Err(unknown(why).into());
                }
                Standing::SetAside if case.redelivered => {
                    case.row = Some(row);
                    return Err(WorkError::new(
                        ErrorClass::BadInput,
                        codes::PARK_AGAIN,
                        "it was set aside before, and the process ended before that was acknowledged",
                    )
                    .into());
                }
                Standing::SetAside => {}
            }
            if let Some(holder) = &elsewhere {
                match self.forward(book, row, holder, case, interrupted).await? {
                    Forwarded::Done => return Ok(Before::Nothing),
                    Forwarded::Moved(moved) => case.row = Some(moved),
                    Forwarded::Lost(row) => {
                        lost = true;
                        case.row = Some(row);
                    }
                }
                continue;
            }
            if !paced {
                case.row = (row.version > 0).then_some(row);
                paced = self
                    .wait_for_turn(case, worker, message, &labels, halt)
                    .await?;
                continue;
            }
            let doubles = standing::may_double(&row);
            let news = match doubles {
                true => News::coded(
                    codes::FATE_SENT_AGAIN,
                    "sent again although the peer may have it",
                ),
                false => News::said("is being sent"),
            };
            row.holder = match case.lasting {
                true => None,
                false => book.reply_queue().map(str::to_owned).or(row.holder),
            };
            let patience = match case.lasting {
                true => patience::SENDING,
                false => patience::FORWARDED,
            };
            let Some(next) = book.moved(&row, RowState::Sending, patience, news) else {
                continue;
            };
            let mut next = book.with_content(next, case.body.as_ref());
            if !case.lasting && matches!(self.on_unknown, OnUnknown::Wait(_, UnknownThen::Retry)) {
                // If we die, it is sent again from here.
                next.body = next.body.or_else(|| case.body.as_deref().map(Content::of));
            }
            self.sign(book, interrupted).await?;
            match book.put(&row, &next, interrupted).await? {
                Put::Stored => {
                    if doubles {
                        self.metrics.resent.inc();
                    }
                    case.row = Some(next);
                    return Ok(Before::Send);
                }
                Put::Conflict(there) => case.row = Some(*there),
            }
        }
    }

    /// Waits for the outcome of an attempt that another replica has under way: its row once that is moved. None if there
    /// will be none: it is an attempt of ours that has ended, its replica gives no sign of life, or its time is over.
    async fn outcome(
        &self,
        case: &mut Case,
        book: &Book,
        row: &Row,
        halt: &CancellationToken,
        interrupted: Interrupted<'_>,
    ) -> Result<Option<Row>, Unpublished> {
        let Some(sender) = standing::sender(row).filter(|sender| *sender != book.life()) else {
            return Ok(None);
        };
        let began = Instant::now();
        let until = standing::sent_until(row).unwrap_or_default();
        let left = until.saturating_sub(book::now());
        let left = Duration::from_millis(left).min(patience::SENDING);
        let waits = async {
            let mut answers = Answers::default();
            loop {
                let (asked, failed) = (Instant::now(), AtomicBool::new(false));
                let ask = || {
                    let (store, failed) = (&book.store, &failed);
                    async move {
                        let answer = store.lives(sender).await;
                        failed.fetch_or(answer.is_err(), Ordering::Relaxed);
                        answer
                    }
                };
                let lives = book::stubborn(interrupted, ask).await?;
                // After that: what it did last counts.
                let now = book.load(&row.message_id, interrupted).await?;
                if let Some(moved) = now.filter(|now| now.version != row.version) {
                    return Ok(Some(moved));
                }
                // Failures of the second question only show by the time they take.
                let at_once = !failed.into_inner() && asked.elapsed() < alive::BEAT;
                answers.note(asked, at_once);
                let is_dead = !lives && answers.are_steady();
                if is_dead || began.elapsed() >= left {
                    return Ok(None);
                }
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = halt.cancelled() => return Err(Unpublished::Interrupted),
                }
                if interrupted() {
                    return Err(Unpublished::Interrupted);
                }
            }
        };
        let found = AtWork::aside(&mut case.at_work, waits).await?;
        case.waited += began.elapsed();
        Ok(found)
    }

    /// Hands a reply to the replica that holds its request or session.
    async fn forward(
        &self,
        book: &Book,
        row: Row,
        holder: &str,
        case: &Case,
        interrupted: Interrupted<'_>,
    ) -> Result<Forwarded, Unpublished> {
        let begun = standing::standing(&row) == Standing::Begun;
        let next = match begun {
            true => row.waiting(book::now(), patience::FORWARDED),
            false => {
                let news = News::coded(
                    codes::REPLY_FORWARDED,
                    "handed to the replica that holds the request",
                );
                let next = book.moved(&row, RowState::Queued, patience::FORWARDED, news);
                let Some(next) = next else {
                    return Ok(Forwarded::Moved(row));
                };
                next
            }
        };
        // From now on its copy dies with that replica.
        let next = Row {
            holder: Some(holder.to_owned()),
            ..next
        };
        let row = match book.put(&row, &next, interrupted).await? {
            Put::Stored => next,
            Put::Conflict(there) => return Ok(Forwarded::Moved(*there)),
        };
        let (id, body) = (
            row.message_id.as_str(),
            case.body.clone().unwrap_or_default(),
        );
        if self.outlet.offer(holder, id, body, interrupted).await? {
            return Ok(Forwarded::Done);
        }
        if begun {
            return Ok(Forwarded::Lost(row));
        }
        let gone = self.holder_gone(&row.message_id, row.attempt);
        self.note_nack(&gone);
        self.leave_unanswered(&row, &gone, interrupted).await?;
        let said = [gone];
        let (row, moved) = book
            .advance(row, interrupted, |row| {
                self.answered(book, row, &said, true)
            })
            .await?;
        match moved {
            true => self
                .tell(standing::told(&row), interrupted)
                .await
                .map(|()| Forwarded::Done),
            false => Ok(Forwarded::Moved(row)),
        }
    }

    /// Waits for the rate limit and for room. False if an order came meanwhile.
    pub(super) async fn wait_for_turn(
        &self,
        case: &mut Case,
        worker: &dyn Worker,
        message: &UserMessage,
        labels: &Labels,
        halt: &CancellationToken,
    ) -> Result<bool, Unpublished> {
        if self.rate.is_none() && self.room.is_none() {
            return Ok(true);
        }
        let stopped = || {
            let orders = self.orders.as_ref();
            orders.is_some_and(|orders| orders.has(labels.batch.as_deref()))
        };
        // What is in force already was obeyed, or does not concern it.
        let before = stopped();
        let stopped = || !before && stopped();
        let began = Instant::now();
        let waits = async {
            if let Some(rate) = &self.rate
                && !rate.wait(worker, message, labels, &stopped).await
            {
                return (false, None);
            }
            let room = match &self.room {
                Some(room) => Some(room.turn(labels).await),
                None => None,
            };
            (!stopped(), room)
        };
        let waits = async {
            tokio::select! {
                biased;
                () = halt.cancelled() => Err(Unpublished::Interrupted),
                waited = waits => Ok(waited),
            }
        };
        let (goes, room) = AtWork::aside(&mut case.at_work, waits).await?;
        case.room = room.filter(|_| goes);
        case.waited += began.elapsed();
        case.sent = Instant::now();
        Ok(goes)
    }
}
