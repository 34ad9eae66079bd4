//! `kubectl vumi doctor`: definitions, rights, operator, brokers and versions of a cluster, each with what to do about it.

use crate::cluster::{Cluster, Connection, resources};
use crate::named::of;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use vumi_api::crds::{GROUP, VERSION, lacking};
use vumi_api::{ConditionType, Kind, Status, Truth};
use vumi_cli::error::CliError;
use vumi_cli::findings;
use vumi_cli::output::Format;
use vumi_core::checkup::{Finding, Level};

/// What the operator may do, as it is shipped.
const RIGHTS: &str = include_str!("../../../../deploy/operator/2-rights.yaml");
/// The oldest Kubernetes that is supported: minor version of 1.
const OLDEST: u32 = 33;
/// Group and resource of access reviews.
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";
/// Names that are shown of many.
const NAMED: usize = 5;
/// What the commands of this program need: verb, group, resource, and which command that is.
const OWN: &[(&str, &str, &str, &str)] = &[
    ("list", "vumi.dev", "transports", "status"),
    ("patch", "vumi.dev", "transports", "restart, drain"),
    ("get", "", "secrets", "diff, purge"),
    ("patch", "apps", "deployments", "diff (a dry run)"),
    ("list", "", "pods", "logs, tap, drain"),
    ("get", "", "pods/log", "logs"),
    ("create", "", "pods/exec", "tap"),
    ("create", "", "pods/portforward", "purge"),
];

/// Arguments of `kubectl vumi doctor`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kubectl vumi doctor
  kubectl vumi doctor --operator-namespace messaging
  kubectl vumi doctor --all-namespaces --format json | jq '.[] | select(.level == \"problem\")'

Looks at the version of Kubernetes, the definitions (CRDs), the rights of the operator's account and your own, the operator's pods and
its lease, what resources say of their brokers, and the versions of operator and workers. It changes nothing.
Exit codes: 0 no problem · 1 a problem · 3 the cluster cannot be reached.")]
pub struct Arguments {
    /// Namespace of the operator
    #[arg(long, value_name = "NAME", default_value = "vumi-system")]
    pub operator_namespace: String,
    /// Look at the resources of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// How findings are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// Looks and tells.
///
/// # Errors
/// There is a problem, or no way to the cluster.
pub async fn run(arguments: &Arguments, at: &Connection) -> Result<(), CliError> {
    let cluster = Cluster::open(at).await?;
    let mut found = Vec::new();
    found.push(kubernetes(&cluster).await?);
    let installed = definitions(&cluster, &mut found).await?;
    let namespace = &arguments.operator_namespace;
    found.extend(operator(&cluster, namespace).await?);
    found.extend(rights_of_operator(&cluster, namespace).await?);
    found.extend(own_rights(&cluster).await?);
    if installed {
        let place = (!arguments.all_namespaces).then_some(cluster.namespace.as_str());
        found.extend(of_resources(&cluster, place).await?);
    }
    findings::tell(&found, arguments.format)
}

async fn kubernetes(cluster: &Cluster) -> Result<Finding, CliError> {
    let version = cluster.get("/version").await?.unwrap_or_default();
    let minor: String = version["minor"]
        .as_str()
        .unwrap_or_default()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let told = version["gitVersion"].as_str().unwrap_or("unknown");
    let old = minor.parse().is_ok_and(|minor: u32| minor < OLDEST);
    Ok(match old {
        true => Finding::new(
            Level::Warning,
            "Kubernetes",
            format!("is {told}, older than 1.{OLDEST}, with which nothing is tested"),
            "Upgrade the cluster.",
        ),
        false => Finding::good("Kubernetes", format!("is {told}")),
    })
}

/// The definitions. Returns whether there are any.
async fn definitions(cluster: &Cluster, found: &mut Vec<Finding>) -> Result<bool, CliError> {
    let about = "definitions (CRDs)";
    let index = cluster.get("/openapi/v3").await?.unwrap_or_default();
    let place = &index["paths"][format!("apis/{GROUP}/{VERSION}")]["serverRelativeURL"];
    let Some(place) = place.as_str() else {
        found.push(Finding::new(
            Level::Problem,
            about,
            "are not installed",
            "kubectl apply --server-side -f deploy/crds",
        ));
        return Ok(false);
    };
    let document = cluster.get(place).await?.unwrap_or_default();
    found.push(match lacking(&document) {
        Some(what) => Finding::new(
            Level::Problem,
            about,
            format!(
                "are older than this program ({}): they lack {what}. An operator of that version writes nothing, since it would destroy what they do not know",
                env!("CARGO_PKG_VERSION")
            ),
            "kubectl apply --server-side -f deploy/crds, of the version of the operator",
        ),
        None => Finding::good(about, format!("have all of version {}", env!("CARGO_PKG_VERSION"))),
    });
    Ok(true)
}

/// The operator's pods, and whether one of them leads.
async fn operator(cluster: &Cluster, namespace: &str) -> Result<Vec<Finding>, CliError> {
    let about = format!("operator in {namespace}");
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/vumi-operator");
    let mut found = Vec::new();
    match cluster.get(&path).await {
        Ok(Some(deployment)) => {
            let number = |path: &str| deployment.pointer(path).and_then(Value::as_u64);
            let wanted = number("/spec/replicas").unwrap_or(1);
            let ready = number("/status/readyReplicas").unwrap_or(0);
            let containers = deployment["spec"]["template"]["spec"]["containers"].as_array();
            let image = containers.and_then(|all| all.first()?["image"].as_str());
            let says = format!(
                "{ready} of {wanted} pods are ready, image {}",
                image.unwrap_or("unknown")
            );
            let look = format!("kubectl -n {namespace} logs deployment/vumi-operator");
            found.push(match (ready, ready >= wanted) {
                (_, true) => Finding::good(&about, says),
                (0, false) => Finding::new(Level::Problem, &about, says, &look),
                (_, false) => Finding::new(Level::Warning, &about, says, &look),
            });
        }
        Ok(None) => found.push(Finding::new(
            Level::Problem,
            &about,
            "there is no Deployment vumi-operator",
            "kubectl apply --server-side -f deploy/operator, or name its namespace with --operator-namespace",
        )),
        Err(failed) if failed.is_forbidden() => {
            found.push(not_seen(&about, &failed.text));
        }
        Err(failed) => return Err(failed.into()),
    }
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/vumi-operator");
    let about = format!("lease in {namespace}");
    match cluster.get(&path).await {
        Ok(lease) => found.extend(of_lease(&about, lease.as_ref(), Timestamp::now())),
        Err(failed) if failed.is_forbidden() => found.push(not_seen(&about, &failed.text)),
        Err(failed) => return Err(failed.into()),
    }
    Ok(found)
}

/// What was not looked at, since one may not.
fn not_seen(about: &str, why: &str) -> Finding {
    Finding::new(
        Level::Note,
        about,
        format!("not looked at: {why}"),
        "Ask somebody with that right to run this.",
    )
}

/// What the lease says: who leads, and of which version it is.
fn of_lease(about: &str, lease: Option<&Value>, now: Timestamp) -> Vec<Finding> {
    let nobody = |says: String| {
        vec![Finding::new(
            Level::Problem,
            about,
            says,
            "No operator writes: see whether its pods run and are ready, and what they log.",
        )]
    };
    let Some(lease) = lease else {
        return nobody("there is none: no operator has ever led".into());
    };
    let spec = &lease["spec"];
    let holder = spec["holderIdentity"].as_str().unwrap_or_default();
    if holder.is_empty() {
        return nobody("it is free: the last operator has given it back".into());
    }
    let renewed = spec["renewTime"].as_str();
    let renewed = renewed.and_then(|at| at.parse::<Timestamp>().ok());
    let age = renewed.map_or(i64::MAX, |at| now.as_second() - at.as_second());
    let lasts = spec["leaseDurationSeconds"].as_i64().unwrap_or(0);
    if age > lasts.saturating_mul(2) {
        return nobody(format!(
            "{holder} has not renewed it for {age} s, and nobody has taken it"
        ));
    }
    let version = lease["metadata"]["labels"]["app.kubernetes.io/version"].as_str();
    let own = env!("CARGO_PKG_VERSION");
    vec![match version {
        Some(version) if version == own => {
            Finding::good(about, format!("{holder} leads, of version {version}"))
        }
        _ => Finding::new(
            Level::Note,
            about,
            format!(
                "{holder} leads, of version {}; this program is {own}",
                version.unwrap_or("0.1.0 or older")
            ),
            "Use the kubectl-vumi of the operator's version: `diff` computes what its own version would build.",
        ),
    }]
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

/// The rights that the operator is shipped with.
fn shipped(operator_namespace: &str) -> Vec<Right> {
    let mut rights = Vec::new();
    for document in serde_yaml::Deserializer::from_str(RIGHTS) {
        let Ok(object) = Value::deserialize(document) else {
            debug_assert!(false, "deploy/operator/2-rights.yaml is YAML");
            continue;
        };
        let namespace = (object["kind"] == "Role").then(|| operator_namespace.to_owned());
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
async fn rights_of_operator(cluster: &Cluster, namespace: &str) -> Result<Vec<Finding>, CliError> {
    let about = format!("rights of the operator in {namespace}");
    let account = format!("system:serviceaccount:{namespace}:vumi-operator");
    let (mut everywhere, mut here, mut all) = (Vec::new(), Vec::new(), 0);
    for right in shipped(namespace) {
        all += 1;
        let review = |right: &Right| {
            json!({
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {"user": account, "resourceAttributes": right.attributes()},
            })
        };
        let path = format!("{REVIEWS}/subjectaccessreviews");
        let ask = async |right: &Right| {
            let answer = cluster.create(&path, &review(right)).await?;
            Ok::<_, crate::cluster::Failed>(answer["status"]["allowed"] == true)
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
    let fix = "kubectl apply --server-side -f deploy/operator/2-rights.yaml; for some namespaces only, bind its ClusterRole by a RoleBinding in each of them";
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
            fix,
        ),
    }])
}

/// The first of many.
fn some(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Whether whoever asks may use the commands of this program.
async fn own_rights(cluster: &Cluster) -> Result<Vec<Finding>, CliError> {
    let about = format!("your rights in {}", cluster.namespace);
    let mut found = Vec::new();
    for (verb, group, resource, command) in OWN {
        let right = Right {
            namespace: Some(cluster.namespace.clone()),
            group: (*group).to_owned(),
            resource: (*resource).to_owned(),
            verb: (*verb).to_owned(),
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

/// What resources say of their brokers, their peers' credentials, and their versions.
async fn of_resources(cluster: &Cluster, place: Option<&str>) -> Result<Vec<Finding>, CliError> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        match cluster.list(&resources(kind, place), "").await {
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
    // By broker: whether it is reached, and what was said of it.
    let mut brokers: BTreeMap<String, (usize, BTreeSet<String>)> = BTreeMap::new();
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
            let (users, said) = brokers.entry(broker.clone()).or_default();
            *users += 1;
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
    for (broker, (users, said)) in brokers {
        let about = format!("broker {broker}");
        match said.is_empty() {
            true => found.push(Finding::good(
                &about,
                format!("the operator reads it, for {users} resources"),
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

    #[test]
    fn a_lease_says_who_leads() {
        let now: Timestamp = "2026-11-26T12:00:20Z".parse().unwrap();
        let lease = |holder: &str, renewed: &str, version: &str| {
            json!({
                "metadata": {"labels": {"app.kubernetes.io/version": version}},
                "spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 17},
            })
        };
        let level = |lease: Option<&Value>| of_lease("lease", lease, now)[0].level;
        let (fresh, old) = ("2026-11-26T12:00:19.000000Z", "2026-11-26T11:00:00.000000Z");
        let own = env!("CARGO_PKG_VERSION");
        assert_eq!(level(Some(&lease("a", fresh, own))), Level::Good);
        assert_eq!(level(Some(&lease("a", fresh, "9.9.9"))), Level::Note);
        assert_eq!(level(Some(&lease("a", old, own))), Level::Problem);
        assert_eq!(level(Some(&lease("", fresh, own))), Level::Problem);
        assert_eq!(level(None), Level::Problem);
    }

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
        let found = judge(&[
            resource("a", "one:5672/", json!([])),
            resource("b", "one:5672/", json!([])),
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
