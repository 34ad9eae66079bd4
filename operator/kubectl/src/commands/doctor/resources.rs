//! What resources say in their statuses: of what these are about, of brokers, credentials and versions.

use super::{Leader, brokers, not_seen, some, statuses};
use crate::cluster::{self, Cluster};
use crate::named::of;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use vumi_api::{ConditionType, Kind, Status, Truth};
use vumi_cli::error::CliError;
use vumi_core::checkup::{Finding, Level};

/// What the resources of a namespace, or of all, say of themselves, their brokers, their peers' credentials, and their versions.
pub(super) async fn said(
    cluster: &Cluster,
    place: Option<&str>,
    leader: Leader,
) -> Result<Vec<Finding>, CliError> {
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
    let named: Vec<(Kind, String, &Value)> = all
        .iter()
        .map(|(kind, object)| (*kind, name(*kind, object, place.is_none()), object))
        .collect();
    let now = Timestamp::now();
    let mut found = statuses::judge(&named, leader, now);
    found.extend(brokers::judge(&named, leader, now));
    found.extend(judge(&named));
    Ok(found)
}

/// How a resource is called; with its namespace where there are several.
fn name(kind: Kind, object: &Value, everywhere: bool) -> String {
    let named = of(kind, object);
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) if everywhere => format!("{namespace} {named}"),
        _ => named.to_string(),
    }
}

/// The findings about credentials and versions.
fn judge(all: &[(Kind, String, &Value)]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut versions: BTreeMap<String, usize> = BTreeMap::new();
    let mut credentials = Vec::new();
    for (_, name, object) in all {
        let status = Status::of(object);
        if let Some(version) = &status.runtime_version {
            *versions.entry(version.clone()).or_default() += 1;
        }
        let refused = status.condition(ConditionType::CredentialsValid);
        if let Some(condition) = refused.filter(|c| c.status == Truth::False) {
            credentials.push(format!("{name}: {}", condition.message));
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
    fn credentials_and_versions_are_told() {
        let refused = json!([{
            "type": "CredentialsValid", "status": "False", "reason": "CredentialsRefused", "message": "why",
            "lastTransitionTime": "2026-11-26T12:00:00Z",
        }]);
        let object = |name: &str, version: &str, conditions: &Value| {
            json!({
                "metadata": {"name": name, "namespace": "n"},
                "status": {"observedGeneration": 1, "runtimeVersion": version, "conditions": conditions},
            })
        };
        let objects = [
            object("a", "0.1.0", &json!([])),
            object("b", "0.1.0", &refused),
        ];
        let named = |everywhere| -> Vec<(Kind, String, &Value)> {
            let kind = Kind::Transport;
            let all = objects.iter();
            all.map(|object| (kind, name(kind, object, everywhere), object))
                .collect()
        };
        let found = judge(&named(false));
        let told: Vec<(Level, &str, &str)> = found
            .iter()
            .map(|f| (f.level, f.about.as_str(), f.says.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (Level::Problem, "credentials", "transport/b: why"),
                (Level::Good, "versions of workers", "2 of 0.1.0"),
            ]
        );
        assert_eq!(judge(&named(true))[0].says, "n transport/b: why");
    }
}
