//! `vumi why`: what became of a message (R11): one timeline over all hops and attempts, and at its end who must act, or
//! what the message waits for.

use crate::commands::journal::due;
use crate::commands::status::{ago, aligned};
use crate::error::CliError;
use crate::kept::{self, Place};
use crate::output::Format;
use crate::{moments, output, process};
use serde_json::json;
use std::fmt::Write;
use vumi_api::shared::Duration;
use vumi_core::operate::Ask;
use vumi_core::state::Person;
use vumi_core::state::journal::Reason;
use vumi_core::why::{Answer, Question, SHORTEST, Sender, Stage, Standing, Timeline, Wait};

/// Arguments of `vumi why`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi why 0f3a9c0e5d8b4c1f9a77c0d2b6e41234
  vumi why +27820000001
  vumi why --since 10m
  vumi why --from 2024-03-05T14:00:00Z --to 2024-03-05T14:10:00Z --json | jq '.timelines[].standings'
  vumi why +27820000001 --redis redis://localhost/

Shown is what hops and attempts left in the state store: when, which worker, which attempt, the provider's code, a
sentence; and below it, for each message, where it is and who must act. Messages that caused one another stand in one
timeline. Addresses and contents are neither kept there nor printed. Rows and trails are kept as long as retention
says; workers without a state store leave none. The first 4 letters of an id or more will do, where only one message
begins so. A phone number, however it is written, and what has an @ are taken for addresses; --message and --address say
which it is.
Exit codes: 0 found · 2 nothing is known of it, several begin so, or the time ends before it begins · 3 no process or store answers.")]
#[command(group = clap::ArgGroup::new("about").required(true).multiple(true)
    .args(["what", "message", "address", "since", "from"]))]
pub struct Arguments {
    /// A message id or the beginning of one, or the address of a user
    #[arg(value_name = "MESSAGE|ADDRESS", conflicts_with_all = ["message", "address", "since", "from"])]
    pub what: Option<String>,
    /// A message id, or the beginning of one
    #[arg(long, value_name = "ID", conflicts_with_all = ["address", "since", "from"])]
    pub message: Option<String>,
    /// The address of a user
    #[arg(long, value_name = "ADDRESS", value_parser = kept::address, conflicts_with_all = ["since", "from"])]
    pub address: Option<String>,
    /// Everything that began in this time up to now
    #[arg(long, value_name = "DURATION", conflicts_with = "from")]
    pub since: Option<Duration>,
    /// Everything that began from this time on (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = moments::read)]
    pub from: Option<u64>,
    /// Until this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = moments::read, requires = "from")]
    pub to: Option<u64>,
    /// How many messages at most, up to 1000
    #[arg(long, default_value_t = 100, value_parser = kept::limit)]
    pub limit: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub place: Place,
}

impl Arguments {
    fn format(&self) -> Format {
        match self.json {
            true => Format::Json,
            false => Format::Table,
        }
    }

    fn question(&self, now: u64) -> Question {
        if let Some(id) = &self.message {
            return Question::Message(id.clone());
        }
        if let Some(address) = &self.address {
            return Question::Person(address.clone());
        }
        if let Some(what) = &self.what {
            return match is_address(what) {
                true => Question::Person(what.clone()),
                false => Question::Message(what.clone()),
            };
        }
        let since = self.since.map_or(u64::MAX, |since| {
            u64::try_from(since.0.as_millis()).unwrap_or(u64::MAX)
        });
        let from = self.from.unwrap_or_else(|| now.saturating_sub(since));
        Question::Between(from, self.to.unwrap_or(now))
    }
}

/// Message ids are 32 hex digits, or what a caller of a transport chose; phone numbers are digits, and other addresses
/// have an @. What begins with + is meant as a number, and refused if it is none.
fn is_address(what: &str) -> bool {
    let what = what.trim();
    let person = Person::new(what);
    let number = person.address();
    let is_number = number.len() <= 15 && number.bytes().all(|byte| byte.is_ascii_digit());
    what.contains('@') || what.starts_with('+') || (is_number && !number.is_empty())
}

/// Prints it.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    process::block_on(async {
        let question = arguments.question(moments::now());
        has_time(&question)?;
        let asked = question.clone();
        let ask = Ask::Why {
            question,
            limit: arguments.limit,
        };
        let answer: Answer = arguments.place.ask(ask, &[]).await?;
        match arguments.format() {
            Format::Json => output::print(&format!("{:#}\n", json!(answer)))?,
            Format::Table => output::print(&told(&answer, moments::now()))?,
        }
        match answer.timelines.is_empty() {
            true => Err(CliError::validation(unknown(&asked))),
            false => Ok(()),
        }
    })
}

/// A time that ends before it begins holds nothing, whatever there is.
fn has_time(question: &Question) -> Result<(), CliError> {
    match question {
        Question::Between(from, to) if from > to => Err(CliError::validation(format!(
            "--from {} is later than --to {}: write the earlier time after --from; --to is now if it is left out",
            moments::shown(*from),
            moments::shown(*to)
        ))),
        _ => Ok(()),
    }
}

/// That nothing is known, and what to try.
fn unknown(asked: &Question) -> String {
    let nothing = "nothing is known of it";
    let hint = match asked {
        Question::Message(id) if id.chars().count() < SHORTEST => Some(format!(
            "{id:?} is no whole id, and too short for the beginning of one: write {SHORTEST} letters or more"
        )),
        Question::Person(address) => kept::with_country(address),
        _ => None,
    };
    match hint {
        Some(hint) => format!("{nothing}; {hint}"),
        None => format!("{nothing}: no hop with a state store saw it, or retention.trail is over"),
    }
}

fn told(answer: &Answer, now: u64) -> String {
    let timelines = answer.timelines.iter().map(|timeline| one(timeline, now));
    let mut text = timelines.collect::<Vec<_>>().join("\n");
    if answer.truncated {
        text += "\nthere is more: ask for a shorter time, or raise --limit\n";
    }
    for place in &answer.not_seen {
        let _ = writeln!(text, "not seen: {place}");
    }
    text
}

fn one(timeline: &Timeline, now: u64) -> String {
    let rows: Vec<Vec<String>> = timeline
        .moments
        .iter()
        .map(|moment| {
            let step = &moment.step;
            let attempt = match step.attempt {
                0 => String::new(),
                attempt => format!("#{attempt}"),
            };
            vec![
                moments::shown(step.at),
                short(&moment.message_id).to_owned(),
                step.worker.clone(),
                step.state.map_or("", |state| state.as_str()).to_owned(),
                attempt,
                step.code.clone(),
                step.text.clone(),
            ]
        })
        .collect();
    let mut text = aligned(&rows);
    for standing in &timeline.standings {
        let _ = writeln!(text, "{}: {}", standing.message_id, stands(standing, now));
    }
    text
}

/// Enough of an id to tell the messages of one timeline apart.
fn short(id: &str) -> &str {
    id.char_indices().nth(8).map_or(id, |(end, _)| &id[..end])
}

/// How it stands with a message, in one line.
fn stands(standing: &Standing, now: u64) -> String {
    let mut parts = Vec::new();
    if !standing.class.is_empty() {
        parts.push(format!("class {}", standing.class));
    }
    if !standing.code.is_empty() {
        parts.push(format!("code {}", standing.code));
    }
    if !standing.text.is_empty() {
        parts.push(standing.text.clone());
    }
    if !standing.who.is_empty() {
        parts.push(format!("who must act: {}", standing.who));
    }
    let head = head(standing, now);
    match standing.stage {
        Stage::Ended | Stage::Handled => {}
        Stage::Parked => parts.push(
            "next: nothing, until a person sends it back or drops it; `vumi parked list` shows it until then".into(),
        ),
        Stage::InQueue => parts.push(
            "no hop has noted it since; a worker without a state store notes nothing".into(),
        ),
        Stage::InJournal | Stage::Underway => parts.push(match &standing.sender {
            Some(sender) => format!("next: {}; {HOLDS}", ends(sender, now)),
            None => next(standing.waits.as_ref(), standing.deadline, now),
        }),
    }
    match parts.is_empty() {
        true => head,
        false => format!("{head}: {}", parts.join("; ")),
    }
}

/// What a message that is being sent does to others.
pub(super) const HOLDS: &str = "where order is kept, its user's next messages wait until then";

/// When the sending of a message is over.
pub(super) fn ends(sender: &Sender, now: u64) -> String {
    let name = &sender.name;
    let how = match sender.lives {
        true => format!("{name} has its answer, or gives no sign of life for 5s"),
        false => format!("somebody gets it again, or looks after it, since {name} is gone"),
    };
    let (at, due) = (moments::shown(sender.until), due(Some(sender.until), now));
    format!("{how}; at the latest {due}, at {at}")
}

/// Where it is, and since when.
fn head(standing: &Standing, now: u64) -> String {
    let since = |at: u64| match at {
        0 => "since nobody knows when".to_owned(),
        at => {
            let long = ago(now.saturating_sub(at) / 1000);
            format!("since {} ({long})", moments::shown(at))
        }
    };
    let (at, by) = (since(standing.since), &standing.by);
    let state = standing.state.map_or("", |state| state.as_str());
    match (standing.stage, &standing.waits) {
        (Stage::Ended, _) => state.to_owned(),
        (Stage::Handled, _) => format!("handled by {by} at {}", moments::shown(standing.since)),
        (Stage::Parked, _) => format!("set aside {at}"),
        (Stage::InQueue, _) => {
            format!("waits in a queue as far as is known, put there by {by} {at}")
        }
        // Its row says since when; of one without, the journal.
        (Stage::InJournal, Some(waits)) if standing.state.is_none() => format!(
            "waits in the journal of {} {} ({})",
            waits.queue,
            since(waits.since),
            reason(waits.reason)
        ),
        (Stage::InJournal, Some(waits)) => format!(
            "still {state} {at}, in the journal of {} ({})",
            waits.queue,
            reason(waits.reason)
        ),
        (Stage::InJournal | Stage::Underway, _) => format!("still {state} {at}"),
    }
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Backoff => "its last attempt failed",
        Reason::Throttle => "the peer or the rate limit asks to slow down",
        Reason::Overflow => "too many of its user wait",
        Reason::Behind => "an earlier message of its user waits",
        Reason::Held => "somebody holds it: a paused batch",
        Reason::Schedule => "it is scheduled",
        Reason::Imported => "taken over from Vumi's failure worker",
        Reason::Unreadable => "it cannot be read, and is set aside when its turn comes",
    }
}

/// What is next.
fn next(waits: Option<&Wait>, deadline: Option<u64>, now: u64) -> String {
    match (waits, deadline) {
        (Some(waits), _) if waits.before > 0 => format!(
            "next: {} wait before it, the first is tried {}",
            waits.before,
            due(waits.at, now)
        ),
        (Some(waits), _) => {
            let verb = match waits.reason {
                Reason::Schedule => "sent",
                Reason::Backoff | Reason::Imported => "tried again",
                _ => "tried",
            };
            let at = waits.at.map(|at| format!(", at {}", moments::shown(at)));
            format!(
                "next: {verb} {}{}",
                due(waits.at, now),
                at.unwrap_or_default()
            )
        }
        (None, Some(deadline)) if deadline <= now => {
            format!("overdue by {}", ago((now - deadline) / 1000))
        }
        (None, Some(deadline)) => format!("next: news is due {}", due(Some(deadline), now)),
        (None, None) => "next: nothing is planned".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vumi_core::state::ledger::{RowState, Step};
    use vumi_core::why::Moment;

    fn standing(state: RowState) -> Standing {
        Standing {
            message_id: "m".into(),
            stage: match state {
                _ if state.is_final() => Stage::Ended,
                RowState::Parked => Stage::Parked,
                _ => Stage::Underway,
            },
            state: Some(state),
            is_final: state.is_final(),
            by: "transport/sms@pod-1".into(),
            since: 1_000,
            class: String::new(),
            code: String::new(),
            text: String::new(),
            who: String::new(),
            deadline: None,
            waits: None,
            sender: None,
        }
    }

    fn wait(reason: Reason) -> Wait {
        Wait {
            queue: "sms.outbound".into(),
            reason,
            since: 2_000,
            at: Some(65_000),
            before: 0,
            code: String::new(),
            text: String::new(),
        }
    }

    #[test]
    fn messages_without_a_row_say_where_they_are() {
        let without = |stage, text: &str| Standing {
            stage,
            state: None,
            text: text.into(),
            ..standing(RowState::Queued)
        };
        assert_eq!(
            stands(&without(Stage::Handled, "to sms.outbound"), 5_000),
            "handled by transport/sms@pod-1 at 1970-01-01 00:00:01.000: to sms.outbound"
        );
        let passed = stands(&without(Stage::InQueue, "to app.inbound"), 5_000);
        assert!(
            passed.starts_with("waits in a queue as far as is known, put there by"),
            "{passed}"
        );
        assert!(passed.contains("to app.inbound"), "{passed}");
        let scheduled = Standing {
            waits: Some(wait(Reason::Schedule)),
            ..without(Stage::InJournal, "")
        };
        assert_eq!(
            stands(&scheduled, 5_000),
            "waits in the journal of sms.outbound since 1970-01-01 00:00:02.000 (3s) (it is scheduled): \
             next: sent in 1m0s, at 1970-01-01 00:01:05.000"
        );
        let parked = Standing {
            code: "bug.panic".into(),
            who: "operator".into(),
            ..without(Stage::Parked, "it panicked")
        };
        let parked = stands(&parked, 5_000);
        assert!(
            parked.contains("code bug.panic; it panicked; who must act: operator"),
            "{parked}"
        );
        assert!(parked.contains("vumi parked list"), "{parked}");
    }

    #[test]
    fn an_end_names_class_code_sentence_and_who_must_act() {
        let failed = Standing {
            class: "recipient".into(),
            code: "0x0b".into(),
            text: "the number does not exist".into(),
            who: "campaign".into(),
            ..standing(RowState::Failed)
        };
        assert_eq!(
            stands(&failed, 5_000),
            "failed: class recipient; code 0x0b; the number does not exist; who must act: campaign"
        );
    }

    #[test]
    fn what_goes_on_says_since_when_and_what_is_next() {
        let held = Standing {
            stage: Stage::InJournal,
            waits: Some(wait(Reason::Backoff)),
            ..standing(RowState::Queued)
        };
        assert_eq!(
            stands(&held, 5_000),
            "still queued since 1970-01-01 00:00:01.000 (4s), in the journal of sms.outbound (its last attempt failed): \
             next: tried again in 1m0s, at 1970-01-01 00:01:05.000"
        );
        let late = Standing {
            deadline: Some(2_000),
            text: "given to the provider".into(),
            ..standing(RowState::Sent)
        };
        assert!(stands(&late, 5_000).ends_with("given to the provider; overdue by 3s"));
    }

    #[test]
    fn what_is_being_sent_says_by_whom_and_what_ends_it() {
        let by = |lives| Standing {
            text: "is being sent".into(),
            sender: Some(Sender {
                name: "transport/sms@pod-1".into(),
                since: 1_000,
                lives,
                until: 301_000,
            }),
            ..standing(RowState::Sending)
        };
        assert_eq!(
            stands(&by(true), 5_000),
            "still sending since 1970-01-01 00:00:01.000 (4s): is being sent; next: transport/sms@pod-1 has its answer, \
             or gives no sign of life for 5s; at the latest in 4m56s, at 1970-01-01 00:05:01.000; where order is kept, \
             its user's next messages wait until then"
        );
        let gone = stands(&by(false), 5_000);
        assert!(gone.contains("transport/sms@pod-1 is gone"), "{gone}");
        assert!(gone.contains("in 4m56s"), "{gone}");
    }

    #[test]
    fn a_timeline_has_a_line_per_moment_and_one_per_message() {
        let step = Step {
            at: 1_000,
            worker: "transport/sms".into(),
            state: Some(RowState::Sending),
            attempt: 2,
            code: "peer.timeout".into(),
            class: String::new(),
            text: "no answer".into(),
            who: String::new(),
            caused: Vec::new(),
            holder: None,
        };
        let timeline = Timeline {
            moments: vec![Moment {
                message_id: "0123456789abcdef".into(),
                step,
            }],
            standings: vec![standing(RowState::Sending)],
        };
        let text = one(&timeline, 2_000);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "1970-01-01 00:00:01.000  01234567  transport/sms  sending  #2  peer.timeout  no answer"
        );
        assert!(lines[1].starts_with("m: still sending"), "{text}");
    }

    #[test]
    fn a_time_that_ends_before_it_begins_is_refused() {
        let error = has_time(&Question::Between(2_000, 1_000)).unwrap_err();
        assert_eq!(error.code, CliError::VALIDATION);
        let times = "--from 1970-01-01 00:00:02.000 is later than --to 1970-01-01 00:00:01.000";
        assert!(error.text.starts_with(times), "{error}");
        assert!(has_time(&Question::Between(1_000, 1_000)).is_ok());
        assert!(has_time(&Question::Message("m".into())).is_ok());
    }

    #[test]
    fn numbers_and_jids_are_addresses_and_ids_are_not() {
        for address in [
            "+27820000001",
            "27820000001",
            "+27 82 123 4567",
            "0027 (0)82-123-4567",
            "+",
            "*120#".trim_matches(['*', '#']),
            "a@b.c",
        ] {
            assert!(is_address(address), "{address}");
        }
        for id in [
            "0f3a9c0e5d8b4c1f9a77c0d2b6e41234",
            "01234567890123456789",
            "order-7",
            "",
        ] {
            assert!(!is_address(id), "{id}");
        }
    }
}
