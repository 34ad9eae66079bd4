//! The operator itself: its Deployment, how its lease and its account are called, and who leads.

use super::not_seen;
use crate::cluster::Cluster;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use vumi_cli::error::CliError;
use vumi_core::checkup::{Finding, Level};

/// Lease of an operator that is not told another one.
const LEASE: &str = "vumi-operator";

/// Whether an operator lives, as its lease says: only then do statuses say how it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leader {
    /// One leads.
    Lives,
    /// None does, as far as the namespace that was named knows.
    Gone,
    /// The lease may not be looked at.
    Unseen,
}

/// How the operator calls what others know it by.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// Namespace and name of its lease.
    pub(super) lease: (String, String),
    /// The ServiceAccount of its pods.
    pub(super) account: String,
}

/// What was seen of the operator.
pub(super) struct Operator {
    pub(super) names: Names,
    pub(super) leader: Leader,
    /// The version of the one that wrote the lease last.
    pub(super) version: Option<String>,
}

impl Names {
    /// Of an operator whose Deployment cannot be read: all is called as that is, as it is shipped.
    fn usual(namespace: &str, name: &str) -> Self {
        Self {
            lease: (namespace.to_owned(), name.to_owned()),
            account: name.to_owned(),
        }
    }

    /// As a Deployment says.
    fn of(namespace: &str, deployment: &Value) -> Self {
        let told = |flag: &str, default: &str| {
            let value = argument(container(deployment), flag);
            value.unwrap_or(default).to_owned()
        };
        let account = &deployment["spec"]["template"]["spec"]["serviceAccountName"];
        Self {
            lease: (
                told("--lease-namespace", namespace),
                told("--lease-name", LEASE),
            ),
            account: account.as_str().unwrap_or("default").to_owned(),
        }
    }
}

/// The container of the operator: others may stand beside it.
fn container(deployment: &Value) -> &Value {
    let containers = &deployment["spec"]["template"]["spec"]["containers"];
    let mut all = containers.as_array().into_iter().flatten();
    let named = all.find(|container| container["name"] == "operator");
    named.unwrap_or(&containers[0])
}

/// The value of a flag of a container's program.
fn argument<'a>(container: &'a Value, flag: &str) -> Option<&'a str> {
    let parts = [&container["command"], &container["args"]];
    let words = parts
        .into_iter()
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(Value::as_str);
    let mut words = words.skip_while(|word| word.split('=').next() != Some(flag));
    let value = match words.next()?.split_once('=') {
        Some((_, value)) => value,
        None => words.next()?,
    };
    // What a variable of the pod says is not known here.
    (!value.contains("$(")).then_some(value)
}

/// Looks at the operator's pods, and whether one of them leads.
pub(super) async fn look(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    found: &mut Vec<Finding>,
) -> Result<Operator, CliError> {
    let about = format!("operator in {namespace}");
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
    let mut names = Names::usual(namespace, name);
    found.push(match cluster.get(&path).await {
        Ok(Some(deployment)) => {
            names = Names::of(namespace, &deployment);
            of_deployment(&about, namespace, name, &deployment)
        }
        Ok(None) => Finding::new(
            Level::Problem,
            &about,
            format!("there is no Deployment {name}"),
            "kubectl apply --server-side -f deploy/operator, or name it with --operator, and its namespace with --operator-namespace",
        ),
        Err(failed) if failed.is_forbidden() => not_seen(&about, &failed.text),
        Err(failed) => return Err(failed.into()),
    });
    let (namespace, name) = &names.lease;
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}");
    let about = format!("lease {name} in {namespace}");
    let (leader, version) = match cluster.get(&path).await {
        Ok(lease) => {
            let told = of_lease(&about, lease.as_ref(), Timestamp::now());
            let leader = match told.level {
                Level::Problem => Leader::Gone,
                _ => Leader::Lives,
            };
            found.push(told);
            let version = lease.as_ref().and_then(version);
            (leader, version.map(str::to_owned))
        }
        Err(failed) if failed.is_forbidden() => {
            found.push(not_seen(&about, &failed.text));
            (Leader::Unseen, None)
        }
        Err(failed) => return Err(failed.into()),
    };
    Ok(Operator {
        names,
        leader,
        version,
    })
}

/// What the Deployment says: how many pods are ready, and their image.
fn of_deployment(about: &str, namespace: &str, name: &str, deployment: &Value) -> Finding {
    let number = |path: &str| deployment.pointer(path).and_then(Value::as_u64);
    let wanted = number("/spec/replicas").unwrap_or(1);
    let ready = number("/status/readyReplicas").unwrap_or(0);
    let image = container(deployment)["image"].as_str();
    let says = format!(
        "{ready} of {wanted} pods are ready, image {}",
        image.unwrap_or("unknown")
    );
    let look = format!("kubectl -n {namespace} logs deployment/{name}");
    match (ready, ready >= wanted) {
        (_, true) => Finding::good(about, says),
        (0, false) => Finding::new(Level::Problem, about, says, &look),
        (_, false) => Finding::new(Level::Warning, about, says, &look),
    }
}

/// The version of the operator that wrote a lease last.
fn version(lease: &Value) -> Option<&str> {
    lease["metadata"]["labels"]["app.kubernetes.io/version"].as_str()
}

/// What the lease says: who leads, and of which version it is.
fn of_lease(about: &str, lease: Option<&Value>, now: Timestamp) -> Finding {
    let nobody = |says: String| {
        Finding::new(
            Level::Problem,
            about,
            says,
            "No operator writes: see whether its pods run and are ready, and what they log.",
        )
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
    let own = env!("CARGO_PKG_VERSION");
    match version(lease) {
        Some(version) if version == own => {
            Finding::good(about, format!("{holder} leads, of version {version}"))
        }
        version => Finding::new(
            Level::Note,
            about,
            format!(
                "{holder} leads, of version {}; this program is {own}",
                version.unwrap_or("0.1.0 or older")
            ),
            "Use the kubectl-vumi of the operator's version: `diff` computes what its own version would build.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde::Deserialize;
    use serde_json::json;

    fn deployment(container: &Value, account: Option<&str>) -> Value {
        let beside = json!({"name": "beside", "args": ["--lease-name", "wrong"]});
        json!({"spec": {"template": {"spec": {
            "serviceAccountName": account,
            "containers": [beside, container],
        }}}})
    }

    #[test]
    fn a_deployment_says_what_the_operator_is_told() {
        for arguments in [
            json!([]),
            json!(["--lease-name", "campaigns", "--log-format", "json"]),
            json!(["--log-format", "json", "--lease-name=campaigns"]),
            json!(["--lease-namespace", "leases", "--lease-name", "campaigns"]),
        ] {
            let words = arguments.as_array().unwrap().iter();
            let words: Vec<&str> = words.map(|word| word.as_str().unwrap()).collect();
            let line = ["vumi-operator"].iter().chain(&words);
            let options = vumi_operator::arguments::Arguments::parse_from(line).options("here");
            let container =
                json!({"name": "operator", "command": ["vumi-operator"], "args": arguments});
            let names = Names::of("here", &deployment(&container, Some("worker")));
            assert_eq!(names.lease, options.unwrap().lease, "{words:?}");
            assert_eq!(names.account, "worker");
        }
        let command =
            json!({"name": "operator", "command": ["vumi-operator", "--lease-name", "c"]});
        let names = Names::of("here", &deployment(&command, None));
        assert_eq!(names.lease.1, "c");
        assert_eq!(names.account, "default");
        let variable = json!({"name": "operator", "args": ["--lease-namespace", "$(NAMESPACE)"]});
        let names = Names::of("here", &deployment(&variable, None));
        assert_eq!(names.lease.0, "here");
    }

    #[test]
    fn as_it_is_shipped_all_is_called_alike() {
        let shipped = include_str!("../../../../../deploy/operator/3-operator.yaml");
        let documents = serde_yaml::Deserializer::from_str(shipped);
        let mut objects = documents.map(|document| Value::deserialize(document).unwrap());
        let shipped = objects.find(|object| object["kind"] == "Deployment");
        let names = Names::of("vumi-system", &shipped.unwrap());
        assert_eq!(names, Names::usual("vumi-system", "vumi-operator"));
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
        let level = |lease: Option<&Value>| of_lease("lease", lease, now).level;
        let (fresh, old) = ("2026-11-26T12:00:19.000000Z", "2026-11-26T11:00:00.000000Z");
        let own = env!("CARGO_PKG_VERSION");
        assert_eq!(level(Some(&lease("a", fresh, own))), Level::Good);
        assert_eq!(level(Some(&lease("a", fresh, "9.9.9"))), Level::Note);
        assert_eq!(level(Some(&lease("a", old, own))), Level::Problem);
        assert_eq!(level(Some(&lease("", fresh, own))), Level::Problem);
        assert_eq!(level(None), Level::Problem);
        assert_eq!(version(&lease("a", fresh, "9.9.9")), Some("9.9.9"));
    }
}
