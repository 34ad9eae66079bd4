//! `vumi conformance`: whether a worker of others keeps to the wire protocol, by the cases that our own workers pass.

use crate::error::CliError;
use crate::junit::{self, End, Entry};
use crate::output::{self, Format};
use crate::process::{self, variable};
use serde_json::json;
use std::fmt::Write as _;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use vumi_api::Kind;
use vumi_core::conformance::outside::{self, Candidate, Demand, Level, Outcome, Verdict};

/// Arguments of `vumi conformance`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi conformance --as application --broker amqp://guest:guest@localhost/ -- python3 app.py
  vumi conformance --as transport --transport-name sms --broker amqp://localhost/test -- sh -c 'twistd … --vhost=\"$VUMI_BROKER_VHOST\"'
  vumi conformance --as application --running --transport-name survey --broker amqp://localhost/test
  vumi conformance --as transport --list

The command after -- is started for each case, behind a port of this machine at which the checks stand between it and the
broker: they hold confirmations back, refuse publications, cut connections, kill it and start it again, as brokers and
Kubernetes do. It finds its broker in VUMI_BROKER_URL, or in VUMI_BROKER_HOST, _PORT, _USERNAME, _PASSWORD and _VHOST, and its
connector in VUMI_TRANSPORT_NAME. If it ends by itself it is started again.
With --running, instead of a command, a worker that runs already is checked, and the cases that break something are skipped;
what it sets aside meanwhile stays in its parking queues.
The checks play the other side: they read and write the queues of that connector, and with a command remove them for each
case. Use a connector or a virtual host that nothing else uses.
Each demand is a MUST or a SHOULD; docs/wire-protocol.md says why. A SHOULD that is not met is advice and fails nothing but
with --strict.
Exit codes: 0 every MUST that was looked at is met · 1 some are not · 2 an option is not valid, or nothing would be looked at ·
3 the broker cannot be used or the command not be run · 128+signal.")]
pub struct Arguments {
    /// What it is
    #[arg(long = "as", value_name = "ROLE", value_enum)]
    pub role: Role,
    /// Its connector: the queues are NAME.inbound, NAME.outbound and NAME.event
    #[arg(long, value_name = "NAME", default_value = "conformance")]
    pub transport_name: String,
    /// RabbitMQ, as amqp://user:password@host:port/vhost; also in VUMI_BROKER_URL
    #[arg(long, value_name = "URL")]
    pub broker: Option<String>,
    /// Only this case; may be given more than once
    #[arg(long, value_name = "CASE")]
    pub only: Vec<String>,
    /// List the cases instead of running them
    #[arg(long)]
    pub list: bool,
    /// What users say to an application; {} stands for the text of the checks
    #[arg(long, value_name = "TEXT", default_value = "{}")]
    pub saying: String,
    /// What a user says on which the worker fails each time, such as a text that its code does not expect; without it that
    /// case is skipped
    #[arg(long, value_name = "TEXT")]
    pub failing: Option<String>,
    /// How long anything is waited for before it is called missing
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub patience: vumi_api::shared::Duration,
    /// A SHOULD that is not met is a failure
    #[arg(long)]
    pub strict: bool,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Also write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Check a worker that runs already
    #[arg(long, conflicts_with = "command")]
    pub running: bool,
    /// The worker and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// What a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// It answers what comes from users
    Application,
    /// It speaks to users
    Transport,
}

impl Role {
    fn kind(self) -> Kind {
        match self {
            Self::Application => Kind::Application,
            Self::Transport => Kind::Transport,
        }
    }
}

/// Runs the cases, one after the other.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let demands = chosen(arguments)?;
    if arguments.list {
        return output::print(&listed(&demands, arguments.format));
    }
    let candidate = candidate(arguments)?;
    looked_at(&candidate, &demands)?;
    let table = arguments.format == Format::Table;
    let verdicts = process::block_on(async {
        let environment = |text: String| CliError::environment(text);
        outside::prepare(&candidate).await.map_err(environment)?;
        let listen = |kind| signal(kind).map_err(|e| environment(format!("signals: {e}")));
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let all = async {
            let mut verdicts = Vec::new();
            for demand in &demands {
                let Some(verdict) = outside::examine(&candidate, demand.case).await else {
                    continue;
                };
                if table {
                    output::print(&shown(&verdict))?;
                }
                // One that does not start would fail each case in the same way.
                let first = !verdicts.iter().any(looked_into);
                let starts = verdict.began;
                verdicts.push(verdict);
                if first && !starts {
                    break;
                }
            }
            Ok(verdicts)
        };
        // What is dropped by a signal kills the worker that it started.
        let ended = tokio::select! {
            ended = all => ended,
            _ = interrupt.recv() => Err(CliError::signal(2)),
            _ = terminate.recv() => Err(CliError::signal(15)),
        };
        outside::clean(&candidate).await.map_err(environment)?;
        ended
    })?;
    match arguments.format {
        Format::Table => output::print(&summary(&verdicts))?,
        Format::Json => output::print(&json(&verdicts))?,
    }
    if let Some(path) = &arguments.junit {
        let suite = format!("conformance of {}", arguments.transport_name);
        let entries: Vec<Entry> = verdicts
            .iter()
            .map(|v| entry(&suite, v, arguments.strict))
            .collect();
        junit::document(&entries)
            .and_then(|xml| std::fs::write(path, xml))
            .map_err(|error| {
                CliError::environment(format!("cannot write {}: {error}", path.display()))
            })?;
    }
    if !verdicts.iter().any(looked_into) {
        return Err(CliError::runtime(
            "the worker never consumed its queues, so nothing else was looked at; does the command run by itself?",
        ));
    }
    match verdicts.iter().any(|v| fails(v, arguments.strict)) {
        false => Ok(()),
        true => Err(CliError::silent(CliError::RUNTIME)),
    }
}

/// The cases that are asked for.
fn chosen(arguments: &Arguments) -> Result<Vec<Demand>, CliError> {
    let all = outside::demands(arguments.role.kind());
    let unknown = arguments.only.iter().find(|only| {
        let known = all.iter().any(|demand| demand.case == only.as_str());
        !known
    });
    if let Some(unknown) = unknown {
        return Err(CliError::validation(format!(
            "there is no case {unknown:?} for such a worker; --list shows them"
        )));
    }
    let only = &arguments.only;
    let wanted = |demand: &Demand| only.is_empty() || only.iter().any(|case| case == demand.case);
    Ok(all.into_iter().filter(wanted).collect())
}

/// That something would be looked at: a check of nothing is not passed.
fn looked_at(candidate: &Candidate, demands: &[Demand]) -> Result<(), CliError> {
    let skipped = demands.iter().map(|demand| {
        let reason = outside::missing(candidate, demand.case);
        reason.map(|reason| format!("{}: {reason}", demand.case))
    });
    match skipped.collect::<Option<Vec<String>>>() {
        Some(all) => Err(CliError::validation(format!(
            "nothing would be checked:\n{}",
            all.join("\n")
        ))),
        None => Ok(()),
    }
}

fn candidate(arguments: &Arguments) -> Result<Candidate, CliError> {
    super::connector(&arguments.transport_name)?;
    match arguments.command.first() {
        Some(program) => found(program)?,
        None if arguments.running => {}
        None => {
            return Err(CliError::validation(
                "which worker? give its command after --, as in `-- python3 app.py`, or --running for one that runs already",
            ));
        }
    }
    if arguments.patience.0.is_zero() {
        return Err(CliError::validation("--patience must be more than nothing"));
    }
    let url = arguments
        .broker
        .clone()
        .or_else(|| variable("VUMI_BROKER_URL"))
        .ok_or_else(|| {
            CliError::validation(
                "which broker? give --broker amqp://user:password@host:port/vhost, or set VUMI_BROKER_URL",
            )
        })?;
    Ok(Candidate {
        kind: arguments.role.kind(),
        name: arguments.transport_name.clone(),
        url,
        command: (!arguments.command.is_empty()).then(|| arguments.command.clone()),
        saying: arguments.saying.clone(),
        failing: arguments.failing.clone(),
        patience: arguments.patience.0,
    })
}

/// That there is a program of this name: said once, and not by each case.
fn found(program: &str) -> Result<(), CliError> {
    let there = match program.contains('/') {
        true => PathBuf::from(program).is_file(),
        false => std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        }),
    };
    match there {
        true => Ok(()),
        false => Err(CliError::environment(format!(
            "there is no program {program:?}"
        ))),
    }
}

/// Whether the worker was there for a case.
fn looked_into(verdict: &Verdict) -> bool {
    verdict.began && !matches!(verdict.outcome, Outcome::Skipped(_))
}

fn fails(verdict: &Verdict, strict: bool) -> bool {
    let demanded = strict || verdict.demand.level == Level::Must;
    demanded && matches!(verdict.outcome, Outcome::Failed(_))
}

fn listed(demands: &[Demand], format: Format) -> String {
    match format {
        Format::Table => demands.iter().fold(String::new(), |mut text, demand| {
            let level = demand.level.as_str();
            let _ = writeln!(text, "{level:<7} {:<22} {}", demand.case, demand.says);
            text
        }),
        Format::Json => {
            let all = demands.iter().map(|demand| {
                json!({
                    "case": demand.case,
                    "level": demand.level.as_str(),
                    "says": demand.says,
                    "fix": demand.fix,
                })
            });
            format!("{:#}\n", json!(all.collect::<Vec<_>>()))
        }
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match (&verdict.outcome, verdict.demand.level) {
        (Outcome::Passed, _) => "ok",
        (Outcome::Failed(_), Level::Must) => "FAIL",
        (Outcome::Failed(_), Level::Should) => "ADVICE",
        (Outcome::Skipped(_), _) => "skipped",
    }
}

fn shown(verdict: &Verdict) -> String {
    let Verdict { demand, took, .. } = verdict;
    let word = word(verdict);
    let seconds = took.as_secs_f64();
    let mut text = format!(
        "{word:<8}{}: {} ({seconds:.1} s)\n",
        demand.case, demand.says
    );
    match &verdict.outcome {
        Outcome::Passed => {}
        Outcome::Skipped(why) => {
            let _ = writeln!(text, "        {why}");
        }
        Outcome::Failed(what) => {
            for line in what.lines() {
                let _ = writeln!(text, "        {line}");
            }
            let _ = writeln!(text, "        What to do: {}", demand.fix);
        }
    }
    text
}

fn summary(verdicts: &[Verdict]) -> String {
    let count = |wanted: &str| verdicts.iter().filter(|v| word(v) == wanted).count();
    format!(
        "{} demands: {} met, {} not met, {} advised, {} skipped\n",
        verdicts.len(),
        count("ok"),
        count("FAIL"),
        count("ADVICE"),
        count("skipped")
    )
}

fn json(verdicts: &[Verdict]) -> String {
    let all = verdicts.iter().map(|verdict| {
        let Demand {
            case,
            level,
            says,
            fix,
        } = verdict.demand;
        let (outcome, text) = match &verdict.outcome {
            Outcome::Passed => ("passed", None),
            Outcome::Failed(what) => ("failed", Some(what.as_str())),
            Outcome::Skipped(why) => ("skipped", Some(*why)),
        };
        json!({
            "case": case,
            "level": level.as_str(),
            "says": says,
            "fix": fix,
            "outcome": outcome,
            "text": text,
            "seconds": verdict.took.as_secs_f64(),
        })
    });
    format!("{:#}\n", json!(all.collect::<Vec<_>>()))
}

fn entry(suite: &str, verdict: &Verdict, strict: bool) -> Entry {
    let end = match &verdict.outcome {
        Outcome::Failed(what) if fails(verdict, strict) => {
            End::Failed(format!("{what}\nWhat to do: {}", verdict.demand.fix))
        }
        // A build server knows no advice.
        Outcome::Failed(what) => End::Skipped(format!("advised, not demanded: {what}")),
        Outcome::Skipped(why) => End::Skipped((*why).to_owned()),
        Outcome::Passed => End::Passed,
    };
    Entry {
        suite: suite.to_owned(),
        name: format!("{}: {}", verdict.demand.case, verdict.demand.says),
        took: verdict.took,
        end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn verdict(level: Level, outcome: Outcome) -> Verdict {
        Verdict {
            demand: Demand {
                case: "flow",
                level,
                says: "It flows.",
                fix: "Let it flow.",
            },
            outcome,
            began: true,
            took: Duration::from_millis(1200),
        }
    }

    #[test]
    fn only_a_must_that_is_not_met_fails_unless_it_is_strict() {
        let failed = Outcome::Failed("one\ntwo".into());
        let must = verdict(Level::Must, failed.clone());
        let should = verdict(Level::Should, failed);
        assert!(fails(&must, false));
        assert!(!fails(&should, false) && fails(&should, true));
        assert!(!fails(&verdict(Level::Must, Outcome::Skipped("why")), true));
        assert_eq!(
            shown(&must),
            "FAIL    flow: It flows. (1.2 s)\n        one\n        two\n        What to do: Let it flow.\n"
        );
        let all = [must, should, verdict(Level::Must, Outcome::Passed)];
        assert_eq!(
            summary(&all),
            "3 demands: 1 met, 1 not met, 1 advised, 0 skipped\n"
        );
        assert!(matches!(entry("s", &all[1], false).end, End::Skipped(_)));
        assert!(matches!(entry("s", &all[1], true).end, End::Failed(_)));
    }
}
