//! What holds a message although nothing failed: a time at which it is to be sent, and whatever else says so later.

use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::message::{Message, UserMessage, derived_id};
use crate::schedule::Schedule;
use crate::state::journal::{About, Due, Entry, Lane as Place, Reason, Step};
use crate::state::person::lane_number;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Group of scheduled messages: each is a list of its own.
const SCHEDULED: &str = "@schedule";

/// Whether what waits in this group waits for a time of its own: what is scheduled, and what was taken over from Vumi.
pub(super) fn has_own_times(group: &str) -> bool {
    group.starts_with('@')
}

/// What is to become of a message that arrived, or whose turn came in the journal.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) enum Look {
    /// It goes on.
    GoOn,
    /// It waits beside its lane, and others of its user may overtake it. What is scheduled waits alone, everything else in
    /// order with what is held of its lane in the same group.
    Aside {
        /// Why.
        reason: Reason,
        /// Lists of different groups are served in turn.
        group: String,
        /// Until when.
        due: Due,
    },
}

/// Says of messages whether they go on or wait. Asked once for each message that arrives and for each head of a lane that
/// is replayed, so it must be quick; a message that waited because of its answer is not asked for again.
pub(in crate::engine) trait Hold: Send + Sync {
    /// An error sets the message aside with its sentence.
    fn look(&self, message: &Message, now: SystemTime) -> Result<Look, WorkError>;
}

/// Holds messages whose `helper_metadata.schedule` says so.
pub(in crate::engine) struct Schedules;

impl Hold for Schedules {
    fn look(&self, message: &Message, now: SystemTime) -> Result<Look, WorkError> {
        let Some(schedule) = schedule_of(message)? else {
            return Ok(Look::GoOn);
        };
        let at = match schedule {
            Schedule::Once(at) if at <= seconds(now) => return Ok(Look::GoOn),
            schedule => schedule.after(seconds(now)),
        };
        let at = at.ok_or_else(|| invalid("schedule: it never happens, or not before until"))?;
        Ok(Look::Aside {
            reason: Reason::Schedule,
            group: SCHEDULED.into(),
            due: Due::At(moment(at)),
        })
    }
}

fn schedule_of(message: &Message) -> Result<Option<Schedule>, WorkError> {
    let Message::User(message) = message else {
        return Ok(None);
    };
    let metadata = message.helper_metadata();
    let schedule = metadata.and_then(|m| m.get("schedule"));
    schedule
        .filter(|value| !value.is_null())
        .map(Schedule::parse)
        .transpose()
        .map_err(|problem| invalid(&problem))
}

fn invalid(problem: &str) -> WorkError {
    let text = format!("helper_metadata.{problem}");
    WorkError::new(ErrorClass::BadInput, codes::SCHEDULE_INVALID, text)
}

/// A list for one message alone.
pub(super) fn own_list(group: &str, message_id: &str) -> Place {
    Place {
        group: group.to_owned(),
        number: lane_number(message_id),
    }
}

/// A scheduled message whose time has come: what is to be handled, and what becomes of the schedule once it was.
pub(super) struct Occurrence {
    pub(super) entry: Entry,
    pub(super) then: Step,
}

impl Occurrence {
    /// `entry` is a scheduled one that is due: its `since` is the moment it was meant for. Occurrences that were missed
    /// since then are not made up for.
    pub(super) fn of(entry: Entry, now: SystemTime) -> Self {
        let once = |entry| Self {
            entry,
            then: Step::Done,
        };
        let Ok(mut message) = UserMessage::decode(&entry.body) else {
            return once(entry);
        };
        let read = |m: &UserMessage| schedule_of(&m.clone().into());
        let Ok(Some(schedule @ Schedule::Recurring { .. })) = read(&message) else {
            return once(entry);
        };
        let id = derived_id(&[
            "occurrence",
            message.message_id(),
            &entry.about.since.to_string(),
        ]);
        message.set_message_id(&id);
        message.helper_metadata_mut().remove("schedule");
        let then = match schedule.after(seconds(now)) {
            None => Step::Done,
            Some(next) => {
                let next = moment(next);
                let about = About {
                    since: millis(next),
                    ..entry.about.clone()
                };
                Step::Again(about, Due::At(next))
            }
        };
        let about = About {
            amqp_message_id: Some(id),
            ..entry.about
        };
        Self {
            entry: Entry {
                about,
                body: message.encode(),
            },
            then,
        }
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

fn moment(seconds: f64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs_f64(seconds)
}

/// Milliseconds since 1970.
pub(in crate::engine) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}
