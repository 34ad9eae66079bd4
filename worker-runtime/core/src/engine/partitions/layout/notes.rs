//! What is written down at the broker of how a queue is divided.

use super::*;
use crate::broker::{Confirmation, Publication, PublicationClass, QueueSpec};
use crate::codes;
use crate::error::ErrorClass;
use serde::{Deserialize, Serialize};

/// Notes that one look takes in; there is one, or two after a crash.
const NOTES: usize = 10;

/// What is written down.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) parts: Vec<String>,
}

/// Where it is written down of `queue`.
pub(in super::super) fn note_queue(queue: &str) -> String {
    format!("{queue}.layout")
}

impl Layout {
    /// What is written down, none for what cannot be read; an empty list if the queue was never divided.
    pub(super) async fn read(&self) -> Result<Vec<Option<Note>>, WorkError> {
        let queue = note_queue(self.plan.queue());
        if self.broker.depth(&queue).await?.is_none() {
            return Ok(Vec::new());
        }
        let shelf = self.broker.shelf(&queue, NOTES).await?;
        let notes = shelf.messages().iter();
        let notes = notes
            .map(|m| serde_json::from_slice(&m.body).ok())
            .collect();
        shelf.close().await;
        Ok(notes)
    }

    /// Writes down how it is divided now. A crash in between leaves both notes, which is a change again.
    pub(super) async fn write(&self) -> Result<(), WorkError> {
        let queue = note_queue(self.plan.queue());
        self.broker
            .declare(&QueueSpec::Parking(queue.clone()))
            .await?;
        let mut shelf = self.broker.shelf(&queue, NOTES).await?;
        let note = Note {
            parts: self.plan.parts().to_vec(),
        };
        let written = self
            .broker
            .publish(Publication {
                exchange: String::new(),
                routing_key: queue.clone(),
                body: serde_json::to_vec(&note).unwrap_or_default().into(),
                message_id: None,
                class: PublicationClass::Direct,
            })
            .await;
        match written.confirmation().await {
            Confirmation::Confirmed => {}
            other => {
                return Err(WorkError::new(
                    ErrorClass::Connect,
                    codes::BROKER_UNREACHABLE,
                    format!("the broker did not take a note for {queue}: {other:?}"),
                ));
            }
        }
        let old: Vec<u64> = shelf.messages().iter().map(|m| m.tag).collect();
        for tag in old {
            shelf.remove(tag).await?;
        }
        shelf.close().await;
        tracing::info!(
            queue = self.plan.queue(),
            parts = self.plan.parts().len(),
            "the queue is divided"
        );
        Ok(())
    }
}
