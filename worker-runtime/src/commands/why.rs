//! `vumi why`: what became of a message (R11): one timeline over all hops and attempts, and at its end who must act, or
//! what the message waits for.

use crate::commands::journal::due;
use crate::commands::status::{ago, aligned};
use crate::error::CliError;
use crate::kept::Place;
use crate::output::Format;
use crate::{moments, output, process};
use serde_json::json;
use std::fmt::Write;
use vumi_api::shared::Duration;
use vumi_core::operate::Ask;
use vumi_core::why::{Answer, Question, Standing, Timeline};

/// Arguments of `vumi why`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi why 0f3a9c0e5d8b4c1f9a77c0d2b6e41234
  vumi why +27820000001
  vumi why --since 10m
  vumi why --from 2024-03-05T14:00:00Z --to 2024-03-05T14:10:00Z --json | jq '.timelines[].standings'
  vumi why +27820000001 --redis redis://localhost/

Shown is what hops and attempts left in the state store: when, which worker, which attempt, the provider's code, a
sentence. Messages that caused one another stand in one timeline. Addresses and contents are neither kept there nor
printed. Rows and trails are kept as long as retention.ledger says. What begins with + or is a short number is taken for
an address; --message and --address say which it is.
Exit codes: 0 found · 2 nothing is known of it · 3 no process or store answers.")]
#[command(group = clap::ArgGroup::new("about").required(true).multiple(true)
    .args(["what", "message", "address", "since", "from"]))]
pub struct Arguments {
    /// A message id, or the address of a user
    #[arg(value_name = "MESSAGE|ADDRESS", conflicts_with_all = ["message", "address", "since", "from"])]
    pub what: Option<String>,
    /// A message id
    #[arg(long, value_name = "ID", conflicts_with_all = ["address", "since", "from"])]
    pub message: Option<String>,
    /// The address of a user
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["since", "from"])]
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
    /// How many messages at most
    #[arg(long, default_value_t = 100)]
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

/// Message ids are 32 hex digits, or what a caller of a transport chose; numbers of users have at most 15 digits, and
/// other addresses an @.
fn is_address(what: &str) -> bool {
    let digits = what.strip_prefix('+').unwrap_or(what);
    let number = digits.len() <= 15 && digits.chars().all(|c| c.is_ascii_digit());
    what.contains('@') || (number && !digits.is_empty())
}

/// Prints it.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    process::block_on(async {
        let question = arguments.question(moments::now());
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
            true => Err(CliError::validation(
                "nothing is known of it: no hop with a state store saw it, or retention.ledger is over",
            )),
            false => Ok(()),
        }
    })
}

fn told(answer: &Answer, now: u64) -> String {
    let timelines = answer.timelines.iter().map(|timeline| one(timeline, now));
    let mut text = timelines.collect::<Vec<_>>().join("\n");
    if answer.truncated {
        text += "\nthere is more: ask for a shorter time, or raise --limit\n";
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
    let since = format!(
        "since {} ({})",
        moments::shown(standing.since),
        ago(now.saturating_sub(standing.since) / 1000)
    );
    let Some(state) = standing.state else {
        return match standing.waits {
            Some(waits) => format!(
                "waits in the journal behind {} others, next attempt {}",
                waits.before,
                due(waits.at, now)
            ),
            None => format!("no transport took it over; last seen {since}"),
        };
    };
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
    if standing.is_final {
        return format!("{}: {}", state.as_str(), parts.join("; "));
    }
    parts.push(match (standing.waits, standing.deadline) {
        (Some(waits), _) if waits.before > 0 => format!(
            "next: {} wait before it, the first is tried {}",
            waits.before,
            due(waits.at, now)
        ),
        (Some(waits), _) => format!("next: tried again {}", due(waits.at, now)),
        (None, Some(deadline)) if deadline <= now => {
            format!("overdue by {}", ago((now - deadline) / 1000))
        }
        (None, Some(deadline)) => format!("next: news is due {}", due(Some(deadline), now)),
        (None, None) => "next: nothing is planned".into(),
    });
    format!("still {} {since}: {}", state.as_str(), parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vumi_core::state::ledger::{RowState, Step};
    use vumi_core::why::{Due, Moment};

    fn standing(state: RowState) -> Standing {
        Standing {
            message_id: "m".into(),
            state: Some(state),
            is_final: state.is_final(),
            since: 1_000,
            class: String::new(),
            code: String::new(),
            text: String::new(),
            who: String::new(),
            deadline: None,
            waits: None,
        }
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
            waits: Some(Due {
                at: Some(65_000),
                before: 0,
            }),
            ..standing(RowState::Queued)
        };
        assert_eq!(
            stands(&held, 5_000),
            "still queued since 1970-01-01 00:00:01.000 (4s): next: tried again in 1m0s"
        );
        let late = Standing {
            deadline: Some(2_000),
            text: "given to the provider".into(),
            ..standing(RowState::Sent)
        };
        assert!(stands(&late, 5_000).ends_with("given to the provider; overdue by 3s"));
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
    fn numbers_and_jids_are_addresses_and_ids_are_not() {
        for address in [
            "+27820000001",
            "27820000001",
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
