//! `kubectl vumi diff`: what the operator would change, computed here from manifests or from what is on the cluster, and
//! compared with its objects. The API server is asked what they would be (a dry run), so that its defaults are no difference.

use crate::cluster::{Cluster, Connection, Failed, objects};
use crate::named::{self, Named, of};
use serde_json::Value;
use similar::TextDiff;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use vumi_api::manifest::{Texts, to_yaml};
use vumi_api::{ConditionType, Resource, Status};
use vumi_cli::error::CliError;
use vumi_cli::output;
use vumi_plan::kept::{config_maps, stays};
use vumi_plan::names::{MANAGER, PAUSED, RESTARTED, SECRET_REVISION};
use vumi_plan::secret::Mark;
use vumi_plan::{
    CHILDREN, Context, Desired, Found, Live, Names, Platform, Reason, SecretFacts, Settings, build,
    own_template, secret, validate,
};

/// Arguments of `kubectl vumi diff`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kubectl vumi diff -f campaign/
  kubectl vumi diff transport/sms
  kubectl vumi diff -f campaign/ --settings operator.yaml

With -f: what would become of the worker's objects if these manifests were applied. Without: what the operator would do with what is
applied, which is nothing once it has done it, and otherwise what somebody else changed.
It takes the rights to get and patch these objects (every change is a dry run) and to get the Secrets that resources name; where
those may not be read, they are taken to be there, and as running pods of a custom worker have them.
Exit codes: 0 no difference · 1 differences · 2 a manifest is not valid, or the operator would apply nothing of it · 3 the cluster.")]
pub struct Arguments {
    /// Resources of the cluster: transport/NAME, application/NAME, … [default: all of the namespace]
    #[arg(value_name = "KIND/NAME", conflicts_with = "files")]
    pub workers: Vec<Named>,
    /// Manifests: files, directories, or - for standard input
    #[arg(short, long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// YAML file with the operator's settings [default: those of the operator, if they can be read]
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Namespace of the operator
    #[arg(long, value_name = "NAME", default_value = "vumi-system")]
    pub operator_namespace: String,
}

/// One resource and what its manifest says beside it.
struct Wanted {
    resource: Resource,
    annotations: Value,
    /// As it is on the cluster.
    live: Option<Value>,
}

/// Prints the differences.
///
/// # Errors
/// There are some, or they cannot be found out.
pub async fn run(arguments: &Arguments, at: &Connection) -> Result<(), CliError> {
    let cluster = Cluster::open(at).await?;
    let (wanted, secrets) = wanted(arguments, &cluster).await?;
    let settings = settings(arguments, &cluster).await?;
    let platform = platform(&cluster).await?;
    let (mut text, mut refused) = (String::new(), Vec::new());
    for one in &wanted {
        match difference(&cluster, one, &secrets, &settings, platform).await? {
            Ok(more) => text += &more,
            Err(why) => refused.push(why),
        }
    }
    output::print(&text)?;
    if !refused.is_empty() {
        return Err(CliError::validation(format!(
            "the operator would apply nothing of these:{}",
            refused.concat()
        )));
    }
    match text.is_empty() {
        true => Ok(()),
        false => Err(CliError::silent(1)),
    }
}

/// The resources that are meant, and the Secrets of their files.
async fn wanted(
    arguments: &Arguments,
    cluster: &Cluster,
) -> Result<(Vec<Wanted>, Texts), CliError> {
    let mut wanted = Vec::new();
    if arguments.files.is_empty() {
        for (kind, object) in
            super::chosen(cluster, Some(&cluster.namespace), &arguments.workers).await?
        {
            if object["metadata"]["deletionTimestamp"].is_string() {
                continue;
            }
            wanted.push(Wanted {
                resource: named::read(kind, &object)?,
                annotations: object["metadata"]["annotations"].clone(),
                live: Some(object),
            });
        }
        return Ok((wanted, Texts::new()));
    }
    let manifests = super::manifests(&arguments.files)?;
    for loaded in &manifests.resources {
        let resource = loaded.resource.clone();
        let named = Named {
            kind: resource.kind(),
            name: resource.name.clone(),
        };
        let namespace = resource.namespace.as_ref().unwrap_or(&cluster.namespace);
        let live = cluster.get(&named.path(namespace)).await?;
        // What a manifest does not say of annotations stays as it is.
        let written = loaded.document()["metadata"]["annotations"].clone();
        let mut annotations = match &live {
            Some(live) => live["metadata"]["annotations"].clone(),
            None => Value::Null,
        };
        if let Value::Object(written) = written {
            for (name, value) in written {
                annotations[&name] = value;
            }
        }
        wanted.push(Wanted {
            resource,
            annotations,
            live,
        });
    }
    Ok((wanted, manifests.secrets))
}

/// The settings of the operator, as far as they can be known.
async fn settings(arguments: &Arguments, cluster: &Cluster) -> Result<Settings, CliError> {
    let parsed = |text: &str, place: &str| {
        serde_yaml::from_str(text)
            .map_err(|error| CliError::validation(format!("the settings {place}: {error}")))
    };
    if let Some(file) = &arguments.settings {
        let place = file.display().to_string();
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| CliError::unreadable(&place, &error))?;
        return parsed(&text, &place);
    }
    let namespace = &arguments.operator_namespace;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/vumi-operator");
    let found = match cluster.get(&path).await {
        Ok(found) => found,
        Err(failed) if failed.is_forbidden() => None,
        Err(failed) => return Err(failed.into()),
    };
    let text = found
        .as_ref()
        .and_then(|m| m["data"]["settings.yaml"].as_str());
    match text {
        Some(text) => parsed(text, &format!("of the operator in {namespace}")),
        None => {
            output::note(&format!(
                "note: the operator's settings (ConfigMap vumi-operator in {namespace}) cannot be read: those of version {} are taken; name others with --settings",
                env!("CARGO_PKG_VERSION")
            ));
            Ok(Settings::default())
        }
    }
}

/// Which kinds the cluster has beside those that every cluster has.
async fn platform(cluster: &Cluster) -> Result<Platform, CliError> {
    let mut platform = Platform::default();
    for child in CHILDREN.iter().filter(|child| child.optional) {
        let list = cluster
            .get(&format!("/apis/{}", child.api_version()))
            .await?;
        let all = list.as_ref().and_then(|list| list["resources"].as_array());
        let there = all
            .into_iter()
            .flatten()
            .any(|one| one["kind"] == child.kind);
        platform.set(child.kind, there);
    }
    Ok(platform)
}

/// What would change for one resource; or why nothing would be applied.
async fn difference(
    cluster: &Cluster,
    wanted: &Wanted,
    secrets: &Texts,
    settings: &Settings,
    platform: Platform,
) -> Result<Result<String, String>, CliError> {
    let resource = &wanted.resource;
    let key = resource.key();
    if wanted.annotations[PAUSED] == "true" {
        output::note(&format!(
            "{key}: the operator leaves it alone while the annotation {PAUSED} says true"
        ));
        return Ok(Ok(String::new()));
    }
    let namespace = resource.namespace.as_ref().unwrap_or(&cluster.namespace);
    let context = context(cluster, wanted, namespace, secrets, platform).await?;
    let validated = match validate(resource, &context, settings) {
        Ok(validated) => validated,
        Err(refusal) => {
            let reason = refusal.reason.as_str();
            return Ok(Err(format!("\n  {key}: {} [{reason}]", refusal.message)));
        }
    };
    let desired = build(&validated, &context, settings);
    for note in &desired.notes {
        output::note(&format!("warning: {key}: {}", note.message));
    }
    if desired.update_available {
        let image = &desired.image;
        output::note(&format!(
            "{key}: runs on with {image}; an update waits for the next edit"
        ));
    }
    let mut text = String::new();
    for child in &desired.children {
        let path = format!(
            "{}/{}",
            objects(&child.api_version, &child.kind, namespace),
            child.name
        );
        let before = cluster.get(&path).await?;
        let named = format!("{} {}", child.kind, child.name);
        let found = before.as_ref().map_or(Found::Foreign, |object| {
            Found::of(object, resource, context.uid.as_deref())
        });
        if found == Found::Leaving {
            output::note(&format!(
                "{key}: {named} is being deleted, or belongs to an earlier {key}: the operator waits until it is gone"
            ));
            continue;
        }
        let mut object = child.object.clone();
        // What the operator writes: what others did to the template that runs is taken back.
        if desired.workload() == Some(child)
            && let Some(template) = own_template(&validated, &context, settings, child)
        {
            object["spec"]["template"] = template;
        }
        let force = found == Found::Own;
        let after = match cluster.try_apply(&path, &object, MANAGER, force).await {
            Err(failed) if !force && failed.is_conflict() => {
                return Ok(Err(format!(
                    "\n  {key}: {named} exists already and is not the operator's: delete or rename it ({}) [{}]",
                    failed.text,
                    Reason::ApplyFailed.as_str()
                )));
            }
            Err(failed) => return refusal(&key, &named, failed).map(Err),
            Ok(after) => after,
        };
        let name = format!("{namespace}/{} {}", child.kind, child.name);
        text += &unified(&name, before.as_ref(), Some(&after));
    }
    if let Some(live) = &wanted.live {
        for (name, object) in
            left_over(cluster, live, resource, namespace, &desired, platform).await?
        {
            text += &unified(&name, Some(&object), None);
        }
    }
    Ok(Ok(text))
}

/// What the API server says to an object, if it refuses that: others of them may be as they should.
///
/// # Errors
/// It was not asked.
fn refusal(key: &str, named: &str, failed: Failed) -> Result<String, CliError> {
    let text = &failed.text;
    match failed.code {
        None => Err(failed.into()),
        Some(_) if failed.is_forbidden() => Err(CliError::environment(format!(
            "{key}: what {named} would be may not be asked: {text}; it takes the right to patch it (nothing is stored)"
        ))),
        Some(_) => Ok(format!("\n  {key}: the API server refuses {named}: {text}")),
    }
}

/// The surroundings of a resource, as the operator reads them.
async fn context(
    cluster: &Cluster,
    wanted: &Wanted,
    namespace: &str,
    written: &Texts,
    platform: Platform,
) -> Result<Context, CliError> {
    let resource = &wanted.resource;
    let child = Names::new(resource, namespace, None).child();
    let mut live = None;
    for kind in ["Deployment", "StatefulSet"] {
        let path = format!("{}/{child}", objects("apps/v1", kind, namespace));
        let found = cluster.get(&path).await?;
        let stays = found.filter(|found| found["metadata"]["deletionTimestamp"].is_null());
        live = live.or(stays.as_ref().and_then(Live::of));
    }
    let path = format!("{}/{child}", objects("v1", "ServiceAccount", namespace));
    let account = cluster.get(&path).await?.unwrap_or_default();
    let mark = account["metadata"]["annotations"][SECRET_REVISION].as_str();
    let told = mark.map(secret::told).unwrap_or_default();
    let mut secrets = BTreeMap::new();
    for (name, used) in resource.secrets() {
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        let facts = match cluster.get(&path).await {
            Ok(Some(found)) => {
                let mut facts = secret::facts(&found);
                let same = |told: &&Mark| {
                    told.written == facts.revision || told.version == secret::version(&found)
                };
                if let Some(told) = told.get(&name).filter(same) {
                    facts.revision.clone_from(&told.revision);
                }
                Some(facts)
            }
            Ok(None) => written.get(&name).map(|keys| SecretFacts {
                keys: keys.keys().cloned().collect(),
                // One that is yet to be made is none that pods have.
                revision: "new".into(),
            }),
            Err(failed) if failed.is_forbidden() => {
                output::note(&format!(
                    "note: the Secret {name} may not be read; it is taken to be there, and not to have changed"
                ));
                Some(secret::unread(&name, used, live.as_ref()))
            }
            Err(failed) => return Err(failed.into()),
        };
        secrets.extend(facts.map(|facts| (name, facts)));
    }
    let status = wanted.live.as_ref().map(Status::of).unwrap_or_default();
    let stalled = status.condition(ConditionType::Stalled);
    let clashes = stalled.is_some_and(|stalled| stalled.reason == Reason::QueueClash.as_str());
    // What the scaler has decided, and who has to give way, only the operator knows.
    let scaled = resource.deployment().autoscaling.is_some();
    let replicas = match (clashes, &status.autoscaling) {
        (true, _) => Some(0),
        (false, Some(scaling)) if scaled => Some(scaling.desired_replicas),
        _ => None,
    };
    let uid = wanted
        .live
        .as_ref()
        .and_then(|o| o["metadata"]["uid"].as_str());
    Ok(Context {
        namespace: namespace.to_owned(),
        uid: uid.map(str::to_owned),
        secrets,
        live,
        // The operator's own mark is not shown.
        secret_revision: None,
        replicas,
        restarted: wanted.annotations[RESTARTED].as_str().map(str::to_owned),
        platform,
    })
}

/// Objects of the resource that are not wanted any more.
async fn left_over(
    cluster: &Cluster,
    live: &Value,
    resource: &Resource,
    namespace: &str,
    desired: &Desired,
    platform: Platform,
) -> Result<Vec<(String, Value)>, CliError> {
    let uid = &live["metadata"]["uid"];
    let selector = of(resource.kind(), live).selector();
    let mut mounted = BTreeSet::new();
    for (api_version, kind, spec) in [
        ("apps/v1", "ReplicaSet", "/spec/template/spec"),
        ("v1", "Pod", "/spec"),
    ] {
        let all = objects(api_version, kind, namespace);
        for object in cluster.list(&all, &selector).await? {
            let pod = object.pointer(spec).unwrap_or(&Value::Null);
            mounted.extend(config_maps(pod));
        }
    }
    let mut found = Vec::new();
    for child in CHILDREN.iter().filter(|child| platform.has(child.kind)) {
        let (api_version, kind) = (child.api_version(), child.kind);
        for mut object in cluster
            .list(&objects(&api_version, kind, namespace), &selector)
            .await?
        {
            let owners = object["metadata"]["ownerReferences"].as_array();
            let ours = owners
                .into_iter()
                .flatten()
                .any(|owner| owner["uid"] == *uid && owner["controller"] == true);
            let name = object["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let goes = object["metadata"]["deletionTimestamp"].is_string();
            let stays = stays(desired, kind, &name, |name| mounted.contains(name));
            if ours && !goes && !stays {
                // A list does not say of its items what they are.
                object["apiVersion"] = api_version.as_str().into();
                object["kind"] = kind.into();
                found.push((format!("{namespace}/{kind} {name}"), object));
            }
        }
    }
    Ok(found)
}

/// The difference between an object as it is and as it would be. Nothing if there is none.
fn unified(name: &str, before: Option<&Value>, after: Option<&Value>) -> String {
    let text = |object: Option<&Value>| object.map_or_else(String::new, |o| to_yaml(&shown(o)));
    let (before, after) = (text(before), text(after));
    if before == after {
        return String::new();
    }
    let header = |which: &str| format!("{which} {name}");
    TextDiff::from_lines(&before, &after)
        .unified_diff()
        .header(&header("live"), &header("wanted"))
        .to_string()
}

/// An object without what its server keeps of it, which is no difference.
fn shown(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in [
            "managedFields",
            "resourceVersion",
            "uid",
            "creationTimestamp",
            "generation",
        ] {
            metadata.remove(field);
        }
        // Of which Secrets pods were told is the operator's own mark.
        let annotations = metadata.get_mut("annotations");
        if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
            annotations.remove(SECRET_REVISION);
        }
    }
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    // A dry run orders fields otherwise than a read does.
    sorted(object)
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> = fields
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_refused_ends_nothing() {
        let refused = |code| {
            let text = "unknown field \"spec.template.spec.contaners\"".to_owned();
            refusal("transport/sms", "Deployment d", Failed { code, text })
        };
        for code in [400, 422, 500] {
            let said = refused(Some(code)).unwrap();
            assert!(
                said.starts_with("\n  transport/sms: the API server refuses Deployment d: unknown"),
                "{said}"
            );
        }
        // Of the next one, that would be the same.
        for code in [None, Some(403)] {
            assert_eq!(refused(code).unwrap_err().code, CliError::ENVIRONMENT);
        }
    }

    #[test]
    fn only_what_people_mean_is_a_difference() {
        let before = json!({
            "kind": "Service",
            "metadata": {"name": "s", "resourceVersion": "7", "managedFields": [1], "uid": "u"},
            "spec": {"b": 1, "a": 2},
            "status": {"x": 1},
        });
        let same = json!({"spec": {"a": 2, "b": 1}, "metadata": {"name": "s"}, "kind": "Service"});
        assert_eq!(unified("n/Service s", Some(&before), Some(&same)), "");
        let after = json!({"kind": "Service", "metadata": {"name": "s"}, "spec": {"a": 3, "b": 1}});
        let text = unified("n/Service s", Some(&before), Some(&after));
        assert!(
            text.starts_with("--- live n/Service s\n+++ wanted n/Service s\n"),
            "{text}"
        );
        assert!(text.contains("\n-  a: 2\n+  a: 3\n"), "{text}");
        let told = |revision: &str| {
            let annotations = json!({"a": "b", SECRET_REVISION: revision});
            json!({"metadata": {"annotations": annotations}})
        };
        let (first, second) = (told("1"), told("2"));
        assert_eq!(unified("n/S s", Some(&first), Some(&second)), "");
        let gone = unified("n/Service s", Some(&before), None);
        assert!(
            gone.lines().skip(3).all(|line| line.starts_with('-')),
            "{gone}"
        );
    }
}
