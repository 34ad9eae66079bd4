//! `vumi erase`: removes everything that is kept of a person, and says where and what cannot be reached.

use crate::commands::status::aligned;
use crate::error::CliError;
use crate::kept::{self, Place, confirm};
use crate::output::Format;
use crate::{output, process};
use serde_json::json;
use vumi_core::erase::Report;
use vumi_core::operate::Ask;

/// Arguments of `vumi erase`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi erase --person +27820000001 --dry-run
  vumi erase --person +27820000001 --yes --format json > report.json
  vumi erase --person +27820000001 --redis redis://localhost/ --broker amqp://guest:guest@localhost/ --queue sms.inbound

Removed are sessions, messages that wait in journals, ledger rows and trails, remembered answers to providers, and messages
that were set aside. Messages that had not ended are gone, and their senders are not told. The process is asked for its
workers' stores and parking queues; with --redis only what is named is searched, and the outbound queues of transports.
Exit codes: 0 ok · 1 a part could not be removed · 2 no address, or not confirmed · 3 no process, store or broker answers.")]
pub struct Arguments {
    /// Address of the person; a phone number with the code of its country, however it is written
    #[arg(long, value_name = "ADDRESS", value_parser = kept::address)]
    pub person: String,
    /// Remove nothing, say what there is
    #[arg(long)]
    pub dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
    /// Consumed queue whose parking queue is searched, with --broker; may be repeated
    #[arg(long = "queue", value_name = "QUEUE", requires = "broker")]
    pub queues: Vec<String>,
    /// How the report is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Where.
    #[command(flatten)]
    pub place: Place,
}

/// Does it.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    process::block_on(async {
        if !arguments.dry_run {
            confirm("Remove everything of this person for good?", arguments.yes)?;
        }
        let question = Ask::Erase {
            address: arguments.person.clone(),
            dry_run: arguments.dry_run,
        };
        let report: Report = arguments.place.ask(question, &arguments.queues).await?;
        output::print(&match arguments.format {
            Format::Json => format!("{:#}\n", json!(report)),
            Format::Table => table(&report),
        })?;
        if let (true, Some(hint)) = (
            report.removed.iter().all(|one| one.count == 0),
            kept::with_country(&arguments.person),
        ) {
            output::note(&format!("note: nothing was found; {hint}"));
        }
        Ok(())
    })
}

fn table(report: &Report) -> String {
    let head = ["PLACE", "WHAT", "ENTRIES"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut empty: Vec<String> = Vec::new();
    for one in &report.removed {
        match one.count {
            0 => empty.push(format!("{} ({})", one.place, one.what)),
            count => rows.push(vec![one.place.clone(), one.what.clone(), count.to_string()]),
        }
    }
    let found = match rows.len() {
        1 => String::new(),
        _ => aligned(&rows),
    };
    let nothing = match empty.is_empty() {
        true => String::new(),
        false => format!("nothing in: {}\n", empty.join(", ")),
    };
    let total: u64 = report.removed.iter().map(|one| one.count).sum();
    let verb = if report.dry_run {
        "would be removed"
    } else {
        "removed"
    };
    let mut text = format!("{found}{nothing}{total} {verb}\nnot reached:\n");
    for place in &report.not_reached {
        text += &format!("  {place}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use vumi_core::erase::Removed;

    #[test]
    fn a_report_counts_and_says_what_is_beyond_reach() {
        let report = Report {
            dry_run: false,
            removed: [("journal", 3), ("sessions", 0), ("ledger", 0)]
                .map(|(what, count)| Removed {
                    place: "embedded".into(),
                    what: what.into(),
                    count,
                })
                .to_vec(),
            not_reached: vec!["logs: delete them by their age".into()],
        };
        let text = table(&report);
        assert_eq!(
            text,
            "PLACE     WHAT     ENTRIES\n\
             embedded  journal  3\n\
             nothing in: embedded (sessions), embedded (ledger)\n\
             3 removed\n\
             not reached:\n  logs: delete them by their age\n"
        );
        let dry = Report {
            dry_run: true,
            ..report
        };
        assert!(table(&dry).contains("3 would be removed"));
        let nothing = Report {
            removed: vec![Removed {
                place: "embedded".into(),
                what: "journal".into(),
                count: 0,
            }],
            ..dry
        };
        let text = table(&nothing);
        assert!(
            text.starts_with("nothing in: embedded (journal)\n0 would be removed\n"),
            "{text}"
        );
    }
}
