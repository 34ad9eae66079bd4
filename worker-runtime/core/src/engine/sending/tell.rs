//! What a message's sender is told: written down first, told then, and repeated byte for byte when the message comes again.

use super::*;

impl Sending {
    /// The worker handled it: what it says is written down, and then told.
    pub(in crate::engine) async fn after(
        &self,
        case: &mut Case,
        outputs: Vec<Output>,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        case.room = None;
        let (Some(book), Some(row)) = (&self.book, case.row.clone()) else {
            return self.outlet.publish_all(outputs, interrupted.into()).await;
        };
        let events = self.port();
        let (said, others): (Vec<Output>, Vec<Output>) = outputs
            .into_iter()
            .partition(|output| output.port == events);
        // Not repeated once the answer is written down, so it comes first.
        self.outlet.publish_all(others, interrupted.into()).await?;
        let said: Vec<Event> = said
            .into_iter()
            .filter_map(|output| match output.message {
                Message::Event(event) => Some(event),
                Message::User(_) => None,
            })
            .collect();
        self.decide(case, book, row, said, interrupted).await
    }

    /// Writes down what a message's sender is told, tells it, and moves the row to where that leads.
    pub(super) async fn decide(
        &self,
        case: &mut Case,
        book: &Book,
        row: Row,
        said: Vec<Event>,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        // Who moved it meanwhile may be done with the copy that it had: then nothing comes again.
        let (lasting, version) = (case.lasting, row.version);
        let (row, moved) = book
            .advance(row, interrupted, |row| {
                let lasting = lasting && row.version == version;
                let next = self.answered(book, row, &said, lasting)?;
                Some(book.with_content(next, case.body.as_ref()))
            })
            .await?;
        if !moved {
            self.metrics.suppressed.inc_by(said.len() as u64);
        }
        case.row = Some(row);
        if !moved {
            // Whoever decided otherwise tells it.
            return Ok(());
        }
        self.tell_again(case, book, interrupted).await
    }

    /// A row after what was said about its message. What was told before is not told again, and one ack or nack is all
    /// there is. None if nothing is new.
    ///
    /// `lasting`: this comes again if the process dies before its sender is told. Else the row is left where it will be
    /// found, until [`Self::settle`].
    pub(super) fn answered(
        &self,
        book: &Book,
        row: &Row,
        said: &[Event],
        lasting: bool,
    ) -> Option<Row> {
        let (before, known) = (standing::told_before(row), standing::told(row));
        let judged = row.verdict().is_some();
        let (mut new, mut remote) = (Vec::new(), None);
        for event in said {
            let second = judged && verdict::is_judgement(event);
            let event_told = verdict::after(&before, event);
            let id = event_told.event_id();
            if !second && !known.iter().any(|known| known.event_id() == id) {
                remote = remote.or(event.sent_message_id());
                new.push(event_told);
            }
        }
        if new.is_empty() && !said.is_empty() {
            return None;
        }
        let state = match new.last() {
            Some(event) => standing::leads_to(event, self.receipts),
            None if self.receipts => RowState::Sent,
            None => RowState::SentFinal,
        };
        let stays = new.is_empty() || state == row.state;
        let (state, patience) = match lasting || stays {
            true => (state, patience::SENT),
            false => (row.state, patience::TELLING),
        };
        let mut next = book.moved(row, state, patience, said_news(new.last().map(|e| &**e)))?;
        next.remote_id = remote.map(str::to_owned).or(next.remote_id);
        let bodies = new.iter().map(|event| event.encode());
        next.told
            .extend(bodies.map(|body| String::from_utf8_lossy(&body).into_owned()));
        Some(next)
    }

    /// Moves a row whose sender has been told to where that leads; none if it is there.
    pub(super) async fn settle(
        &self,
        book: &Book,
        row: &Row,
        body: Option<&Bytes>,
        interrupted: Interrupted<'_>,
    ) -> Result<Option<Row>, Unpublished> {
        // What another transport tells, it moves by itself.
        if row.account != book.account() || standing::being_told(row).is_none() {
            return Ok(None);
        }
        let settled = book.advance(row.clone(), interrupted, |row| {
            let last = standing::being_told(row)?;
            let state = standing::leads_to(&last, self.receipts);
            let next = book.moved(row, state, patience::SENT, said_news(Some(&last)))?;
            Some(book.with_content(next, body))
        });
        settled.await.map(|(row, _)| Some(row))
    }

    /// Repeats what a message's sender was told, byte for byte.
    pub(super) async fn tell_again(
        &self,
        case: &mut Case,
        book: &Book,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let told = case.row.as_ref().map(standing::told).unwrap_or_default();
        self.tell(told, interrupted).await?;
        let Some(row) = &case.row else {
            return Ok(());
        };
        let settled = self.settle(book, row, case.body.as_ref(), interrupted);
        if let Some(row) = settled.await? {
            case.row = Some(row);
        }
        Ok(())
    }

    pub(super) async fn tell(
        &self,
        events: Vec<Event>,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let ids: Vec<String> = events.iter().map(|e| e.event_id().to_owned()).collect();
        let outputs = events.into_iter().map(|event| self.output(event)).collect();
        self.outlet.publish_all(outputs, interrupted.into()).await?;
        ids.into_iter().for_each(|id| self.lately.add(id));
        Ok(())
    }

    /// The end of a message: `nack` is what its sender is told.
    pub(in crate::engine) async fn give_up(
        &self,
        case: &mut Case,
        message: &UserMessage,
        nack: Event,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let Some(book) = &self.book else {
            return self.outlet.publish(self.output(nack), interrupted).await;
        };
        let row = case.row.clone().unwrap_or_else(|| book.opened(message));
        self.leave_unanswered(&row, &nack, interrupted).await?;
        self.decide(case, book, row, vec![nack], interrupted).await
    }

    /// Before the sender of a reply is told that nobody gets it: whoever repeats its request is told at once, and does
    /// not wait for what will not come.
    pub(super) async fn leave_unanswered(
        &self,
        row: &Row,
        nack: &Event,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let (Some(once), Some(request)) = (&self.once, &row.request) else {
            return Ok(());
        };
        if row.verdict().is_some() {
            return Ok(());
        }
        let code = nack.fate().map(|fate| fate.code).unwrap_or_default();
        once.unanswered(request, &code, interrupted).await
    }
}

/// What a step says that tells this event last.
fn said_news(event: Option<&Event>) -> News {
    match event {
        Some(event) => match (event.event_type(), event.fate()) {
            (_, Some(fate)) => News::from(&fate),
            (EventType::Ack, None) => News::said("the peer took it"),
            (EventType::Nack, None) => News::said("the peer refused it"),
            (EventType::DeliveryReport, None) => News::said("the peer reported on it"),
        },
        None => News::said("the peer took it"),
    }
}
