//! Suspects in the embedded store: a count and an end per message.

use super::EmbeddedStore;
use super::disk::{Failure, Space, View, millis};
use super::keys::{Key, Parts, fits, pack, tag, unpack};
use super::sweep::{self, NEVER};
use crate::error::WorkError;
use crate::state::Suspects;
use async_trait::async_trait;
use std::time::Duration;

const SUSPECT: Failure = Failure::Damaged("a suspect's count");

fn key(queue: &str, id: &str) -> Key {
    Key::new(tag::SUSPECT).name(queue).name(id)
}

fn get(view: &impl View, key: &[u8]) -> Result<Option<[u64; 2]>, Failure> {
    let value = view.get(Space::Index, key)?;
    value.map(|value| unpack(&value).ok_or(SUSPECT)).transpose()
}

/// When it is forgotten.
pub(super) fn ends(view: &impl View, key: &[u8]) -> Result<Option<u64>, Failure> {
    Ok(get(view, key)?.map(|[_, ends]| ends))
}

/// The message in a suspect's key.
pub(super) fn message(key: &[u8]) -> Result<&str, Failure> {
    let mut parts = Parts::of(key);
    parts.name().and_then(|_| parts.name()).ok_or(SUSPECT)
}

#[async_trait]
impl Suspects for EmbeddedStore {
    async fn suspect(&self, queue: &str, id: &str, keep: Duration) -> Result<u32, WorkError> {
        fits([queue, id])?;
        let key = key(queue, id);
        self.write(move |tx| {
            let now = tx.now();
            let old = get(tx, key.as_ref())?;
            let before = match old {
                Some([count, ends]) if ends > now => count,
                _ => 0,
            };
            let ends = now.saturating_add(millis(keep)).min(NEVER - 1);
            let count = before.saturating_add(1);
            tx.insert(Space::Index, &key, pack([count, ends]));
            sweep::remind(tx, key.as_ref(), old.map(|[_, ends]| ends), ends);
            Ok(u32::try_from(count).unwrap_or(u32::MAX))
        })
        .await
    }

    async fn acquit(&self, queue: &str, id: &str) -> Result<(), WorkError> {
        fits([queue, id])?;
        let key = key(queue, id);
        self.write(move |tx| {
            if get(tx, key.as_ref())?.is_some() {
                tx.remove(Space::Index, &key);
            }
            Ok(())
        })
        .await
    }
}
