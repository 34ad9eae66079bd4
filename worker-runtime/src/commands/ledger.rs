//! `vumi ledger`: the rows of outbound messages (R10): how many there are, which are overdue, whether every one has its
//! message; sending messages again, and closing rows whose message is gone.

mod choice;
mod close;
mod resend;

use crate::commands::status::{ago, aligned};
use crate::commands::why::{HOLDS, ends};
use crate::error::CliError;
use crate::kept::{self, Place};
use crate::output::Format;
use crate::{moments, output, process};
use serde_json::json;
use vumi_core::audit::Balance;
use vumi_core::operate::{Ask, Overdue, RowCount};
use vumi_core::state::ledger::RowState;

/// Arguments of `vumi ledger`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi ledger audit
  vumi ledger counts
  vumi ledger overdue sms --limit 20
  vumi ledger resend --transport sms --class credit --since 2h --dry-run
  vumi ledger close --transport sms --dry-run
  vumi ledger audit --redis redis://localhost/ --broker amqp://guest:guest@localhost/
  vumi ledger audit --format json | jq '.[] | select(.missing > 0)'

Every outbound message that a transport took over has a row. An audit compares the rows that are not final with the
messages: in queues, in hand, in the journal, set aside, with Vumi's failure worker. When nothing is on its way the
imbalance must be 0; while messages move, it may show some for a moment. What other processes have in hand is not seen: stop
them first, or ask twice.
Exit codes: 0 balanced · 1 not balanced, or rows overdue · 2 no such transport, or no worker has a state store · 3 no process or store answers.")]
pub struct Arguments {
    /// What is shown.
    #[command(subcommand)]
    pub action: Action,
}

/// What is shown.
#[derive(clap::Subcommand, Debug)]
pub enum Action {
    /// Compare the rows with the messages; the imbalance must be 0
    Audit(Shown),
    /// Count the rows of each transport by state
    Counts(Shown),
    /// List rows without news for too long
    Overdue {
        /// Name of the transport [default: all]
        transport: Option<String>,
        /// How many at most, per transport, up to 1000
        #[arg(long, default_value_t = 100, value_parser = kept::limit)]
        limit: usize,
        /// How and where.
        #[command(flatten)]
        shown: Shown,
    },
    /// Send messages again that failed, or of which nobody knows
    Resend(resend::Arguments),
    /// End rows whose message is nowhere any more, and tell who sent it
    Close(close::Arguments),
}

/// How it is shown, and where it is kept.
#[derive(clap::Args, Debug)]
pub struct Shown {
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Where.
    #[command(flatten)]
    pub place: Place,
}

impl Shown {
    fn print<T: serde::Serialize>(
        &self,
        answer: &T,
        table: impl Fn(&T) -> String,
    ) -> Result<(), CliError> {
        output::print(&match self.format {
            Format::Json => format!("{:#}\n", json!(answer)),
            Format::Table => table(answer),
        })
    }

    async fn ask<T: serde::de::DeserializeOwned + serde::Serialize>(
        &self,
        question: Ask,
        table: impl Fn(&T) -> String,
    ) -> Result<T, CliError> {
        let answer: T = self.place.ask(question, &[]).await?;
        self.print(&answer, table)?;
        Ok(answer)
    }
}

/// Shows it.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    process::block_on(async {
        let fine = match &arguments.action {
            Action::Audit(shown) => {
                let balances: Vec<Balance> = shown
                    .ask(Ask::LedgerAudit, |b: &Vec<Balance>| audited(b))
                    .await?;
                balances.iter().all(|balance| balance.imbalance() == 0)
            }
            Action::Counts(shown) => {
                let table = |counts: &Vec<RowCount>| counted(counts);
                shown.ask(Ask::LedgerCounts, table).await?;
                true
            }
            Action::Overdue {
                transport,
                limit,
                shown,
            } => {
                let question = Ask::LedgerOverdue {
                    account: transport.clone(),
                    limit: *limit,
                };
                let overdue: Vec<Overdue> = shown
                    .ask(question, |o: &Vec<Overdue>| late(o, moments::now()))
                    .await?;
                overdue.iter().all(|account| account.count == 0)
            }
            Action::Resend(arguments) => {
                resend::run(arguments).await?;
                true
            }
            Action::Close(arguments) => {
                close::run(arguments).await?;
                true
            }
        };
        match fine {
            true => Ok(()),
            false => Err(CliError::silent(CliError::RUNTIME)),
        }
    })
}

fn audited(balances: &[Balance]) -> String {
    if balances.is_empty() {
        return "no transport has rows, a journal or queues here\n".into();
    }
    let head = [
        "TRANSPORT",
        "ROWS OPEN",
        "QUEUED",
        "IN HAND",
        "JOURNAL",
        "PARKED",
        "MISSING",
        "IMBALANCE",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut notes = String::new();
    for balance in balances {
        let found = &balance.found;
        let number = |number: Option<u64>| number.map_or_else(|| "?".into(), |n| n.to_string());
        let all = |stored: vumi_core::audit::Stored| {
            stored.expected + stored.without_row + stored.finished
        };
        rows.push(vec![
            balance.account.clone(),
            found.rows.values().sum::<u64>().to_string(),
            number(found.ready),
            number(found.in_flight),
            all(found.journal).to_string(),
            number(found.parked.map(all)),
            (balance.missing + balance.missing_parked).to_string(),
            balance.imbalance().to_string(),
        ]);
        let mut note = |text: String| notes += &format!("{}: {text}\n", balance.account);
        if balance.missing > 0 {
            note(format!(
                "{} rows say that their message waits, and it is nowhere; `vumi ledger overdue {1}` names them when they are late, `vumi ledger close --transport {1}` ends them",
                balance.missing, balance.account
            ));
        }
        if found.external > 0 {
            // What it gave back says so only once it is taken from the queue.
            let most = match found.ready {
                Some(0) => "",
                _ => "at most ",
            };
            note(format!(
                "{most}{} messages are with Vumi's failure worker, which is to give them back",
                found.external
            ));
        }
        if balance.missing_parked > 0 {
            note(format!(
                "{} rows say that their message is set aside, and it is not in the parking queues; `vumi ledger close --transport {} --fate parked` ends them",
                balance.missing_parked, balance.account
            ));
        }
        if balance.finished > 0 {
            note(format!(
                "{} messages wait although their row is final",
                balance.finished
            ));
        }
        if !balance.at_rest {
            note("messages are on their way: the numbers are not of one moment".into());
        }
        if found.ready.is_none() {
            note(
                "queues and parking were not looked at: that takes the broker (--broker URL)"
                    .into(),
            );
        }
    }
    let total: u64 = balances.iter().map(Balance::imbalance).sum();
    format!("{}{notes}imbalance {total}\n", aligned(&rows))
}

fn counted(counts: &[RowCount]) -> String {
    if counts.is_empty() {
        return "the ledger is empty\n".into();
    }
    let mut rows = vec![["TRANSPORT", "STATE", "ROWS"].map(str::to_owned).to_vec()];
    rows.extend(counts.iter().map(|row| {
        vec![
            row.account.clone(),
            row.state.as_str().to_owned(),
            row.count.to_string(),
        ]
    }));
    aligned(&rows)
}

fn late(overdue: &[Overdue], now: u64) -> String {
    let sent = being_sent(overdue, now);
    let total: u64 = overdue.iter().map(|account| account.count).sum();
    if total == 0 {
        return format!("nothing is overdue\n{sent}");
    }
    let head = ["TRANSPORT", "MESSAGE", "STATE", "LATE BY", "LAST NEWS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for account in overdue {
        rows.extend(account.rows.iter().map(|row| {
            vec![
                account.account.clone(),
                row.message_id.clone(),
                row.state.map_or("unreadable", RowState::as_str).to_owned(),
                match row.deadline {
                    0 => "?".to_owned(),
                    deadline => ago(now.saturating_sub(deadline) / 1000),
                },
                row.text.clone(),
            ]
        }));
    }
    format!(
        "{}{total} overdue; `vumi why MESSAGE` tells more\n{sent}",
        aligned(&rows)
    )
}

/// What is being sent for long, since when, and what ends that; empty if nothing is.
fn being_sent(overdue: &[Overdue], now: u64) -> String {
    let head = ["TRANSPORT", "BEING SENT", "FOR", "UNTIL"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for account in overdue {
        rows.extend(account.sending.iter().map(|one| {
            vec![
                account.account.clone(),
                one.message_id.clone(),
                ago(now.saturating_sub(one.sender.since) / 1000),
                ends(&one.sender, now),
            ]
        }));
    }
    match rows.len() {
        1 => String::new(),
        count => format!("{}{} being sent; {HOLDS}\n", aligned(&rows), count - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use vumi_core::audit::{Found, Stored, balance};
    use vumi_core::operate::BeingSent;
    use vumi_core::why::Sender;

    #[test]
    fn what_is_being_sent_for_long_is_named_although_nothing_is_overdue() {
        let one = BeingSent {
            message_id: "held".into(),
            sender: Sender {
                name: "transport/telnet@host-1".into(),
                since: 1_000,
                lives: false,
                until: 31_000,
            },
        };
        let overdue = Overdue {
            account: "telnet".into(),
            count: 0,
            rows: Vec::new(),
            sending: vec![one],
        };
        let text = late(&[overdue], 4_000);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "nothing is overdue");
        for part in ["telnet", "held", "3s", "host-1 is gone", "in 27s"] {
            assert!(lines[2].contains(part), "{part}: {text}");
        }
        assert!(lines[3].starts_with("1 being sent"), "{text}");
        assert_eq!(late(&[], 4_000), "nothing is overdue\n");
    }

    #[test]
    fn an_audit_says_what_is_missing_and_what_was_not_looked_at() {
        let found = Found {
            rows: BTreeMap::from([(RowState::Held, 3), (RowState::Parked, 2)]),
            journal: Stored {
                expected: 1,
                ..Stored::default()
            },
            ..Found::default()
        };
        let text = audited(&[balance("sms", found.clone())]);
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["sms", "5", "?", "?", "1", "?", "2", "2"]);
        assert!(
            text.contains("sms: 2 rows say that their message waits"),
            "{text}"
        );
        assert!(text.contains("(--broker URL)"), "{text}");
        assert!(text.ends_with("imbalance 2\n"), "{text}");
        let whole = Found {
            parked: Some(Stored {
                expected: 2,
                ..Stored::default()
            }),
            journal: Stored {
                expected: 3,
                ..Stored::default()
            },
            ready: Some(0),
            in_flight: Some(0),
            ..found
        };
        let text = audited(&[balance("sms", whole.clone())]);
        assert!(text.ends_with("imbalance 0\n"), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
        let mut elsewhere = whole;
        elsewhere.rows.insert(RowState::Queued, 4);
        elsewhere.external = 4;
        let text = audited(&[balance("sms", elsewhere.clone())]);
        assert!(
            text.contains("sms: 4 messages are with Vumi's failure worker"),
            "{text}"
        );
        assert!(text.ends_with("imbalance 0\n"), "{text}");
        elsewhere.ready = Some(2);
        let text = audited(&[balance("sms", elsewhere)]);
        assert!(
            text.contains("sms: at most 4 messages are with Vumi's failure worker"),
            "{text}"
        );
    }
}
