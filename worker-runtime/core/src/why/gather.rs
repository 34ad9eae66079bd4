//! Looks through stores and queues for what is known of messages, of those that caused them and of those that they caused.

use super::{Known, Places, Question, Sender, Wait};
use crate::error::WorkError;
use crate::message::glance::Glance;
use crate::parking;
use crate::state::journal::{Filter, Listed};
use crate::state::ledger::{Query, RowState, Step};
use crate::state::{Person, StateStore};
use std::collections::{BTreeMap, BTreeSet};

/// Messages of one person that are looked through for the one that caused another.
const NEIGHBOURS: usize = 500;
/// Entries of a journal that are looked through for messages that wait.
const JOURNAL_LOOK: usize = 10_000;
/// Ids, newest first, among which one is looked for by its beginning.
const NEWEST: usize = 100_000;
/// Messages of a parking queue that are looked through.
const PARKED_LOOK: usize = 10_000;

/// One search.
pub(super) struct Gather<'a> {
    places: &'a Places<'a>,
    /// Everything that was seen in journals, by message.
    waiting: BTreeMap<String, Wait>,
    /// Those of them that are of whom, or from when, is asked.
    meant: BTreeSet<String>,
    /// Whether there is more than was followed.
    pub(super) truncated: bool,
    /// What was not looked at, in words.
    pub(super) not_seen: Vec<String>,
}

impl<'a> Gather<'a> {
    /// Looks through the journals first: what waits may have left no other trace.
    pub(super) async fn new(
        places: &'a Places<'a>,
        question: &Question,
    ) -> Result<Gather<'a>, WorkError> {
        let mut gather = Self {
            places,
            waiting: BTreeMap::new(),
            meant: BTreeSet::new(),
            truncated: false,
            not_seen: Vec::new(),
        };
        for store in places.stores {
            for queue in store.queues().await? {
                gather.journal(&**store, &queue, question).await?;
            }
        }
        Ok(gather)
    }

    async fn journal(
        &mut self,
        store: &dyn StateStore,
        queue: &str,
        question: &Question,
    ) -> Result<(), WorkError> {
        let all = Filter::default();
        let entries = store.list(queue, &all, JOURNAL_LOOK + 1).await?;
        let deep = entries.len() > JOURNAL_LOOK;
        self.note(entries, question);
        if !deep {
            return Ok(());
        }
        self.not_seen.push(format!(
            "the journal of {queue} holds more than {JOURNAL_LOOK} messages: the others were not looked through"
        ));
        if let Question::Person(address) = question {
            let lane = Filter {
                lane: Some(Person::new(address).lane()),
                ..all
            };
            self.note(store.list(queue, &lane, JOURNAL_LOOK).await?, question);
        }
        Ok(())
    }

    fn note(&mut self, entries: Vec<Listed>, question: &Question) {
        let person = match question {
            Question::Person(address) => Some(Person::new(address)),
            _ => None,
        };
        for listed in entries {
            let seen = Glance::of(&listed.entry.body);
            let Some(id) = seen.id() else {
                continue;
            };
            let about = listed.entry.about;
            let is_meant = match question {
                Question::Message(asked) => *asked == id,
                Question::Person(_) => person.as_ref().is_some_and(|person| seen.is_of(person)),
                Question::Between(from, to) => (*from..=*to).contains(&about.since),
            };
            if is_meant {
                self.meant.insert(id.clone());
            }
            let wait = Wait {
                queue: listed.queue,
                reason: about.reason,
                since: about.since,
                at: listed.due,
                before: listed.place,
                code: about.code,
                text: about.text,
            };
            self.waiting.insert(id, wait);
        }
    }

    /// What is known of the messages that are asked for, and of their relatives.
    pub(super) async fn about(
        &mut self,
        question: &Question,
        limit: usize,
    ) -> Result<BTreeMap<String, Known>, WorkError> {
        let mut asked = self.meant.clone();
        let queries = match question {
            Question::Message(id) => {
                asked.insert(id.clone());
                vec![Query::Message(id.clone())]
            }
            Question::Person(address) => {
                let forms = Person::forms(address).into_iter();
                forms.map(|person| Query::Person(person.key())).collect()
            }
            Question::Between(from, to) => vec![Query::Between(*from, *to)],
        };
        for store in self.places.stores {
            for query in &queries {
                asked.extend(store.find(query, limit.saturating_add(1)).await?);
            }
        }
        self.follow(asked.into_iter().collect(), limit).await
    }

    async fn follow(
        &mut self,
        mut next: Vec<String>,
        limit: usize,
    ) -> Result<BTreeMap<String, Known>, WorkError> {
        let mut known: BTreeMap<String, Known> = BTreeMap::new();
        // Which step put a message somewhere: all that is known of one that nobody has noted since.
        let mut given: BTreeMap<String, Step> = BTreeMap::new();
        let mut persons = BTreeSet::new();
        while let Some(id) = next.pop() {
            if known.contains_key(&id) {
                continue;
            }
            if known.len() >= limit {
                self.truncated = true;
                break;
            }
            let mut found = self.look_up(&id).await?;
            found.given = given.remove(&id);
            if found.is_nothing() {
                continue;
            }
            for step in found.steps() {
                for caused in step.caused.iter().filter(|caused| **caused != id) {
                    given.insert(caused.clone(), step.clone());
                    next.push(caused.clone());
                }
            }
            // What caused it is another message of the same person.
            let person = found.row.as_ref().and_then(|row| row.person.clone());
            if let Some(person) = person.filter(|person| persons.insert(person.clone())) {
                next.extend(self.causes(&person, &id).await?);
            }
            known.insert(id, found);
        }
        Ok(known)
    }

    /// Messages of a person that caused `id`.
    async fn causes(&self, person: &str, id: &str) -> Result<Vec<String>, WorkError> {
        let mut causes = Vec::new();
        for store in self.places.stores {
            let query = Query::Person(person.to_owned());
            for other in store.find(&query, NEIGHBOURS).await? {
                let trail = store.trail(&other).await?;
                if other != id && trail.iter().any(|step| step.caused.iter().any(|c| c == id)) {
                    causes.push(other);
                }
            }
        }
        Ok(causes)
    }

    async fn look_up(&self, id: &str) -> Result<Known, WorkError> {
        let mut known = Known::default();
        for store in self.places.stores {
            if known.row.is_none()
                && let Some(row) = store.row(id).await?
            {
                known.sender = Sender::of(&row, &**store).await?;
                known.row = Some(row);
            }
            known.trail.extend(store.trail(id).await?);
        }
        let waits = known.row.as_ref().is_none_or(|row| {
            matches!(
                row.state,
                RowState::Accepted | RowState::Queued | RowState::Held
            )
        });
        known.waits = self.waiting.get(id).filter(|_| waits).cloned();
        Ok(known)
    }

    /// Ids that begin so, among the newest.
    pub(super) async fn beginning_with(&self, beginning: &str) -> Result<Vec<String>, WorkError> {
        let mut ids: BTreeSet<String> = self.waiting.keys().cloned().collect();
        for store in self.places.stores {
            ids.extend(store.find(&Query::Between(0, u64::MAX), NEWEST).await?);
        }
        ids.retain(|id| id.starts_with(beginning));
        Ok(ids.into_iter().collect())
    }

    /// Looks for a message of which no store knows among those that were set aside.
    pub(super) async fn set_aside(&mut self, id: &str) -> BTreeMap<String, Known> {
        for (queue, broker) in &self.places.queues {
            match parking::list(&**broker, queue, PARKED_LOOK).await {
                Ok(listed) => {
                    let is_it = |one: &parking::Summary| one.message_id.as_deref() == Some(id);
                    if let Some(one) = listed.into_iter().find(is_it) {
                        return BTreeMap::from([(id.to_owned(), Known::parked(&one))]);
                    }
                }
                Err(error) => self.not_seen.push(format!(
                    "what was set aside of {queue} could not be looked at: {error}"
                )),
            }
        }
        BTreeMap::new()
    }
}
