//! `vumi ledger close`: a person ends rows whose message is nowhere any more.

use super::Shown;
use super::choice::{Choice, queues, table};
use crate::error::CliError;
use crate::kept::confirm;
use crate::output::Format;
use crate::{moments, output};
use serde_json::json;
use vumi_core::close::Closed;
use vumi_core::operate::Ask;
use vumi_core::resend::Summary;

/// Arguments of `vumi ledger close`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi ledger close --transport sms --dry-run
  vumi ledger close --transport sms
  vumi ledger close 0f3a9c0e5d8b4c1f9a77c0d2b6e41234 --yes
  vumi ledger close --transport sms --fate queued --code retry.external --force
  vumi ledger close --transport sms --redis redis://localhost/ --broker amqp://guest:guest@localhost/

For rows that `vumi ledger audit` counts as missing: their queue was purged, a broker's disk was lost. Meant are rows that wait or are
set aside, or those in the states that are named. Each ends as cancelled, and whoever sent its message gets a nack. A row
whose message is in the journal or set aside is refused, and what the peer may have. Refused without --force is what may be in a
queue (while messages wait in those of the transport), in a worker's hand (while it has any), or with Vumi's failure worker. What
turns up after all is not sent. Another replica's hands are not seen: stop the others first, or let the queues run empty.
Exit codes: 0 ok · 1 some were not closed · 2 nothing fits, no such transport, batch, class or code, or not confirmed · 3 no process or store answers.")]
pub struct Arguments {
    /// Which ones.
    #[command(flatten)]
    pub choice: Choice,
    /// Also what may be in a queue, in a worker's hand, or with Vumi's failure worker
    #[arg(long)]
    pub force: bool,
    /// Only list them
    #[arg(long)]
    pub dry_run: bool,
    /// Do it without asking
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// How and where.
    #[command(flatten)]
    pub shown: Shown,
}

/// Does it.
pub async fn run(arguments: &Arguments) -> Result<(), CliError> {
    let chosen = arguments.choice.chosen(moments::now());
    let (shown, force) = (&arguments.shown, arguments.force);
    let question = Ask::LedgerClosable {
        chosen: chosen.clone(),
        force,
    };
    // Which queues a store's transports have is known where their rows are: none need be named.
    let listed: Vec<Summary> = shown.place.ask(question, &[]).await?;
    if listed.is_empty() {
        return Err(CliError::validation(nothing(&chosen.ids)));
    }
    if arguments.dry_run {
        return output::print(&match shown.format {
            Format::Json => format!("{:#}\n", json!(listed)),
            Format::Table => table(&listed, "closed"),
        });
    }
    let able = listed.iter().filter(|one| one.refused.is_none()).count();
    if able > 0 {
        confirm(&asked(able), arguments.yes)?;
    }
    let question = Ask::LedgerClose { chosen, force };
    let done: Closed = shown.place.ask(question, &queues(&listed)).await?;
    output::print(&match shown.format {
        Format::Json => format!("{:#}\n", json!(done)),
        Format::Table => told(&done),
    })?;
    match (&done.stopped, done.refused.is_empty()) {
        (Some(why), _) => Err(CliError::runtime(format!("stopped early: {why}"))),
        (None, true) => Ok(()),
        (None, false) => Err(CliError::silent(CliError::RUNTIME)),
    }
}

/// That nothing fits although every name that was given is of something.
fn nothing(ids: &[String]) -> String {
    match ids {
        [] => "no such message waits or is set aside; leave out a condition; `vumi ledger counts` and `vumi why` show what there is".into(),
        ids => format!(
            "nothing is known of {}, or it does not fit the other conditions; `vumi why` takes the beginning of an id",
            ids.join(", ")
        ),
    }
}

fn asked(able: usize) -> String {
    format!(
        "Close the rows of {able} messages? They end as cancelled, and whoever sent them is told that they were not sent."
    )
}

fn told(done: &Closed) -> String {
    let mut text = format!("{} closed\n", done.done);
    for (why, count) in &done.refused {
        text += &format!("{count} not: {why}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_says_how_many_end_and_the_answer_what_did_not() {
        assert!(asked(3).starts_with("Close the rows of 3 messages?"));
        let done = Closed {
            done: 2,
            refused: [("it has ended".to_owned(), 4)].into(),
            stopped: None,
        };
        assert_eq!(told(&done), "2 closed\n4 not: it has ended\n");
    }
}
