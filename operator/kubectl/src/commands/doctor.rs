//! `kubectl vumi doctor`: definitions, rights, operator, brokers and versions of a cluster, each with what to do about it.

mod brokers;
mod resources;
mod rights;
mod statuses;

use crate::cluster::{Cluster, Connection};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use vumi_api::crds::lacking;
use vumi_cli::error::CliError;
use vumi_cli::findings;
use vumi_cli::output::Format;
use vumi_core::checkup::{Finding, Level};

/// The oldest Kubernetes that is supported: minor version of 1.
const OLDEST: u32 = 33;
/// Names that are shown of many.
const NAMED: usize = 5;

/// Whether an operator lives, as its lease says: only then do statuses say how it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leader {
    /// One leads.
    Lives,
    /// None does, as far as the namespace that was named knows.
    Gone,
    /// The lease may not be looked at.
    Unseen,
}

/// Arguments of `kubectl vumi doctor`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kubectl vumi doctor
  kubectl vumi doctor --operator-namespace messaging
  kubectl vumi doctor --all-namespaces --format json | jq '.[] | select(.level == \"problem\")'

Looks at the version of Kubernetes, the definitions (CRDs), the rights of the operator's account and your own, the operator's pods and
its lease, whether statuses are about what is written now, what they say of the brokers (which are not asked from here), and the
versions of operator and workers. It changes nothing.
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
    let (of_operator, leader) = operator(&cluster, namespace).await?;
    found.extend(of_operator);
    found.extend(rights::of_operator(&cluster, namespace).await?);
    found.extend(rights::own(&cluster).await?);
    if installed {
        let place = (!arguments.all_namespaces).then_some(cluster.namespace.as_str());
        found.extend(resources::said(&cluster, place, leader).await?);
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
    let Some(document) = cluster.definitions().await? else {
        found.push(Finding::new(
            Level::Problem,
            about,
            "are not installed",
            "kubectl apply --server-side -f deploy/crds",
        ));
        return Ok(false);
    };
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
async fn operator(cluster: &Cluster, namespace: &str) -> Result<(Vec<Finding>, Leader), CliError> {
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
    let leader = match cluster.get(&path).await {
        Ok(lease) => {
            let told = of_lease(&about, lease.as_ref(), Timestamp::now());
            let none = told.iter().any(|finding| finding.level == Level::Problem);
            found.extend(told);
            match none {
                true => Leader::Gone,
                false => Leader::Lives,
            }
        }
        Err(failed) if failed.is_forbidden() => {
            found.push(not_seen(&about, &failed.text));
            Leader::Unseen
        }
        Err(failed) => return Err(failed.into()),
    };
    Ok((found, leader))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
}
