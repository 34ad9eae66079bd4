//! What resources say in their statuses: of brokers, credentials and versions.

use super::{not_seen, some};
use crate::cluster::{self, Cluster};
use crate::named::of;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use vumi_api::{ConditionType, Kind, Status, Truth};
use vumi_cli::error::CliError;
use vumi_core::checkup::{Finding, Level};

/// What resources say of their brokers, their peers' credentials, and their versions.
pub(super) async fn said(cluster: &Cluster, place: Option<&str>) -> Result<Vec<Finding>, CliError> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        match cluster.list(&cluster::resources(kind, place), "").await {
            Ok(found) => all.extend(found.into_iter().map(|object| (kind, object))),
            Err(failed) if failed.is_forbidden() => {
                return Ok(vec![not_seen("resources", &failed.text)]);
            }
            Err(failed) => return Err(failed.into()),
        }
    }
    Ok(judge(&all))
}

/// The findings about resources, as their statuses have them.
fn judge(all: &[(Kind, Value)]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut unseen = Vec::new();
    // By broker: how many use it, of how many of them it is read, and what was said of it.
    let mut brokers: BTreeMap<String, (usize, usize, BTreeSet<String>)> = BTreeMap::new();
    let mut versions: BTreeMap<String, usize> = BTreeMap::new();
    let mut credentials = Vec::new();
    for (kind, object) in all {
        let status = Status::of(object);
        let named = of(*kind, object).to_string();
        if status.observed_generation < 0 {
            unseen.push(named);
            continue;
        }
        if let Some(version) = &status.runtime_version {
            *versions.entry(version.clone()).or_default() += 1;
        }
        if let Some(broker) = &status.broker {
            let (users, read, said) = brokers.entry(broker.clone()).or_default();
            *users += 1;
            *read += usize::from(status.is(ConditionType::BacklogKnown));
            for kind in [ConditionType::Ready, ConditionType::BacklogKnown] {
                let condition = status.condition(kind);
                let bad = condition.filter(|c| c.status == Truth::False);
                let bad = bad.filter(|c| {
                    kind == ConditionType::BacklogKnown || c.reason == "BrokerUnreachable"
                });
                said.extend(bad.map(|c| format!("{} [{}]", c.message, c.reason)));
            }
        }
        let refused = status.condition(ConditionType::CredentialsValid);
        if let Some(condition) = refused.filter(|c| c.status == Truth::False) {
            credentials.push(format!("{named}: {}", condition.message));
        }
    }
    if !unseen.is_empty() {
        found.push(Finding::new(
            Level::Problem,
            "resources",
            format!("no operator has ever seen {}", some(&unseen)),
            "Is the operator running, and does it watch this namespace (--namespace)?",
        ));
    }
    for (broker, (users, read, said)) in brokers {
        let about = format!("broker {broker}");
        match said.is_empty() {
            true if read == 0 => found.push(Finding::new(
                Level::Note,
                &about,
                format!("whether the operator reads it is not known yet, for {users} resources"),
                "Look again in a minute; if it stays so, see what the operator logs.",
            )),
            true => found.push(Finding::good(
                &about,
                format!("the operator reads it, for {read} of {users} resources"),
            )),
            false => {
                let said: Vec<String> = said.into_iter().collect();
                let unreachable = said.iter().any(|text| text.contains("[BrokerUnreachable]"));
                let (level, fix) = match unreachable {
                    true => (
                        Level::Problem,
                        "See that RabbitMQ runs, that the Secret names it, and that a NetworkPolicy lets the operator through.",
                    ),
                    false => (
                        Level::Warning,
                        "Give the user of the Secret the tag monitoring, or name the management API in broker.management.",
                    ),
                };
                found.push(Finding::new(level, &about, some(&said), fix));
            }
        }
    }
    if !credentials.is_empty() {
        found.push(Finding::new(
            Level::Problem,
            "credentials",
            some(&credentials),
            "Correct the Secret; it is read again within a minute.",
        ));
    }
    if !versions.is_empty() {
        let list: Vec<String> = versions
            .iter()
            .map(|(version, count)| format!("{count} of {version}"))
            .collect();
        found.push(match versions.len() {
            1 => Finding::good("versions of workers", some(&list)),
            _ => Finding::new(
                Level::Note,
                "versions of workers",
                some(&list),
                "A worker takes the operator's version along with its next edit; updatePolicy: Immediate takes it at once.",
            ),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn brokers_are_judged_by_what_resources_say() {
        let resource = |name: &str, broker: &str, conditions: Value| {
            let status = json!({
                "observedGeneration": 1, "broker": broker, "runtimeVersion": "0.1.0",
                "conditions": conditions,
            });
            (
                Kind::Transport,
                json!({"metadata": {"name": name}, "status": status}),
            )
        };
        let condition = |kind: &str, reason: &str| {
            json!({
                "type": kind, "status": "False", "reason": reason, "message": "why",
                "lastTransitionTime": "2026-11-26T12:00:00Z",
            })
        };
        let mut known = condition("BacklogKnown", "BacklogRead");
        known["status"] = "True".into();
        let found = judge(&[
            resource("a", "one:5672/", json!([known])),
            resource("b", "one:5672/", json!([])),
            resource("f", "none:5672/", json!([])),
            resource(
                "c",
                "two:5672/",
                json!([condition("Ready", "BrokerUnreachable")]),
            ),
            resource(
                "d",
                "three:5672/",
                json!([condition("BacklogKnown", "NotPermitted")]),
            ),
            (Kind::Application, json!({"metadata": {"name": "e"}})),
        ]);
        let level = |about: &str| found.iter().find(|f| f.about == about).map(|f| f.level);
        assert_eq!(level("broker one:5672/"), Some(Level::Good));
        assert_eq!(level("broker none:5672/"), Some(Level::Note));
        assert_eq!(level("broker two:5672/"), Some(Level::Problem));
        assert_eq!(level("broker three:5672/"), Some(Level::Warning));
        assert_eq!(level("resources"), Some(Level::Problem));
        assert_eq!(level("versions of workers"), Some(Level::Good));
        assert!(
            found
                .iter()
                .all(|f| f.level == Level::Good || !f.fix.is_empty()),
            "{found:?}"
        );
    }
}
