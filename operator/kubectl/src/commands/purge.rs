//! `kubectl vumi purge`: the queues that a worker leaves at its broker. Deleting a resource keeps them, since messages may wait
//! in them; this deletes them when somebody says so.

mod claims;

use crate::broker::{self, Way};
use crate::cluster::{Cluster, Connection};
use crate::named::{Named, read};
use crate::pods;
use claims::Claims;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use vumi_api::shared::BrokerRef;
use vumi_api::{ConditionType, Port, Resource, Status};
use vumi_cli::error::CliError;
use vumi_cli::output;
use vumi_cli::table::aligned;
use vumi_core::audit::account_of;
use vumi_core::broker::amqp::Remover;
use vumi_core::parking::parked_queue;

/// Arguments of `kubectl vumi purge`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kubectl vumi purge -f sms.yaml
  kubectl vumi purge -f sms.yaml --yes
  kubectl vumi purge transport/sms --yes --with-messages
  kubectl vumi purge -f sms.yaml --broker amqp://user@localhost:5672/ --yes

Without --yes it says what it would delete: each queue that the worker reads, its parts, and what was set aside of it. A queue that
anybody reads is kept, and one that another resource is to read, even if that has no pods now: those of all namespaces are looked at if
they may be listed, otherwise those of the namespaces that are named. A resource that is still there must be suspended
(`kubectl vumi drain`), and none may have pods that still finish what they have in hand.
The broker is that of the resource: its Secret is read (right: get secrets), and a Service of the cluster is reached through one of its
pods (right: create pods/portforward).
Exit codes: 0 deleted, or nothing is there · 1 something is left, --yes or --with-messages is missing · 2 the worker may still work, or a manifest is not valid · 3 the cluster or the broker.")]
pub struct Arguments {
    /// Resources of the cluster: transport/NAME, application/NAME, …
    #[arg(
        value_name = "KIND/NAME",
        required_unless_present = "files",
        conflicts_with = "files"
    )]
    pub workers: Vec<Named>,
    /// Manifests of resources that may be gone: files, directories, or - for standard input
    #[arg(short, long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// Delete; without it nothing is
    #[arg(long)]
    pub yes: bool,
    /// Delete queues with messages in them as well: these are lost, and `vumi ledger close` ends their rows
    #[arg(long)]
    pub with_messages: bool,
    /// The broker, if it cannot be reached as the Secret has it
    #[arg(long, value_name = "URL")]
    pub broker: Option<String>,
}

/// Shows the queues, and deletes them.
///
/// # Errors
/// Something is not to be deleted, or cannot be.
pub async fn run(arguments: &Arguments, at: &Connection) -> Result<(), CliError> {
    let cluster = Cluster::open(at).await?;
    let resources = resources(arguments, &cluster).await?;
    let mut claims = Claims::of_others(&cluster, &resources).await?;
    let mut rows = vec![
        ["QUEUE", "BROKER", "MESSAGES", "CONSUMERS", ""]
            .map(str::to_owned)
            .to_vec(),
    ];
    let (mut left, mut failures) = (0_usize, Vec::new());
    let mut emptied = BTreeSet::new();
    for (place, queues) in by_broker(&cluster, resources) {
        let way = match &arguments.broker {
            Some(url) => broker::at(url)?,
            None => broker::of(&cluster, &place.0, &place.1).await?,
        };
        let mut remover = Remover::open(&way.config).await?;
        for queue in queues {
            let holder = claims.holder(&cluster, &place, &way, &queue).await;
            match one(arguments, &mut remover, &way, &queue, holder).await {
                Ok(Some((row, gone))) => {
                    rows.push(row);
                    left += usize::from(gone.is_none());
                    if gone.is_some_and(|messages| messages > 0) {
                        emptied.extend(transport_of(&queue).map(str::to_owned));
                    }
                }
                Ok(None) => {}
                Err(error) => failures.push(format!("\n  {queue}: {error}")),
            }
        }
        remover.close().await;
    }
    if rows.len() == 1 && failures.is_empty() {
        output::note("there is no queue of these");
        return Ok(());
    }
    output::print(&aligned(&rows))?;
    for transport in emptied {
        output::note(&format!(
            "note: rows of messages that were deleted stay open where {transport} has a state store: `vumi ledger close --transport {transport}` ends them and tells their senders"
        ));
    }
    if !failures.is_empty() {
        return Err(CliError::environment(format!(
            "some queues could not be handled:{}",
            failures.concat()
        )));
    }
    if left > 0 && !arguments.yes {
        return Err(CliError::runtime(
            "nothing is deleted; say --yes to delete them",
        ));
    }
    match left {
        0 => Ok(()),
        _ => Err(CliError::runtime(format!(
            "{left} of them are left; the last column says why"
        ))),
    }
}

/// The transport whose messages to the network wait in a queue, or were set aside of it; none for other queues.
fn transport_of(queue: &str) -> Option<&str> {
    let consumed = queue.strip_suffix(&parked_queue(""));
    account_of(consumed.unwrap_or(queue))
}

/// What is done with one queue, which is kept if it has a holder, and how many messages it took along if it was deleted. None
/// if it is not there.
async fn one(
    arguments: &Arguments,
    remover: &mut Remover,
    way: &Way,
    queue: &str,
    holder: Option<String>,
) -> Result<Option<(Vec<String>, Option<u32>)>, CliError> {
    let Some(depth) = remover.depth(queue).await? else {
        return Ok(None);
    };
    let mut messages = depth.ready;
    let mut taken = None;
    let said = if let Some(holder) = holder {
        format!("kept: {holder}")
    } else if depth.consumers > 0 {
        "kept: somebody reads it".into()
    } else if messages > 0 && !arguments.with_messages {
        match arguments.yes {
            true => "kept: messages wait in it (--with-messages deletes them)",
            false => "would be kept: messages wait in it (--with-messages)",
        }
        .into()
    } else if !arguments.yes {
        "would be deleted".into()
    } else {
        match remover.delete(queue, arguments.with_messages).await? {
            Some(gone) => {
                (messages, taken) = (gone, Some(gone));
                "deleted".into()
            }
            None => "kept: somebody began to use it".into(),
        }
    };
    let row = vec![
        queue.to_owned(),
        way.shown.clone(),
        messages.to_string(),
        depth.consumers.to_string(),
        said,
    ];
    Ok(Some((row, taken)))
}

/// The resources whose queues are meant; none of them may still work.
async fn resources(arguments: &Arguments, cluster: &Cluster) -> Result<Vec<Resource>, CliError> {
    let mut found = Vec::new();
    for worker in &arguments.workers {
        let object = worker.get(cluster).await?;
        found.push(read(worker.kind, &object)?);
        rests(cluster, worker, Some(&object)).await?;
    }
    if !arguments.files.is_empty() {
        for loaded in super::manifests(&arguments.files)?.resources {
            let resource = loaded.resource;
            let named = Named {
                kind: resource.kind(),
                name: resource.name.clone(),
            };
            let mut place = cluster.clone();
            if let Some(namespace) = &resource.namespace {
                place.namespace.clone_from(namespace);
            }
            let object = place.get(&named.path(&place.namespace)).await?;
            rests(&place, &named, object.as_ref()).await?;
            found.push(resource);
        }
    }
    Ok(found)
}

/// Refuses a resource that may still work, whether it is there or was deleted: its last pods read no more, and have messages in hand.
async fn rests(place: &Cluster, named: &Named, object: Option<&Value>) -> Result<(), CliError> {
    if let Some(object) = object {
        let status = Status::of(object);
        let ready = status.condition(ConditionType::Ready);
        let suspended = read(named.kind, object)?.deployment().suspend
            && ready.is_some_and(|ready| ready.reason == "Suspended");
        if !suspended {
            return Err(CliError::validation(format!(
                "{named} is still there and may work: delete it, or stop it with `kubectl vumi drain {named}`"
            )));
        }
    }
    let pods = pods::of(place, named).await?;
    let pods: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    match pods.is_empty() {
        true => Ok(()),
        false => Err(CliError::validation(format!(
            "{named} still has pods, which finish what they have in hand: {}; wait until they are gone",
            pods.join(", ")
        ))),
    }
}

type Place = (String, BrokerRef);

/// Queues by broker, each once.
fn by_broker(cluster: &Cluster, resources: Vec<Resource>) -> Vec<(Place, BTreeSet<String>)> {
    let mut places: Vec<(Place, BTreeSet<String>)> = Vec::new();
    for resource in resources {
        let namespace = resource.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| cluster.namespace.clone());
        let place = (namespace, resource.broker());
        let queues = queues(&resource);
        match places.iter_mut().find(|(known, _)| *known == place) {
            Some((_, known)) => known.extend(queues),
            None => places.push((place, queues)),
        }
    }
    places
}

/// The queues of a worker: those that it reads, the parts of these, what was set aside, and how they are divided.
fn queues(resource: &Resource) -> BTreeSet<String> {
    let topology = resource.topology();
    let mut queues = BTreeSet::new();
    for port in topology.intake.iter().chain(&topology.replies) {
        let name = Port::queue(port);
        for part in resource.division(port.flow) {
            let part = format!("{name}.{part}");
            queues.insert(parked_queue(&part));
            queues.insert(part);
        }
        queues.insert(format!("{name}.layout"));
        queues.insert(parked_queue(&name));
        queues.insert(name);
    }
    queues
}

#[cfg(test)]
mod tests {
    use super::*;
    use vumi_api::Target;
    use vumi_api::manifest::load;

    #[test]
    fn the_queues_of_a_worker_are_those_that_it_reads() {
        let text = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: e}\nspec: {echo: {}, transportName: t, ordering: {mode: perUser, partitions: 2}}\n";
        let read = load(&[("e.yaml", text)], Target::Cluster);
        let queues = queues(&read.resources[0].resource);
        for name in [
            "t.inbound",
            "t.inbound.p0",
            "t.inbound.p1",
            "t.inbound.parked",
            "t.inbound.layout",
            "t.event",
        ] {
            assert!(queues.contains(name), "{name} in {queues:?}");
        }
        assert!(
            queues.iter().all(|name| !name.contains("outbound")),
            "{queues:?}"
        );
    }

    #[test]
    fn rows_are_of_what_waits_for_a_transport() {
        for (queue, transport) in [
            ("sms.outbound", Some("sms")),
            ("sms.outbound.bulk.p1", Some("sms")),
            ("sms.outbound.bulk.parked", Some("sms")),
            ("sms.inbound", None),
            ("sms.inbound.parked", None),
            ("sms.outbound.layout", None),
        ] {
            assert_eq!(transport_of(queue), transport, "{queue}");
        }
    }
}
