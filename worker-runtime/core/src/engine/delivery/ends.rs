//! How work on a message ends when it does not succeed: its sender is told, it is set aside, or a receipt is waited for.

use super::super::sending::{Happened, Hop, Place};
use super::*;

impl Desk {
    /// Nobody knows whether the peer has it: a receipt is waited for, and the lane goes on.
    pub(super) async fn wait(
        &self,
        raw: &RawDelivery,
        error: WorkError,
        attempt: u32,
        mut case: Option<Case>,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Verdict {
        let message = match Message::decode(self.port.flow, &raw.body) {
            Ok(message) => message,
            Err(error) => {
                return self
                    .park(raw, &error.into(), attempt, case, interrupted)
                    .await;
            }
        };
        let Some((sending, known)) = self.sending.as_ref().zip(case.as_mut()) else {
            return self.park(raw, &error, attempt, case, interrupted).await;
        };
        tracing::warn!(worker = self.key, queue = self.queue, message_id = message.id(), code = %error.code, attempt, reason = %error, "sent, and the answer was lost: a receipt decides");
        match sending.wait(known, &error, interrupted).await {
            Ok(()) => Verdict::Done,
            Err(Unpublished::Interrupted) => Verdict::Returned,
            Err(Unpublished::Failed(error)) => {
                self.park(raw, &error, attempt, case, interrupted).await
            }
        }
    }

    /// Tells Vumi's failure worker of a message that will not be delivered, for good: retries are ours alone (R12). Not
    /// where the sender was told otherwise before.
    pub(super) async fn legacy_failure(
        &self,
        message: &Message,
        said: &Message,
        case: Option<&Case>,
    ) {
        let (Message::User(message), Message::Event(event)) = (message, said) else {
            return;
        };
        let known = self.sending.as_ref().zip(case);
        let told = known.is_none_or(|(sending, case)| sending.has_told(case, event));
        if event.event_type() != EventType::Nack || !told {
            return;
        }
        let reason = event.nack_reason().unwrap_or_default();
        let failure = FailureMessage::new(message, FailureCode::Permanent, reason);
        let key = FailureMessage::routing_key(&self.port.connector);
        self.outlet.announce(key, failure.encode()).await;
    }

    /// A worker that refuses a message says so to its sender; here to the operator as well.
    pub(super) fn note_nack(&self, output: &Output) {
        let Message::Event(event) = &output.message else {
            return;
        };
        // A dispatcher passes on what others decided.
        if event.event_type() != EventType::Nack || self.port.flow == Flow::Event {
            return;
        }
        let fate = event.fate();
        let (code, class) = fate
            .as_ref()
            .map_or(("none", "none"), |f| (f.code.as_str(), f.class.as_str()));
        self.worker_metrics.nack(class);
        tracing::warn!(
            worker = self.key,
            queue = self.queue,
            message_id = event.user_message_id(),
            code,
            class,
            "not delivered, the sender is told"
        );
    }

    /// Says in its own flow that a message will not be delivered: a nack event for outbound ones, parking for others.
    pub(super) async fn give_up(
        &self,
        raw: &RawDelivery,
        error: WorkError,
        attempt: u32,
        mut case: Option<Case>,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Verdict {
        if self.port.flow != Flow::Outbound {
            return self.park(raw, &error, attempt, case, interrupted).await;
        }
        let message = match UserMessage::decode(&raw.body) {
            Ok(message) => message,
            Err(error) => {
                return self
                    .park(raw, &error.into(), attempt, case, interrupted)
                    .await;
            }
        };
        let id = message.message_id();
        let fate = error.fate(FateState::Failed, attempt);
        let mut event = Event::nack(id, &fate);
        event.set_transport_name(&self.port.connector);
        let class = error.failure_class().as_str();
        self.worker_metrics.nack(class);
        tracing::warn!(worker = self.key, queue = self.queue, message_id = id, code = %error.code, class = error.class.label(), attempt, reason = %error, "given up, the sender is told");
        let output = Output::new(Port::new(&self.port.connector, Flow::Event), event.clone());
        let told = match self.sending.as_ref().zip(case.as_mut()) {
            Some((sending, case)) => {
                let nack = event.clone();
                sending.give_up(case, &message, nack, interrupted).await
            }
            None => {
                let noted = self
                    .hop_to_note(Trail::hop(self.port.flow, &message.clone().into()))
                    .await;
                let told = self.outlet.publish(output, interrupted).await;
                if let Some((trail, place, hop)) = noted.filter(|_| told.is_ok()) {
                    trail.note(place, hop, Happened::failed(&fate));
                }
                told
            }
        };
        if self.legacy_failures && told.is_ok() {
            self.legacy_failure(&message.into(), &event.into(), case.as_ref())
                .await;
        }
        match told {
            Ok(()) => Verdict::Done,
            Err(Unpublished::Interrupted) => Verdict::Returned,
            Err(Unpublished::Failed(error)) => {
                self.park(raw, &error, attempt, case, interrupted).await
            }
        }
    }

    /// What is to be noted of a hop, with its place; none where hops are not noted.
    pub(super) async fn hop_to_note(&self, hop: Option<Hop>) -> Option<(&Arc<Trail>, Place, Hop)> {
        let (trail, hop) = self.trail.as_ref().zip(hop)?;
        Some((trail, trail.place().await, hop))
    }

    /// Sets a message aside, with its reason; the ledger and the trail say so.
    pub(super) async fn park(
        &self,
        raw: &RawDelivery,
        error: &WorkError,
        attempt: u32,
        case: Option<Case>,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Verdict {
        if attempt == 0 {
            self.worker_metrics.error(error);
        }
        let message = Message::decode(self.port.flow, &raw.body).ok();
        // A transport's ledger says it.
        let trailed = message.as_ref().filter(|_| self.sending.is_none());
        let hop = trailed.and_then(|message| Trail::hop(self.port.flow, message));
        let noted = self.hop_to_note(hop).await;
        let envelope = Envelope::new(&self.queue, raw, error, &self.key, attempt);
        tracing::warn!(worker = self.key, queue = self.queue, message_id = envelope.message_id, code = %error.code, attempt, reason = %error, "set aside: see `vumi parked list`");
        if self.outlet.park(&envelope, interrupted).await.is_err() {
            return Verdict::Returned;
        }
        if let Some(sending) = &self.sending {
            let known = match &message {
                Some(Message::User(message)) => Some(message),
                _ => None,
            };
            let parked = sending.parked(case, known, error, interrupted).await;
            // The copy is with the broker. If it comes again, there will be two, and nothing is lost.
            if let Err(Unpublished::Interrupted) = parked {
                return Verdict::Returned;
            }
        } else if let Some((trail, place, hop)) = noted {
            trail.note(place, hop, Happened::set_aside(error));
        }
        Verdict::Parked
    }
}

/// What handling a message came to: it ended with a nack, or caused others, or was passed on.
pub(super) fn happened(outputs: &[Output]) -> Happened {
    let nack = outputs.iter().find_map(|output| match &output.message {
        Message::Event(event) if event.event_type() == EventType::Nack => event.fate(),
        _ => None,
    });
    if let Some(fate) = nack.filter(|fate| fate.is_final) {
        return Happened::failed(&fate);
    }
    let mut queues: Vec<String> = outputs.iter().map(|output| output.port.queue()).collect();
    queues.sort_unstable();
    queues.dedup();
    let what = match queues.as_slice() {
        [] => "nothing followed".to_owned(),
        queues => format!("to {}", queues.join(", ")),
    };
    // Events leave no trail of their own.
    let caused = outputs.iter().filter_map(|output| match &output.message {
        Message::User(message) => Some(message.message_id().to_owned()),
        Message::Event(_) => None,
    });
    Happened::caused(what, caused.collect())
}
