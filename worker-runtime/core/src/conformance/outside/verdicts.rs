//! What is demanded of a worker of others, and what was found.

use super::Candidate;
use super::{Rig, queues};
use crate::conformance::cases::{CASES, Case, Needs, Outward, Subject};
use crate::conformance::far_end::be_patient;
use std::time::{Duration, Instant};
use vumi_api::Kind;

/// Longest time of one case.
const CASE_LIMIT: Duration = Duration::from_secs(180);

/// How much is demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Others lose messages or stop without it.
    Must,
    /// Others do better with it.
    Should,
}

impl Level {
    /// The word of RFC 2119.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
        }
    }
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Its name.
    pub case: &'static str,
    /// How much it is demanded.
    pub level: Level,
    /// What is demanded, in a sentence.
    pub says: &'static str,
    /// What to do where it is not met.
    pub fix: &'static str,
}

/// What a case found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is met.
    Passed,
    /// It is not, in these words.
    Failed(String),
    /// It was not looked at, for this reason.
    Skipped(&'static str),
}

/// A case that was run, or left out.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What was demanded.
    pub demand: Demand,
    /// What was found.
    pub outcome: Outcome,
    /// Whether the case began: false if the worker never consumed its queues.
    pub began: bool,
    /// How long it took.
    pub took: Duration,
}

/// The cases for a worker of `kind`, in the order in which they are run.
pub fn demands(kind: Kind) -> Vec<Demand> {
    cases(kind)
        .map(|(case, outward)| demand(case, outward))
        .collect()
}

fn cases(kind: Kind) -> impl Iterator<Item = (&'static Case, &'static Outward)> {
    let subject = Subject::foreign(kind);
    let all = CASES.iter().filter(move |case| (case.applies)(&subject));
    all.filter_map(|case| Some((case, case.outside.as_ref()?)))
}

fn demand(case: &Case, outward: &Outward) -> Demand {
    Demand {
        case: case.name,
        level: outward.level,
        says: outward.says,
        fix: outward.fix,
    }
}

/// Looks whether the queues of `candidate` are free to be used: the cases take messages from them and remove them.
///
/// # Errors
/// The broker cannot be reached, or what is in the way.
pub async fn prepare(candidate: &Candidate) -> Result<(), String> {
    if candidate.command.is_some() {
        super::Address::parse(&candidate.url)?;
    }
    let mut used = queues::in_use(candidate).await?;
    if candidate.command.is_none() {
        // Its own consumers are no wonder; another reader of what it publishes takes messages away from the cases.
        let published = candidate.topology().publishes;
        let queues = published.iter().map(|port| format!("{} has", port.queue()));
        let queues: Vec<String> = queues.collect();
        used.retain(|line| queues.iter().any(|queue| line.starts_with(queue)));
    }
    match used.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{}: the cases would take messages away; use a transport name or a virtual host of its own",
            used.join(", ")
        )),
    }
}

/// Removes what the cases left on the broker.
///
/// # Errors
/// The broker cannot be reached.
pub async fn clean(candidate: &Candidate) -> Result<(), String> {
    match candidate.command {
        Some(_) => queues::remove(candidate).await,
        None => Ok(()),
    }
}

/// Why the case of that name would be skipped; none if it would not.
pub fn missing(candidate: &Candidate, name: &str) -> Option<&'static str> {
    let (_, outward) = cases(candidate.kind).find(|(case, _)| case.name == name)?;
    lacks(candidate, outward)
}

fn lacks(candidate: &Candidate, outward: &Outward) -> Option<&'static str> {
    match outward.needs {
        Needs::Command if candidate.command.is_none() => {
            Some("it needs a worker that it can stop and cut off: give its command after --")
        }
        Needs::Failing if candidate.failing.is_none() => {
            Some("it needs a text on which the worker fails: give --failing TEXT")
        }
        _ => None,
    }
}

/// Runs the case of that name; none if there is none for such a worker.
pub async fn examine(candidate: &Candidate, name: &str) -> Option<Verdict> {
    let (case, outward) = cases(candidate.kind).find(|(case, _)| case.name == name)?;
    let started = Instant::now();
    let mut began = true;
    let outcome = if let Some(missing) = lacks(candidate, outward) {
        Outcome::Skipped(missing)
    } else {
        be_patient(Some(candidate.patience));
        let ran = tokio::time::timeout(CASE_LIMIT, run(candidate, outward, &mut began)).await;
        match ran.unwrap_or_else(|_| Err(format!("did not end within {CASE_LIMIT:?}"))) {
            Ok(()) => Outcome::Passed,
            Err(what) => Outcome::Failed(what),
        }
    };
    Some(Verdict {
        demand: demand(case, outward),
        outcome,
        began,
        took: started.elapsed(),
    })
}

async fn run(candidate: &Candidate, outward: &Outward, began: &mut bool) -> Result<(), String> {
    *began = false;
    let mut rig = Rig::open(candidate).await?;
    *began = true;
    let ran = (outward.run)(&mut rig).await;
    let ran = match (ran, rig.far_end.unreadable()) {
        (Ok(()), Some(what)) => Err(format!("what it published cannot be read: {what}")),
        (ran, _) => ran,
    };
    let ran = ran.map_err(|what| rig.under.with_output(what));
    rig.close().await;
    ran
}
