//! `vumi tap`: follows connectors live on copies of their messages, so that nothing is taken away from whoever reads them.

use crate::brokers::{self, Url};
use crate::commands::inject::KindOf;
use crate::commands::status::Which;
use crate::error::CliError;
use crate::output::{self, Format};
use crate::process;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use time::macros::format_description;
use vumi_api::Port;
use vumi_core::broker::Broker;
use vumi_core::logging::hashed_address;
use vumi_core::supervisor::control::{Conversation, Request};
use vumi_core::tap::{Filter, Seen, Tap, Told};

/// Unfinished work at the end of the command.
const CLOSE: Duration = Duration::from_secs(2);
/// Longest content of a line of the table.
const WIDE: usize = 160;

/// Arguments of `vumi tap`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi tap
  vumi tap telnet --kind inbound --show
  vumi tap sms --address +27820000001 --format json | jq .content
  vumi tap sms --broker amqp://guest:guest@localhost/ --count 10

Every message that passes from now on is shown until Ctrl-C, or until --count are. Messages reach their readers as ever: a tap
has a queue of its own beside theirs, which goes with it.
Without --show an address is a hash, the same for the same address throughout this run, and the last three digits; of the
content only its length is shown. What comes faster than it can be printed is dropped, oldest first, and counted. A line says that
the broker was away meanwhile.
Exit codes: 0 ended by --count or Ctrl-C · 2 no such connector · 3 no process or broker answers.")]
pub struct Arguments {
    /// Connectors: names of transports, or what dispatchers expose [default: all of the process]
    #[arg(value_name = "CONNECTOR")]
    pub connectors: Vec<String>,
    /// Only these flows; may be given several times
    #[arg(long, value_enum)]
    pub kind: Vec<KindOf>,
    /// Only messages from or to this address
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
    /// Only messages whose content has this text, whatever the case
    #[arg(long, value_name = "TEXT")]
    pub content: Option<String>,
    /// Show addresses, contents and, in JSON, whole messages
    #[arg(long)]
    pub show: bool,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// How messages are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Tap this RabbitMQ
    #[arg(long, value_name = "URL", requires = "connectors", conflicts_with_all = ["socket", "state", "name"])]
    pub broker: Option<String>,
    /// PEM file of the private certificate authority of that broker
    #[arg(long, value_name = "FILE", requires = "broker")]
    pub broker_ca: Option<PathBuf>,
    /// End at the end of standard input, as that of somebody far away does when the connection breaks
    #[arg(long, hide = true)]
    pub until_eof: bool,
    /// The process whose messages are shown.
    #[command(flatten)]
    pub which: Which,
}

/// Where copies come from.
enum Source {
    Broker(Tap, Arc<dyn Broker>),
    Process(Conversation),
}

impl Source {
    async fn open(arguments: &Arguments) -> Result<Self, CliError> {
        let filter = Filter {
            address: arguments.address.clone(),
            content: arguments.content.clone(),
        };
        let kinds = match &arguments.kind[..] {
            [] => &[KindOf::Inbound, KindOf::Outbound, KindOf::Event],
            some => some,
        };
        let Some(url) = &arguments.broker else {
            let mut conversation = Conversation::open(&arguments.which.socket()?).await?;
            let kinds = kinds.iter().map(|kind| kind.flow().as_str().to_owned());
            let request = Request::Tap {
                connectors: arguments.connectors.clone(),
                kinds: kinds.collect(),
                filter,
            };
            conversation.say(&request).await?;
            return Ok(Source::Process(conversation));
        };
        let url = Url {
            url: url.clone(),
            authority: arguments.broker_ca.clone(),
        };
        let broker = url.open()?;
        brokers::connected(&broker).await?;
        let ports: Vec<Port> = arguments
            .connectors
            .iter()
            .flat_map(|name| kinds.iter().map(move |kind| Port::new(name, kind.flow())))
            .collect();
        for port in &ports {
            if broker.depth(&port.queue()).await?.is_none() {
                output::note(&format!(
                    "note: there is no queue {} yet; nothing is read from it",
                    port.queue()
                ));
            }
        }
        let tap = Tap::open(&*broker, &ports, filter).await;
        Ok(Source::Broker(tap, broker))
    }

    async fn next(&mut self) -> Result<Told, CliError> {
        match self {
            Source::Broker(tap, _) => Ok(tap.next().await),
            Source::Process(conversation) => {
                let value = conversation.hear().await?;
                serde_json::from_value(value).map_err(|error| {
                    CliError::runtime(format!("the process runs another version: {error}"))
                })
            }
        }
    }
}

/// Follows until there is enough.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    arguments
        .connectors
        .iter()
        .try_for_each(|name| super::connector(name))?;
    process::block_on(async {
        let mut source = Source::open(arguments).await?;
        let followed = tokio::select! {
            followed = follow(arguments, &mut source) => followed,
            _ = tokio::signal::ctrl_c() => Ok(()),
            () = input_ends(), if arguments.until_eof => Ok(()),
        };
        if let Source::Broker(tap, broker) = source {
            drop(tap);
            broker.close(CLOSE).await;
        }
        followed
    })
}

/// Waits for the end of standard input. A thread of its own waits, since nobody can end such a read.
async fn input_ends() {
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // An error is an end as well.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}

async fn follow(arguments: &Arguments, source: &mut Source) -> Result<(), CliError> {
    let mut left = arguments.count.unwrap_or(u64::MAX);
    let mut interrupted = false;
    while left > 0 {
        let line = match source.next().await? {
            Told::Interrupted => {
                interrupted = true;
                output::note("the broker is away; waiting for it");
                continue;
            }
            Told::Open if std::mem::take(&mut interrupted) => match arguments.format {
                Format::Table => {
                    "… the broker was away; what passed meanwhile is not shown".to_owned()
                }
                Format::Json => json!({"interrupted": true}).to_string(),
            },
            Told::Open => {
                // Whoever waits for it knows that nothing is missed from now on.
                output::note("following; Ctrl-C ends it");
                continue;
            }
            Told::Seen(seen) => {
                left -= 1;
                match arguments.format {
                    Format::Table => row(&seen, arguments.show),
                    Format::Json => object(&seen, arguments.show).to_string(),
                }
            }
            Told::Dropped(count) => match arguments.format {
                Format::Table => format!("… {count} messages came too fast and are not shown"),
                Format::Json => json!({"dropped": count}).to_string(),
            },
            Told::Ended(why) => return Err(CliError::environment(why)),
        };
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => {
                return Err(CliError::environment(format!(
                    "cannot write to standard output: {error}"
                )));
            }
        }
    }
    output::print("")
}

/// What is shown of a message: the same in both forms.
fn object(seen: &Seen, show: bool) -> Value {
    let message = &seen.message;
    let text = |field: &str| message.get(field).and_then(Value::as_str);
    let mut shown = Map::new();
    shown.insert("at".into(), json!(seen.at));
    shown.insert("connector".into(), json!(seen.connector));
    shown.insert("kind".into(), json!(seen.kind));
    for (name, field) in [("from", "from_addr"), ("to", "to_addr")] {
        if let Some(address) = text(field) {
            let address = match show {
                true => address.to_owned(),
                false => hashed_address(address),
            };
            shown.insert(name.into(), address.into());
        }
    }
    match (text("content"), show) {
        (Some(content), true) => shown.insert("content".into(), content.into()),
        (Some(content), false) => shown.insert("characters".into(), content.chars().count().into()),
        (None, _) => None,
    };
    for (name, field) in [
        ("messageId", "message_id"),
        ("inReplyTo", "in_reply_to"),
        ("session", "session_event"),
        ("event", "event_type"),
        ("status", "delivery_status"),
        ("of", "user_message_id"),
    ] {
        if let Some(value) = text(field) {
            shown.insert(name.into(), value.into());
        }
    }
    let fate = message.pointer("/helper_metadata/fate");
    for part in ["class", "code"] {
        if let Some(value) = fate.and_then(|fate| fate.get(part)?.as_str()) {
            shown.insert(part.into(), value.into());
        }
    }
    if show {
        shown.insert("message".into(), message.clone());
    } else if !message.is_object() {
        shown.insert("unreadable".into(), true.into());
    }
    shown.into()
}

fn row(seen: &Seen, show: bool) -> String {
    let shown = object(seen, show);
    let text = |name: &str| shown.get(name).and_then(Value::as_str);
    let what = match (text("event"), text("content"), shown.get("characters")) {
        (Some(event), _, _) => {
            let more = [text("status"), text("class"), text("code")];
            let more: Vec<&str> = more.into_iter().flatten().collect();
            let of = text("of").unwrap_or("?");
            format!("{event} of {of} {}", more.join(" "))
        }
        (None, Some(content), _) => {
            let flat: String = content.chars().take(WIDE).collect();
            let more = if content.chars().count() > WIDE {
                "…"
            } else {
                ""
            };
            format!("{flat:?}{more}")
        }
        (None, None, Some(count)) => format!("({count} characters)"),
        (None, None, None) if seen.message.is_object() => "(no content)".into(),
        (None, None, None) => "(not a message)".into(),
    };
    let addresses = match (text("from"), text("to")) {
        (None, None) => String::new(),
        (from, to) => format!("{} → {}", from.unwrap_or("?"), to.unwrap_or("?")),
    };
    let session = text("session").map_or_else(String::new, |event| format!("[{event}] "));
    let row = format!(
        "{}  {:8}  {}  {addresses}  {session}{}",
        clock(seen.at),
        seen.kind,
        seen.connector,
        what.trim_end()
    );
    // A message may hold what a terminal takes for orders.
    row.chars().filter(|c| !c.is_control()).collect()
}

/// The time of the day in UTC.
fn clock(at: f64) -> String {
    // As a number of milliseconds first: nanoseconds are more than the number holds exactly.
    let moment = OffsetDateTime::from_unix_timestamp_nanos((at * 1e3).round() as i128 * 1_000_000);
    let format = format_description!("[hour]:[minute]:[second].[subsecond digits:3]");
    moment
        .ok()
        .and_then(|moment| moment.format(format).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(message: Value, kind: &str) -> Seen {
        Seen {
            at: 1_767_323_045.25,
            connector: "t".into(),
            kind: kind.into(),
            message,
        }
    }

    #[test]
    fn nothing_personal_is_shown_unless_asked_for() {
        let message = json!({
            "message_id": "m1", "from_addr": "27820000001", "to_addr": "12345", "content": "my secret\n",
            "session_event": "new", "helper_metadata": {"note": "27820000001"},
        });
        let seen = seen(message, "inbound");
        for text in [row(&seen, false), object(&seen, false).to_string()] {
            assert!(
                !text.contains("27820000001") && !text.contains("secret"),
                "{text}"
            );
            assert!(text.contains("10") && text.contains("new"), "{text}");
        }
        let shown = row(&seen, true);
        assert_eq!(
            shown,
            "03:04:05.250  inbound   t  27820000001 → 12345  [new] \"my secret\\n\""
        );
        assert_eq!(object(&seen, true)["message"], seen.message);
    }

    #[test]
    fn events_say_what_of_and_why() {
        let message = json!({
            "event_type": "nack", "user_message_id": "m1",
            "helper_metadata": {"fate": {"class": "recipient", "code": "77"}},
        });
        let row = row(&seen(message, "event"), false);
        assert!(row.ends_with("nack of m1 recipient 77"), "{row}");
        assert!(super::row(&seen(json!("junk"), "event"), false).ends_with("(not a message)"));
        let orders = json!({"event_type": "\u{1b}]0;x\u{7}ack", "user_message_id": "m\u{9b}1"});
        assert!(super::row(&seen(orders, "event"), false).ends_with("]0;xack of m1"));
    }
}
