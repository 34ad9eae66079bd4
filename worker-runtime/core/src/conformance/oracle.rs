//! The judge of loss, duplicates, order and liveness: pure, told what the peers saw. One judge for the embedded broker,
//! RabbitMQ and pods.
//!
//! An id is owed once its peer got its OK. From then on its effect must be observed at the other end, at least once;
//! again only as the very same output; and, where order is promised, first occurrences of one user in the order in which
//! they were owed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

/// What was owed and what was observed; times count from the start of the test.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    owed: Vec<Owed>,
    known: HashMap<String, usize>,
    observed: Vec<Observed>,
    faults_ended: Duration,
}

#[derive(Clone, Debug)]
struct Owed {
    id: String,
    user: String,
    at: Duration,
}

#[derive(Clone, Debug)]
struct Observed {
    cause: String,
    place: String,
    output: String,
    at: Duration,
}

/// What is demanded beyond "nothing is lost and repeats are equal".
#[derive(Clone, Copy, Debug, Default)]
pub struct Demands {
    /// Order per user.
    pub order: bool,
    /// Longest wait for an effect, from the OK or from the end of the faults, whichever is later.
    pub within: Option<Duration>,
}

/// What the judge found. Lists hold ids; nothing of a message's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Ids owed.
    pub owed: usize,
    /// Owed and never observed.
    pub lost: Vec<String>,
    /// Repeats beyond the first occurrence, all equal.
    pub duplicates: usize,
    /// Causes whose repeats came out with another id at the same place.
    pub unequal: Vec<String>,
    /// `(user, id)`: first observed after a later one of the same user.
    pub disorder: Vec<(String, String)>,
    /// Observed too late.
    pub late: Vec<String>,
    /// Causes observed that nobody was owed: handled although their peer got no OK, which is allowed.
    pub unowed: usize,
}

impl Oracle {
    /// The peer of `user` got its OK for `id` at `at`. A second OK for the same id owes nothing more.
    pub fn owe(&mut self, id: &str, user: &str, at: Duration) {
        if self.known.contains_key(id) {
            return;
        }
        self.known.insert(id.to_owned(), self.owed.len());
        self.owed.push(Owed {
            id: id.to_owned(),
            user: user.to_owned(),
            at,
        });
    }

    /// `output` was observed at `place`, caused by the message `cause`.
    pub fn observe(&mut self, cause: &str, place: &str, output: &str, at: Duration) {
        self.observed.push(Observed {
            cause: cause.to_owned(),
            place: place.to_owned(),
            output: output.to_owned(),
            at,
        });
    }

    /// Faults ended at `at`: before, nobody is late.
    pub fn faults_ended(&mut self, at: Duration) {
        self.faults_ended = self.faults_ended.max(at);
    }

    /// Ids owed and not observed yet.
    pub fn open(&self) -> Vec<&str> {
        let seen: BTreeSet<&str> = self.observed.iter().map(|o| o.cause.as_str()).collect();
        let ids = self.owed.iter().map(|o| o.id.as_str());
        ids.filter(|id| !seen.contains(id)).collect()
    }

    /// Judges everything told so far.
    pub fn judge(&self, demands: Demands) -> Judgement {
        let mut judgement = Judgement {
            owed: self.owed.len(),
            lost: self.open().into_iter().map(str::to_owned).collect(),
            ..Judgement::default()
        };
        let mut first_at: HashMap<&str, Duration> = HashMap::new();
        let mut outputs: HashMap<(&str, &str), &str> = HashMap::new();
        let mut order: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut unequal = BTreeSet::new();
        let mut unowed = BTreeSet::new();
        for seen in &self.observed {
            let (cause, place) = (seen.cause.as_str(), seen.place.as_str());
            match outputs.get(&(cause, place)) {
                Some(output) if *output == seen.output => judgement.duplicates += 1,
                Some(_) => {
                    unequal.insert(cause.to_owned());
                }
                None => {
                    outputs.insert((cause, place), &seen.output);
                }
            }
            match self.known.get(cause) {
                None => {
                    unowed.insert(cause);
                }
                Some(index) if !first_at.contains_key(cause) => {
                    order
                        .entry(&self.owed[*index].user)
                        .or_default()
                        .push(*index);
                    first_at.insert(cause, seen.at);
                }
                Some(_) => {}
            }
        }
        judgement.unequal = unequal.into_iter().collect();
        judgement.unowed = unowed.len();
        if demands.order {
            judgement.disorder = self.disorder(&order);
        }
        if let Some(limit) = demands.within {
            let late = self.owed.iter().filter(|owed| {
                let due = owed.at.max(self.faults_ended) + limit;
                first_at.get(owed.id.as_str()).is_some_and(|at| *at > due)
            });
            judgement.late = late.map(|owed| owed.id.clone()).collect();
        }
        judgement
    }

    fn disorder(&self, order: &BTreeMap<&str, Vec<usize>>) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (user, indexes) in order {
            let mut latest = 0;
            for index in indexes {
                if *index < latest {
                    found.push(((*user).to_owned(), self.owed[*index].id.clone()));
                }
                latest = latest.max(*index);
            }
        }
        found
    }
}

impl Judgement {
    /// Nothing lost, unequal, out of order or late.
    pub fn is_good(&self) -> bool {
        self.lost.is_empty()
            && self.unequal.is_empty()
            && self.disorder.is_empty()
            && self.late.is_empty()
    }

    /// An error with the finding in words, unless all is good.
    pub fn require(&self) -> Result<(), String> {
        if self.is_good() {
            Ok(())
        } else {
            Err(self.to_string())
        }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} owed, {} lost, {} repeated with equal ids, {} with other ids, {} out of order, {} late, {} handled without an OK",
            self.owed,
            self.lost.len(),
            self.duplicates,
            self.unequal.len(),
            self.disorder.len(),
            self.late.len(),
            self.unowed,
        )?;
        let disorder = self.disorder.iter().map(|(_, id)| id);
        let named = self.lost.iter().chain(&self.unequal).chain(disorder);
        let some: Vec<_> = named.chain(&self.late).take(5).cloned().collect();
        if !some.is_empty() {
            write!(f, "; for example {}", some.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Demands = Demands {
        order: true,
        within: Some(Duration::from_secs(5)),
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// `owed` as `user/id`, one per second; `seen` as `id` or `id=output`, one per second after those.
    fn judged(owed: &[&str], seen: &[&str]) -> Judgement {
        let mut oracle = Oracle::default();
        for (n, owed) in owed.iter().enumerate() {
            let (user, id) = owed.split_once('/').unwrap();
            oracle.owe(id, user, at(n as u64));
        }
        oracle.faults_ended(at(100));
        for (n, seen) in seen.iter().enumerate() {
            let (cause, output) = seen.split_once('=').unwrap_or((seen, "out"));
            oracle.observe(cause, "queue", output, at(100 + n as u64));
        }
        oracle.judge(STRICT)
    }

    #[test]
    fn a_clean_history_is_good_whatever_the_order_between_users() {
        let judgement = judged(&["a/1", "b/2", "a/3", "b/4"], &["2", "1", "4", "3"]);
        assert!(judgement.is_good(), "{judgement}");
        assert_eq!(judgement.owed, 4);
        judgement.require().unwrap();
    }

    #[test]
    fn what_is_owed_and_not_seen_is_lost() {
        let judgement = judged(&["a/1", "a/2", "a/3"], &["1", "3"]);
        assert_eq!(judgement.lost, ["2"]);
        assert!(judgement.require().unwrap_err().contains("for example 2"));
    }

    #[test]
    fn repeats_are_counted_if_equal_and_damned_if_not() {
        let judgement = judged(&["a/1", "a/2"], &["1=x", "2=y", "1=x", "2=y"]);
        assert!(judgement.is_good());
        assert_eq!(judgement.duplicates, 2);
        let judgement = judged(&["a/1"], &["1=x", "1=other"]);
        assert_eq!(judgement.unequal, ["1"]);
        assert!(!judgement.is_good());
    }

    #[test]
    fn one_cause_may_have_different_outputs_at_different_places() {
        let mut oracle = Oracle::default();
        oracle.owe("1", "a", at(0));
        oracle.observe("1", "left", "x", at(1));
        oracle.observe("1", "right", "y", at(1));
        assert!(oracle.judge(STRICT).is_good());
    }

    #[test]
    fn order_speaks_of_first_occurrences_of_one_user() {
        let judgement = judged(&["a/1", "a/2", "a/3"], &["1", "3", "2"]);
        assert_eq!(judgement.disorder, [("a".to_owned(), "2".to_owned())]);
        let repeated = judged(&["a/1", "a/2", "a/3"], &["1", "2", "1", "2", "3"]);
        assert!(repeated.is_good(), "a suffix may repeat: {repeated}");
        let mut oracle = Oracle::default();
        oracle.owe("1", "a", at(0));
        oracle.owe("2", "a", at(0));
        oracle.observe("2", "q", "x", at(1));
        oracle.observe("1", "q", "x", at(1));
        assert!(oracle.judge(Demands::default()).is_good(), "not demanded");
    }

    #[test]
    fn late_counts_from_the_end_of_the_faults() {
        let seen = ["1", "x1", "x2", "x3", "x4", "x5", "2"];
        let judgement = judged(&["a/1", "a/2"], &seen);
        assert_eq!(judgement.late, ["2"]);
        assert_eq!(judgement.unowed, 5);
    }

    #[test]
    fn an_ok_given_twice_owes_once_and_open_says_what_is_missing() {
        let mut oracle = Oracle::default();
        oracle.owe("1", "a", at(0));
        oracle.owe("1", "a", at(9));
        oracle.owe("2", "a", at(9));
        oracle.observe("1", "q", "x", at(1));
        assert_eq!(oracle.open(), ["2"]);
        assert_eq!(oracle.judge(STRICT).owed, 2);
    }
}
