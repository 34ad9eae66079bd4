//! Suspects in the embedded store: an end, and the lives in which it was begun, per message.

use super::EmbeddedStore;
use super::disk::{Failure, Space, View, millis};
use super::keys::{Key, Parts, fits, tag};
use super::sweep::{self, NEVER};
use crate::error::WorkError;
use crate::state::Suspects;
use async_trait::async_trait;
use std::time::Duration;

const SUSPECT: Failure = Failure::Damaged("a suspect's lives");

fn key(queue: &str, id: &str) -> Key {
    Key::new(tag::SUSPECT).name(queue).name(id)
}

/// The lives that are not forgotten.
fn lives(view: &impl View, old: Option<(u64, Vec<u64>)>) -> Vec<u64> {
    match old {
        Some((ends, lives)) if ends > view.now() => lives,
        _ => Vec::new(),
    }
}

/// Its end, and the lives.
fn get(view: &impl View, key: &[u8]) -> Result<Option<(u64, Vec<u64>)>, Failure> {
    let Some(value) = view.get(Space::Index, key)? else {
        return Ok(None);
    };
    let (numbers, rest) = value.as_chunks::<8>();
    let mut numbers = numbers.iter().map(|number| u64::from_be_bytes(*number));
    let ends = numbers.next().filter(|_| rest.is_empty()).ok_or(SUSPECT)?;
    Ok(Some((ends, numbers.collect())))
}

/// What [`get`] reads.
fn packed(ends: u64, lives: &[u64]) -> Vec<u8> {
    let numbers = std::iter::once(&ends).chain(lives);
    numbers.flat_map(|number| number.to_be_bytes()).collect()
}

/// When it is forgotten.
pub(super) fn ends(view: &impl View, key: &[u8]) -> Result<Option<u64>, Failure> {
    Ok(get(view, key)?.map(|(ends, _)| ends))
}

/// The message in a suspect's key.
pub(super) fn message(key: &[u8]) -> Result<&str, Failure> {
    let mut parts = Parts::of(key);
    parts.name().and_then(|_| parts.name()).ok_or(SUSPECT)
}

#[async_trait]
impl Suspects for EmbeddedStore {
    async fn begun_in(&self, queue: &str, id: &str) -> Result<Vec<u64>, WorkError> {
        fits([queue, id])?;
        let key = key(queue, id);
        self.read(move |look| Ok(lives(look, get(look, key.as_ref())?)))
            .await
    }

    async fn suspect(
        &self,
        queue: &str,
        id: &str,
        life: u64,
        keep: Duration,
    ) -> Result<u32, WorkError> {
        fits([queue, id])?;
        let key = key(queue, id);
        self.write(move |tx| {
            let now = tx.now();
            let old = get(tx, key.as_ref())?;
            let reminded = old.as_ref().map(|(ends, _)| *ends);
            let mut lives = lives(tx, old);
            if !lives.contains(&life) {
                lives.push(life);
            }
            let ends = now.saturating_add(millis(keep)).min(NEVER - 1);
            tx.insert(Space::Index, &key, packed(ends, &lives));
            sweep::remind(tx, key.as_ref(), reminded, ends);
            Ok(u32::try_from(lives.len()).unwrap_or(u32::MAX))
        })
        .await
    }

    async fn spare(&self, queue: &str, id: &str, life: u64) -> Result<(), WorkError> {
        fits([queue, id])?;
        let key = key(queue, id);
        self.write(move |tx| {
            if let Some((ends, mut lives)) = get(tx, key.as_ref())? {
                lives.retain(|other| *other != life);
                tx.insert(Space::Index, &key, packed(ends, &lives));
            }
            Ok(())
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
