//! `vumi batch`: the stop button of a campaign (R13). Messages that carry one `helper_metadata.batch` are listed with what
//! became of them, paused, resumed, cancelled, given to another transport or to another class.

use crate::commands::status::aligned;
use crate::error::CliError;
use crate::kept::{Place, confirm};
use crate::output;
use crate::output::Format;
use crate::process;
use serde_json::{Value, json};
use vumi_api::shared::Class;
use vumi_api::{Flow, Port};
use vumi_core::batch_desk::Summary;
use vumi_core::operate::Ask;
use vumi_core::state::batches::Order;
use vumi_core::state::ledger::RowState;

/// Arguments of `vumi batch`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi batch list
  vumi batch pause spring-sale
  vumi batch resume spring-sale
  vumi batch cancel spring-sale --transport sms --yes
  vumi batch reroute spring-sale --to sms_backup --yes
  vumi batch reclass spring-sale --to interactive

A batch is every message with the same helper_metadata.batch. One order is in force for a batch at a time, of each
transport: a new one takes the place of the one before, and `resume` lifts it, whichever it is. An order reaches what is
not sent yet, and what comes later; transports hear of it within a second. Cancelled messages are final: their senders get
an event. Batches are known where there is a state store. An order that could not be obeyed is refused: for or to a
transport that never ran, to the transport that has the batch or one that only answers requests, or to a class where
there are none. Every order asks first; scripts say --yes.
Exit codes: 0 ok · 1 failed · 2 no such batch or transport, an order that could not be
obeyed, or not confirmed · 3 no process or store answers.")]
pub struct Arguments {
    /// What is done.
    #[command(subcommand)]
    pub action: Action,
}

/// What is done.
#[derive(clap::Subcommand, Debug)]
pub enum Action {
    /// List batches, with what became of their messages and the orders in force
    List {
        /// Label [default: all]
        batch: Option<String>,
        /// Only this transport's
        #[arg(long, value_name = "NAME")]
        transport: Option<String>,
        /// How the list is printed
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
    /// Hold what is not sent yet
    Pause(Meant),
    /// Lift the order in force: what is held goes on
    Resume(Meant),
    /// End what is not sent yet, for good
    Cancel(Meant),
    /// Give what is not sent yet to another transport
    Reroute {
        /// Name of the transport that takes it
        #[arg(long, value_name = "TRANSPORT")]
        to: String,
        /// Which batch.
        #[command(flatten)]
        meant: Meant,
    },
    /// Give what is not sent yet to another class; for transports with classes
    Reclass {
        /// The class: interactive, transactional or bulk
        #[arg(long, value_name = "CLASS")]
        to: Class,
        /// Which batch.
        #[command(flatten)]
        meant: Meant,
    },
}

/// Which batch.
#[derive(clap::Args, Debug)]
pub struct Meant {
    /// Label
    pub batch: String,
    /// Only this transport's [default: all that have messages of the batch]
    #[arg(long, value_name = "NAME")]
    pub transport: Option<String>,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
    /// Where.
    #[command(flatten)]
    pub place: Place,
}

/// Does it.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    process::block_on(async {
        match &arguments.action {
            Action::List {
                batch,
                transport,
                format,
                place,
            } => {
                let listed = list(place, batch.as_deref(), transport.as_deref()).await?;
                if listed.is_empty() && (batch.is_some() || transport.is_some()) {
                    return Err(CliError::validation(unknown(
                        &list(place, None, None).await?,
                    )));
                }
                output::print(&match format {
                    Format::Json => format!("{:#}\n", json!(listed)),
                    Format::Table => table(&listed),
                })
            }
            Action::Pause(meant) => give(meant, Some(Order::Pause), "Hold").await,
            Action::Resume(meant) => give(meant, None, "Let go").await,
            Action::Cancel(meant) => give(meant, Some(Order::Cancel), "Cancel for good").await,
            Action::Reroute { to, meant } => {
                let what = format!("Give to transport {to}");
                give(meant, Some(Order::Reroute(to.clone())), &what).await
            }
            Action::Reclass { to, meant } => {
                let what = format!("Give to class {}", to.as_str());
                give(meant, Some(Order::Reclass(*to)), &what).await
            }
        }
    })
}

async fn list(
    place: &Place,
    batch: Option<&str>,
    transport: Option<&str>,
) -> Result<Vec<Summary>, CliError> {
    let question = Ask::BatchList {
        batch: batch.map(str::to_owned),
        account: transport.map(str::to_owned),
    };
    place.ask(question, &[]).await
}

/// Nothing has the label and transport that were named: what there is.
fn unknown(all: &[Summary]) -> String {
    let names = all
        .iter()
        .map(|one| format!("{} of {}", one.batch, one.account));
    let names: Vec<String> = names.collect();
    match names.is_empty() {
        true => "no messages and no order of such a batch are known; there is no batch here".into(),
        false => format!(
            "no messages and no order of such a batch are known; there are: {}",
            names.join(", ")
        ),
    }
}

/// Gives an order for a batch of every transport that is meant, or lifts it.
async fn give(meant: &Meant, order: Option<Order>, what: &str) -> Result<(), CliError> {
    let Meant {
        batch,
        transport,
        yes,
        place,
    } = meant;
    let listed = list(place, Some(batch), transport.as_deref()).await?;
    let mut accounts: Vec<&str> = listed.iter().map(|one| one.account.as_str()).collect();
    match (transport, &order) {
        // Messages of the batch may be on their way.
        (Some(transport), Some(_)) if accounts.is_empty() => accounts.push(transport),
        _ if accounts.is_empty() => {
            let mut text = unknown(&list(place, None, None).await?);
            if order.is_some() {
                text += "; --transport NAME gives an order for messages to come";
            }
            return Err(CliError::validation(text));
        }
        _ => {}
    }
    if let (Some(Order::Reroute(to)), None) = (&order, transport) {
        // What is there already stays.
        if accounts.len() > 1 {
            accounts.retain(|account| account != to);
        }
    }
    let reached = reached(&listed, unbegun(place, &accounts).await?);
    let open: u64 = listed.iter().map(Summary::open).sum();
    let out: u64 = listed.iter().map(Summary::out).sum();
    let ended: u64 = listed
        .iter()
        .map(|one| one.rows.values().sum::<u64>())
        .sum();
    let ended = ended - open - out;
    let question = format!(
        "{what} what is not sent yet of batch {batch} ({}): {reached}; {out} are with the network and {ended} have ended?",
        accounts.join(", ")
    );
    confirm(&question, *yes)?;
    let (mut given, mut refused) = (Vec::new(), None);
    for account in &accounts {
        let question = Ask::BatchOrder {
            batch: batch.clone(),
            account: (*account).to_owned(),
            order: order.clone(),
        };
        match place.ask::<Value>(question, &[]).await {
            Ok(_) => given.push(*account),
            Err(error) => refused = Some(error),
        }
    }
    if let (Some(error), true) = (&refused, given.is_empty()) {
        return Err(error.clone());
    }
    let now = match &order {
        Some(order) => format!("is {order}"),
        None => "goes on".into(),
    };
    output::print(&format!(
        "batch {batch} {now} ({}): not sent yet: {reached}; {out} with the network, {ended} ended; `vumi batch list {batch}` shows what becomes of them\n",
        given.join(", ")
    ))?;
    refused.map_or(Ok(()), Err)
}

/// Messages that wait in the queues and journals of these transports and are in no count, of whatever batch; none if nobody says
/// how many.
async fn unbegun(place: &Place, accounts: &[&str]) -> Result<Option<u64>, CliError> {
    let mut sum = Some(0);
    for account in accounts {
        let question = Ask::Unbegun {
            account: (*account).to_owned(),
        };
        let queues = [Port::new(*account, Flow::Outbound).queue()];
        let waiting: Option<u64> = place.ask(question, &queues).await?;
        sum = sum.zip(waiting).map(|(sum, waiting)| sum + waiting);
    }
    Ok(sum)
}

/// What an order reaches, as far as it is known.
fn reached(listed: &[Summary], unbegun: Option<u64>) -> String {
    let open: u64 = listed.iter().map(Summary::open).sum();
    let more = match unbegun {
        Some(0) => String::new(),
        Some(waiting) => {
            format!(", and those of it among the {waiting} in queue and journal that it does not count yet")
        }
        None => {
            ", and those in queue and journal that it does not count yet, of which nobody here knows how many"
                .into()
        }
    };
    format!("{open} messages that `vumi batch list` counts{more}")
}

fn table(listed: &[Summary]) -> String {
    if listed.is_empty() {
        return "no batches are known\n".into();
    }
    let head = [
        "TRANSPORT",
        "BATCH",
        "ORDER",
        "QUEUED",
        "HELD",
        "SENT",
        "UNKNOWN",
        "DELIVERED",
        "FAILED",
        "CANCELLED",
        "PARKED",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(listed.iter().map(|one| {
        let count = |states: &[RowState]| one.rows_in(states).to_string();
        vec![
            one.account.clone(),
            one.batch.clone(),
            one.order.as_ref().map_or("-".into(), Order::to_string),
            count(&[RowState::Accepted, RowState::Queued]),
            count(&[RowState::Held]),
            count(&[RowState::Sending, RowState::Sent, RowState::SentFinal]),
            count(&[RowState::Unknown]),
            count(&[RowState::Delivered]),
            count(&[RowState::Failed, RowState::Expired]),
            count(&[RowState::Cancelled]),
            count(&[RowState::Parked]),
        ]
    }));
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_waits_uncounted_is_said() {
        assert_eq!(
            reached(&[], Some(0)),
            "0 messages that `vumi batch list` counts"
        );
        let some = reached(&[], Some(7));
        assert!(some.ends_with("among the 7 in queue and journal that it does not count yet"));
        assert!(reached(&[], None).ends_with("nobody here knows how many"));
    }

    #[test]
    fn a_table_says_what_became_of_a_batch() {
        assert_eq!(table(&[]), "no batches are known\n");
        let one = Summary {
            account: "sms".into(),
            batch: "spring".into(),
            order: Some(Order::Reroute("backup".into())),
            rows: BTreeMap::from([
                (RowState::Queued, 7),
                (RowState::Accepted, 1),
                (RowState::SentFinal, 30),
                (RowState::Failed, 2),
            ]),
        };
        assert_eq!((one.open(), one.out()), (8, 0));
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
                "sms",
                "spring",
                "rerouted to backup",
                "8",
                "0",
                "30",
                "0",
                "0",
                "2",
                "0",
                "0"
            ]
        );
        assert!(
            "urgent"
                .parse::<Class>()
                .unwrap_err()
                .contains("interactive")
        );
    }
}
