//! From what a condition is to be to what it is after this look: what has to last, when a sentence is replaced, since when.

use super::Observed;
use super::settle::Settling;
use crate::reasons::Reason;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use vumi_api::{Condition, ConditionType, Truth};

/// Longest message of a condition, in bytes.
const MESSAGE: usize = 1024;
/// A new sentence for what was said already.
const REWORDED: SignedDuration = SignedDuration::from_secs(60);

/// What a condition is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Whether it holds.
    pub truth: Truth,
    /// Why.
    pub reason: Reason,
    message: String,
    after: SignedDuration,
    wording: Wording,
}

/// When another sentence for the same reason is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wording {
    /// Never: it may hold whatever a peer answers.
    Kept,
    /// Once it has lasted.
    Slow,
    /// At once.
    Free,
}

impl Candidate {
    /// Holds or not, at once; the first sentence for a reason stays.
    pub fn new(truth: Truth, reason: Reason, message: String) -> Self {
        Self {
            truth,
            reason,
            message,
            after: SignedDuration::ZERO,
            wording: Wording::Kept,
        }
    }

    /// It has to last for so long.
    pub fn after(self, after: SignedDuration) -> Self {
        Self { after, ..self }
    }

    /// Another sentence takes the place of the first once it has lasted.
    pub fn reworded_slowly(self) -> Self {
        let wording = Wording::Slow;
        Self { wording, ..self }
    }

    /// Another sentence takes the place of the first at once.
    pub fn reworded(self) -> Self {
        let wording = Wording::Free;
        Self { wording, ..self }
    }
}

/// What is to become of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nobody can tell now: it stays as it is.
    Keep,
    /// It is not to be there.
    Gone,
    /// It is to be this.
    Is(Candidate),
}

/// One condition after this look. `over`: what it takes for one that is over to go.
pub fn condition(
    kind: ConditionType,
    wish: Wish,
    over: SignedDuration,
    before: Option<&Condition>,
    seen: &Observed<'_>,
    settling: &mut Settling,
) -> Option<Condition> {
    let sign = |truth: Truth, reason: &str| format!("{truth:?}/{reason}");
    let slot = kind.as_str();
    let old = before.map_or(String::new(), |c| sign(c.status, &c.reason));
    // A condition says of which generation it is, whatever else stays.
    let kept = || {
        before.cloned().map(|condition| Condition {
            observed_generation: seen.generation,
            ..condition
        })
    };
    let mut candidate = match wish {
        Wish::Keep => return kept(),
        Wish::Gone => {
            return match settling.settles(slot, &old, "", over) {
                true => None,
                false => kept(),
            };
        }
        Wish::Is(candidate) => candidate,
    };
    let new = sign(candidate.truth, candidate.reason.as_str());
    // What was never said is no change, unless it is bad news that has to last.
    let good = candidate.truth == Truth::True && !kind.only_while_true();
    let after = match before.is_none() && (good || kind == ConditionType::Ready) {
        true => SignedDuration::ZERO,
        false => candidate.after,
    };
    if old != new {
        return match settling.settles(slot, &old, &new, after) {
            true => Some(written(kind, candidate, before, seen)),
            false => kept(),
        };
    }
    let said = before.map_or("", |condition| condition.message.as_str());
    shorten(&mut candidate.message);
    let keep = match candidate.wording {
        Wording::Kept => {
            settling.settles(slot, "", "", SignedDuration::ZERO);
            true
        }
        Wording::Slow => !settling.settles(slot, said, &candidate.message, REWORDED),
        Wording::Free => {
            settling.settles(slot, "", "", SignedDuration::ZERO);
            false
        }
    };
    match keep {
        true => kept(),
        false => Some(written(kind, candidate, before, seen)),
    }
}

/// A condition as it stands in the status.
pub fn written(
    kind: ConditionType,
    candidate: Candidate,
    before: Option<&Condition>,
    seen: &Observed<'_>,
) -> Condition {
    let same = before.filter(|condition| condition.status == candidate.truth);
    let mut message = match candidate.message.is_empty() {
        true => candidate.reason.entry().meaning.to_owned(),
        false => candidate.message,
    };
    shorten(&mut message);
    Condition {
        kind: kind.as_str().to_owned(),
        status: candidate.truth,
        reason: candidate.reason.as_str().to_owned(),
        message,
        last_transition_time: same.map_or_else(
            || time(seen.sight.now),
            |condition| condition.last_transition_time.clone(),
        ),
        observed_generation: seen.generation,
    }
}

/// A time as Kubernetes writes it: whole seconds.
pub fn time(now: Timestamp) -> String {
    let whole = Timestamp::from_second(now.as_second()).unwrap_or(now);
    whole.to_string()
}

fn shorten(message: &mut String) {
    if message.len() > MESSAGE {
        let mut end = MESSAGE - '…'.len_utf8();
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
}
