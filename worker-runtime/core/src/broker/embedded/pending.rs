//! Writes that wait for the disk, in order: filled under the broker's lock, emptied as one batch by the writer, so
//! that however many publishers there are they share one commit.

use super::message::Write;

/// Publications that may wait at most; then publishers wait.
const MESSAGES: usize = 4096;
/// Bytes of publications that may wait at most.
const BYTES: u64 = 16 << 20;

#[derive(Debug, Default)]
pub(super) struct Pending {
    writes: Vec<Write>,
    messages: usize,
    bytes: u64,
    /// What is wrong with the disk; nothing is accepted while it is set.
    pub(super) trouble: Option<String>,
}

impl Pending {
    pub(super) fn push(&mut self, write: Write) {
        if let Write::Put(arriving) = &write {
            self.messages += 1;
            self.bytes += arriving.message.cost();
        }
        self.writes.push(write);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Whether another publication may be pushed. Removals are always taken: each stands for a message that is no
    /// longer in memory.
    pub(super) fn has_room(&self) -> bool {
        self.trouble.is_none() && self.messages < MESSAGES && self.bytes < BYTES
    }

    pub(super) fn take(&mut self) -> Vec<Write> {
        self.messages = 0;
        self.bytes = 0;
        std::mem::take(&mut self.writes)
    }
}
