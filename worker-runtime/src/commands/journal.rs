//! `vumi journal`: messages that wait in the journal for their turn, a retry or a release (R3): list, release, drop.

use crate::commands::status::{ago, aligned};
use crate::error::CliError;
use crate::kept::{self, Place, confirm};
use crate::output::Format;
use crate::{moments, output, process};
use serde_json::{Value, json};
use vumi_core::journal_desk::{Counted, Dropped, Paused, Released, Summary};
use vumi_core::operate::Ask;
use vumi_core::state::Person;
use vumi_core::state::journal::{Filter, Reason};

/// Arguments of `vumi journal`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi journal list
  vumi journal list sms.outbound --reason backoff
  vumi journal list sms.outbound --address 27820000001
  vumi journal release sms.outbound --reason throttle --yes
  vumi journal drop sms.outbound 17 18 --yes
  vumi journal list --redis redis://localhost/ --format json | jq '.[].code'

A queue is the one that the messages were consumed from; its classes and partitions are meant with it. A
release makes lanes due now: their messages are tried again in
order; what a paused batch holds stays held until `vumi batch resume`. A drop is for good: the ledger says cancelled, and whoever sent an outbound message gets an event. With --redis
alone nobody is told, because that takes the broker: add --broker. An address finds a lane of a queue with order per user.
Exit codes: 0 ok · 1 some messages could not be dropped · 2 no such queue, nothing fits, a paused batch holds all of it, or not confirmed · 3 no process or store answers.")]
pub struct Arguments {
    /// What is done.
    #[command(subcommand)]
    pub action: Action,
}

/// What is done.
#[derive(clap::Subcommand, Debug)]
pub enum Action {
    /// List messages that wait, without their contents
    List {
        /// Queue that they were consumed from [default: all with a journal]
        queue: Option<String>,
        /// Which ones.
        #[command(flatten)]
        chosen: Chosen,
        /// How many at most, per queue, up to 1000
        #[arg(long, default_value_t = 100, value_parser = kept::limit)]
        limit: usize,
        /// How the list is printed
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
    /// Make the lanes of messages due now
    Release {
        /// Queue that they were consumed from
        queue: String,
        /// Numbers of messages, as listed [default: all that fit]
        ids: Vec<u64>,
        /// Which ones.
        #[command(flatten)]
        chosen: Chosen,
        /// Do it without asking
        #[arg(long)]
        yes: bool,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
    /// Remove messages for good
    Drop {
        /// Queue that they were consumed from
        queue: String,
        /// Numbers of messages, as listed [default: all that fit]
        ids: Vec<u64>,
        /// Which ones.
        #[command(flatten)]
        chosen: Chosen,
        /// Do it without asking
        #[arg(long)]
        yes: bool,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
}

/// Which messages are meant. Without any of these, all.
#[derive(clap::Args, Debug)]
pub struct Chosen {
    /// Only those of the lane of this address
    #[arg(long, value_name = "ADDRESS", value_parser = kept::address)]
    pub address: Option<String>,
    /// Only those that wait for this reason: backoff, throttle, overflow, behind, held, schedule, imported or unreadable
    #[arg(long, value_name = "REASON", value_parser = reason)]
    pub reason: Option<Reason>,
    /// Only those of this group (a batch or tenant)
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

fn reason(text: &str) -> Result<Reason, String> {
    serde_json::from_value(Value::from(text)).map_err(|_| {
        "not one of backoff, throttle, overflow, behind, held, schedule, imported, unreadable"
            .into()
    })
}

impl Chosen {
    fn filter(&self, ids: &[u64]) -> Filter {
        Filter {
            ids: (!ids.is_empty()).then(|| ids.to_vec()),
            group: self.group.clone(),
            lane: self.address.as_deref().map(|to| Person::new(to).lane()),
            reason: self.reason,
            before: None,
        }
    }
}

/// Does it.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    process::block_on(async {
        match &arguments.action {
            Action::List {
                queue,
                chosen,
                limit,
                format,
                place,
            } => {
                let question = Ask::JournalList {
                    queue: queue.clone(),
                    filter: chosen.filter(&[]),
                    limit: *limit,
                };
                let listed: Vec<Summary> = place.ask(question, &[]).await?;
                output::print(&match format {
                    Format::Json => format!("{:#}\n", json!(listed)),
                    Format::Table => table(&listed) + more(listed.len(), *limit),
                })
            }
            Action::Release {
                queue,
                ids,
                chosen,
                yes,
                place,
            } => {
                let filter = chosen.filter(ids);
                let counted = count(place, queue, &filter).await?;
                if let Some(question) = asked(counted, queue) {
                    confirm(&question, *yes)?;
                }
                let question = Ask::JournalRelease {
                    queue: queue.clone(),
                    filter,
                };
                released(&place.ask(question, &[]).await?)
            }
            Action::Drop {
                queue,
                ids,
                chosen,
                yes,
                place,
            } => {
                let filter = chosen.filter(ids);
                let counted = count(place, queue, &filter).await?;
                let question = format!("Drop {} for good?", meant(&counted, queue));
                confirm(&question, *yes)?;
                let question = Ask::JournalDrop {
                    queue: queue.clone(),
                    filter,
                };
                let queues = [queue.clone()];
                dropped(&place.ask(question, &queues).await?)
            }
        }
    })
}

async fn count(place: &Place, queue: &str, filter: &Filter) -> Result<Counted, CliError> {
    let question = Ask::JournalCount {
        queue: queue.to_owned(),
        filter: filter.clone(),
    };
    let counted: Counted = place.ask(question, &[]).await?;
    match counted.messages {
        0 => Err(CliError::validation(format!(
            "nothing of that waits in the journal of {queue}; `vumi journal list` shows what does"
        ))),
        _ => Ok(counted),
    }
}

/// What is asked before a release; nothing for a single message.
fn asked(counted: Counted, queue: &str) -> Option<String> {
    let counted = counted.released();
    (counted.messages >= 2).then(|| format!("Release {}?", meant(&counted, queue)))
}

fn meant(counted: &Counted, queue: &str) -> String {
    let more = if counted.more { "more than " } else { "" };
    let shown = counted.messages - u64::from(counted.more);
    let messages = if shown == 1 { "message" } else { "messages" };
    format!(
        "{more}{shown} {messages} of {queue} (lanes: {})",
        counted.lanes
    )
}

/// Says what is due now, and what is not since its batch is paused.
fn released(released: &Released) -> Result<(), CliError> {
    let held: Vec<String> = released.paused.iter().map(held).collect();
    if released.lanes == 0 && !held.is_empty() {
        return Err(CliError::validation(held.join("\n")));
    }
    let mut text = format!("{} lanes released\n", released.lanes);
    for line in held {
        text += &format!("{line}\n");
    }
    output::print(&text)
}

fn held(paused: &Paused) -> String {
    let Paused {
        account,
        batch,
        messages,
    } = paused;
    format!(
        "{messages} messages stay held because batch {batch} is paused; `vumi batch resume {batch} --transport {account}` lets them go"
    )
}

fn dropped(dropped: &Dropped) -> Result<(), CliError> {
    let Dropped {
        done,
        in_hand,
        told,
        untold,
        stopped,
    } = dropped;
    let mut text = format!("{done} dropped, {told} senders told\n");
    if *in_hand > 0 {
        text += &format!("{in_hand} are left alone: a worker has them in hand\n");
    }
    if *untold > 0 {
        text += &format!(
            "{untold} senders are not told that their messages were dropped: that takes the broker (--broker URL, or ask the process), and rows that can be read\n"
        );
    }
    output::print(&text)?;
    match stopped {
        Some(why) => Err(CliError::runtime(format!(
            "stopped early; `vumi journal list` shows what still waits: {why}"
        ))),
        None => Ok(()),
    }
}

/// What follows a list that may have been cut.
pub fn more(listed: usize, limit: usize) -> &'static str {
    match listed >= limit {
        true => "there may be more: raise --limit\n",
        false => "",
    }
}

fn table(listed: &[Summary]) -> String {
    if listed.is_empty() {
        return "nothing waits in a journal\n".into();
    }
    let head = [
        "QUEUE", "ID", "LANE", "PLACE", "REASON", "DUE", "WAITS", "TRIES", "CODE", "MESSAGE",
        "FROM", "TO", "WHY",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let now = moments::now();
    rows.extend(listed.iter().map(|one| {
        let dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
        vec![
            one.queue.clone(),
            one.id.to_string(),
            match one.group.as_str() {
                "" => one.lane.clone(),
                group => format!("{group}/{}", one.lane),
            },
            one.place.to_string(),
            json!(one.reason).as_str().unwrap_or_default().to_owned(),
            due(one.due, now),
            match one.since {
                0 => "?".to_owned(),
                since => ago(now.saturating_sub(since) / 1000),
            },
            one.attempts.to_string(),
            dash(&one.code),
            dash(one.message_id.as_deref().unwrap_or_default()),
            dash(one.from_addr.as_deref().unwrap_or_default()),
            dash(one.to_addr.as_deref().unwrap_or_default()),
            one.text.clone(),
        ]
    }));
    aligned(&rows)
}

/// When a lane is due, seen from now.
pub fn due(due: Option<u64>, now: u64) -> String {
    match due {
        None => "on release".into(),
        Some(at) if at <= now => "now".into(),
        Some(at) => format!("in {}", ago((at - now).div_ceil(1000))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_when_and_why_and_no_address() {
        assert_eq!(table(&[]), "nothing waits in a journal\n");
        let one = Summary {
            queue: "sms.outbound".into(),
            id: 7,
            lane: "00000000000000ff".into(),
            group: "batch-1".into(),
            place: 0,
            due: None,
            reason: Reason::Held,
            since: moments::now() - 65_000,
            attempts: 3,
            code: "peer.timeout".into(),
            text: "no answer".into(),
            message_id: Some("m1".into()),
            to_addr: Some("a1b2".into()),
            from_addr: Some("c3d4".into()),
            size: 100,
        };
        let text = table(&[one]);
        let row: Vec<&str> = text.lines().nth(1).unwrap().split("  ").collect();
        let cells: Vec<&str> = row
            .iter()
            .map(|c| c.trim())
            .filter(|c| !c.is_empty())
            .collect();
        assert_eq!(
            cells,
            [
                "sms.outbound",
                "7",
                "batch-1/00000000000000ff",
                "0",
                "held",
                "on release",
                "1m5s",
                "3",
                "peer.timeout",
                "m1",
                "c3d4",
                "a1b2",
                "no answer"
            ]
        );
        assert_eq!(due(Some(10), 10), "now");
        assert_eq!(due(Some(5_010), 10), "in 5s");
    }

    #[test]
    fn a_release_asks_for_what_it_releases() {
        let counted = Counted {
            messages: 7,
            lanes: 3,
            held: 5,
            held_lanes: 1,
            ..Counted::default()
        };
        let asks = |counted: Counted| asked(counted, "sms.outbound").unwrap_or_default();
        assert_eq!(
            asks(counted),
            "Release 2 messages of sms.outbound (lanes: 2)?"
        );
        let dropped = meant(&counted, "sms.outbound");
        assert_eq!(dropped, "7 messages of sms.outbound (lanes: 3)");
        let all_held = Counted {
            held: 7,
            held_lanes: 3,
            ..counted
        };
        assert_eq!(asks(all_held), "", "nothing is released");
        // What was not counted may be released, although all that was counted is held.
        let uncounted = Counted {
            more: true,
            ..all_held
        };
        assert_eq!(
            asks(uncounted),
            "Release more than 6 messages of sms.outbound (lanes: 3)?"
        );
    }

    #[test]
    fn what_a_paused_batch_holds_is_said_with_what_lets_it_go() {
        let paused = Paused {
            account: "sms".into(),
            batch: "spring".into(),
            messages: 3,
        };
        let line = "3 messages stay held because batch spring is paused; `vumi batch resume spring --transport sms` lets them go";
        assert_eq!(held(&paused), line);
        let nothing = Released {
            lanes: 0,
            paused: vec![paused],
        };
        let error = released(&nothing).unwrap_err();
        assert_eq!((error.code, error.text.as_str()), (2, line));
    }

    #[test]
    fn reasons_are_written_as_they_are_shown() {
        assert_eq!(reason("backoff"), Ok(Reason::Backoff));
        assert!(reason("Backoff").unwrap_err().contains("backoff"));
    }
}
