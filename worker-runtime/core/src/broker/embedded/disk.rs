//! Queues and messages on disk, in an embedded store (fjall): which queues exist, how far each was delivered, and every
//! persistent message that is not acknowledged.

use super::message::{QueueId, Stored, Write};
use super::queue::{Life, Queue};
use super::state::State;
use crate::codes::{self, Code};
use crate::error::{ErrorClass, WorkError};
use crate::folder::{self, plain};
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Layout of the folder; another one is refused.
const FORMAT: u8 = 1;
/// Keys of keyspace `queues`: the format, a queue (then its number), how far it was delivered (then its number).
const KEY_FORMAT: u8 = b'f';
const KEY_QUEUE: u8 = b'q';
const KEY_DELIVERED: u8 = b'd';
/// Memory for blocks read back; we read only at the start.
const CACHE: u64 = 4 << 20;
/// Memory for writes before they become a table; most messages are acknowledged before.
const MEMTABLE: u64 = 16 << 20;
/// Disk space for journals before the store turns them into tables.
const JOURNALS: u64 = 128 << 20;

/// The store, held by the writer thread alone.
pub(super) struct Disk {
    folder: PathBuf,
    sync: bool,
    open: Option<Open>,
}

struct Open {
    database: Database,
    queues: Keyspace,
    messages: Keyspace,
}

impl Open {
    fn new(folder: &Path) -> Result<Self, fjall::Error> {
        let database = Database::builder(folder)
            .cache_size(CACHE)
            .max_journaling_size(JOURNALS)
            .worker_threads(1)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE);
        Ok(Self {
            queues: database.keyspace("queues", options)?,
            messages: database.keyspace("messages", options)?,
            database,
        })
    }
}

impl Disk {
    /// Opens or makes the folder.
    pub(super) fn open(folder: PathBuf, sync: bool) -> Result<Self, WorkError> {
        let place = folder.display();
        folder::create(&folder, sync)
            .map_err(|e| unusable(format!("cannot create the state folder {place}: {e}")))?;
        let open = match Open::new(&folder) {
            Ok(open) => open,
            Err(fjall::Error::Locked) => {
                return Err(failure(
                    codes::BROKER_STATE_IN_USE,
                    format!("the state folder {place} is in use by another process"),
                ));
            }
            Err(e) => {
                return Err(unusable(format!(
                    "cannot open the state folder {place}: {}",
                    plain(&e)
                )));
            }
        };
        Ok(Self {
            folder,
            sync,
            open: Some(open),
        })
    }

    /// Opens the folder anew after an error: the store refuses everything after one.
    pub(super) fn reopen(&mut self) -> Result<(), String> {
        self.open = None;
        let open = Open::new(&self.folder).map_err(|e| plain(&e))?;
        self.open = Some(open);
        Ok(())
    }

    /// Commits writes as one: all or none of them are on disk, as safe as promised, when it returns.
    pub(super) fn commit(&self, writes: &[Write]) -> Result<(), String> {
        let open = self.open.as_ref().ok_or("the state folder is not open")?;
        let mode = if self.sync {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        let mut batch = OwnedWriteBatch::with_capacity(open.database.clone(), writes.len())
            .durability(Some(mode));
        for write in writes {
            match write {
                Write::Queue { id, name, bound } => {
                    let value = [&[u8::from(*bound)], name.as_bytes()].concat();
                    batch.insert(&open.queues, queue_key(KEY_QUEUE, *id), value);
                }
                Write::Delivered { queue, below } => {
                    let key = queue_key(KEY_DELIVERED, *queue);
                    batch.insert(&open.queues, key, &below.to_be_bytes()[..]);
                }
                Write::Put(arriving) => {
                    for (queue, key) in &arriving.targets {
                        if let Some(key) = key {
                            let value = encode(&arriving.message);
                            batch.insert(&open.messages, message_key(*queue, *key), value);
                        }
                    }
                }
                Write::Remove { queue, key } => {
                    batch.remove(&open.messages, &message_key(*queue, *key)[..]);
                }
                Write::Mark(_) => {}
            }
        }
        batch.commit().map_err(|e| plain(&e))
    }

    /// Writes something harmless as safely as everything else: whether the disk works again.
    pub(super) fn probe(&self) -> Result<(), String> {
        let open = self.open.as_ref().ok_or("the state folder is not open")?;
        let mut batch = OwnedWriteBatch::with_capacity(open.database.clone(), 1)
            .durability(Some(PersistMode::SyncData));
        batch.insert(&open.queues, [KEY_FORMAT], [FORMAT]);
        batch.commit().map_err(|e| plain(&e))
    }

    /// Brings queues and messages of an earlier process into memory, and claims a new folder.
    pub(super) fn load(&self, state: &mut State) -> Result<(), WorkError> {
        let place = self.folder.display();
        let failed = |e: fjall::Error| {
            unusable(format!(
                "cannot read the state folder {place}: {}",
                plain(&e)
            ))
        };
        let damaged = |what: &str| {
            unusable(format!(
                "the state folder {place} holds {what} that cannot be read; move the folder away and start with a new one"
            ))
        };
        let Some(open) = &self.open else {
            return Err(damaged("nothing"));
        };
        match open.queues.get([KEY_FORMAT]).map_err(failed)?.as_deref() {
            Some([FORMAT]) => {}
            None => self
                .probe()
                .map_err(|e| unusable(format!("cannot write to the state folder {place}: {e}")))?,
            Some(_) => {
                return Err(unusable(format!(
                    "the state folder {place} was written by another version of vumi; use that version or another folder"
                )));
            }
        }
        let mut queues = BTreeMap::new();
        for item in open.queues.prefix([KEY_QUEUE]) {
            let (key, value) = item.into_inner().map_err(failed)?;
            let (id, queue) = decode_queue(&key, &value).ok_or_else(|| damaged("a queue"))?;
            queues.insert(id, queue);
        }
        for item in open.queues.prefix([KEY_DELIVERED]) {
            let (key, value) = item.into_inner().map_err(failed)?;
            let below = <[u8; 8]>::try_from(value.as_ref()).map(u64::from_be_bytes);
            if let (Some(id), Ok(below)) = (key.get(1..).and_then(number), below)
                && let Some(queue) = queues.get_mut(&id)
            {
                queue.delivered_below = below;
                queue.requested_below = below;
                queue.next_key = below;
            }
        }
        for item in open.messages.iter() {
            let (key, value) = item.into_inner().map_err(failed)?;
            let (id, key) = key
                .split_at_checked(8)
                .and_then(|(id, key)| Some((number(id)?, number(key)?)))
                .ok_or_else(|| damaged("a message"))?;
            let queue = queues
                .get_mut(&id)
                .ok_or_else(|| damaged("a message of an unknown queue"))?;
            let mut message = decode(&value).ok_or_else(|| damaged("a message"))?;
            message.key = Some(key);
            message.redelivered = key < queue.delivered_below;
            queue.next_key = queue.next_key.max(key + 1);
            queue.push(message);
        }
        for (id, queue) in queues {
            state.restore(id, queue);
        }
        Ok(())
    }
}

fn failure(code: Code, text: String) -> WorkError {
    WorkError::new(ErrorClass::Connect, code, text)
}

fn unusable(text: String) -> WorkError {
    failure(codes::BROKER_STATE, text)
}

fn queue_key(kind: u8, id: QueueId) -> [u8; 9] {
    let mut key = [kind; 9];
    key[1..].copy_from_slice(&id.to_be_bytes());
    key
}

fn message_key(queue: QueueId, key: u64) -> [u8; 16] {
    let both = (u128::from(queue) << 64) | u128::from(key);
    both.to_be_bytes()
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn decode_queue(key: &[u8], value: &[u8]) -> Option<(QueueId, Queue)> {
    let (bound, name) = value.split_first()?;
    let name = String::from_utf8(name.to_vec()).ok()?;
    let life = Life::Durable { bound: *bound == 1 };
    Some((number(key.get(1..)?)?, Queue::new(name, life)))
}

/// A message as stored: whether it has an id, routing key and id each after their length, body.
fn encode(message: &Stored) -> Vec<u8> {
    let id = message.message_id.as_deref().unwrap_or_default();
    let key = message.routing_key.as_bytes();
    let mut value = Vec::with_capacity(9 + key.len() + id.len() + message.body.len());
    value.push(u8::from(message.message_id.is_some()));
    for text in [key, id.as_bytes()] {
        value.extend_from_slice(&(text.len() as u32).to_be_bytes());
        value.extend_from_slice(text);
    }
    value.extend_from_slice(&message.body);
    value
}

fn decode(value: &[u8]) -> Option<Stored> {
    let (has_id, rest) = value.split_first()?;
    let (routing_key, rest) = text(rest)?;
    let (id, body) = text(rest)?;
    Some(Stored {
        routing_key,
        body: Bytes::copy_from_slice(body),
        message_id: (*has_id == 1).then_some(id),
        redelivered: false,
        position: 0,
        key: None,
    })
}

fn text(value: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = value.split_at_checked(4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_the_disk(
            key in ".{0,40}",
            id in proptest::option::of(".{0,40}"),
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let message = Stored {
                routing_key: key,
                body: body.into(),
                message_id: id,
                redelivered: false,
                position: 0,
                key: None,
            };
            let back = decode(&encode(&message)).expect("readable");
            prop_assert_eq!(&back.routing_key, &message.routing_key);
            prop_assert_eq!(&back.message_id, &message.message_id);
            prop_assert_eq!(&back.body, &message.body);
        }

        #[test]
        fn damaged_records_are_refused_not_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            if let Some(message) = decode(&bytes) {
                prop_assert!(message.body.len() < bytes.len());
            }
        }
    }
}
