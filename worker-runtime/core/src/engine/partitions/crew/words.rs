//! What a crew says to the others that share the parts, and how it hears them.

use super::super::members::{BEAT, Beat};
use super::Crew;
use crate::beacon;
use crate::broker::{Access, EXCHANGE, QueueSpec, Subscribe, Subscription};
use crate::message::random_id;
use futures::FutureExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::time::Instant;
use vumi_api::OrderingMode;

impl Crew {
    fn key(&self) -> String {
        format!("{}.members", self.plan.queue())
    }

    pub(super) async fn ears(&mut self) -> Subscription {
        let copy = QueueSpec::Copy {
            name: format!("{}.{}", self.key(), random_id()),
            exchange: EXCHANGE.into(),
            keys: vec![self.key()],
        };
        self.parts
            .broker
            .subscribe(Subscribe {
                queue: copy,
                prefetch: 200,
                access: Access::Shared,
                tag: self.parts.tag.clone(),
            })
            .await
    }

    /// Says that we live, when it is time or there is news. One word at a time: nobody waits for the broker.
    pub(super) fn speak(&mut self, leaving: bool) {
        let now = Instant::now();
        if self.beat.is_some() || !(leaving || self.news || now >= self.beat_at) {
            return;
        }
        self.news = false;
        self.beat_at = now + BEAT;
        let alone = self.wanted_alone();
        let mut parts: BTreeSet<String> = self.plan.parts().iter().cloned().collect();
        parts.extend(alone.iter().flat_map(|alone| alone.parts.iter().cloned()));
        let beat = Beat {
            member: self.member.clone(),
            parts: parts.into_iter().collect(),
            holds: self.holds(),
            alone: alone.is_some(),
            leaving,
        };
        let (broker, key) = (Arc::clone(&self.parts.broker), self.key());
        self.beat = Some(
            async move {
                beacon::tell(&*broker, EXCHANGE, &key, beat.encode().into()).await;
            }
            .boxed(),
        );
    }

    /// The parts of which messages may be in hand here. Who competes for them has them until they are done, although it
    /// does not hold up others.
    fn holds(&self) -> Vec<String> {
        let competes = self.parts.mode == OrderingMode::None;
        let leaving = self.posts.iter().filter(|(_, post)| post.leaving);
        let leaving = leaving.map(|(part, _)| part).filter(|_| competes);
        let all: BTreeSet<&String> = self.reads().chain(leaving).collect();
        all.into_iter().cloned().collect()
    }

    /// Whether we were to let go of all parts, and nobody has any.
    pub(super) fn has_left(&self) -> bool {
        let closed = self.wanted_alone().filter(|alone| alone.closed);
        closed.is_some_and(|alone| {
            let mut parts = alone.parts.iter();
            self.posts.is_empty() && !parts.any(|part| self.members.held_elsewhere(part))
        })
    }
}
