//! What the operator and whoever asks may do.

use super::operator::Names;
use super::{not_seen, some};
use crate::cluster::{Cluster, Failed};
use serde::Deserialize;
use serde_json::{Value, json};
use vumi_api::Kind;
use vumi_api::crds::GROUP;
use vumi_cli::error::CliError;
use vumi_core::checkup::{Finding, Level};
use vumi_plan::CHILDREN;

/// What the operator may do, as it is shipped.
const RIGHTS: &str = include_str!("../../../../../deploy/operator/2-rights.yaml");
/// Group and resource of access reviews.
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";
/// What the commands of this program need beside reading and writing our resources: verb, group, resource, and which command that is.
const OWN: &[(&str, &str, &str, &str)] = &[
    ("get", "", "secrets", "diff, purge"),
    (
        "list",
        "",
        "pods",
        "logs, tap, drain, restart --wait, purge, status --live",
    ),
    ("get", "", "pods/log", "logs"),
    ("get", "", "pods/proxy", "status --live"),
    ("create", "", "pods/exec", "tap"),
    ("create", "", "pods/portforward", "purge"),
];

/// All that the commands of this program need, and which command that is.
fn own_rights() -> Vec<(Right, &'static str)> {
    let right = |verb: &str, group: &str, resource: &str| Right {
        namespace: None,
        group: group.to_owned(),
        resource: resource.to_owned(),
        verb: verb.to_owned(),
    };
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let plural = kind.plural();
        all.push((right("list", GROUP, &plural), "status, diff, purge"));
        all.push((right("get", GROUP, &plural), "every command that names one"));
        all.push((right("patch", GROUP, &plural), "restart, drain"));
    }
    let more = OWN
        .iter()
        .map(|(verb, group, resource, command)| (right(verb, group, resource), *command));
    all.extend(more);
    for child in CHILDREN.iter().filter(|child| !child.optional) {
        for verb in ["get", "list"] {
            all.push((right(verb, child.group, child.plural), "diff"));
        }
        all.push((
            right("patch", child.group, child.plural),
            "diff (a dry run)",
        ));
    }
    all
}

/// One thing that somebody may do or not.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Right {
    namespace: Option<String>,
    group: String,
    resource: String,
    verb: String,
}

impl Right {
    fn attributes(&self) -> Value {
        let (resource, below) = match self.resource.split_once('/') {
            Some((resource, below)) => (resource, below),
            None => (self.resource.as_str(), ""),
        };
        json!({
            "namespace": self.namespace,
            "group": self.group,
            "resource": resource,
            "subresource": below,
            "verb": self.verb,
        })
    }
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)
    }
}

/// The rights that the operator is shipped with; some are about its lease, and wanted in that namespace only.
fn shipped(lease_namespace: &str) -> Vec<Right> {
    let mut rights = Vec::new();
    for document in serde_yaml::Deserializer::from_str(RIGHTS) {
        let Ok(object) = Value::deserialize(document) else {
            debug_assert!(false, "deploy/operator/2-rights.yaml is YAML");
            continue;
        };
        let namespace = (object["kind"] == "Role").then(|| lease_namespace.to_owned());
        let texts = |value: &Value| -> Vec<String> {
            let texts = value.as_array().into_iter().flatten();
            texts.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        for rule in object["rules"].as_array().into_iter().flatten() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        rights.push(Right {
                            namespace: namespace.clone(),
                            group: group.clone(),
                            resource: resource.clone(),
                            verb,
                        });
                    }
                }
            }
        }
    }
    rights
}

/// Whether the operator's account may do what the operator does.
pub(super) async fn of_operator(
    cluster: &Cluster,
    namespace: &str,
    names: &Names,
) -> Result<Vec<Finding>, CliError> {
    let about = format!("rights of the operator in {namespace}");
    let user = format!("system:serviceaccount:{namespace}:{}", names.account);
    // As whom the API server takes it: rights may be bound to these.
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        "system:authenticated".to_owned(),
    ];
    let (mut everywhere, mut here, mut all) = (Vec::new(), Vec::new(), 0);
    for right in shipped(&names.lease.0) {
        all += 1;
        let review = |right: &Right| {
            json!({
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {"user": user, "groups": groups, "resourceAttributes": right.attributes()},
            })
        };
        let path = format!("{REVIEWS}/subjectaccessreviews");
        let ask = async |right: &Right| {
            let answer = cluster.create(&path, &review(right)).await?;
            Ok::<_, Failed>(answer["status"]["allowed"] == true)
        };
        match ask(&right).await {
            Ok(true) => {}
            Ok(false) => {
                // Bound in some namespaces only, it has them there.
                let of_namespace = Right {
                    namespace: Some(right.namespace.clone().unwrap_or(cluster.namespace.clone())),
                    ..right.clone()
                };
                if !ask(&of_namespace).await? {
                    here.push(right.to_string());
                }
                everywhere.push(right.to_string());
            }
            Err(failed) if failed.is_forbidden() => {
                return Ok(vec![not_seen(&about, &failed.text)]);
            }
            Err(failed) => return Err(failed.into()),
        }
    }
    let fix = format!(
        "kubectl apply --server-side -f deploy/operator/2-rights.yaml, with the account {} of {namespace} in its bindings; for some namespaces only, bind its ClusterRole by a RoleBinding in each of them",
        names.account
    );
    Ok(vec![match (everywhere.is_empty(), here.is_empty()) {
        (true, _) => Finding::good(&about, format!("all {all} are there, in every namespace")),
        (false, true) => Finding::new(
            Level::Note,
            &about,
            format!(
                "all {all} are there in namespace {}, not in every one",
                cluster.namespace
            ),
            "That is as it should be if the operator is told --namespace.",
        ),
        (false, false) => Finding::new(
            Level::Problem,
            &about,
            format!(
                "in namespace {} it may not {}",
                cluster.namespace,
                some(&here)
            ),
            &fix,
        ),
    }])
}

/// Whether whoever asks may use the commands of this program.
pub(super) async fn own(cluster: &Cluster) -> Result<Vec<Finding>, CliError> {
    let about = format!("your rights in {}", cluster.namespace);
    let mut found = Vec::new();
    for (right, command) in own_rights() {
        let right = Right {
            namespace: Some(cluster.namespace.clone()),
            ..right
        };
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": right.attributes()},
        });
        let path = format!("{REVIEWS}/selfsubjectaccessreviews");
        let answer = cluster.create(&path, &review).await?;
        if answer["status"]["allowed"] != true {
            found.push(Finding::new(
                Level::Note,
                &about,
                format!("you may not {right}, which `kubectl vumi` needs for {command}"),
                "Ask for it if you need that command.",
            ));
        }
    }
    if found.is_empty() {
        found.push(Finding::good(
            &about,
            "every command of this program may be used",
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_rights_are_about_all_kinds() {
        let all = own_rights();
        let has = |verb: &str, resource: &str| {
            all.iter()
                .any(|(right, _)| right.verb == verb && right.resource == resource)
        };
        for kind in Kind::ALL {
            assert!(has("list", &kind.plural()) && has("patch", &kind.plural()));
        }
        assert!(has("patch", "networkpolicies") && has("patch", "statefulsets"));
    }

    #[test]
    fn the_rights_are_those_that_are_shipped() {
        let rights = shipped("system");
        let has = |verb: &str, resource: &str, namespace: Option<&str>| {
            rights.iter().any(|right| {
                right.verb == verb
                    && right.resource == resource
                    && right.namespace.as_deref() == namespace
            })
        };
        assert!(has("patch", "transports/status", None));
        assert!(has("get", "secrets", None) && !has("list", "secrets", None));
        assert!(has("patch", "leases", Some("system")));
        let attributes = rights
            .iter()
            .find(|right| right.resource == "transports/status")
            .map(Right::attributes)
            .unwrap();
        assert_eq!(attributes["subresource"], "status");
    }
}
