//! `vumi inject`: publishes messages from files, lines, CSV or JSON lines, each until the broker confirmed it.

mod pace;
mod progress;
mod records;
mod repeats;
mod sink;
mod turn;
mod waiting;

use crate::commands::status::Which;
use crate::error::CliError;
use crate::output::{self, Format};
use crate::process;
use clap::builder::NonEmptyStringValueParser;
use pace::Pace;
use progress::Progress;
use records::{Layout, Record, Source, Template};
use repeats::Repeats;
use serde::Serialize;
use serde_json::{Value, json};
use sink::Sink;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use turn::Turn;
use vumi_api::shared::Class;
use vumi_api::{Flow, Port};
use vumi_core::message::random_id;
use waiting::Waiting;

/// How often the progress is written down.
const NOTE: Duration = Duration::from_secs(1);
/// Confirmations that are still out when somebody interrupts are awaited so long.
const LAST: Duration = Duration::from_secs(5);
/// Records that are not valid of which the reason is printed.
const SHOWN: u64 = 20;
/// Records that are read before they are handed over.
const AHEAD: usize = 256;
/// What was handed over waits so long for others to be sent with, where they are read as they come.
const LINGER: Duration = Duration::from_millis(100);

/// Arguments of `vumi inject`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi inject --connector telnet --from 27820000001 --to 12345 --content hello
  vumi inject --connector sms --kind outbound --batch spring --class bulk numbers.csv
  vumi inject --connector sms saved.jsonl --broker amqp://guest:guest@localhost/ --rate 500 --resume saved.progress
  vumi inject --connector sms --from '2782{i}' --content 'message {i}' --count 100000 --broker amqp://localhost/
  seq 1000 | vumi inject --connector telnet --from 27820000001 --to 12345 -

A file is lines (each the content of a message), CSV (a header of to, from, content, message_id, session_event, in_reply_to,
group, provider, transport_type, endpoint, class, batch, tenant) or JSON lines (whole messages, or some of their fields); what
a record does not say is taken from the options. Files are checked as a whole before anything is sent.
Without --broker a running `vumi run` is asked to publish, also on the broker inside it.
Each message is sent until the broker confirmed it; while it takes none, that is said from time to time. With --resume the same command goes on where it was interrupted: what
was on its way then is sent again with the same message_id. A file may be longer by then; if what was sent of it was changed,
nothing is, without --force.
Exit codes: 0 all sent · 1 no queue takes them any more · 2 a record, connector or option is not valid · 3 no process, broker or
file, or the broker confirms nothing · 128+signal.")]
pub struct Arguments {
    /// Files to read, or - for standard input
    #[arg(value_name = "FILE", required_unless_present = "content")]
    pub files: Vec<PathBuf>,
    /// Name of the connector: of a transport, or what a dispatcher exposes
    #[arg(long, value_name = "NAME")]
    pub connector: String,
    /// Which of its flows: inbound is from a user, outbound is to a user
    #[arg(long, value_enum, default_value_t = KindOf::Inbound)]
    pub kind: KindOf,
    /// How the files are written [default: by their ending: .csv, .jsonl, else lines]
    #[arg(long = "as", value_name = "LAYOUT", value_enum)]
    pub layout: Option<Layout>,
    /// from_addr; {i} is the number of the record
    #[arg(long, value_name = "ADDRESS", value_parser = NonEmptyStringValueParser::new())]
    pub from: Option<String>,
    /// to_addr; {i} is the number of the record
    #[arg(long, value_name = "ADDRESS", value_parser = NonEmptyStringValueParser::new())]
    pub to: Option<String>,
    /// Content of a message without a file, or of records that have none; {i} is the number of the record
    #[arg(long, value_name = "TEXT")]
    pub content: Option<String>,
    /// How many messages of --content
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "files", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: u64,
    /// session_event: new, resume or close
    #[arg(long, value_name = "EVENT")]
    pub session: Option<String>,
    /// transport_type
    #[arg(long, value_name = "TYPE", default_value = "sms")]
    pub transport_type: String,
    /// Endpoint in routing_metadata
    #[arg(long, value_name = "NAME")]
    pub endpoint: Option<String>,
    /// Label: interactive, transactional or bulk
    #[arg(long, value_name = "CLASS")]
    pub class: Option<Class>,
    /// Label: the batch that the messages belong to
    #[arg(long, value_name = "NAME")]
    pub batch: Option<String>,
    /// Label: on whose behalf they are sent
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Messages a second at most [default: as fast as they are confirmed]
    #[arg(long, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,
    /// Leave out records that are not valid instead of sending nothing
    #[arg(long)]
    pub skip_invalid: bool,
    /// Check everything, show the first message, and send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// File that keeps how far it came; if it is there, go on from there
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Go on although what was sent before is not what stands in the files any more
    #[arg(long, requires = "resume")]
    pub force: bool,
    /// Declare the queue if it is not there; only with --broker
    #[arg(long, requires = "broker")]
    pub create: bool,
    /// Publish on this RabbitMQ; with ?profile=quorum if its queues are
    #[arg(long, value_name = "URL", conflicts_with_all = ["socket", "state", "name"])]
    pub broker: Option<String>,
    /// PEM file of the private certificate authority of that broker
    #[arg(long, value_name = "FILE", requires = "broker")]
    pub broker_ca: Option<PathBuf>,
    /// The process that publishes.
    #[command(flatten)]
    pub which: Which,
    /// How the counts at the end are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// A flow, as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KindOf {
    /// Messages from users
    Inbound,
    /// Messages to users
    Outbound,
    /// What became of messages to users
    Event,
}

impl KindOf {
    /// The flow.
    pub fn flow(self) -> Flow {
        match self {
            KindOf::Inbound => Flow::Inbound,
            KindOf::Outbound => Flow::Outbound,
            KindOf::Event => Flow::Event,
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.trim_end_matches("/s").parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("write a number of messages a second above 0, e.g. 50 or 0.5".into()),
    }
}

/// Reads, checks, sends, and says what became of it.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    super::connector(&arguments.connector)?;
    let port = Port::new(&arguments.connector, arguments.kind.flow());
    let source = match arguments.files.is_empty() {
        true => Source::Repeated(arguments.count),
        false => Source::Files(arguments.files.clone(), arguments.layout),
    };
    let mut template = template(arguments, random_id());
    let fresh = Progress {
        target: port.queue(),
        input: source.names(),
        options: template.fingerprint(arguments.layout, arguments.skip_invalid),
        run: template.run.clone(),
        confirmed: 0,
        contents: String::new(),
    };
    let progress = match &arguments.resume {
        Some(path) => Progress::read(path, fresh)?,
        None => fresh,
    };
    template.run.clone_from(&progress.run);
    let known = match source.is_known() {
        true => Some(check(&source, &template, arguments)?),
        false => None,
    };
    if arguments.dry_run {
        return show(&source, &template, known, arguments);
    }
    process::block_on(send(arguments, &port, &source, &template, known, progress))
}

fn template(arguments: &Arguments, run: String) -> Template {
    let class = arguments.class.map(|class| class.as_str().to_owned());
    let labels = [
        ("class", class),
        ("batch", arguments.batch.clone()),
        ("tenant", arguments.tenant.clone()),
    ];
    let labels = labels
        .into_iter()
        .filter_map(|(label, value)| Some((label, value?)));
    Template {
        connector: arguments.connector.clone(),
        flow: Some(arguments.kind.flow()),
        to: arguments.to.clone(),
        from: arguments.from.clone(),
        content: arguments.content.clone(),
        session: arguments.session.clone(),
        transport_type: arguments.transport_type.clone(),
        endpoint: arguments.endpoint.clone(),
        labels: labels.collect(),
        run,
    }
}

/// Reads everything once; the number of valid records. Nothing is sent where one is not valid, unless it may be left out.
fn check(source: &Source, template: &Template, arguments: &Arguments) -> Result<u64, CliError> {
    let (mut valid, mut invalid, mut repeats) = (0, 0, Repeats::default());
    for record in source.to_check(template) {
        let record = record?;
        repeats.look(&record);
        let Record { place, body, .. } = record;
        match body {
            Ok(_) => valid += 1,
            Err(why) => {
                invalid += 1;
                if invalid <= SHOWN {
                    output::note(&format!("{place}: {why}"));
                }
            }
        }
    }
    if let Some(repeats) = repeats.sentence() {
        output::note(&format!("note: {repeats}"));
    }
    if invalid > 0 && !arguments.skip_invalid {
        return Err(CliError::validation(format!(
            "{invalid} of {} records are not valid; nothing was sent. --skip-invalid sends the others",
            valid + invalid
        )));
    }
    Ok(match source {
        Source::Repeated(count) if invalid == 0 => *count,
        _ => valid,
    })
}

/// What `--dry-run` prints.
fn show(
    source: &Source,
    template: &Template,
    known: Option<u64>,
    arguments: &Arguments,
) -> Result<(), CliError> {
    let known = match known {
        Some(known) => known,
        None => check(source, template, arguments)?,
    };
    let mut text = format!(
        "{known} messages would be sent to {}.{}; nothing was sent\n",
        arguments.connector,
        arguments.kind.flow().as_str()
    );
    if source.is_known() {
        for record in source.records(template) {
            if let Ok(body) = record?.body {
                let message: Value = serde_json::from_slice(&body).unwrap_or_default();
                text += &format!("the first one:\n{message:#}\n");
                break;
            }
        }
    }
    output::print(&text)
}

/// What was done.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    /// Records read.
    read: u64,
    /// Of those, confirmed by an earlier run.
    before: u64,
    /// Confirmed now.
    confirmed: u64,
    /// Not valid and left out.
    invalid: u64,
    /// Handed over without a confirmation.
    unconfirmed: u64,
    /// Published more than once.
    repeated: u64,
    seconds: f64,
    per_second: f64,
}

async fn send(
    arguments: &Arguments,
    port: &Port,
    source: &Source,
    template: &Template,
    known: Option<u64>,
    mut progress: Progress,
) -> Result<(), CliError> {
    let mut sink = Sink::open(arguments, port).await?;
    let before = progress.confirmed;
    let waiting = Waiting::new(known, before, sink.link(port));
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut records = read_ahead(source, template);
    let (began, mut noted) = (Instant::now(), Instant::now());
    // Since when something is handed over that may not be sent.
    let mut since: Option<Instant> = None;
    let mut pace = arguments.rate.map(|rate| Pace::new(rate, began));
    let looks = known.is_none();
    let mut turn = Turn::new(&progress, looks, arguments.skip_invalid, arguments.force);
    let mut sent = 0u64;
    let end: Result<(), CliError> = loop {
        let lingering = tokio::time::sleep_until(since.unwrap_or(began) + LINGER);
        let next = tokio::select! {
            biased;
            _ = &mut interrupt => break Err(CliError::signal(2)),
            record = records.recv() => match record {
                Some(record) => Some(record),
                None => break turn.ends(),
            },
            () = lingering, if since.is_some() => None,
        };
        let body = match next.map(|record| turn.of(record?)).transpose() {
            Ok(Some(None)) => continue,
            Ok(body) => body.flatten(),
            Err(error) => break Err(error),
        };
        since = body.is_some().then(|| since.unwrap_or_else(Instant::now));
        let handing = async {
            let Some(body) = body else {
                return waiting.wait(sink.flush()).await;
            };
            if let Some(pace) = &mut pace {
                tokio::time::sleep_until(pace.next(Instant::now())).await;
            }
            sent += 1;
            waiting.wait(sink.send(body)).await
        };
        let handed = tokio::select! {
            handed = handing => handed.map_err(CliError::from),
            _ = &mut interrupt => Err(CliError::signal(2)),
        };
        if let Err(error) = handed {
            break Err(error);
        }
        waiting.reached(before + sink.confirmed());
        if noted.elapsed() >= NOTE {
            noted = Instant::now();
            progress.confirmed = before + sink.confirmed();
            progress.contents = turn.contents(sink.confirmed());
            if let Some(path) = &arguments.resume {
                progress.write(path)?;
            }
        }
    };
    if turn.changed {
        waiting.end();
        sink.close().await;
        return end;
    }
    // Whoever reads waits in vain.
    drop(records);
    let rest = match &end {
        Ok(()) => tokio::select! {
            flushed = waiting.wait(sink.flush()) => flushed.map_err(CliError::from),
            _ = &mut interrupt => Err(CliError::signal(2)),
        },
        // What is out may still be confirmed; whatever stopped it is the reason.
        Err(_) => match tokio::time::timeout(LAST, sink.flush()).await {
            Ok(flushed) => flushed.map_err(CliError::from),
            Err(_) => Ok(()),
        },
    };
    let end = end.and(rest);
    waiting.end();
    if let Some(repeats) = turn.repeats.sentence() {
        output::note(&format!("note: {repeats}"));
    }
    progress.confirmed = before + sink.confirmed();
    progress.contents = turn.contents(sink.confirmed());
    if let Some(path) = &arguments.resume {
        progress.write(path)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let confirmed = sink.confirmed();
    let counts = Counts {
        read: turn.read,
        before: before.min(turn.valid),
        confirmed,
        invalid: turn.invalid,
        unconfirmed: sent - confirmed.min(sent),
        repeated: sink.repeated(),
        seconds: (seconds * 1e3).round() / 1e3,
        per_second: (confirmed as f64 / seconds.max(1e-3)).round(),
    };
    sink.close().await;
    output::print(&match arguments.format {
        Format::Json => format!("{}\n", json!(counts)),
        // That nothing was read is said by the error.
        Format::Table if counts.read == 0 && end.is_err() => String::new(),
        Format::Table => summary(&counts, port),
    })?;
    end.map_err(|error| match confirmed > 0 || arguments.resume.is_some() {
        true => explained(error, arguments, progress.confirmed),
        // There is nothing to go on from.
        false => error,
    })
}

/// Reads in a thread of its own: standard input may be silent for hours.
fn read_ahead(source: &Source, template: &Template) -> mpsc::Receiver<Result<Record, CliError>> {
    let (found, records) = mpsc::channel(AHEAD);
    let (source, template) = (source.clone(), template.clone());
    tokio::task::spawn_blocking(move || {
        for record in source.records(&template) {
            // Nobody wants it any more.
            if found.blocking_send(record).is_err() {
                return;
            }
        }
    });
    records
}

fn summary(counts: &Counts, port: &Port) -> String {
    let mut text = format!(
        "{} of {} messages confirmed in {} ({:.1} s, {} a second)\n",
        counts.confirmed,
        counts.read,
        port.queue(),
        counts.seconds,
        counts.per_second
    );
    for (count, what) in [
        (counts.before, "confirmed by an earlier run"),
        (counts.invalid, "not valid and left out"),
        (counts.unconfirmed, "not confirmed"),
        (
            counts.repeated,
            "published again because the broker did not confirm them",
        ),
    ] {
        if count > 0 {
            text += &format!("{count} {what}\n");
        }
    }
    text
}

/// How one goes on after it ended early.
fn explained(mut error: CliError, arguments: &Arguments, confirmed: u64) -> CliError {
    let way = match &arguments.resume {
        Some(path) => format!(
            "the same command goes on after message {confirmed} ({})",
            path.display()
        ),
        None => "with --resume FILE it could be gone on with".to_owned(),
    };
    error.text = match error.text.is_empty() {
        true => format!("interrupted; {way}"),
        false => format!("{}; {way}", error.text),
    };
    error
}
