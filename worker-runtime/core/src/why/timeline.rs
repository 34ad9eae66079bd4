//! Puts what is known of messages into one story per chain of cause and effect, and says of each where it is. Pure.

use super::{Moment, Sender, Stage, Standing, Timeline, Wait};
use crate::parking;
use crate::state::ledger::{Row, RowState, Step};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of one message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// Its row, if it is an outbound message that a transport took over.
    pub row: Option<Row>,
    /// Its trail over other hops.
    pub trail: Vec<Step>,
    /// Its place in a journal.
    pub waits: Option<Wait>,
    /// Who is sending it.
    pub sender: Option<Sender>,
    /// The step of another message that caused it.
    pub given: Option<Step>,
}

impl Known {
    /// A message of which nothing is known but that it was set aside.
    pub(super) fn parked(about: &parking::Summary) -> Self {
        let step = Step {
            at: (about.time * 1e3) as u64,
            worker: about.worker.clone(),
            state: Some(RowState::Parked),
            attempt: about.attempts,
            code: about.code.clone(),
            class: String::new(),
            text: about.reason.clone(),
            who: String::new(),
            caused: Vec::new(),
            holder: None,
        };
        Self {
            trail: vec![step],
            ..Self::default()
        }
    }

    /// Whether there is nothing to tell.
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// What happened to it, in no order of time.
    pub(super) fn steps(&self) -> impl Iterator<Item = &Step> {
        let row = self.row.iter().flat_map(|row| &row.steps);
        self.trail.iter().chain(row)
    }

    /// The same; what happened in one moment in the order in which it must have: a message is passed on until somebody
    /// handles it, and the transport that has its row is the last.
    fn in_turn(&self, id: &str) -> Vec<&Step> {
        let mut steps: Vec<&Step> = self.steps().collect();
        let trail = self.trail.len();
        let (hops, row) = steps.split_at_mut(trail);
        hops.sort_by_key(|step| (step.at, !passes_on(step, id)));
        row.sort_by_key(|step| step.at);
        steps.sort_by_key(|step| step.at);
        steps
    }

    fn caused(&self) -> impl Iterator<Item = &str> {
        self.steps()
            .flat_map(|step| &step.caused)
            .map(String::as_str)
    }

    fn began(&self) -> u64 {
        let steps = self.steps().chain(&self.given).map(|step| step.at);
        let born = self.row.as_ref().map(|row| row.born);
        let waits = self.waits.as_ref().map(|waits| waits.since);
        steps.chain(born).chain(waits).min().unwrap_or_default()
    }

    /// The last thing that is known: of a row, which says how it stands; of a message without one, of its last hop, or
    /// of the hop that caused it.
    fn last(&self, id: &str) -> Option<&Step> {
        match &self.row {
            Some(row) => row.steps.last(),
            None => self.in_turn(id).pop(),
        }
        .or(self.given.as_ref())
    }

    /// Where it is. A hop that passes a message on says so by causing it again.
    fn stage(&self, id: &str) -> Stage {
        let last = self.last(id);
        let state = match &self.row {
            Some(row) => Some(row.state),
            None => last.and_then(|step| step.state),
        };
        let ended = state.is_some_and(RowState::is_final);
        if self.waits.is_some() && !ended {
            return Stage::InJournal;
        }
        match (state, last) {
            (Some(RowState::Parked), _) => Stage::Parked,
            (Some(_), _) if ended => Stage::Ended,
            (Some(_), _) => Stage::Underway,
            (None, Some(step)) if passes_on(step, id) => Stage::InQueue,
            (None, Some(_)) => Stage::Handled,
            (None, None) => Stage::InQueue,
        }
    }

    fn standing(&self, id: &str) -> Standing {
        let last = self.last(id);
        let stage = self.stage(id);
        let text = |field: fn(&Step) -> &String| last.map(field).cloned().unwrap_or_default();
        let state = match &self.row {
            Some(row) => Some(row.state),
            None => last.and_then(|step| step.state),
        };
        // Of attempts that no row tells of, the journal knows the last one.
        let failed = self
            .waits
            .as_ref()
            .filter(|waits| self.row.is_none() && !waits.text.is_empty());
        let (code, sentence) = match failed {
            Some(waits) => (waits.code.clone(), waits.text.clone()),
            None => (text(|step| &step.code), text(|step| &step.text)),
        };
        Standing {
            message_id: id.to_owned(),
            stage,
            state,
            is_final: matches!(stage, Stage::Ended | Stage::Handled),
            since: last.map_or_else(|| self.began(), |step| step.at),
            by: text(|step| &step.worker),
            class: text(|step| &step.class),
            code,
            text: sentence,
            who: text(|step| &step.who),
            deadline: self.row.as_ref().and_then(|row| row.deadline),
            waits: self.waits.clone(),
            sender: self.sender.clone(),
        }
    }
}

/// Whether a hop passed a message on: it says so by causing it again.
fn passes_on(step: &Step, id: &str) -> bool {
    step.caused.iter().any(|caused| caused == id)
}

/// Chains of messages, each as one timeline; pure.
pub fn assemble(known: BTreeMap<String, Known>) -> Vec<Timeline> {
    let mut timelines: Vec<Timeline> = chains(&known)
        .into_iter()
        .map(|mut ids| {
            let depth = depths(&ids, &known);
            ids.sort_by_key(|id| (known[*id].began(), depth[*id], *id));
            let mut moments: Vec<Moment> = ids
                .iter()
                .flat_map(|id| known[*id].in_turn(id).into_iter().map(|step| (*id, step)))
                .map(|(id, step)| Moment {
                    message_id: id.to_owned(),
                    step: step.clone(),
                })
                .collect();
            // Stable: what has one time stays in the order of its cause.
            moments.sort_by_key(|moment| moment.step.at);
            Timeline {
                moments,
                standings: ids.iter().map(|id| known[*id].standing(id)).collect(),
            }
        })
        .collect();
    timelines.sort_by_key(|timeline| timeline.moments.first().map_or(0, |m| m.step.at));
    timelines
}

/// How many causes each message of a chain has before it.
fn depths<'k>(chain: &[&'k str], known: &BTreeMap<String, Known>) -> BTreeMap<&'k str, usize> {
    let mut depth: BTreeMap<&str, usize> = chain.iter().map(|id| (*id, 0)).collect();
    // Each round finds one more, and nothing is its own cause over others.
    for _ in 1..chain.len() {
        let mut changed = false;
        for cause in chain {
            let below = depth[cause] + 1;
            for caused in known[*cause].caused().filter(|caused| caused != cause) {
                if let Some(of) = depth.get_mut(caused).filter(|of| **of < below) {
                    (*of, changed) = (below, true);
                }
            }
        }
        if !changed {
            break;
        }
    }
    depth
}

/// Messages connected by cause and effect.
fn chains(known: &BTreeMap<String, Known>) -> Vec<Vec<&str>> {
    let mut neighbours: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (id, message) in known {
        for caused in message
            .caused()
            .filter(|caused| known.contains_key(*caused))
        {
            neighbours.entry(id).or_default().push(caused);
            neighbours.entry(caused).or_default().push(id);
        }
    }
    let mut seen = BTreeSet::new();
    let mut chains = Vec::new();
    for id in known.keys() {
        let mut chain = Vec::new();
        let mut next = vec![id.as_str()];
        while let Some(id) = next.pop() {
            if seen.insert(id) {
                chain.push(id);
                next.extend(neighbours.get(id).into_iter().flatten());
            }
        }
        if !chain.is_empty() {
            chains.push(chain);
        }
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::journal::Reason;
    use crate::state::ledger::Change;
    use std::time::Duration;

    fn step(at: u64, worker: &str, text: &str, caused: &[&str]) -> Step {
        Step {
            at,
            worker: worker.into(),
            state: None,
            attempt: 0,
            code: String::new(),
            class: String::new(),
            text: text.into(),
            who: String::new(),
            caused: caused.iter().map(|id| (*id).to_owned()).collect(),
            holder: None,
        }
    }

    fn wait(at: Option<u64>, before: u64) -> Wait {
        Wait {
            queue: "sms.outbound".into(),
            reason: Reason::Backoff,
            since: 15,
            at,
            before,
            code: String::new(),
            text: String::new(),
        }
    }

    fn hop(at: u64, worker: &str, text: &str, caused: &[&str]) -> Known {
        Known {
            trail: vec![step(at, worker, text, caused)],
            ..Known::default()
        }
    }

    fn row(id: &str, born: u64, changes: &[(u64, RowState, &str)]) -> Row {
        changes
            .iter()
            .fold(Row::new(id, "sms", born), |row, (at, state, text)| {
                let change = Change {
                    step: step(*at, "transport/sms", text, &[]),
                    state: *state,
                    patience: Duration::from_secs(60),
                    remote_id: None,
                    told: Vec::new(),
                };
                row.after(change).expect("not final yet")
            })
    }

    #[test]
    fn what_happened_in_one_moment_is_told_in_the_order_of_its_cause() {
        // As stored: whoever notes beside its messages may note late.
        let question = Known {
            trail: vec![
                step(1, "application/echo", "to sms.outbound", &["a"]),
                step(1, "transport/sms", "taken over", &["z"]),
            ],
            ..Known::default()
        };
        let reply = hop(1, "dispatcher/join", "to web.outbound", &["a"]);
        let known = BTreeMap::from([("z".to_owned(), question), ("a".to_owned(), reply)]);
        let [timeline] = &assemble(known)[..] else {
            panic!("one chain")
        };
        let told: Vec<&str> = timeline
            .moments
            .iter()
            .map(|m| m.step.text.as_str())
            .collect();
        assert_eq!(told, ["taken over", "to sms.outbound", "to web.outbound"]);
        let stages: Vec<(&str, Stage)> = timeline
            .standings
            .iter()
            .map(|standing| (standing.message_id.as_str(), standing.stage))
            .collect();
        assert_eq!(stages, [("z", Stage::Handled), ("a", Stage::InQueue)]);
    }

    #[test]
    fn a_message_in_the_journal_says_why_its_last_attempt_failed() {
        let waits = Wait {
            code: "peer.failed".into(),
            text: "the endpoint failed".into(),
            ..wait(Some(20), 0)
        };
        let known = Known {
            waits: Some(waits),
            ..hop(1, "transport/web", "taken over", &["m"])
        };
        let standing = known.standing("m");
        assert_eq!(standing.stage, Stage::InJournal);
        assert_eq!(standing.code, "peer.failed");
        assert_eq!(standing.text, "the endpoint failed");
    }

    #[test]
    fn question_and_reply_are_one_timeline_that_ends_with_the_reply() {
        let sent = [
            (120, RowState::Sending, "given to the provider"),
            (150, RowState::Failed, "the number does not exist"),
        ];
        let mut reply = row("r", 110, &sent);
        let last = reply.steps.last_mut().unwrap();
        (last.class, last.who) = ("recipient".into(), "campaign".into());
        let known = BTreeMap::from([
            (
                "q".to_owned(),
                hop(100, "application/echo", "answered", &["r", "gone"]),
            ),
            (
                "r".to_owned(),
                Known {
                    row: Some(reply),
                    trail: vec![step(115, "dispatcher/d", "routed", &[])],
                    ..Known::default()
                },
            ),
            (
                "other".to_owned(),
                hop(50, "application/echo", "answered", &[]),
            ),
        ]);
        let timelines = assemble(known);
        assert_eq!(timelines.len(), 2, "the other message has its own");
        assert_eq!(timelines[0].standings[0].message_id, "other");
        let workers: Vec<(u64, &str)> = timelines[1]
            .moments
            .iter()
            .map(|m| (m.step.at, m.step.worker.as_str()))
            .collect();
        assert_eq!(
            workers,
            [
                (100, "application/echo"),
                (115, "dispatcher/d"),
                (120, "transport/sms"),
                (150, "transport/sms")
            ]
        );
        let end = timelines[1].standings.last().unwrap();
        assert_eq!((end.message_id.as_str(), end.is_final), ("r", true));
        assert_eq!(
            (end.class.as_str(), end.who.as_str()),
            ("recipient", "campaign")
        );
        assert_eq!(end.deadline, None);
    }

    #[test]
    fn what_is_not_final_says_since_when_and_until_when() {
        let held = Known {
            row: Some(row("m", 10, &[(20, RowState::Held, "throttled")])),
            waits: Some(wait(Some(5_000), 2)),
            ..Known::default()
        };
        let timelines = assemble(BTreeMap::from([("m".to_owned(), held)]));
        let standing = &timelines[0].standings[0];
        assert_eq!(standing.state, Some(RowState::Held));
        assert_eq!((standing.since, standing.deadline), (20, Some(60_020)));
        assert_eq!(standing.waits.as_ref().map(|waits| waits.before), Some(2));
    }

    /// The only standing of one message of which this is known.
    fn stands(id: &str, known: Known) -> Standing {
        let timelines = assemble(BTreeMap::from([(id.to_owned(), known)]));
        timelines[0].standings[0].clone()
    }

    #[test]
    fn an_inbound_message_ends_with_whoever_handled_it() {
        let handled = Known {
            trail: vec![
                step(1, "transport/sms", "taken over from the peer", &["m"]),
                step(2, "dispatcher/d", "to app.inbound", &["m"]),
                step(3, "application/app", "to sms.outbound", &["reply"]),
            ],
            ..Known::default()
        };
        let standing = stands("m", handled.clone());
        assert_eq!((standing.stage, standing.is_final), (Stage::Handled, true));
        assert_eq!(standing.by, "application/app");
        let mut on_its_way = handled;
        on_its_way.trail.pop();
        let standing = stands("m", on_its_way.clone());
        assert_eq!((standing.stage, standing.is_final), (Stage::InQueue, false));
        assert_eq!(standing.text, "to app.inbound");
        on_its_way.waits = Some(wait(None, 0));
        assert_eq!(stands("m", on_its_way).stage, Stage::InJournal);
    }

    #[test]
    fn what_was_set_aside_or_dropped_says_so_without_a_row() {
        let mut aside = hop(3, "application/app", "field to_addr is missing", &[]);
        aside.trail[0].state = Some(RowState::Parked);
        let standing = stands("m", aside.clone());
        assert_eq!((standing.stage, standing.is_final), (Stage::Parked, false));
        let mut dropped = step(4, "operator", "a person dropped it", &[]);
        dropped.state = Some(RowState::Cancelled);
        aside.trail.push(dropped);
        let standing = stands("m", aside);
        assert_eq!((standing.stage, standing.is_final), (Stage::Ended, true));
        assert_eq!(standing.state, Some(RowState::Cancelled));
    }

    #[test]
    fn a_reply_that_nobody_has_noted_waits_where_it_was_put() {
        let reply = Known {
            given: Some(step(3, "application/app", "to sms.outbound", &["reply"])),
            ..Known::default()
        };
        let standing = stands("reply", reply);
        assert_eq!((standing.stage, standing.since), (Stage::InQueue, 3));
        assert_eq!(
            (standing.by.as_str(), standing.text.as_str()),
            ("application/app", "to sms.outbound")
        );
    }
}
