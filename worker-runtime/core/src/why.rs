//! Why a message is where it is (R11): gathers rows and trails over all hops, and puts them into one timeline that ends
//! in class, sentence and who must act, or in what the message waits for. No addresses and no contents.

use crate::audit::account_of;
use crate::error::WorkError;
use crate::message::glance::Glance;
use crate::state::ledger::{Query, Row, RowState, Step};
use crate::state::{Person, StateStore};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Messages of one person that are looked through for the one that caused another.
const NEIGHBOURS: usize = 500;
/// Entries of a journal that are looked through for a message that waits.
const JOURNAL_LOOK: usize = 10_000;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Question {
    /// About one message.
    Message(String),
    /// About everything of a person, by address.
    Person(String),
    /// About everything that began between two times (milliseconds since 1970).
    Between(u64, u64),
}

/// What stores know of one message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// Its row, if it is an outbound message that a transport took over.
    pub row: Option<Row>,
    /// Its trail over other hops.
    pub trail: Vec<Step>,
    /// When its turn comes: milliseconds since 1970. Of messages in the journal.
    pub due: Option<Due>,
}

/// What a message in the journal waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Due {
    /// When its lane is due: milliseconds since 1970; none when somebody must release it.
    pub at: Option<u64>,
    /// How many wait before it in its lane.
    pub before: u64,
}

/// One thing that happened, with the message that it happened to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// The message.
    pub message_id: String,
    /// What happened.
    pub step: Step,
}

/// How it stands with one message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The message.
    pub message_id: String,
    /// Its state; none for messages without a row, whose last hop is all that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RowState>,
    /// Whether nothing follows.
    pub is_final: bool,
    /// Since when: milliseconds since 1970.
    pub since: u64,
    /// Failure class; empty if nothing failed.
    pub class: String,
    /// The provider's raw code or ours; empty if there is none.
    pub code: String,
    /// A plain sentence.
    pub text: String,
    /// Who must act; empty if nobody needs to.
    pub who: String,
    /// When the next step is due: milliseconds since 1970; in the past for an overdue one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// Its place in the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Due>,
}

/// Messages that one thing led to, from the first to the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// What happened, oldest first.
    pub moments: Vec<Moment>,
    /// How it stands with each message, in the order of their beginning.
    pub standings: Vec<Standing>,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// One timeline per chain of messages, oldest first.
    pub timelines: Vec<Timeline>,
    /// Whether there is more than was asked for.
    pub truncated: bool,
}

/// Asks stores; at most `limit` messages are followed.
pub async fn ask(
    stores: &[Arc<dyn StateStore>],
    question: &Question,
    limit: usize,
) -> Result<Answer, WorkError> {
    let query = match question {
        Question::Message(id) => Query::Message(id.clone()),
        Question::Person(address) => Query::Person(Person::new(address).key()),
        Question::Between(from, to) => Query::Between(*from, *to),
    };
    let mut asked = BTreeSet::new();
    if let Question::Message(id) = question {
        asked.insert(id.clone());
    }
    for store in stores {
        asked.extend(store.find(&query, limit.saturating_add(1)).await?);
    }
    let (known, truncated) = gather(stores, asked, limit).await?;
    Ok(Answer {
        timelines: assemble(known),
        truncated,
    })
}

/// What is known of messages, and of those that caused them and that they caused.
async fn gather(
    stores: &[Arc<dyn StateStore>],
    asked: BTreeSet<String>,
    limit: usize,
) -> Result<(BTreeMap<String, Known>, bool), WorkError> {
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let mut next: Vec<String> = asked.iter().cloned().collect();
    let mut persons = BTreeSet::new();
    let mut truncated = false;
    while let Some(id) = next.pop() {
        if known.contains_key(&id) {
            continue;
        }
        if known.len() >= limit {
            truncated = true;
            break;
        }
        let found = look_up(stores, &id).await?;
        if found.row.is_none() && found.trail.is_empty() {
            // Of one that no hop has noted yet, its place in a journal may be known.
            let due = match asked.contains(&id) {
                true => in_journal(stores, "", &id).await?,
                false => None,
            };
            if due.is_some() {
                known.insert(id, Known { due, ..found });
            }
            continue;
        }
        next.extend(found.caused().map(str::to_owned));
        // What caused it is another message of the same person.
        let person = found.row.as_ref().and_then(|row| row.person.clone());
        if let Some(person) = person.filter(|person| persons.insert(person.clone())) {
            for store in stores {
                let query = Query::Person(person.clone());
                for other in store.find(&query, NEIGHBOURS).await? {
                    let trail = store.trail(&other).await?;
                    if trail.iter().any(|step| step.caused.contains(&id)) {
                        next.push(other);
                    }
                }
            }
        }
        known.insert(id, found);
    }
    for (id, known) in &mut known {
        let waits = |state| {
            matches!(
                state,
                RowState::Accepted | RowState::Queued | RowState::Held
            )
        };
        if let Some(row) = known.row.as_ref().filter(|row| waits(row.state)) {
            known.due = in_journal(stores, &row.account, id).await?;
        }
    }
    Ok((known, truncated))
}

async fn look_up(stores: &[Arc<dyn StateStore>], id: &str) -> Result<Known, WorkError> {
    let mut known = Known::default();
    for store in stores {
        known.row = known.row.or(store.row(id).await?);
        known.trail.extend(store.trail(id).await?);
    }
    Ok(known)
}

/// The place of a message in the journals of a transport, or with an empty `account` in any.
async fn in_journal(
    stores: &[Arc<dyn StateStore>],
    account: &str,
    id: &str,
) -> Result<Option<Due>, WorkError> {
    for store in stores {
        for queue in store.queues().await? {
            if !account.is_empty() && account_of(&queue) != Some(account) {
                continue;
            }
            let entries = store
                .list(&queue, &Default::default(), JOURNAL_LOOK)
                .await?;
            let is_it = |body: &[u8]| Glance::of(body).id().as_deref() == Some(id);
            let entry = entries.iter().find(|entry| is_it(&entry.entry.body));
            if let Some(entry) = entry {
                return Ok(Some(Due {
                    at: entry.due,
                    before: entry.place,
                }));
            }
        }
    }
    Ok(None)
}

impl Known {
    fn steps(&self) -> impl Iterator<Item = &Step> {
        let row = self.row.iter().flat_map(|row| &row.steps);
        row.chain(&self.trail)
    }

    fn caused(&self) -> impl Iterator<Item = &str> {
        self.steps()
            .flat_map(|step| &step.caused)
            .map(String::as_str)
    }

    fn began(&self) -> u64 {
        let steps = self.steps().map(|step| step.at);
        let born = self.row.as_ref().map(|row| row.born);
        steps.chain(born).min().unwrap_or_default()
    }

    fn standing(&self, id: &str) -> Standing {
        // A row says how it stands; of a message without one, its last hop is all there is.
        let last = match &self.row {
            Some(row) => row.steps.last(),
            None => self.trail.iter().max_by_key(|step| step.at),
        };
        let state = self.row.as_ref().map(|row| row.state);
        let text = |field: fn(&Step) -> &String| last.map(field).cloned().unwrap_or_default();
        Standing {
            message_id: id.to_owned(),
            state,
            is_final: state.is_some_and(RowState::is_final),
            since: last.map_or_else(|| self.began(), |step| step.at),
            class: text(|step| &step.class),
            code: text(|step| &step.code),
            text: text(|step| &step.text),
            who: text(|step| &step.who),
            deadline: self.row.as_ref().and_then(|row| row.deadline),
            waits: self.due,
        }
    }
}

/// Chains of messages, each as one timeline; pure.
pub fn assemble(known: BTreeMap<String, Known>) -> Vec<Timeline> {
    let mut timelines: Vec<Timeline> = chains(&known)
        .into_iter()
        .map(|mut ids| {
            ids.sort_by_key(|id| (known[*id].began(), *id));
            let mut moments: Vec<Moment> = ids
                .iter()
                .flat_map(|id| known[*id].steps().map(|step| (*id, step)))
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
                    due: None,
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
            trail: Vec::new(),
            due: Some(Due {
                at: Some(5_000),
                before: 2,
            }),
        };
        let timelines = assemble(BTreeMap::from([("m".to_owned(), held)]));
        let standing = &timelines[0].standings[0];
        assert_eq!(standing.state, Some(RowState::Held));
        assert_eq!((standing.since, standing.deadline), (20, Some(60_020)));
        assert_eq!(standing.waits.map(|due| due.before), Some(2));
    }
}
