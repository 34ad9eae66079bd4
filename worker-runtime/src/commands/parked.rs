//! `vumi parked`: messages that were set aside with a reason (R18): list, show, send back, drop; and let a worker go on
//! that paused because of them.

use crate::brokers::{self, Url};
use crate::commands::journal::more;
use crate::commands::status::{Which, ago, aligned};
use crate::error::CliError;
use crate::kept::{self, confirm};
use crate::output::Format;
use crate::{output, process};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vumi_api::shared::Retention;
use vumi_core::broker::Broker;
use vumi_core::codes;
use vumi_core::operate::MAX_LISTED;
use vumi_core::parking::{self, Handled, Selection, Summary};
use vumi_core::supervisor::control::{self, Request, ask};
use vumi_core::withdraw::Withdrawal;

/// Arguments of `vumi parked`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi parked list
  vumi parked list --format json | jq '.[].code'
  vumi parked show telnet.inbound 3f9c2a7b41d0
  vumi parked requeue telnet.inbound --code message.invalid
  vumi parked drop telnet.inbound 3f9c2a7b41d0
  vumi parked drop telnet.inbound --all --yes
  vumi parked resume transport/telnet
  vumi parked list telnet.inbound --broker amqp://guest:guest@localhost/

Without --broker the running process is asked through its control socket. A queue is the one that the messages were
consumed from, as `vumi parked list` shows it. `vumi explain CODE` says what a code means. Before messages are dropped, or
several are sent back, it asks; without a terminal --yes must say it.
Exit codes: 0 ok · 1 some messages could not be moved · 2 no such queue or message, or not confirmed · 3 no process or broker answers.")]
pub struct Arguments {
    /// What is done.
    #[command(subcommand)]
    pub action: Action,
}

/// Where parked messages are looked for.
#[derive(clap::Args, Debug)]
pub struct Place {
    /// Look on this broker, without any process; with ?profile=quorum if its queues are
    #[arg(long, value_name = "URL", conflicts_with_all = ["socket", "state", "name"])]
    pub broker: Option<String>,
    /// PEM file of the private certificate authority of that broker
    #[arg(long, value_name = "FILE", requires = "broker")]
    pub broker_ca: Option<PathBuf>,
    /// The process that is asked.
    #[command(flatten)]
    pub which: Which,
}

/// What is done.
#[derive(clap::Subcommand, Debug)]
pub enum Action {
    /// List parked messages, without their contents
    List {
        /// Queue that they were consumed from [default: all of the process]
        queue: Option<String>,
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
    /// Show one message with its content, as JSON: `body` is text, or base64 where `encoding` says so
    Show {
        /// Queue that it was consumed from
        queue: String,
        /// Its id, as listed
        id: String,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
    /// Send messages back to the queue they came from
    Requeue {
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
    /// Let a worker go on that paused because too much was parked
    Resume {
        /// Kind and name, as in transport/telnet
        worker: String,
        /// The process.
        #[command(flatten)]
        which: Which,
    },
}

/// Which messages are meant.
#[derive(clap::Args, Debug)]
pub struct Chosen {
    /// Queue that they were consumed from
    pub queue: String,
    /// Their ids, as listed
    #[arg(required_unless_present_any = ["all", "code"], conflicts_with_all = ["all", "code"])]
    pub ids: Vec<String>,
    /// All of the queue
    #[arg(long, conflicts_with = "code")]
    pub all: bool,
    /// Those that were parked for this reason
    #[arg(long, value_name = "CODE", value_parser = code)]
    pub code: Option<String>,
}

/// A registered code.
fn code(text: &str) -> Result<String, String> {
    if codes::ALL.iter().any(|code| code.name == text) {
        return Ok(text.to_owned());
    }
    let names = codes::ALL.iter().map(|code| code.name);
    Err(match vumi_api::names::nearest(text, names) {
        Some(near) => format!("there is no such code; did you mean {near}?"),
        None => "there is no such code; `vumi parked list` shows those of parked messages".into(),
    })
}

impl Chosen {
    fn selection(&self) -> Selection {
        match &self.code {
            Some(code) => Selection::Code(code.clone()),
            None if self.all => Selection::All,
            None => Selection::Ids(self.ids.clone()),
        }
    }
}

/// Does it.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    process::block_on(async {
        match &arguments.action {
            Action::List {
                queue,
                limit,
                format,
                place,
            } => {
                let request = Request::ParkedList {
                    queue: queue.clone(),
                    limit: *limit,
                };
                let listed = perform(place, request).await?;
                match format {
                    Format::Json => output::print(&format!("{listed:#}\n")),
                    Format::Table => {
                        let listed: Vec<Summary> = read(listed)?;
                        output::print(&(table(&listed) + more(listed.len(), *limit)))
                    }
                }
            }
            Action::Show { queue, id, place } => {
                let (queue, id) = (queue.clone(), id.clone());
                let shown = perform(place, Request::ParkedShow { queue, id }).await?;
                output::print(&format!("{shown:#}\n"))
            }
            Action::Requeue { chosen, yes, place } => {
                agreed(place, chosen, "Send back", 2, *yes).await?;
                let request = Request::ParkedRequeue {
                    queue: chosen.queue.clone(),
                    selection: chosen.selection(),
                };
                handled(&read(perform(place, request).await?)?, "sent back", chosen)
            }
            Action::Drop { chosen, yes, place } => {
                agreed(place, chosen, "Drop for good", 1, *yes).await?;
                let request = Request::ParkedDrop {
                    queue: chosen.queue.clone(),
                    selection: chosen.selection(),
                };
                handled(&read(perform(place, request).await?)?, "dropped", chosen)
            }
            Action::Resume { worker, which } => {
                let worker = worker.clone();
                let resumed = ask(&which.socket()?, &Request::ParkedResume { worker }).await?;
                let key = resumed["worker"].as_str().unwrap_or_default();
                output::print(&format!(
                    "{key} is not paused any more; what is parked stays so until it is sent back or dropped\n"
                ))
            }
        }
    })
}

/// Asks before so many messages or more are touched.
async fn agreed(
    place: &Place,
    chosen: &Chosen,
    verb: &str,
    from: usize,
    yes: bool,
) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    let queue = &chosen.queue;
    let request = Request::ParkedList {
        queue: Some(queue.clone()),
        limit: MAX_LISTED,
    };
    let listed: Vec<Summary> = read(perform(place, request).await?)?;
    let selection = chosen.selection();
    let meant = listed
        .iter()
        .filter(|one| selection.takes(&one.id, &one.code));
    let (meant, cut) = (meant.count(), listed.len() >= MAX_LISTED);
    // Beyond those that were looked at there may be more.
    let more = if cut { "at least " } else { "" };
    match meant >= from || cut {
        true => confirm(
            &format!("{verb} {more}{meant} of the messages parked of {queue}?"),
            yes,
        ),
        false => Ok(()),
    }
}

/// Through the control socket, or on a broker of our own.
async fn perform(place: &Place, request: Request) -> Result<Value, CliError> {
    let Some(url) = &place.broker else {
        return Ok(ask(&place.which.socket()?, &request).await?);
    };
    let url = Url {
        url: url.clone(),
        authority: place.broker_ca.clone(),
    };
    let broker = url.open()?;
    brokers::connected(&broker).await?;
    let done = match exists(&*broker, &request).await {
        Ok(()) => on_broker(&*broker, request).await,
        Err(error) => Err(error),
    };
    broker.close(Duration::from_secs(5)).await;
    done
}

/// A queue of the command line's own broker may be mistyped; one that exists, or of which something was parked, is not.
async fn exists(broker: &dyn Broker, request: &Request) -> Result<(), CliError> {
    let (Request::ParkedList {
        queue: Some(queue), ..
    }
    | Request::ParkedShow { queue, .. }
    | Request::ParkedRequeue { queue, .. }
    | Request::ParkedDrop { queue, .. }) = request
    else {
        return Ok(());
    };
    for name in [queue.clone(), parking::parked_queue(queue)] {
        if broker.depth(&name).await?.is_some() {
            return Ok(());
        }
    }
    Err(CliError::validation(format!(
        "there is no queue {queue:?} on {}",
        broker.describe()
    )))
}

async fn on_broker(broker: &dyn Broker, request: Request) -> Result<Value, CliError> {
    let json = |value: Result<Value, serde_json::Error>| {
        value.map_err(|e| CliError::runtime(format!("cannot be written as JSON: {e}")))
    };
    match request {
        Request::ParkedList { queue: None, .. } => Err(CliError::validation(
            "with --broker, name the queue: vumi parked list telnet.inbound --broker URL",
        )),
        Request::ParkedList {
            queue: Some(queue),
            limit,
        } => json(serde_json::to_value(
            parking::list(broker, &queue, limit).await?,
        )),
        Request::ParkedShow { queue, id } => match parking::show(broker, &queue, &id).await? {
            Some(parked) => Ok(control::shown(&parked)),
            None => Err(CliError::validation(format!(
                "no message {id:?} is parked of {queue}; `vumi parked list {queue}` shows the ids"
            ))),
        },
        Request::ParkedRequeue { queue, selection } => json(serde_json::to_value(
            parking::requeue(broker, &queue, &selection).await?,
        )),
        Request::ParkedDrop { queue, selection } => {
            // Without a store nobody knows of a row; the sender is told all the same.
            let withdrawal = Withdrawal {
                store: None,
                broker: Some(broker),
                keep: Retention::LEDGER,
            };
            let dropped = parking::drop(broker, &withdrawal, &queue, &selection).await?;
            json(serde_json::to_value(dropped))
        }
        Request::Status
        | Request::ParkedResume { .. }
        | Request::Kept(_)
        | Request::Publish { .. }
        | Request::Tap { .. } => Err(CliError::validation(
            "only a running process can be asked for this",
        )),
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, CliError> {
    serde_json::from_value(value)
        .map_err(|e| CliError::runtime(format!("the process runs another version: {e}")))
}

fn handled(handled: &Handled, verb: &str, chosen: &Chosen) -> Result<(), CliError> {
    let Handled {
        done,
        kept,
        stopped,
    } = handled;
    output::print(&format!("{done} {verb}, {kept} left\n"))?;
    if let Some(why) = stopped {
        return Err(CliError::runtime(format!("stopped early: {why}")));
    }
    if let (Some(code), 0) = (&chosen.code, *done) {
        return Err(CliError::validation(format!(
            "nothing is parked of {} for {code}; `vumi parked list {}` shows the codes",
            chosen.queue, chosen.queue
        )));
    }
    if *done < chosen.ids.len() {
        return Err(CliError::validation(format!(
            "{} of the ids are not parked of {}; `vumi parked list {}` shows them",
            chosen.ids.len() - done,
            chosen.queue,
            chosen.queue
        )));
    }
    Ok(())
}

fn table(listed: &[Summary]) -> String {
    if listed.is_empty() {
        return "nothing is parked\n".into();
    }
    let mut rows = vec![
        [
            "QUEUE", "ID", "PARKED", "CODE", "TRIES", "MESSAGE", "FROM", "TO", "REASON",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    rows.extend(listed.iter().map(|one| {
        vec![
            one.origin.clone(),
            one.id.clone(),
            format!("{} ago", ago(now.saturating_sub(one.time as u64))),
            one.code.clone(),
            one.attempts.to_string(),
            one.message_id.clone().unwrap_or_else(|| "-".into()),
            one.from_addr.clone().unwrap_or_else(|| "-".into()),
            one.to_addr.clone().unwrap_or_else(|| "-".into()),
            one.reason.clone(),
        ]
    }));
    aligned(&rows)
}
