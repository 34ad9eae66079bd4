//! The journal in the embedded store.

mod desk;
mod lanes;
mod movers;
mod work;

pub(super) use desk::{outgoing_entry, remove_entry};
pub(super) use movers::Movers;

use super::EmbeddedStore;
use super::disk::{Space, Tx, View};
use super::keys::{Key, Parts, fits, tag};
use super::timetable;
use crate::error::WorkError;
use crate::state::journal::{
    Append, Cause, Claimed, Depth, Entry, Filter, Journal, Lane, Listed, Mover, Next, Outgoing,
    Step, Withdrawn, superseded,
};
use async_trait::async_trait;
use desk::matching;
use lanes::{GROUP, State, claim_end, due_index, groups, lanes, lanes_of, set_state, state};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Lanes released, moved or looked at in one transaction.
const RELEASE: usize = 1000;
/// Messages moved in one.
const MOVES: usize = 1000;

fn names<'a>(queue: &'a str, filter: &'a Filter) -> impl Iterator<Item = &'a str> {
    [queue].into_iter().chain(filter.group.as_deref())
}

#[async_trait]
impl Journal for EmbeddedStore {
    async fn append(&self, queue: &str, messages: Vec<Append>) -> Result<(), WorkError> {
        fits(
            [queue]
                .into_iter()
                .chain(messages.iter().map(|m| m.lane.group.as_str())),
        )?;
        let queue = queue.to_owned();
        self.write(move |tx| work::append(tx, &queue, messages))
            .await
    }

    async fn lanes(&self, queue: &str) -> Result<Vec<Lane>, WorkError> {
        fits([queue])?;
        let queue = queue.to_owned();
        self.read(move |look| {
            let all = lanes(look, &queue);
            all.map(|lane| lane.map(|(lane, _)| lane)).collect()
        })
        .await
    }

    async fn heads(&self, queue: &str, lanes: &[Lane]) -> Result<Vec<Option<Entry>>, WorkError> {
        fits([queue])?;
        let mut heads = Vec::with_capacity(lanes.len());
        for some in lanes.chunks(RELEASE) {
            let (queue, some) = (queue.to_owned(), some.to_vec());
            let look = self.read(move |look| {
                let head = |lane| work::head(look, &queue, lane);
                some.iter().map(head).collect::<Result<Vec<_>, _>>()
            });
            heads.extend(look.await?);
        }
        Ok(heads)
    }

    async fn groups(&self, queue: &str) -> Result<Vec<String>, WorkError> {
        fits([queue])?;
        let queue = queue.to_owned();
        self.read(move |look| Ok(groups(look, &queue)?.into_keys().collect()))
            .await
    }

    async fn claim(
        &self,
        queue: &str,
        group: &str,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<Claimed>, WorkError> {
        fits([queue, group])?;
        let (queue, group) = (queue.to_owned(), group.to_owned());
        self.write(move |tx| work::claim(tx, &queue, &group, limit, lease))
            .await
    }

    async fn next_due(&self, queue: &str) -> Result<Option<Duration>, WorkError> {
        fits([queue])?;
        let queue = queue.to_owned();
        self.write(move |tx| {
            let mut earliest = None;
            for group in groups(tx, &queue)?.into_keys() {
                let at = timetable::first(tx, &due_index(&queue, &group))?;
                earliest = earliest.into_iter().chain(at).min();
            }
            let now = tx.now();
            Ok(earliest.map(|at: u64| Duration::from_millis(at.saturating_sub(now))))
        })
        .await
    }

    async fn step(
        &self,
        queue: &str,
        lane: &Lane,
        id: u64,
        said: Step,
        lease: Duration,
    ) -> Result<Next, WorkError> {
        fits([queue, &lane.group])?;
        let (queue, lane) = (queue.to_owned(), lane.clone());
        self.write(move |tx| work::step(tx, &queue, lane, id, said, lease))
            .await
    }

    async fn renew(&self, queue: &str, lanes: &[Lane], lease: Duration) -> Result<(), WorkError> {
        fits(
            [queue]
                .into_iter()
                .chain(lanes.iter().map(|l| l.group.as_str())),
        )?;
        let (queue, lanes) = (queue.to_owned(), lanes.to_vec());
        self.write(move |tx| {
            for lane in &lanes {
                if let Some(old) = state(tx, &queue, lane)?
                    && old.claimed != 0
                {
                    let now = tx.now();
                    let (due, claimed) = match lease.is_zero() {
                        true => (now, 0),
                        false => (old.due, claim_end(now, lease)),
                    };
                    let new = State {
                        due,
                        claimed,
                        ..old
                    };
                    set_state(tx, &queue, lane, Some(old), Some(new));
                }
            }
            Ok(())
        })
        .await
    }

    async fn reclaim(&self, queue: &str) -> Result<(), WorkError> {
        fits([queue])?;
        let queue = queue.to_owned();
        self.write(move |tx| {
            for lane in lanes(tx, &queue) {
                let (lane, old) = lane?;
                if old.claimed != 0 {
                    let new = State { claimed: 0, ..old };
                    set_state(tx, &queue, &lane, Some(old), Some(new));
                }
            }
            Ok(())
        })
        .await
    }

    async fn relocate(
        &self,
        mover: &Mover,
        queue: &str,
        to: &str,
        lanes: &[Lane],
    ) -> Result<u64, WorkError> {
        fits([queue, to])?;
        let (mut relocated, mut rest) = (0, lanes);
        while !rest.is_empty() {
            let some = rest[..rest.len().min(RELEASE)].to_vec();
            let (queue, to) = (queue.to_owned(), to.to_owned());
            let (movers, who) = (Arc::clone(&self.movers), mover.clone());
            let work = move |tx: &mut Tx<'_>| match movers.may(&who) {
                true => work::relocate(tx, &queue, &to, &some, MOVES).map(Some),
                false => Ok(None),
            };
            let moved = self.write(work).await?;
            let (finished, moved) = moved.ok_or_else(|| superseded(mover))?;
            rest = &rest[finished..];
            relocated += moved;
        }
        Ok(relocated)
    }

    async fn appoint(&self, mover: &Mover) -> Result<(), WorkError> {
        self.movers.appoint(mover.clone());
        Ok(())
    }

    async fn dismiss(&self, queue: &str) -> Result<(), WorkError> {
        self.movers.dismiss(queue);
        Ok(())
    }

    async fn depth(&self, queue: &str) -> Result<Depth, WorkError> {
        fits([queue])?;
        let queue = queue.to_owned();
        self.read(move |look| {
            let mut depth = Depth::default();
            for group in groups(look, &queue)?.values() {
                depth.messages += group.messages;
                depth.lanes += group.lanes;
            }
            Ok(depth)
        })
        .await
    }

    async fn queues(&self) -> Result<Vec<String>, WorkError> {
        self.read(|look| {
            let mut queues = BTreeSet::new();
            for item in look.all(Space::Index, &Key::new(tag::GROUP)) {
                let key = item.key()?;
                queues.insert(Parts::of(&key).name().ok_or(GROUP)?.to_owned());
            }
            queues.extend(desk::outgoing_queues(look)?);
            Ok(queues.into_iter().collect())
        })
        .await
    }

    async fn list(
        &self,
        queue: &str,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<Listed>, WorkError> {
        fits(names(queue, filter))?;
        let (queue, filter) = (queue.to_owned(), filter.clone());
        self.read(move |look| {
            let mut found = Vec::new();
            if limit > 0 {
                matching(look, &queue, &filter, |listed, _| {
                    found.push(listed);
                    found.len() < limit
                })?;
            }
            Ok(found)
        })
        .await
    }

    async fn release(&self, queue: &str, filter: &Filter) -> Result<u64, WorkError> {
        fits(names(queue, filter))?;
        let (queue, filter) = (queue.to_owned(), filter.clone());
        let sought = queue.clone();
        let found = self
            .read(move |look| {
                let mut found = BTreeSet::new();
                if filter.takes_whole_lanes() {
                    for lane in lanes_of(look, &sought, &filter) {
                        found.insert(lane?.0);
                    }
                } else {
                    matching(look, &sought, &filter, |listed, _| {
                        found.insert(listed.lane);
                        true
                    })?;
                }
                Ok(found.into_iter().collect::<Vec<_>>())
            })
            .await?;
        let mut released = 0;
        for some in found.chunks(RELEASE) {
            let (queue, some) = (queue.clone(), some.to_vec());
            released += self
                .write(move |tx| desk::release(tx, &queue, &some))
                .await?;
        }
        Ok(released)
    }

    async fn withdraw(
        &self,
        queue: &str,
        filter: &Filter,
        limit: usize,
        cause: Cause,
        lease: Duration,
    ) -> Result<Withdrawn, WorkError> {
        fits(names(queue, filter))?;
        let (queue, filter) = (queue.to_owned(), filter.clone());
        let sought = filter.clone();
        let (found, in_hand) = self
            .read(move |look| {
                let (mut found, mut in_hand) = (Vec::new(), 0);
                if limit > 0 {
                    matching(look, &queue, &sought, |listed, is_in_hand| {
                        match is_in_hand {
                            true => in_hand += 1,
                            false => found.push(listed),
                        }
                        found.len() < limit
                    })?;
                }
                Ok((found, in_hand))
            })
            .await?;
        let mut withdrawn = self
            .write(move |tx| desk::withdraw(tx, &filter, found, cause, lease))
            .await?;
        withdrawn.in_hand += in_hand;
        Ok(withdrawn)
    }

    async fn outgoing(&self, queue: &str, limit: usize) -> Result<Vec<Outgoing>, WorkError> {
        fits([queue])?;
        let queue = queue.to_owned();
        self.read(move |look| desk::outgoing(look, &queue, limit))
            .await
    }

    async fn adopt(
        &self,
        queue: &str,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<Outgoing>, WorkError> {
        // Most often there is nothing, and looking disturbs nobody.
        if self.outgoing(queue, 1).await?.is_empty() {
            return Ok(Vec::new());
        }
        let queue = queue.to_owned();
        self.write(move |tx| desk::adopt(tx, &queue, limit, lease))
            .await
    }

    async fn forget(&self, queue: &str, ids: &[u64]) -> Result<(), WorkError> {
        fits([queue])?;
        let (queue, ids) = (queue.to_owned(), ids.to_vec());
        self.write(move |tx| {
            desk::forget(tx, &queue, &ids);
            Ok(())
        })
        .await
    }
}
