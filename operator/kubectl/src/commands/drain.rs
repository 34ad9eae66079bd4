//! `kubectl vumi drain`: stops a worker for good measure. Its pods finish what they have in hand, replies still flow, and then
//! there are none; what comes waits in the queues.

use crate::cluster::{Cluster, Connection};
use crate::named::Named;
use crate::pods;
use serde_json::{Value, json};
use vumi_api::{ConditionType, Duration, Status};
use vumi_cli::error::CliError;
use vumi_cli::output;

/// Arguments of `kubectl vumi drain`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kubectl vumi drain transport/sms
  kubectl vumi drain transport/sms application/menu --timeout 30m
  kubectl vumi drain transport/sms --undo

Sets spec.suspend (right: patch) and waits until the last pod is gone: intake closes first, requests that wait for their reply still
get it, what is in hand is finished, and nothing is lost. Then says what waits in its queues. Where manifests come from a
repository, set `suspend: true` there as well, or the next synchronisation undoes it.
Exit codes: 0 no pod is left · 1 not within --timeout · 2 it must not be written now · 3 there is no such resource, or it cannot be written.")]
pub struct Arguments {
    /// The workers: transport/NAME, application/NAME, …
    #[arg(value_name = "KIND/NAME", required = true)]
    pub workers: Vec<Named>,
    /// Let them work again
    #[arg(long)]
    pub undo: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub timeout: Duration,
}

/// Suspends workers and waits until they are gone.
///
/// # Errors
/// One cannot be written, or its pods do not go.
pub async fn run(arguments: &Arguments, at: &Connection) -> Result<(), CliError> {
    let cluster = Cluster::open(at).await?;
    super::writable(&cluster, &arguments.workers).await?;
    let suspend = match arguments.undo {
        true => Value::Null,
        false => true.into(),
    };
    let change = json!({"spec": {"suspend": suspend}});
    for worker in &arguments.workers {
        cluster
            .merge(&worker.path(&cluster.namespace), &change)
            .await?;
        let doing = match arguments.undo {
            true => "works again",
            false => "is being stopped",
        };
        output::print(&format!("{worker} {doing}\n"))?;
    }
    if arguments.undo {
        return Ok(());
    }
    for worker in &arguments.workers {
        super::until(arguments.timeout.0, async || left(&cluster, worker).await).await?;
        let status = Status::of(&worker.get(&cluster).await?);
        output::print(&format!("{worker}: {}\n", remains(&status)))?;
    }
    Ok(())
}

/// What is still there.
async fn left(cluster: &Cluster, worker: &Named) -> Result<Option<String>, CliError> {
    let object = worker.get(cluster).await?;
    let status = Status::of(&object);
    let pods = match pending(object["metadata"]["generation"].as_i64(), &status) {
        Some(why) => return Ok(Some(format!("{worker}: {why}"))),
        None => pods::of(cluster, worker).await?,
    };
    let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    Ok((!names.is_empty()).then(|| {
        format!(
            "{worker}: {} still {} at work: {}",
            names.len(),
            if names.len() == 1 { "is" } else { "are" },
            names.join(", ")
        )
    }))
}

/// Why the operator has not suspended it yet. None if it has.
fn pending(generation: Option<i64>, status: &Status) -> Option<String> {
    let ready = status.condition(ConditionType::Ready);
    let suspended = ready.is_some_and(|ready| ready.reason == "Suspended");
    if generation != Some(status.observed_generation) {
        return Some(
            "the operator has not taken it up yet; `kubectl vumi doctor` says whether it runs"
                .into(),
        );
    }
    if suspended {
        return None;
    }
    let mut said = [
        ConditionType::Stalled,
        ConditionType::Reconciling,
        ConditionType::Ready,
    ]
    .into_iter()
    .filter_map(|kind| {
        let held = kind == ConditionType::Ready || status.is(kind);
        status.condition(kind).filter(|_| held)
    });
    Some(match said.next() {
        Some(condition) => format!("{} [{}]", condition.message, condition.reason),
        None => "the operator says nothing of it".into(),
    })
}

/// What waits in its queues.
fn remains(status: &Status) -> String {
    let backlog = match status.backlog.as_deref() {
        None => "how many messages wait is not known (condition BacklogKnown)".to_owned(),
        Some("0") => "no message waits".to_owned(),
        Some(class) => format!("{class} messages wait"),
    };
    match status.parked.as_deref() {
        None | Some("0") => format!("no pod is left; {backlog}"),
        Some(class) => format!("no pod is left; {backlog}, {class} are set aside"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_it_is_what_the_operator_says() {
        let status = |conditions: Value| {
            Status::of(&json!({"status": {"observedGeneration": 2, "conditions": conditions}}))
        };
        let condition = |kind: &str, truth: &str, reason: &str| {
            json!({
                "type": kind, "status": truth, "reason": reason, "message": "why",
                "lastTransitionTime": "2026-11-26T12:00:00Z",
            })
        };
        let suspended = status(json!([condition("Ready", "False", "Suspended")]));
        assert_eq!(pending(Some(2), &suspended), None);
        assert!(
            pending(Some(3), &suspended)
                .unwrap()
                .contains("not taken it up")
        );
        let stalled = status(json!([
            condition("Ready", "False", "Progressing"),
            condition("Reconciling", "False", "Done"),
            condition("Stalled", "True", "SecretMissing"),
        ]));
        assert_eq!(pending(Some(2), &stalled).unwrap(), "why [SecretMissing]");
    }

    #[test]
    fn what_remains_is_said() {
        let mut status = Status::default();
        assert!(remains(&status).contains("not known"));
        status.backlog = Some("0".into());
        assert_eq!(remains(&status), "no pod is left; no message waits");
        status.backlog = Some("100+".into());
        status.parked = Some("1+".into());
        assert_eq!(
            remains(&status),
            "no pod is left; 100+ messages wait, 1+ are set aside"
        );
    }
}
