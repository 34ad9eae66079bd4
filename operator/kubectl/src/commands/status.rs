//! `kubectl vumi status`: the resources of all kinds in one table, and what is wrong with them in sentences.

mod figures;
mod live;
mod metrics;

use crate::cluster::{Cluster, Connection};
use crate::named::{Named, of};
use figures::HEAD;
use k8s_openapi::jiff::Timestamp;
use live::Live;
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
  kubectl vumi status --live
  kubectl vumi status transport/sms --format json | jq '.[].conditions'

The table has what `kubectl get vumi -o wide` has of the status; below it stands every condition that is not as it
should be, with its sentence and since when. `vumi explain REASON` says more of a reason.
In JSON, `why` has these sentences.

With --live, exact figures stand in place of the classes, read from the metrics of the pods that run, twice, a second apart
(rights: list pods, get pods/proxy). QUEUE: messages in its queues on the broker; WAIT: in the journal, waiting for a retry, their
turn or a release; FLIGHT: in hand, retries included; OLDEST: age of the oldest message that its pods hold; PARKED: set aside from
its queues. IN/S and OUT/S: messages taken from its queues and published, a second. Workers look at the broker every five seconds.
What is not known is -, and a line below the table says why.
In JSON they are `live`: `queued`, `waiting`, `inFlight` and `parked` are messages, `oldestSeconds` is in seconds, `inPerSecond` and
`outPerSecond` are messages a second; null is not known, and `notes` say why.
Exit codes: 0 every resource is ready · 1 some are not · 3 they cannot be read.")]
pub struct Arguments {
    /// Only these: transport/NAME, application/NAME, … [default: all of the namespace]
    #[arg(value_name = "KIND/NAME", conflicts_with = "all_namespaces")]
    pub workers: Vec<Named>,
    /// Those of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Exact figures of now, read from the pods (right: get pods/proxy)
    #[arg(long)]
    pub live: bool,
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
    let live = match arguments.live {
        true => Some(live::look(&cluster, &found).await),
        false => None,
    };
    let now = Timestamp::now();
    let text = match (arguments.format, found.is_empty()) {
        (Format::Json, _) => {
            // None of them without --live.
            let mut live = live.iter().flatten();
            let all = found.iter();
            let all = all.map(|(kind, resource)| object(*kind, resource, live.next(), now));
            format!("{:#}\n", Value::from(all.collect::<Vec<_>>()))
        }
        (Format::Table, true) => {
            output::note(&match arguments.all_namespaces {
                true => "there are no resources".into(),
                false => format!("there are no resources in namespace {}", cluster.namespace),
            });
            String::new()
        }
        (Format::Table, false) => table(&found, live.as_deref(), arguments.all_namespaces, now),
    };
    output::print(&text)?;
    let ready = |(_, object): &(Kind, Value)| is_ready(object);
    match found.iter().all(ready) {
        true => Ok(()),
        false => Err(CliError::silent(CliError::RUNTIME)),
    }
}

/// Whether a resource is ready as it is written now, and stays.
fn is_ready(object: &Value) -> bool {
    let (status, metadata) = (Status::of(object), &object["metadata"]);
    status.is(ConditionType::Ready)
        && metadata["generation"] == status.observed_generation
        && metadata["deletionTimestamp"].is_null()
}

/// What is told of a resource.
fn object(kind: Kind, object: &Value, live: Option<&Live>, now: Timestamp) -> Value {
    let status = &object["status"];
    let mut told = json!({
        "namespace": object["metadata"]["namespace"],
        "kind": kind.as_str(),
        "name": object["metadata"]["name"],
        "generation": object["metadata"]["generation"],
        "observedGeneration": status["observedGeneration"],
        "type": status["type"],
        "ready": is_ready(object),
        "why": sentences(object, &Status::of(object), now),
        "link": status["link"],
        "address": status["address"],
        "url": status["url"],
        "replicas": status["replicas"],
        "readyReplicas": status["readyReplicas"],
        "autoscaling": status["autoscaling"],
        "backlog": status["backlog"],
        "parked": status["parked"],
        "broker": status["broker"],
        "runtimeVersion": status["runtimeVersion"],
        "conditions": status["conditions"],
    });
    if let Some(live) = live {
        told["live"] = json!(live);
    }
    told
}

fn table(
    found: &[(Kind, Value)],
    live: Option<&[Live]>,
    namespaces: bool,
    now: Timestamp,
) -> String {
    let mut head: Vec<&str> = Vec::new();
    if namespaces {
        head.push("NAMESPACE");
    }
    head.extend(["NAME", "TYPE", "READY", "LINK", "PODS"]);
    match live {
        Some(_) => head.extend(HEAD),
        None => head.extend(["BACKLOG", "PARKED", "BROKER", "RUNTIME"]),
    }
    let mut rows: Vec<Vec<String>> = vec![head.into_iter().map(str::to_owned).collect()];
    let mut live = live.into_iter().flatten();
    let mut notes = String::new();
    // What is said of several is said once: one missing right leaves all of them unknown.
    let mut unknown: Vec<(&str, Vec<String>)> = Vec::new();
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
        ]);
        let place = match namespaces {
            true => format!("{namespace} {named}"),
            false => named,
        };
        for sentence in sentences(object, &status, now) {
            notes += &format!("{place}: {sentence}\n");
        }
        match live.next() {
            Some(live) => {
                row.extend(live.figures.row());
                for note in &live.notes {
                    match unknown.iter_mut().find(|(said, _)| said == note) {
                        Some((_, places)) => places.push(place.clone()),
                        None => unknown.push((note, vec![place.clone()])),
                    }
                }
            }
            None => row.extend([
                or_none(&status.backlog),
                or_none(&status.parked),
                or_none(&status.broker),
                or_none(&status.runtime_version),
            ]),
        }
        rows.push(row);
    }
    for (note, places) in unknown {
        notes += &format!("{}: {note}\n", super::some(&places));
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
    if let Some((since, held)) = super::leaving(object, now) {
        // To be deleted makes a generation of its own, which nobody is to see.
        said.push(goes(&since, &held));
    } else if status.observed_generation < 0 {
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

/// That it is being deleted, and what has to happen.
fn goes(since: &str, held: &str) -> String {
    let holds = match held {
        "" => String::new(),
        // Set by Kubernetes, and taken off by it.
        "foregroundDeletion" => {
            ", held by foregroundDeletion until what it owns is gone".to_owned()
        }
        held => format!(
            ", held by the finalizers {held}: whoever set them has to take them off; its pods run until it is gone"
        ),
    };
    format!("is being deleted{since}{holds}; its status stays as it was")
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
        let found = [(Kind::Transport, object)];
        let text = table(&found, None, false, now);
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
        // Programs are told the same.
        let said = super::object(found[0].0, &found[0].1, None, now);
        assert_eq!(said["why"].as_array().map(Vec::len), Some(3), "{said}");
        assert_eq!(
            format!("transport/sms: {}", said["why"][1].as_str().unwrap()),
            lines[4]
        );
        assert_eq!(said.get("live"), None);
    }

    #[test]
    fn exact_figures_stand_in_place_of_the_classes() {
        let names = ["sms", "ussd"].map(|name| {
            let mut object = resource(json!([condition("Ready", "True", "Running", "")]));
            object["metadata"]["name"] = name.into();
            (Kind::Transport, object)
        });
        let known = Live {
            figures: figures::Figures {
                queued: Some(12),
                ..figures::Figures::default()
            },
            notes: Vec::new(),
        };
        let unknown = |note: &str| Live {
            notes: vec![note.to_owned()],
            ..Live::default()
        };
        let now = Timestamp::now();
        let text = table(&names, Some(&[known, unknown("why")]), false, now);
        assert_eq!(
            text,
            "NAME            TYPE     READY  LINK  PODS  QUEUE  WAIT  FLIGHT  OLDEST  PARKED  IN/S  OUT/S
transport/sms   httpApi  True   UP    1/2   12     -     -       -       -       -     -
transport/ussd  httpApi  True   UP    1/2   -      -     -       -       -       -     -

transport/ussd: why
"
        );
        let text = table(&names, Some(&[unknown("why"), unknown("why")]), false, now);
        assert!(
            text.ends_with("\n\ntransport/sms, transport/ussd: why\n"),
            "{text}"
        );
        let said = object(names[0].0, &names[0].1, Some(&unknown("why")), now);
        assert_eq!(
            said["live"],
            json!({
                "queued": null, "waiting": null, "inFlight": null, "oldestSeconds": null, "parked": null,
                "inPerSecond": null, "outPerSecond": null, "notes": ["why"],
            })
        );
        for (field, value) in [
            ("generation", json!(2)),
            ("observedGeneration", json!(2)),
            ("backlog", json!("1+")),
            ("url", Value::Null),
            ("why", json!([])),
        ] {
            assert_eq!(said[field], value, "{field}");
        }
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

    #[test]
    fn what_is_being_deleted_is_not_ready_and_waits_for_no_operator() {
        let mut object = resource(json!([condition("Ready", "True", "Running", "")]));
        let metadata = &mut object["metadata"];
        metadata["generation"] = 3.into();
        metadata["deletionTimestamp"] = "2026-11-26T12:00:00Z".into();
        let now = "2026-11-26T12:01:05Z".parse().unwrap();
        let said = |object: &Value| sentences(object, &Status::of(object), now);
        assert_eq!(
            said(&object),
            ["is being deleted for 1m5s; its status stays as it was"]
        );
        object["metadata"]["finalizers"] = json!(["a/b", "c/d"]);
        let told = said(&object);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0]
                .starts_with("is being deleted for 1m5s, held by the finalizers a/b, c/d: whoever"),
            "{told:?}"
        );
        object["metadata"]["generation"] = 2.into();
        assert!(!is_ready(&object));
    }
}
