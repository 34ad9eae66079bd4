//! What resources say in their statuses: of what these are about, of brokers, credentials and versions.

use super::operator::{Leader, Operator};
use super::{brokers, not_seen, some, statuses, unready, versions};
use crate::cluster::{self, Cluster};
use crate::commands::leaving;
use crate::named::of;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use vumi_api::{ConditionType, Kind, Status, Truth};
use vumi_cli::error::CliError;
use vumi_core::checkup::{Finding, Level};

/// What the resources of a namespace, or of all, say of themselves, their brokers, their peers' credentials, and their versions.
pub(super) async fn said(
    cluster: &Cluster,
    place: Option<&str>,
    operator: &Operator,
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
    let mut named: Vec<(Kind, String, &Value)> = all
        .iter()
        .map(|(kind, object)| (*kind, name(*kind, object, place.is_none()), object))
        .collect();
    let now = Timestamp::now();
    let mut found = statuses::judge(&named, operator.leader, now);
    // What is being deleted says how it was before.
    named.retain(|(_, _, object)| leaving(object, now).is_none());
    found.extend(unready::judge(&named, now));
    found.extend(brokers::judge(&named, operator.leader, now));
    found.extend(credentials(&named));
    let version = operator.version.as_deref();
    let version = version.filter(|_| operator.leader == Leader::Lives);
    found.extend(versions::judge(&named, version));
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

/// The finding about credentials, if some are refused.
fn credentials(all: &[(Kind, String, &Value)]) -> Option<Finding> {
    let refused = all.iter().filter_map(|(_, name, object)| {
        let status = Status::of(object);
        let condition = status.condition(ConditionType::CredentialsValid)?;
        (condition.status == Truth::False).then(|| format!("{name}: {}", condition.message))
    });
    let refused: Vec<String> = refused.collect();
    (!refused.is_empty()).then(|| {
        Finding::new(
            Level::Problem,
            "credentials",
            some(&refused),
            "Correct the Secret; it is read again within a minute.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn refused_credentials_are_told() {
        let refused = json!([{
            "type": "CredentialsValid", "status": "False", "reason": "CredentialsRefused", "message": "why",
            "lastTransitionTime": "2026-11-26T12:00:00Z",
        }]);
        let object = |name: &str, conditions: &Value| {
            json!({
                "metadata": {"name": name, "namespace": "n"},
                "status": {"observedGeneration": 1, "conditions": conditions},
            })
        };
        let objects = [object("a", &json!([])), object("b", &refused)];
        let named = |everywhere| -> Vec<(Kind, String, &Value)> {
            let kind = Kind::Transport;
            let all = objects.iter();
            all.map(|object| (kind, name(kind, object, everywhere), object))
                .collect()
        };
        let found = credentials(&named(false)).unwrap();
        assert_eq!(
            (found.level, found.says.as_str()),
            (Level::Problem, "transport/b: why")
        );
        let found = credentials(&named(true)).unwrap();
        assert_eq!(found.says, "n transport/b: why");
        assert_eq!(credentials(&named(false)[..1]), None);
    }
}
