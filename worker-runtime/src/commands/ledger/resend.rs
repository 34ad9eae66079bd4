//! `vumi ledger resend`: a person has messages sent again that failed, or of which nobody knows (R17).

use super::Shown;
use crate::commands::status::{ago, aligned};
use crate::error::CliError;
use crate::kept::confirm;
use crate::output::Format;
use crate::{moments, output};
use serde_json::{Value, json};
use vumi_api::shared::Duration;
use vumi_api::{Flow, Port};
use vumi_core::operate::Ask;
use vumi_core::resend::{Chosen, Resent, Summary};
use vumi_core::state::Person;
use vumi_core::state::ledger::RowState;

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
#[command(group = clap::ArgGroup::new("meant").required(true).multiple(true)
    .args(["ids", "transport", "batch", "address"]))]
pub struct Arguments {
    /// Ids of messages [default: all that fit]
    #[arg(value_name = "MESSAGE")]
    pub ids: Vec<String>,
    /// Only those of this transport
    #[arg(long, value_name = "NAME")]
    pub transport: Option<String>,
    /// Only those whose fate this is; may be given again: failed, unknown, sent, sentFinal, delivered, expired, cancelled
    #[arg(long, value_name = "STATE", value_parser = state)]
    pub fate: Vec<RowState>,
    /// Only those of this failure class
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,
    /// Only those that ended with this code, the provider's or ours
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,
    /// Only those of this batch
    #[arg(long, value_name = "LABEL")]
    pub batch: Option<String>,
    /// Only those for this address
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
    /// Only those that came to this state in this time up to now
    #[arg(long, value_name = "DURATION")]
    pub since: Option<Duration>,
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

fn state(text: &str) -> Result<RowState, String> {
    serde_json::from_value(Value::from(text)).map_err(|_| {
        let all = RowState::ALL.map(RowState::as_str);
        format!("not one of {}", all.join(", "))
    })
}

impl Arguments {
    fn chosen(&self, now: u64) -> Chosen {
        let since = self.since.map(|since| {
            let since = u64::try_from(since.0.as_millis()).unwrap_or(u64::MAX);
            now.saturating_sub(since)
        });
        Chosen {
            account: self.transport.clone(),
            ids: self.ids.clone(),
            states: self.fate.clone(),
            class: self.class.clone(),
            code: self.code.clone(),
            batch: self.batch.clone(),
            person: self.address.as_deref().map(|to| Person::new(to).key()),
            since,
        }
    }
}

/// Does it.
pub async fn run(arguments: &Arguments) -> Result<(), CliError> {
    let chosen = arguments.chosen(moments::now());
    let (shown, force) = (&arguments.shown, arguments.force);
    let question = Ask::LedgerResendable {
        chosen: chosen.clone(),
        force,
    };
    let listed: Vec<Summary> = shown.place.ask(question, &[]).await?;
    if listed.is_empty() {
        return Err(CliError::validation(nothing(&chosen.ids)));
    }
    if arguments.dry_run {
        return output::print(&match shown.format {
            Format::Json => format!("{:#}\n", json!(listed)),
            Format::Table => table(&listed),
        });
    }
    let count = |fits: fn(&Summary) -> bool| listed.iter().filter(|one| fits(one)).count();
    let able = count(|one| one.refused.is_none());
    let doubles = count(|one| one.refused.is_none() && one.may_double);
    if able > 1 || doubles > 0 {
        confirm(&asked(able, doubles), arguments.yes)?;
    }
    let mut queues: Vec<String> = listed
        .iter()
        .map(|one| Port::new(&one.account, Flow::Outbound).queue())
        .collect();
    queues.dedup();
    let question = Ask::LedgerResend { chosen, force };
    let done: Resent = shown.place.ask(question, &queues).await?;
    output::print(&match shown.format {
        Format::Json => format!("{:#}\n", json!(done)),
        Format::Table => told(&done),
    })?;
    match (&done.stopped, done.refused.is_empty()) {
        (Some(why), _) => Err(CliError::runtime(format!(
            "stopped early, the same command goes on: {why}"
        ))),
        (None, true) => Ok(()),
        (None, false) => Err(CliError::silent(CliError::RUNTIME)),
    }
}

/// That nothing fits although every name that was given is of something.
fn nothing(ids: &[String]) -> String {
    match ids {
        [] => "no such message failed or is unknown; leave out a condition, or name others with --fate; `vumi ledger counts` and `vumi why` show what there is".into(),
        ids => format!(
            "nothing is known of {}, or it does not fit the other conditions; `vumi why` takes the beginning of an id",
            ids.join(", ")
        ),
    }
}

fn asked(able: usize, doubles: usize) -> String {
    let risk = match doubles {
        0 => String::new(),
        _ => format!(" The peer may have {doubles} of them: their users may get them twice."),
    };
    format!("Send {able} messages again?{risk}")
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

fn table(listed: &[Summary]) -> String {
    let head = [
        "TRANSPORT",
        "MESSAGE",
        "STATE",
        "SINCE",
        "TRIES",
        "CLASS",
        "CODE",
        "TWICE",
        "WHY",
        "REFUSED",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let now = moments::now();
    let dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
    rows.extend(listed.iter().map(|one| {
        vec![
            one.account.clone(),
            one.message_id.clone(),
            one.state.as_str().to_owned(),
            ago(now.saturating_sub(one.since) / 1000),
            one.attempts.to_string(),
            dash(&one.class),
            dash(&one.code),
            if one.may_double { "perhaps" } else { "no" }.to_owned(),
            dash(&one.text),
            dash(one.refused.as_deref().unwrap_or_default()),
        ]
    }));
    let able = listed.iter().filter(|one| one.refused.is_none()).count();
    format!("{}{able} can be sent again\n", aligned(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_says_what_may_come_twice_and_the_answer_what_did_not_go() {
        assert_eq!(asked(3, 0), "Send 3 messages again?");
        assert!(asked(3, 2).contains("The peer may have 2 of them"));
        let done = Resent {
            done: 2,
            may_double: 1,
            refused: [("it is delivered".to_owned(), 4)].into(),
            stopped: None,
        };
        let text = "2 sent again, 1 of which the peer may have had\n4 not: it is delivered\n";
        assert_eq!(told(&done), text);
        assert_eq!(state("sentFinal"), Ok(RowState::SentFinal));
        assert!(state("lost").unwrap_err().contains("unknown"));
    }
}
