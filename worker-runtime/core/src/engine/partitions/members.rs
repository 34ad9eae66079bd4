//! The replicas that share the parts of a queue, as one of them sees it (S12): who lives, who is new, who has what. Pure:
//! beats and times in, shares out.

use super::plan::unit_of;
use super::shares::shares;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Every member says so often that it lives.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// After three beats that did not come, a member is gone.
const SILENCE: Duration = Duration::from_millis(3500);
/// A newcomer must have been there so long, and nobody newer be there, before parts move to it: so that they move once.
const SETTLE: Duration = Duration::from_secs(2);
/// Newcomers who come one after the other cannot put this off for longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who does not look for so long was away, and has missed the others' beats.
const ABSENT: Duration = Duration::from_millis(1500);
/// More members than this are not believed.
const MOST: usize = 1000;
/// More parts than this are none of ours.
const MOST_PARTS: usize = 256;
/// Longest body of a beat that is read.
const LONGEST: usize = 16 << 10;
/// Longest name of a member or part.
pub(super) const LONGEST_NAME: usize = 200;

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Beat {
    /// Its name, unique on the broker and new at every start.
    pub(super) member: String,
    /// The parts that it knows of.
    pub(super) parts: Vec<String>,
    /// Those of which it has messages, or may get some.
    pub(super) holds: Vec<String>,
    /// It wants to have all parts for itself, to empty them before they are divided anew.
    pub(super) alone: bool,
    /// It is about to end.
    pub(super) leaving: bool,
}

impl Beat {
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// A beat; none for anything else, since everybody may publish under the key.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        if body.len() > LONGEST {
            return None;
        }
        let beat: Self = serde_json::from_slice(body).ok()?;
        let plain = |part: &String| {
            part.len() <= LONGEST_NAME
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.')
        };
        let good = beat.member.len() <= LONGEST_NAME
            && beat.parts.len().max(beat.holds.len()) <= MOST_PARTS
            && beat.parts.iter().chain(&beat.holds).all(plain);
        good.then_some(beat)
    }
}

struct Other {
    since: Instant,
    last: Instant,
    beat: Beat,
}

/// The members as one of them sees them.
pub(super) struct Members {
    me: String,
    own: BTreeSet<String>,
    born: Instant,
    others: BTreeMap<String, Other>,
    /// Those that have a share, ourselves perhaps among them.
    counted: BTreeSet<String>,
    looked: Instant,
    /// The members and parts that were divided last, and how.
    divided: (BTreeSet<String>, BTreeSet<String>),
    shares: BTreeMap<String, String>,
}

impl Members {
    /// A member that has just begun, and knows of these parts.
    pub(super) fn new(me: String, parts: BTreeSet<String>, now: Instant) -> Self {
        Self {
            me,
            own: parts,
            born: now,
            others: BTreeMap::new(),
            counted: BTreeSet::new(),
            looked: now,
            divided: Default::default(),
            shares: BTreeMap::new(),
        }
    }

    /// Somebody spoke; true if it is a newcomer, who should hear from us at once.
    pub(super) fn hear(&mut self, beat: Beat, now: Instant) -> bool {
        if beat.member == self.me {
            return false;
        }
        if beat.leaving {
            self.others.remove(&beat.member);
            return false;
        }
        let known = self.others.get(&beat.member).map(|other| other.since);
        if known.is_none() && self.others.len() >= MOST {
            return false;
        }
        let other = Other {
            since: known.unwrap_or(now),
            last: now,
            beat,
        };
        self.others.insert(other.beat.member.clone(), other);
        known.is_none()
    }

    /// Time passed. `hears`: the connection is up, so that silence means something. `alone`: we want all parts of ours
    /// and these.
    pub(super) fn look(&mut self, now: Instant, hears: bool, alone: Option<&BTreeSet<String>>) {
        let away = now.duration_since(self.looked) > ABSENT;
        self.looked = now;
        if away || !hears {
            self.others.values_mut().for_each(|other| other.last = now);
        }
        self.others
            .retain(|_, other| now.duration_since(other.last) < SILENCE);
        self.count(now);
        let divided = self.to_divide(alone);
        if self.divided != divided {
            let units: BTreeSet<String> = divided.1.iter().map(|p| unit_of(p).to_owned()).collect();
            let shares = shares(&divided.0, &units);
            let holder = |part: &String| Some((part.clone(), shares.get(unit_of(part))?.clone()));
            self.shares = divided.1.iter().filter_map(holder).collect();
            self.divided = divided;
        }
    }

    /// Takes newcomers in once they have settled, and leaves out who is gone.
    fn count(&mut self, now: Instant) {
        let all = || {
            let others = self.others.iter().map(|(name, o)| (name, o.since));
            others.chain([(&self.me, self.born)])
        };
        let age = |since: Instant| now.duration_since(since);
        let young = all().any(|(_, since)| age(since) < SETTLE);
        let counted = all().filter(|(name, since)| {
            let settled = age(*since) >= SETTLE && (!young || age(*since) >= PATIENCE);
            settled || self.counted.contains(*name)
        });
        self.counted = counted.map(|(name, _)| name.clone()).collect();
    }

    /// Who takes part, and in which parts.
    fn to_divide(&self, alone: Option<&BTreeSet<String>>) -> (BTreeSet<String>, BTreeSet<String>) {
        let beats = || self.others.values().map(|other| &other.beat);
        let mut parts = self.own.clone();
        parts.extend(beats().flat_map(|beat| beat.parts.iter().cloned()));
        parts.extend(alone.into_iter().flatten().cloned());
        let mut members: BTreeSet<String> = beats()
            .filter(|beat| beat.alone)
            .map(|beat| beat.member.clone())
            .collect();
        if alone.is_some() {
            members.insert(self.me.clone());
        }
        if members.is_empty() {
            members.clone_from(&self.counted);
        }
        (members, parts)
    }

    /// Our share; none while it is not known yet who is there.
    pub(super) fn share(&self) -> Option<BTreeSet<String>> {
        if self.shares.is_empty() {
            return None;
        }
        let mine = self.shares.iter().filter(|(_, member)| **member == self.me);
        Some(mine.map(|(part, _)| part.clone()).collect())
    }

    /// All parts that anybody knows of, where replicas compete for messages; none while it is not known yet who is there.
    pub(super) fn all(&self) -> Option<BTreeSet<String>> {
        (!self.shares.is_empty()).then(|| self.divided.1.clone())
    }

    /// Whether another living member wants to have all parts for itself.
    pub(super) fn is_anybody_alone(&self) -> bool {
        self.others.values().any(|other| other.beat.alone)
    }

    /// Whether another living member has this part.
    pub(super) fn held_elsewhere(&self, part: &str) -> bool {
        let mut others = self.others.values();
        others.any(|other| other.beat.holds.iter().any(|held| held == part))
    }

    /// How many others there are.
    pub(super) fn others(&self) -> usize {
        self.others.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(count: usize) -> BTreeSet<String> {
        (0..count).map(|k| format!("p{k}")).collect()
    }

    fn beat(member: &str) -> Beat {
        Beat {
            member: member.into(),
            parts: parts(8).into_iter().collect(),
            holds: Vec::new(),
            alone: false,
            leaving: false,
        }
    }

    /// Beats of `others` and our looks, four a second, for `seconds`.
    fn pass(members: &mut Members, now: &mut Instant, others: &[&str], seconds: u32) {
        for quarter in 0..seconds * 4 {
            if quarter % 4 == 0 {
                for other in others {
                    members.hear(beat(other), *now);
                }
            }
            *now += BEAT / 4;
            members.look(*now, true, None);
        }
    }

    fn count(members: &Members) -> Option<usize> {
        members.share().map(|share| share.len())
    }

    #[test]
    fn parts_move_once_a_newcomer_has_settled_and_at_once_when_somebody_leaves() {
        let mut now = Instant::now();
        let mut members = Members::new("a".into(), parts(8), now);
        pass(&mut members, &mut now, &[], 1);
        assert_eq!(count(&members), None, "perhaps there are others");
        pass(&mut members, &mut now, &[], 2);
        assert_eq!(count(&members), Some(8));
        assert!(members.hear(beat("b"), now), "a newcomer");
        pass(&mut members, &mut now, &["b"], 1);
        assert_eq!(count(&members), Some(8), "not settled");
        pass(&mut members, &mut now, &["b"], 2);
        assert_eq!(count(&members), Some(4));
        members.hear(
            Beat {
                leaving: true,
                ..beat("b")
            },
            now,
        );
        members.look(now, true, None);
        assert_eq!(count(&members), Some(8));
    }

    #[test]
    fn who_is_silent_is_gone_but_not_while_we_could_not_hear() {
        let mut now = Instant::now();
        let mut members = Members::new("a".into(), parts(8), now);
        pass(&mut members, &mut now, &["b"], 4);
        assert_eq!(count(&members), Some(4));
        // We were stopped for a minute.
        now += Duration::from_secs(60);
        members.look(now, true, None);
        assert_eq!(count(&members), Some(4));
        for _ in 0..40 {
            now += BEAT / 4;
            members.look(now, false, None);
        }
        assert_eq!(count(&members), Some(4), "the connection was away");
        pass(&mut members, &mut now, &[], 4);
        assert_eq!(count(&members), Some(8));
    }

    #[test]
    fn who_comes_and_goes_all_the_time_moves_nothing_and_holds_nobody_up() {
        let mut now = Instant::now();
        let mut members = Members::new("a".into(), parts(8), now);
        pass(&mut members, &mut now, &["b"], 4);
        for n in 0..20 {
            members.hear(beat(&format!("flapping{n}")), now);
            pass(&mut members, &mut now, &["b"], 1);
            let leaving = Beat {
                leaving: true,
                ..beat(&format!("flapping{n}"))
            };
            members.hear(leaving, now);
            assert_eq!(count(&members), Some(4), "round {n}");
        }
    }

    #[test]
    fn two_views_of_the_same_members_agree() {
        let mut now = Instant::now();
        let mut a = Members::new("a".into(), parts(8), now);
        let mut b = Members::new("b".into(), parts(4), now);
        for _ in 0..16 {
            a.hear(
                Beat {
                    parts: parts(4).into_iter().collect(),
                    ..beat("b")
                },
                now,
            );
            b.hear(beat("a"), now);
            now += BEAT / 4;
            a.look(now, true, None);
            b.look(now, true, None);
        }
        let (a, b) = (a.share().unwrap(), b.share().unwrap());
        assert!(a.is_disjoint(&b));
        assert_eq!(a.union(&b).count(), 8, "old partitions have readers too");
    }

    #[test]
    fn who_wants_to_be_alone_gets_everything() {
        let mut now = Instant::now();
        let mut members = Members::new("a".into(), parts(4), now);
        pass(&mut members, &mut now, &["b"], 4);
        members.look(now, true, Some(&parts(9)));
        assert_eq!(count(&members), Some(9));
        members.look(now, true, None);
        let alone = Beat {
            alone: true,
            ..beat("b")
        };
        members.hear(alone, now);
        members.look(now, true, None);
        assert_eq!(count(&members), Some(0));
    }

    #[test]
    fn what_is_no_beat_is_left_out() {
        let good = beat("a").encode();
        assert_eq!(Beat::decode(&good), Some(beat("a")));
        assert_eq!(Beat::decode(b"hello"), None);
        let evil = Beat {
            parts: vec!["../x".into()],
            ..beat("a")
        };
        assert_eq!(Beat::decode(&evil.encode()), None);
        assert_eq!(Beat::decode(&vec![b' '; LONGEST + 1]), None);
    }
}
