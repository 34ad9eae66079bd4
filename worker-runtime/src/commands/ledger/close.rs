//! `vumi ledger close`: a person ends rows whose message is nowhere any more.

use super::Shown;
use super::choice::{Choice, able, nothing, queues, table};
use crate::error::CliError;
use crate::kept::confirm;
use crate::moments;
use vumi_cli::table::counted;
use vumi_core::close::Closed;
use vumi_core::operate::Ask;
use vumi_core::resend::Summary;

/// That nothing fits although no message was named.
const NONE: &str = "no such message waits or is set aside; leave out a condition; `vumi ledger counts` and `vumi why` show what there is";

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
        return Err(nothing(&chosen.ids, NONE));
    }
    if arguments.dry_run {
        return shown.print(&listed, |listed| table(listed, "closed"));
    }
    let (able, doubles) = able(&listed);
    if able > 0 {
        confirm(&asked(able, doubles), arguments.yes)?;
    }
    let question = Ask::LedgerClose { chosen, force };
    let done: Closed = shown.place.ask(question, &queues(&listed)).await?;
    shown.print(&done, told)?;
    match (&done.stopped, done.refused.is_empty()) {
        (Some(why), _) => Err(CliError::runtime(format!("stopped early: {why}"))),
        (None, true) => Ok(()),
        (None, false) => Err(CliError::silent(CliError::RUNTIME)),
    }
}

fn asked(able: usize, doubles: usize) -> String {
    let risk = match doubles {
        0 => String::new(),
        _ => format!(" The peer may have {doubles} of them all the same."),
    };
    format!(
        "Close the rows of {}? They end as cancelled, and whoever sent them is told that they were not sent.{risk}",
        counted(able, "message")
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
        let none = "Close the rows of 3 messages? They end as cancelled, and whoever sent them is told that they were not sent.";
        assert_eq!(asked(3, 0), none);
        let two = format!("{none} The peer may have 2 of them all the same.");
        assert_eq!(asked(3, 2), two);
        assert!(asked(1, 0).starts_with("Close the rows of 1 message?"));
        let done = Closed {
            done: 2,
            refused: [("it has ended".to_owned(), 4)].into(),
            stopped: None,
        };
        assert_eq!(told(&done), "2 closed\n4 not: it has ended\n");
    }
}
