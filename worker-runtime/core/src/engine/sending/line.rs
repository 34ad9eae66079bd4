//! Who is next: classes by weight, within a class tenants in turn, within a tenant batches in turn, and within a batch
//! whoever came first. Pure.

use super::super::labels::Labels;
use std::collections::VecDeque;
use vumi_api::shared::{Class, Classes};

/// Named queues that have their turn one after the other; an empty one is not kept.
struct Ring<Q>(VecDeque<(Option<String>, Q)>);

impl<Q: Default> Ring<Q> {
    fn of(&mut self, name: Option<&str>) -> &mut Q {
        let place = self.0.iter().position(|(n, _)| n.as_deref() == name);
        let place = place.unwrap_or_else(|| {
            self.0.push_back((name.map(str::to_owned), Q::default()));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }

    /// The next thing out of the first queue, which goes to the end of the ring.
    fn next<T>(
        &mut self,
        take: impl FnOnce(&mut Q) -> Option<T>,
        is_empty: impl FnOnce(&Q) -> bool,
    ) -> Option<T> {
        let (name, mut queue) = self.0.pop_front()?;
        let next = take(&mut queue);
        if !is_empty(&queue) {
            self.0.push_back((name, queue));
        }
        next
    }
}

impl<Q> Default for Ring<Q> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

type Batches<T> = Ring<VecDeque<T>>;

/// The waiting of one class.
struct Waiting<T> {
    weight: i64,
    /// Turns that it has to good.
    credit: i64,
    tenants: Ring<Batches<T>>,
}

/// A line of people who wait. As many as windows hold.
pub(super) struct Line<T> {
    /// By class; only one where there are none.
    classes: Vec<Waiting<T>>,
    default: Option<Class>,
}

impl<T> Line<T> {
    /// Without classes, whoever came first is next.
    pub(super) fn new(classes: Option<&Classes>) -> Self {
        let weights = match classes {
            Some(classes) => Class::ALL.map(|class| classes.weight(class)).into(),
            None => vec![1],
        };
        let waiting = |weight| Waiting {
            weight: i64::from(weight),
            credit: 0,
            tenants: Ring::default(),
        };
        Self {
            classes: weights.into_iter().map(waiting).collect(),
            default: classes.map(Classes::default_class),
        }
    }

    /// The class of a message with these labels; none where there are no classes.
    pub(super) fn class_of(&self, labels: &Labels) -> Option<Class> {
        self.default.map(|default| labels.class_or(default))
    }

    pub(super) fn push(&mut self, labels: &Labels, item: T) {
        let (class, tenant, batch) = match self.class_of(labels) {
            Some(class) => (
                class as usize,
                labels.tenant.as_deref(),
                labels.batch.as_deref(),
            ),
            None => (0, None, None),
        };
        if let Some(class) = self.classes.get_mut(class) {
            class.tenants.of(tenant).of(batch).push_back(item);
        }
    }

    /// The next one of a class that may have its turn now. Smooth weighted round-robin: each class that waits earns its
    /// weight, and who has most pays for the turn.
    pub(super) fn pop(&mut self, may: impl Fn(Option<Class>) -> bool) -> Option<T> {
        let mut total = 0;
        let mut waiting = Vec::with_capacity(self.classes.len());
        for (class, place) in self.classes.iter_mut().zip(Class::ALL) {
            if class.tenants.0.is_empty() {
                class.credit = 0;
            } else if may(self.default.map(|_| place)) {
                class.credit += class.weight;
                total += class.weight;
                waiting.push(class);
            }
        }
        // Of equals the most urgent one, which stands first.
        let next = waiting
            .into_iter()
            .reduce(|a, b| if b.credit > a.credit { b } else { a })?;
        next.credit -= total;
        next.tenants.next(
            |batches| batches.next(VecDeque::pop_front, VecDeque::is_empty),
            |batches| batches.0.is_empty(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::UserMessage;
    use proptest::prelude::*;
    use serde_json::json;

    fn labels(class: Class, tenant: &str, batch: &str) -> Labels {
        let mut message = UserMessage::new("sms", Some("1"), Some("2"));
        let metadata = message.helper_metadata_mut();
        metadata.insert("class".into(), json!(class.as_str()));
        metadata.insert("tenant".into(), json!(tenant));
        metadata.insert("batch".into(), json!(batch));
        Labels::of(&message.into())
    }

    #[test]
    fn an_urgent_message_overtakes_and_others_still_move() {
        let mut line = Line::new(Some(&Classes::default()));
        for n in 0..1000 {
            line.push(&labels(Class::Bulk, "", "a"), ("bulk", n));
        }
        for n in 0..64 {
            line.push(&labels(Class::Interactive, "", ""), ("interactive", n));
        }
        let first: Vec<_> = (0..68).filter_map(|_| line.pop(|_| true)).collect();
        assert_eq!(first[0].0, "interactive");
        let bulk = first.iter().filter(|(class, _)| *class == "bulk").count();
        assert_eq!(bulk, 4, "one of seventeen");
    }

    #[test]
    fn batches_and_tenants_have_their_turn() {
        let mut line = Line::new(Some(&Classes::default()));
        for (tenant, batch, count) in [("t1", "a", 100), ("t1", "b", 2), ("t2", "c", 4)] {
            for n in 0..count {
                line.push(&labels(Class::Bulk, tenant, batch), format!("{batch}{n}"));
            }
        }
        let first: Vec<_> = (0..8).filter_map(|_| line.pop(|_| true)).collect();
        assert_eq!(first, ["a0", "c0", "b0", "c1", "a1", "c2", "b1", "c3"]);
    }

    #[test]
    fn who_may_not_is_passed_over_and_keeps_its_place() {
        let mut line = Line::new(Some(&Classes::default()));
        line.push(&labels(Class::Bulk, "", ""), "bulk");
        line.push(&labels(Class::Interactive, "", ""), "interactive");
        let bulk_may_not = |class| class != Some(Class::Bulk);
        assert_eq!(line.pop(bulk_may_not), Some("interactive"));
        assert_eq!(line.pop(bulk_may_not), None);
        assert_eq!(line.pop(|_| true), Some("bulk"));
    }

    #[test]
    fn without_classes_whoever_came_first_is_next() {
        let mut line = Line::new(None);
        for (n, class) in Class::ALL.into_iter().rev().enumerate() {
            line.push(&labels(class, "t", &n.to_string()), n);
        }
        let all: Vec<_> = std::iter::from_fn(|| line.pop(|_| true)).collect();
        assert_eq!(all, [0, 1, 2]);
    }

    proptest! {
        /// Everything leaves once, in order within its batch; while all classes wait, each has its share, and nobody
        /// waits longer than two rounds, whoever comes and goes.
        #[test]
        fn nobody_starves(
            weights in proptest::array::uniform3(1u32..20),
            items in proptest::collection::vec((0usize..3, 0u8..3, 0u8..3), 0..300),
        ) {
            let classes = Classes {
                default: None,
                weights: Some(vumi_api::shared::Weights {
                    interactive: Some(weights[0]),
                    transactional: Some(weights[1]),
                    bulk: Some(weights[2]),
                }),
            };
            let mut line = Line::new(Some(&classes));
            let mut left = [0u32; 3];
            for (n, (class, tenant, batch)) in items.iter().enumerate() {
                let of = labels(Class::ALL[*class], &tenant.to_string(), &batch.to_string());
                line.push(&of, (n, *class, *tenant, *batch));
                left[*class] += 1;
            }
            let round: u32 = weights.iter().sum();
            let mut out = Vec::new();
            let mut since = [0u32; 3];
            while let Some(item) = line.pop(|_| true) {
                for class in 0..3 {
                    since[class] = if class == item.1 || left[class] == 0 { 0 } else { since[class] + 1 };
                    prop_assert!(since[class] <= 2 * round, "class {} waits too long", class);
                }
                left[item.1] -= 1;
                out.push(item);
            }
            prop_assert_eq!(out.len(), items.len());
            for (a, b) in out.iter().enumerate().flat_map(|(i, a)| out[i + 1..].iter().map(move |b| (a, b))) {
                let same = (a.1, a.2, a.3) == (b.1, b.2, b.3);
                prop_assert!(!same || a.0 < b.0, "order within a batch");
            }
            // While all of equal need wait, shares are exact over a whole round.
            let mut line = Line::new(Some(&classes));
            for class in Class::ALL {
                (0..round).for_each(|_| line.push(&labels(class, "", ""), class));
            }
            let mut had = [0u32; 3];
            (0..round).filter_map(|_| line.pop(|_| true)).for_each(|class| had[class as usize] += 1);
            prop_assert_eq!(had, weights);
        }
    }
}
