//! What a message says of itself for its place among others: class, batch and tenant in `helper_metadata`. They are labels
//! inside one vhost, set by whoever publishes, and no boundary of security.

use crate::message::Message;
use vumi_api::shared::Class;

/// Longest label that counts, in characters: a longer one is cut off.
pub(crate) const LONGEST: usize = 128;

/// The labels of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Labels {
    /// As written, whether there is such a class or not.
    class: Option<String>,
    /// One of very many messages that belong together.
    pub(super) batch: Option<String>,
    /// On whose behalf it is sent.
    pub(super) tenant: Option<String>,
}

impl Labels {
    pub(super) fn of(message: &Message) -> Self {
        let Message::User(message) = message else {
            return Self::default();
        };
        let metadata = message.helper_metadata();
        let label = |key| {
            let label = metadata.and_then(|m| m.get(key))?.as_str()?;
            let label: String = label.chars().take(LONGEST).collect();
            (!label.is_empty()).then_some(label)
        };
        Self {
            class: label("class"),
            batch: label("batch"),
            tenant: label("tenant"),
        }
    }

    /// Its class, or this one if it names none that exists.
    pub(super) fn class_or(&self, default: Class) -> Class {
        let named = self.class.as_deref().and_then(Class::find);
        named.unwrap_or(default)
    }

    /// Whether it names a class that does not exist.
    pub(super) fn is_unknown_class(&self) -> bool {
        let named = self.class.as_deref();
        named.is_some_and(|name| Class::find(name).is_none())
    }

    /// The group of the journal in which messages with these labels wait: that of their batch, else of their tenant.
    pub(super) fn group(&self) -> Option<String> {
        let label = self.batch.as_deref().or(self.tenant.as_deref());
        label.map(group_of)
    }
}

/// The group of a label. Groups of ours begin with `@`.
pub(crate) fn group_of(label: &str) -> String {
    match label.starts_with('@') {
        true => format!("@{label}"),
        false => label.to_owned(),
    }
}
