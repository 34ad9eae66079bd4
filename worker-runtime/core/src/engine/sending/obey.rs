//! Does with a message that is not sent yet what the order for its batch says.

use super::super::labels::Labels;
use super::book::{Book, Interrupted, News};
use super::standing::{self, Standing};
use super::{Before, Case, Sending, Unpublished, patience};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::message::{Actor, Event, FailureClass, Fate, FateState, UserMessage};
use crate::state::batches::Order;
use crate::state::ledger::{Put, Row, RowState};
use vumi_api::shared::Class;
use vumi_api::{Flow, Port};

impl Case {
    /// The message as it came, before any middleware of ours.
    fn original(&self) -> Result<UserMessage, WorkError> {
        UserMessage::decode(self.body.as_deref().unwrap_or_default()).map_err(Into::into)
    }
}

impl Sending {
    /// The order in force for a message of this batch.
    pub(super) async fn order(
        &self,
        labels: &Labels,
        interrupted: Interrupted<'_>,
    ) -> Result<Option<Order>, Unpublished> {
        let (Some(orders), Some(batch)) = (&self.orders, labels.batch.as_deref()) else {
            return Ok(None);
        };
        let order = super::book::stubborn(interrupted, || orders.of(Some(batch))).await?;
        Ok(order.filter(|order| match order {
            // It is there already, or there is no other class.
            Order::Reclass(to) => self
                .default_class
                .is_some_and(|default| labels.class_or(default) != *to),
            Order::Reroute(to) => *to != self.connector,
            Order::Pause | Order::Cancel => true,
        }))
    }

    /// Whether messages with these labels wait because their batch is paused, as far as is known.
    pub(in crate::engine) async fn is_paused(&self, labels: &Labels) -> bool {
        let Some(orders) = &self.orders else {
            return false;
        };
        let order = orders.of(labels.batch.as_deref()).await;
        matches!(order, Ok(Some(Order::Pause)))
    }

    /// Obeys.
    pub(super) async fn obey(
        &self,
        order: Order,
        case: &mut Case,
        (book, row): (&Book, Row),
        labels: &Labels,
        interrupted: Interrupted<'_>,
    ) -> Result<Before, Unpublished> {
        let batch = labels.batch.as_deref().unwrap_or_default();
        let text = format!("batch {batch} is {order}");
        match order {
            Order::Pause => {
                let is_noted = |row: &Row| {
                    row.state == RowState::Held && row.steps.last().is_some_and(|s| s.text == text)
                };
                let (row, _) = book
                    .advance(row, interrupted, |row| {
                        let free = standing::standing(row) == Standing::Free && !is_noted(row);
                        let news = News::said(text.as_str());
                        free.then(|| book.moved(row, RowState::Held, patience::PAUSED, news))?
                    })
                    .await?;
                case.row = Some(row);
                Ok(Before::Hold)
            }
            Order::Cancel => {
                let fate = Fate {
                    state: FateState::Cancelled,
                    class: FailureClass::Ours.as_str().to_owned(),
                    code: codes::BATCH_CANCELLED.name.to_owned(),
                    text,
                    who: Actor::Campaign.as_str().to_owned(),
                    attempt: row.attempt,
                    is_final: true,
                };
                let nack = self.event(Event::nack(&row.message_id, &fate));
                self.note_nack(&nack);
                self.decide(case, book, row, vec![nack], interrupted)
                    .await?;
                Ok(Before::Nothing)
            }
            Order::Reroute(to) => {
                let news = News::said(text);
                let (row, moved) = book
                    .advance(row, interrupted, |row| {
                        let free = standing::standing(row) == Standing::Free;
                        let next = free.then(|| {
                            let row = row.freed();
                            book.moved(&row, RowState::Queued, patience::QUEUED, news.clone())
                        })??;
                        Some(Row {
                            account: to.clone(),
                            ..next
                        })
                    })
                    .await?;
                if moved {
                    self.hand_over(&to, case, interrupted).await?;
                } else {
                    case.row = Some(row);
                }
                Ok(if moved {
                    Before::Nothing
                } else {
                    Before::Again
                })
            }
            Order::Reclass(to) => self.reclass(to, case, (book, row), text, interrupted).await,
        }
    }

    /// Gives a message to another transport.
    pub(super) async fn hand_over(
        &self,
        to: &str,
        case: &Case,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let mut message = case.original()?;
        message.set_transport_name(to);
        message.forget_retries();
        self.give(to, message, interrupted).await
    }

    /// Gives a message to the intake once more, with another class.
    async fn reclass(
        &self,
        to: Class,
        case: &mut Case,
        (book, row): (&Book, Row),
        text: String,
        interrupted: Interrupted<'_>,
    ) -> Result<Before, Unpublished> {
        let news = News::said(text);
        let (row, moved) = book
            .advance(row, interrupted, |row| {
                let free = standing::standing(row) == Standing::Free;
                let mut next = free.then(|| {
                    let row = row.freed();
                    book.moved(&row, RowState::Queued, patience::QUEUED, news.clone())
                })??;
                next.class = to.as_str().to_owned();
                Some(next)
            })
            .await?;
        case.row = Some(row);
        if !moved {
            return Ok(Before::Again);
        }
        let mut message = case.original()?;
        let metadata = message.helper_metadata_mut();
        metadata.insert("class".into(), to.as_str().into());
        self.give(&self.connector, message, interrupted).await?;
        Ok(Before::Nothing)
    }

    /// Puts a message into a transport's queue.
    async fn give(
        &self,
        transport: &str,
        message: UserMessage,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let queue = Port::new(transport, Flow::Outbound).queue();
        let (id, body) = (message.message_id(), message.encode());
        if self.outlet.offer(&queue, id, body, interrupted).await? {
            return Ok(());
        }
        // It is tried again as after any other trouble; the order may be changed meanwhile.
        Err(WorkError::new(
            ErrorClass::RemoteTemporary,
            codes::BATCH_NO_TARGET,
            format!(
                "there is no queue {queue}: no transport {transport} has ever run on this broker"
            ),
        )
        .into())
    }

    /// The intake passes a message on: from now on it has a row.
    pub(in crate::engine) async fn taken_over(
        &self,
        message: &UserMessage,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let Some(book) = &self.book else {
            return Ok(());
        };
        let row = book.opened(message);
        let news = News::said(format!("waits in class {}", row.class));
        let waits = |row: &Row| book.moved(row, RowState::Queued, patience::CLASS, news.clone());
        let Some(next) = waits(&row) else {
            return Ok(());
        };
        match book.put(&row, &next, interrupted).await? {
            // Vumi's failure worker gave it back: from now on it waits as long as others.
            Put::Conflict(there) if there.is_external() => {
                let given = |row: &Row| row.is_external().then(|| waits(row))?;
                book.advance(*there, interrupted, given).await.map(drop)
            }
            // One that is there stays: the message comes again.
            _ => Ok(()),
        }
    }
}
