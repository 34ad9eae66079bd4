//! `kubectl vumi doctor`: definitions, rights, operator, brokers and versions of a cluster, each with what to do about it.

mod brokers;
mod operator;
mod resources;
mod rights;
mod statuses;
mod unready;
mod versions;

use super::some;
use crate::cluster::{Cluster, Connection};
use vumi_api::crds::lacking;
use vumi_cli::error::CliError;
use vumi_cli::findings;
use vumi_cli::output::Format;
use vumi_core::checkup::{Finding, Level};

/// The oldest Kubernetes that is supported: minor version of 1.
const OLDEST: u32 = 33;

/// Arguments of `kubectl vumi doctor`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kubectl vumi doctor
  kubectl vumi doctor --operator-namespace messaging --operator campaigns
  kubectl vumi doctor --all-namespaces --format json | jq '.[] | select(.level == \"problem\")'

Looks at the version of Kubernetes, the definitions (CRDs), the rights of the operator's account and your own, the operator's pods and
its lease, whether statuses are about what is written now and say that all works, what they say of the brokers (which are not asked
from here), and the versions of operator and workers. It changes nothing. Which lease and which account are the operator's, its
Deployment says; where that cannot be read, both are taken to be called as it is.
Exit codes: 0 no problem · 1 a problem · 3 the cluster cannot be reached.")]
pub struct Arguments {
    /// Namespace of the operator
    #[arg(long, value_name = "NAME", default_value = "vumi-system")]
    pub operator_namespace: String,
    /// Name of the operator's Deployment, where a namespace has several
    #[arg(long, value_name = "NAME", default_value = "vumi-operator")]
    pub operator: String,
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
    let operator = operator::look(&cluster, namespace, &arguments.operator, &mut found).await?;
    found.extend(rights::of_operator(&cluster, namespace, &operator.names).await?);
    found.extend(rights::own(&cluster).await?);
    if installed {
        let place = (!arguments.all_namespaces).then_some(cluster.namespace.as_str());
        found.extend(resources::said(&cluster, place, &operator).await?);
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

/// What was not looked at, since one may not.
fn not_seen(about: &str, why: &str) -> Finding {
    Finding::new(
        Level::Note,
        about,
        format!("not looked at: {why}"),
        "Ask somebody with that right to run this.",
    )
}
