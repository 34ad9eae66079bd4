//! `vumi ledger resend`: a person has messages sent again that failed, or of which nobody knows (R17).

use super::Shown;
use super::choice::{Choice, able, nothing, queues, table};
use crate::error::CliError;
use crate::kept::confirm;
use crate::moments;
use vumi_cli::table::counted;
use vumi_core::operate::Ask;
use vumi_core::resend::{Resent, Summary};

/// That nothing fits although no message was named.
const NONE: &str = "no such message failed or is unknown; leave out a condition, or name others with --fate; `vumi ledger counts` and `vumi why` show what there is";

/// Arguments of `vumi ledger resend`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi ledger resend 0f3a9c0e5d8b4c1f9a77c0d2b6e41234
  vumi ledger resend --transport sms --class credit --since 2h --dry-run
  vumi ledger resend --transport sms --class credit --since 2h --yes
  vumi ledger resend --transport sms --fate unknown
  vumi ledger resend --batch june --redis redis://localhost/ --broker amqp://guest:guest@localhost/

Meant are messages that failed and messages of which nobody knows, or those in the states that are named. Each goes back to
the queue of its transport with its id; its row keeps its history. Its sender hears of the new end: by an ack or nack if it
had none, else by delivery reports. What the peer may have, its user may get twice: such are counted before anything is
done. What is delivered, with the peer or withdrawn, or was given to Vumi's failure worker, is refused without --force; what is
on its way or set aside, always. Of which messages the content is kept, says `retention.content`.
Exit codes: 0 ok · 1 some were not sent again · 2 nothing fits, no such transport, batch, class or code, or not confirmed · 3 no process or store answers.")]
pub struct Arguments {
    /// Which ones.
    #[command(flatten)]
    pub choice: Choice,
    /// Also what is delivered, with the peer or withdrawn, or with Vumi's failure worker
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
    let question = Ask::LedgerResendable {
        chosen: chosen.clone(),
        force,
    };
    let listed: Vec<Summary> = shown.place.ask(question, &[]).await?;
    if listed.is_empty() {
        return Err(nothing(&chosen.ids, NONE));
    }
    if arguments.dry_run {
        return shown.print(&listed, |listed| table(listed, "sent again"));
    }
    let (able, doubles) = able(&listed);
    if able > 1 || doubles > 0 {
        confirm(&asked(able, doubles), arguments.yes)?;
    }
    let question = Ask::LedgerResend { chosen, force };
    let done: Resent = shown.place.ask(question, &queues(&listed)).await?;
    shown.print(&done, told)?;
    match (&done.stopped, done.refused.is_empty()) {
        (Some(why), _) => Err(CliError::runtime(format!(
            "stopped early, the same command goes on: {why}"
        ))),
        (None, true) => Ok(()),
        (None, false) => Err(CliError::silent(CliError::RUNTIME)),
    }
}

fn asked(able: usize, doubles: usize) -> String {
    let risk = match doubles {
        0 => String::new(),
        _ => format!(" The peer may have {doubles} of them: their users may get them twice."),
    };
    format!("Send {} again?{risk}", counted(able, "message"))
}

fn told(done: &Resent) -> String {
    let mut text = format!("{} sent again", done.done);
    if done.may_double > 0 {
        text += &format!(", {} of which the peer may have had", done.may_double);
    }
    text.push('\n');
    for (why, count) in &done.refused {
        text += &format!("{count} not: {why}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_says_what_may_come_twice_and_the_answer_what_did_not_go() {
        assert_eq!(asked(3, 0), "Send 3 messages again?");
        assert!(asked(3, 2).contains("The peer may have 2 of them"));
        assert!(asked(1, 1).starts_with("Send 1 message again?"));
        let done = Resent {
            done: 2,
            may_double: 1,
            refused: [("it is delivered".to_owned(), 4)].into(),
            stopped: None,
        };
        let text = "2 sent again, 1 of which the peer may have had\n4 not: it is delivered\n";
        assert_eq!(told(&done), text);
    }
}
