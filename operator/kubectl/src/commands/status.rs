//! `kubectl vumi status`: the resources of all kinds in one table, and what is wrong with them in sentences.

use crate::cluster::{Cluster, Connection};
use crate::named::{Named, of};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use vumi_api::{Condition, ConditionType, Kind, Status, Truth};
use vumi_cli::error::CliError;
use vumi_cli::output::{self, Format};
use vumi_cli::table::aligned;

/// Arguments of `kubectl vumi status`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kubectl vumi status
  kubectl vumi status --all-namespaces
  kubectl vumi status transport/sms --format json | jq '.[].conditions'

The table has what `kubectl get vumi -o wide` has of the status; below it stands every condition that is not as it
should be, with its sentence and since when. `vumi explain REASON` says more of a reason.
Exit codes: 0 every resource is ready · 1 some are not · 3 they cannot be read.")]
pub struct Arguments {
    /// Only these: transport/NAME, application/NAME, … [default: all of the namespace]
    #[arg(value_name = "KIND/NAME", conflicts_with = "all_namespaces")]
    pub workers: Vec<Named>,
    /// Those of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// How they are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// Prints how the resources are.
///
/// # Errors
/// They cannot be read, or some are not ready.
pub async fn run(arguments: &Arguments, at: &Connection) -> Result<(), CliError> {
    let cluster = Cluster::open(at).await?;
    let place = (!arguments.all_namespaces).then_some(cluster.namespace.as_str());
    let found = super::chosen(&cluster, place, &arguments.workers).await?;
    let text = match (arguments.format, found.is_empty()) {
        (Format::Json, _) => {
            let all: Vec<Value> = found.iter().map(|(kind, o)| object(*kind, o)).collect();
            format!("{:#}\n", Value::from(all))
        }
        (Format::Table, true) => {
            output::note(&match arguments.all_namespaces {
                true => "there are no resources".into(),
                false => format!("there are no resources in namespace {}", cluster.namespace),
            });
            String::new()
        }
        (Format::Table, false) => table(&found, arguments.all_namespaces, Timestamp::now()),
    };
    output::print(&text)?;
    let ready = |(_, object): &(Kind, Value)| is_ready(object);
    match found.iter().all(ready) {
        true => Ok(()),
        false => Err(CliError::silent(CliError::RUNTIME)),
    }
}

/// Whether a resource is ready as it is written now.
fn is_ready(object: &Value) -> bool {
    let status = Status::of(object);
    status.is(ConditionType::Ready)
        && object["metadata"]["generation"] == status.observed_generation
}

/// What is told of a resource.
fn object(kind: Kind, object: &Value) -> Value {
    let status = &object["status"];
    json!({
        "namespace": object["metadata"]["namespace"],
        "kind": kind.as_str(),
        "name": object["metadata"]["name"],
        "type": status["type"],
        "ready": is_ready(object),
        "link": status["link"],
        "replicas": status["replicas"],
        "readyReplicas": status["readyReplicas"],
        "backlog": status["backlog"],
        "parked": status["parked"],
        "broker": status["broker"],
        "runtimeVersion": status["runtimeVersion"],
        "conditions": status["conditions"],
    })
}

fn table(found: &[(Kind, Value)], namespaces: bool, now: Timestamp) -> String {
    let mut head: Vec<String> = Vec::new();
    if namespaces {
        head.push("NAMESPACE".into());
    }
    head.extend(
        [
            "NAME", "TYPE", "READY", "LINK", "PODS", "BACKLOG", "PARKED", "BROKER", "RUNTIME",
        ]
        .map(str::to_owned),
    );
    let mut rows = vec![head];
    let mut notes = String::new();
    for (kind, object) in found {
        let status = Status::of(object);
        let named = of(*kind, object).to_string();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let ready = status.condition(ConditionType::Ready);
        let or_none = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut row = Vec::new();
        if namespaces {
            row.push(namespace.to_owned());
        }
        row.extend([
            named.clone(),
            or_none(&status.worker_type),
            ready.map_or("Unknown".into(), |ready| format!("{:?}", ready.status)),
            or_none(&status.link),
            format!("{}/{}", status.ready_replicas, status.replicas),
            or_none(&status.backlog),
            or_none(&status.parked),
            or_none(&status.broker),
            or_none(&status.runtime_version),
        ]);
        rows.push(row);
        let place = match namespaces {
            true => format!("{namespace} {named}"),
            false => named,
        };
        for sentence in sentences(object, &status, now) {
            notes += &format!("{place}: {sentence}\n");
        }
    }
    let mut text = aligned(&rows);
    if !notes.is_empty() {
        text += &format!("\n{notes}");
    }
    text
}

/// What is not as it should be.
fn sentences(object: &Value, status: &Status, now: Timestamp) -> Vec<String> {
    let generation = &object["metadata"]["generation"];
    let mut said = Vec::new();
    if status.observed_generation < 0 {
        said.push("no operator has seen it yet; `kubectl vumi doctor` says why".to_owned());
    } else if *generation != status.observed_generation {
        said.push(format!(
            "the operator has not seen generation {generation} yet; what follows is about generation {}",
            status.observed_generation
        ));
    }
    // What several conditions say for one reason is told once.
    let mut told: Vec<(&str, &str)> = Vec::new();
    for kind in ConditionType::ALL {
        let Some(condition) = status.condition(*kind) else {
            continue;
        };
        let bad = match kind.only_while_true() {
            true => condition.status != Truth::False,
            false => condition.status != Truth::True,
        };
        let same = (condition.reason.as_str(), condition.message.as_str());
        if bad && !told.contains(&same) {
            told.push(same);
            said.push(sentence(*kind, condition, now));
        }
    }
    said
}

fn sentence(kind: ConditionType, condition: &Condition, now: Timestamp) -> String {
    let holds = match (kind, condition.status) {
        (_, Truth::Unknown) => format!("nobody knows whether {}", kind.as_str()),
        (kind, Truth::True) => kind.as_str().to_owned(),
        (kind, Truth::False) => format!("not {}", kind.as_str()),
    };
    let since = super::lasting(condition.last_transition_time.parse().ok(), now);
    format!(
        "{holds}{since}: {} [{}]",
        condition.message, condition.reason
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(conditions: Value) -> Value {
        json!({
            "metadata": {"name": "sms", "namespace": "n", "generation": 2},
            "status": {
                "observedGeneration": 2, "type": "httpApi", "replicas": 2, "readyReplicas": 1,
                "link": "UP", "backlog": "1+", "conditions": conditions,
            },
        })
    }

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-11-26T12:00:00Z",
        })
    }

    #[test]
    fn what_is_wrong_is_said_once_and_since_when() {
        let away = "the broker rabbitmq:5672/ cannot be reached";
        let object = resource(json!([
            condition("Ready", "False", "BrokerUnreachable", away),
            condition("LinkUp", "True", "PeerUp", "up"),
            condition("BacklogKnown", "False", "BrokerUnreachable", away),
            condition("Paused", "True", "TooManyParked", "51 of 100"),
            condition("StateHealthy", "Unknown", "Silent", "nothing was heard"),
        ]));
        assert!(!is_ready(&object));
        let now = "2026-11-26T12:05:00Z".parse().unwrap();
        let text = table(&[(Kind::Transport, object)], false, now);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("NAME"), "{text}");
        assert!(
            lines[1].starts_with("transport/sms  httpApi  False  UP    1/2   1+"),
            "{text}"
        );
        assert_eq!(
            lines[3..],
            [
                "transport/sms: not Ready for 5m0s: the broker rabbitmq:5672/ cannot be reached [BrokerUnreachable]",
                "transport/sms: Paused for 5m0s: 51 of 100 [TooManyParked]",
                "transport/sms: nobody knows whether StateHealthy for 5m0s: nothing was heard [Silent]",
            ]
        );
    }

    #[test]
    fn an_edit_that_nobody_has_seen_is_not_ready() {
        let mut object = resource(json!([condition("Ready", "True", "Running", "")]));
        assert!(is_ready(&object));
        object["metadata"]["generation"] = 3.into();
        assert!(!is_ready(&object));
        let now = Timestamp::now();
        let said = sentences(&object, &Status::of(&object), now);
        assert!(said[0].contains("generation 3"), "{said:?}");
        let said = sentences(&object, &Status::default(), now);
        assert!(said[0].contains("no operator has seen it"), "{said:?}");
    }
}
