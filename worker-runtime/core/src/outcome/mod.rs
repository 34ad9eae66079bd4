//! What a transport says about an outbound message: the ack and nack events that it returns from `handle`, with their
//! fate (R11), so that every transport says it alike.

pub mod table;

use crate::codes::Code;
use crate::message::{Actor, Event, FailureClass, Fate, FateState, UserMessage};
use crate::worker::{Output, WorkerContext};
use vumi_api::{Flow, Port};

/// Why a message will never be accepted by the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Failure class.
    pub class: FailureClass,
    /// Registered code.
    pub code: Code,
    /// A plain sentence without content, addresses or secrets.
    pub text: String,
    /// Who must act.
    pub who: Actor,
    /// The peer's own code, if it gave one: it stands in the fate in place of ours.
    pub provider_code: Option<String>,
}

impl Refusal {
    /// A refusal.
    pub fn new(class: FailureClass, code: Code, text: impl Into<String>, who: Actor) -> Self {
        Self {
            class,
            code,
            text: text.into(),
            who,
            provider_code: None,
        }
    }

    /// With the peer's own code; a transport with many has an [`table::ErrorTable`].
    pub fn with_provider_code(mut self, code: &str) -> Self {
        self.provider_code = Some(code.to_owned());
        self
    }

    /// The end that it is for a message.
    pub fn fate(self, attempt: u32) -> Fate {
        Fate {
            state: FateState::Failed,
            class: self.class.as_str().to_owned(),
            code: self
                .provider_code
                .unwrap_or_else(|| self.code.name.to_owned()),
            text: self.text,
            who: self.who.as_str().to_owned(),
            attempt,
            is_final: true,
        }
    }
}

/// What a peer says about a message after it was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Id of the message; none if the peer knows only its own: then the ledger finds the message by that.
    pub message_id: Option<String>,
    /// The peer's own id of it, if it gives one.
    pub remote_id: Option<String>,
    /// What it says.
    pub outcome: ReceiptOutcome,
}

/// What a receipt says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptOutcome {
    /// The peer took it: the answer, later than it was waited for.
    Accepted,
    /// The peer refused it: the answer, later than it was waited for.
    Refused(Refusal),
    /// On its way.
    Pending,
    /// Final: the user has it.
    Delivered,
    /// Final: the user will not get it.
    Failed(Refusal),
}

impl WorkerContext {
    /// The peer accepted `message` as `sent_message_id`.
    pub fn ack(&self, message: &UserMessage, sent_message_id: &str) -> Output {
        self.event_output(Event::ack(message.message_id(), sent_message_id))
    }

    /// The peer will never get `message`; final.
    pub fn nack(&self, message: &UserMessage, attempt: u32, refusal: Refusal) -> Output {
        let fate = refusal.fate(attempt);
        self.event_output(Event::nack(message.message_id(), &fate))
    }

    fn event_output(&self, mut event: Event) -> Output {
        event.set_transport_name(self.transport_name());
        Output::new(Port::new(self.transport_name(), Flow::Event), event)
    }
}
