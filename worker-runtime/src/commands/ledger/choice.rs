//! Which messages of the ledger a command means, and how it lists them.

use crate::commands::status::{ago, aligned};
use crate::error::CliError;
use crate::moments;
use serde_json::Value;
use vumi_api::shared::Duration;
use vumi_api::{Flow, Port};
use vumi_core::resend::{Chosen, Summary};
use vumi_core::state::Person;
use vumi_core::state::ledger::RowState;

/// Which messages are meant.
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("meant").required(true).multiple(true)
    .args(["ids", "transport", "batch", "address"]))]
pub struct Choice {
    /// Ids of messages [default: all that fit]
    #[arg(value_name = "MESSAGE")]
    pub ids: Vec<String>,
    /// Only those of this transport
    #[arg(long, value_name = "NAME")]
    pub transport: Option<String>,
    /// Only those whose fate this is; may be given again: accepted, queued, held, sending, sent, unknown, parked, delivered, sentFinal, failed, expired, cancelled. What the command refuses, it says
    #[arg(long, value_name = "STATE", value_parser = state)]
    pub fate: Vec<RowState>,
    /// Only those of this failure class
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,
    /// Only those whose last news has this code, the provider's or ours
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
}

fn state(text: &str) -> Result<RowState, String> {
    serde_json::from_value(Value::from(text)).map_err(|_| {
        let all = RowState::ALL.map(RowState::as_str);
        format!("not one of {}", all.join(", "))
    })
}

impl Choice {
    /// As it is asked for.
    pub fn chosen(&self, now: u64) -> Chosen {
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

/// Queues of the transports of what was listed.
pub(super) fn queues(listed: &[Summary]) -> Vec<String> {
    let mut queues: Vec<String> = listed
        .iter()
        .map(|one| Port::new(&one.account, Flow::Outbound).queue())
        .collect();
    queues.dedup();
    queues
}

/// How many of what was listed are not refused, and how many of these the peer may have.
pub(super) fn able(listed: &[Summary]) -> (usize, usize) {
    let able = listed.iter().filter(|one| one.refused.is_none());
    let doubles = able.clone().filter(|one| one.may_double);
    (able.count(), doubles.count())
}

/// That nothing fits: of what was named, or `none` where nothing was.
pub(super) fn nothing(ids: &[String], none: &str) -> CliError {
    CliError::validation(match ids {
        [] => none.to_owned(),
        ids => format!(
            "nothing is known of {}, or it does not fit the other conditions; `vumi why` takes the beginning of an id",
            ids.join(", ")
        ),
    })
}

/// One line for each; below them how many can be `done`.
pub(super) fn table(listed: &[Summary], done: &str) -> String {
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
    let (able, _) = able(listed);
    format!("{}{able} can be {done}\n", aligned(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_named_as_it_is_shown() {
        assert_eq!(state("sentFinal"), Ok(RowState::SentFinal));
        assert!(state("lost").unwrap_err().contains("unknown"));
    }
}
