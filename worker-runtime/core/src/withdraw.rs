//! Ends outbound messages that will not be sent, because a person or a rule says so: moves their rows, and tells whoever
//! sent them (R10, R11). The row first: a sender that comes to the message later finds it ended.

use crate::broker::{Broker, Confirmation, EXCHANGE, Publication, PublicationClass};
use crate::codes::{self, Code};
use crate::engine::{may_be_withdrawn, told_with_verdict};
use crate::error::{ErrorClass, WorkError};
use crate::message::{Event, Fate};
use crate::state::StateStore;
use crate::state::ledger::{Change, Note, Put, Row, RowState, Step};
use crate::verdict;
use std::time::Duration;
use vumi_api::{Flow, Port};

/// A row that others move again and again is left to them after so many tries.
const TRIES: usize = 20;
/// A broker that is away for longer is not waited for: others are to be ended meanwhile.
const TELLING: Duration = Duration::from_secs(5);

/// How a message ends.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// [`RowState::Cancelled`] or [`RowState::Expired`].
    pub state: RowState,
    /// Registered code.
    pub code: Code,
    /// A plain sentence: who or what ended it.
    pub text: &'static str,
}

impl Ending {
    /// Whether a row ended so.
    pub(crate) fn is_of(&self, row: &Row) -> bool {
        let last = row.steps.last();
        row.state == self.state && last.is_some_and(|step| step.code == self.code.name)
    }
}

/// What endings are written to.
#[derive(Clone, Copy)]
pub struct Withdrawal<'a> {
    /// Where rows are; none if there is no state store.
    pub store: Option<&'a dyn StateStore>,
    /// By which senders are told; none if that cannot be done.
    pub broker: Option<&'a dyn Broker>,
    /// How long the row of an ended message is kept.
    pub keep: Duration,
}

/// What ending one message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its sender is told; of what had ended before, what it was told then.
    Told,
    /// Its sender is not told: there is no broker to do it by.
    Untold,
    /// This was a copy that decides nothing: the peer may have it, or another transport.
    Before,
}

impl Withdrawal<'_> {
    /// Ends the message `id` of the transport `account`. When it fails nothing is lost: the same call finishes it.
    ///
    /// # Errors
    /// The store or the broker is away, or the broker did not take the event.
    pub async fn end(&self, account: &str, id: &str, ending: &Ending) -> Result<Ended, WorkError> {
        let events = match self.store {
            Some(store) => self.end_row(store, account, id, ending).await?,
            None => vec![event(account, id, None, ending)],
        };
        if events.is_empty() {
            return Ok(Ended::Before);
        }
        let Some(broker) = self.broker else {
            return Ok(Ended::Untold);
        };
        for event in &events {
            tell(broker, account, event).await?;
        }
        Ok(Ended::Told)
    }

    /// Notes the end of a message that has no row and no sender to tell: an inbound one, or an event. A diagnosis: if it
    /// cannot be noted, the message ends all the same.
    pub async fn note(&self, id: &str, ending: &Ending) {
        let Some(store) = self.store else {
            return;
        };
        let note = Note {
            message_id: id.to_owned(),
            person: None,
            step: Step {
                state: Some(ending.state),
                class: CLASS.into(),
                who: WHO.into(),
                ..Step::of_a_person(0, ending.code, ending.text)
            },
        };
        if let Err(error) = store.note(&[note], self.keep).await {
            tracing::warn!(message_id = id, %error, "its end is not noted");
        }
    }

    /// The events that its sender gets; none if this copy decides nothing.
    async fn end_row(
        &self,
        store: &dyn StateStore,
        account: &str,
        id: &str,
        ending: &Ending,
    ) -> Result<Vec<Event>, WorkError> {
        let mut found = store.row(id).await?;
        for _ in 0..TRIES {
            let Some(row) = found else {
                return Ok(vec![event(account, id, None, ending)]);
            };
            let event = event(account, id, Some(&row), ending);
            if ending.is_of(&row) {
                // By an earlier try, which may not have told its sender.
                return Ok(vec![event]);
            }
            // Of a message there may be a second copy, left where it was when a process ended. What another transport has,
            // or the peer may have, goes on, and this one goes without a word.
            if row.account != account {
                return Ok(Vec::new());
            }
            if !may_be_withdrawn(&row) {
                // It may be what would bring a verdict back that its process wrote down and did not live to tell.
                return Ok(told_with_verdict(&row));
            }
            let told = String::from_utf8_lossy(&event.encode()).into_owned();
            let Some(next) = row.after(change(&row, ending, told)) else {
                return Ok(Vec::new());
            };
            match store.put(&next, Some(row.version), self.keep).await? {
                Put::Stored => return Ok(vec![event]),
                Put::Conflict(other) => found = Some(*other),
            }
        }
        Err(WorkError::new(
            ErrorClass::RemoteTemporary,
            codes::CONTROL_REQUEST,
            format!("the row of {id} is being moved all the time; try again"),
        ))
    }
}

async fn tell(broker: &dyn Broker, account: &str, event: &Event) -> Result<(), WorkError> {
    let port = Port::new(account, Flow::Event);
    let publication = Publication {
        exchange: EXCHANGE.into(),
        routing_key: port.queue(),
        message_id: Some(event.event_id().to_owned()),
        body: event.encode(),
        class: PublicationClass::Data,
    };
    let told = async { broker.publish(publication).await.confirmation().await };
    let why = match tokio::time::timeout(TELLING, told).await {
        Ok(Confirmation::Confirmed) => return Ok(()),
        Ok(other) => format!("{other:?}"),
        // It may still take it; a repeat is the same event.
        Err(_) => format!("it says nothing for {} s", TELLING.as_secs()),
    };
    Err(WorkError::new(
        ErrorClass::Connect,
        codes::BROKER_UNREACHABLE,
        format!("the broker did not take the event for {port}: {why}; do the same again"),
    ))
}

fn change(row: &Row, ending: &Ending, told: String) -> Change {
    Change {
        step: Step {
            class: CLASS.into(),
            who: WHO.into(),
            ..Step::of_a_person(row.attempt, ending.code, ending.text)
        },
        state: ending.state,
        patience: Duration::ZERO,
        remote_id: None,
        told: vec![told],
    }
}

/// Failure class of what we end ourselves.
const CLASS: &str = "ours";
/// Nobody needs to act: somebody has decided.
const WHO: &str = "nobody";

/// What its sender is told.
fn event(account: &str, id: &str, row: Option<&Row>, ending: &Ending) -> Event {
    let fate = Fate {
        state: ending.state.fate(),
        class: CLASS.into(),
        code: ending.code.name.to_owned(),
        text: ending.text.into(),
        who: WHO.into(),
        attempt: row.map_or(0, |row| row.attempt),
        is_final: true,
    };
    let mut nack = Event::nack(id, &fate);
    nack.set_transport_name(account);
    let told = row.iter().flat_map(|row| &row.told);
    let told = told.filter_map(|body| Event::decode(body.as_bytes()).ok());
    verdict::after(&told.collect::<Vec<_>>(), &nack).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Receipt;
    use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
    use crate::conformance::delegate::Double;
    use async_trait::async_trait;
    use std::sync::Arc;

    /// A broker that is away: who publishes waits.
    struct Away(Arc<dyn Broker>);

    #[async_trait]
    impl Double for Away {
        fn inner(&self) -> &Arc<dyn Broker> {
            &self.0
        }

        async fn take(&self, _: Publication) -> Receipt {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_broker_that_is_away() {
        let broker = Away(EmbeddedBroker::open(EmbeddedOptions::default()).unwrap());
        let withdrawal = Withdrawal {
            store: None,
            broker: Some(&broker),
            keep: Duration::ZERO,
        };
        let ending = Ending {
            state: RowState::Expired,
            code: codes::JOURNAL_EXPIRED,
            text: "it waited too long",
        };
        let ended = withdrawal.end("t", "m", &ending);
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        let error = ended.unwrap().unwrap_err();
        assert_eq!(error.code.name, codes::BROKER_UNREACHABLE.name);
    }
}
