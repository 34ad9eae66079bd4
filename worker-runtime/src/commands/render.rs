//! `vumi render`: the objects that the operator makes of manifests, without a cluster.

use crate::error::CliError;
use crate::{manifests, output};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vumi_api::manifest::{Manifests, load, to_yaml};
use vumi_api::{Resource, Severity, Target};
use vumi_plan::{Context, Live, Names, Platform, SecretFacts, Settings, build, secret, validate};

/// Arguments of `vumi render`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi render examples/telnet-echo
  vumi render -f campaign/ --namespace campaign | kubectl diff --server-side --field-manager vumi-operator --force-conflicts -f -
  vumi render campaign/ --settings operator.yaml > objects.yaml
  kubectl get deployments,statefulsets -o yaml | vumi render campaign/ --running -

What is printed is what the operator applies, without what only a cluster knows: the reference to its owner, of which Secrets pods
were told (annotation vumi.dev/secret-revision), and how many pods autoscaling has decided on. A running worker
keeps its pod template, image included, until an edit concerns it: --running tells what runs.
Secrets that are not among the manifests are taken to be there. Of those that are, keys are checked and no value is printed.
Which revision a Secret is, no file says. For a custom worker without reload: files, vumi.dev/secrets-hash and the hashes that follow
from it (vumi.dev/hash, input-hash and template-hash of the workload) are right with --running alone; if its broker's Secret is not
among the manifests, so are the variables that take its keys. A Secret that has changed since its pods started is not seen.
Exit codes: 0 printed · 2 a manifest is not valid, or the operator would build nothing of it · 3 a path cannot be read.")]
pub struct Arguments {
    /// Files, directories (their .yaml and .yml files), or - for standard input
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The same as PATH, as `kubectl apply` writes it
    #[arg(short, long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// Namespace of manifests that name none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// YAML file with the operator's settings: image, resources, podMonitor, … [default: those of an operator of this
    /// version]
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Image of the runtime, whatever the settings say
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// YAML of the Deployments and StatefulSets that run, or - for standard input [default: nothing runs yet]
    #[arg(long, value_name = "FILE")]
    pub running: Option<PathBuf>,
    /// What the cluster does not know [default: it knows all]
    #[arg(long, value_name = "KIND", value_enum)]
    pub without: Vec<Optional>,
}

/// Kinds that not every cluster knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Optional {
    /// HTTPRoutes of the Gateway API
    HttpRoute,
    /// PodMonitors of the Prometheus operator
    PodMonitor,
}

/// Prints the objects of all resources.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let (objects, refusals) = objects(arguments)?;
    let documents: Vec<String> = objects.iter().map(to_yaml).collect();
    output::print(&documents.join("---\n"))?;
    match refusals.is_empty() {
        true => Ok(()),
        false => Err(CliError::validation(format!(
            "the operator would build nothing of these:{}",
            refusals.concat()
        ))),
    }
}

/// The objects of all resources, and why there are none of some. What else is to be known is said on standard error.
///
/// # Errors
/// A path cannot be read, or what it has is not valid.
pub fn objects(arguments: &Arguments) -> Result<(Vec<Value>, Vec<String>), CliError> {
    let paths: Vec<PathBuf> = arguments
        .paths
        .iter()
        .chain(&arguments.files)
        .cloned()
        .collect();
    if paths.is_empty() {
        return Err(CliError::validation(
            "nothing to render; name files or directories, for example `vumi render campaign/`",
        ));
    }
    let manifests = load(&manifests::read(&paths)?, Target::Cluster);
    let errors = manifests.findings.iter();
    let errors: Vec<String> = errors
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| format!("\n  {finding}"))
        .collect();
    if !errors.is_empty() {
        let text = format!("the manifests are not valid:{}", errors.concat());
        return Err(CliError::validation(text));
    }
    let mut settings = match &arguments.settings {
        Some(file) => self::settings(file)?,
        None => Settings::default(),
    };
    if let Some(image) = &arguments.image {
        settings.image.clone_from(image);
    }
    let running = match &arguments.running {
        Some(file) => self::running(file)?,
        None => Running::new(),
    };
    let (mut objects, mut refusals) = (Vec::new(), Vec::new());
    for loaded in &manifests.resources {
        let resource = &loaded.resource;
        let context = context(resource, &manifests, &running, arguments);
        match validate(resource, &context, &settings) {
            Ok(validated) => {
                let desired = build(&validated, &context, &settings);
                objects.extend(desired.children.iter().map(|child| child.object.clone()));
                if desired.update_available {
                    let (key, image) = (resource.key(), &desired.image);
                    eprintln!("{key}: runs on with {image}; an update waits for the next edit");
                }
                for note in &desired.notes {
                    eprintln!("warning: {}: {}", resource.key(), note.message);
                }
                if let Some(url) = &desired.url {
                    eprintln!("{}: callers use {url}", resource.key());
                }
            }
            Err(refusal) => refusals.push(format!(
                "\n  {}: {} [{}]",
                resource.key(),
                refusal.message,
                refusal.reason.as_str()
            )),
        }
    }
    Ok((objects, refusals))
}

/// The surroundings as far as files tell of them.
fn context(
    resource: &Resource,
    manifests: &Manifests,
    running: &Running,
    arguments: &Arguments,
) -> Context {
    let namespace = resource.namespace.as_ref().unwrap_or(&arguments.namespace);
    let child = Names::new(resource, namespace, None).child();
    let live = running.get(&(namespace.clone(), child));
    let facts = |(name, used): (String, vumi_api::SecretUse)| {
        let facts = match manifests.secrets.get(&name) {
            Some(written) => {
                let full = written.iter().filter(|(_, value)| !value.trim().is_empty());
                SecretFacts {
                    keys: full.map(|(key, _)| key.clone()).collect(),
                    revision: String::new(),
                }
            }
            None => secret::unread(&name, used, live),
        };
        (name, facts)
    };
    let secrets: BTreeMap<String, SecretFacts> =
        resource.secrets().into_iter().map(facts).collect();
    let has = |kind| !arguments.without.contains(&kind);
    Context {
        namespace: namespace.clone(),
        secrets,
        live: live.cloned(),
        platform: Platform {
            pod_monitor: has(Optional::PodMonitor),
            http_route: has(Optional::HttpRoute),
        },
        ..Context::default()
    }
}

/// Workloads by namespace and name.
type Running = BTreeMap<(String, String), Live>;

fn running(file: &Path) -> Result<Running, CliError> {
    let mut found = Running::new();
    for (name, text) in manifests::read(std::slice::from_ref(&file.to_owned()))? {
        for document in serde_yaml::Deserializer::from_str(&text) {
            let document = Value::deserialize(document)
                .map_err(|error| CliError::validation(format!("{name}: {error}")))?;
            let objects = match document["items"].as_array() {
                Some(items) => items.clone(),
                None => vec![document],
            };
            for object in objects {
                let text = |key: &str| object["metadata"][key].as_str().map(str::to_owned);
                if let (Some(name), Some(live)) = (text("name"), Live::of(&object)) {
                    let namespace = text("namespace").unwrap_or_else(|| "default".into());
                    found.insert((namespace, name), live);
                }
            }
        }
    }
    Ok(found)
}

fn settings(file: &Path) -> Result<Settings, CliError> {
    let place = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        CliError::environment(format!("cannot read the settings {place}: {error}"))
    })?;
    serde_yaml::from_str(&text)
        .map_err(|error| CliError::validation(format!("the settings {place}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vumi_core::engine::StopLimits;

    /// The kubelet must not kill a worker that is still within its own limits.
    #[test]
    fn the_grace_period_is_longer_than_a_stop() {
        let limits = StopLimits::default();
        assert!(vumi_plan::build::STOP_BESIDE_DRAIN > limits.flush + limits.close);
    }

    #[test]
    fn what_runs_is_found_in_lists_and_documents() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("running.yaml");
        let one = "kind: Deployment\nmetadata: {name: application-e, namespace: n}\nspec: {template: {}}\n";
        let list = "kind: List\nitems:\n- {kind: StatefulSet, metadata: {name: application-f}, spec: {template: {}}}\n- {kind: Service, metadata: {name: s}, spec: {}}\n";
        std::fs::write(&file, format!("{one}---\n{list}")).unwrap();
        let found: Vec<_> = running(&file).unwrap().into_keys().collect();
        let named = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        assert_eq!(
            found,
            [
                named("default", "application-f"),
                named("n", "application-e")
            ]
        );
    }

    /// No file says which revision a Secret is, or which keys it has: what runs does.
    #[test]
    fn a_program_that_runs_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [manifest, file] = ["program.yaml", "running.yaml"].map(|n| folder.path().join(n));
        let text = |more: &str| {
            format!(
                "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: p}}\nspec: {{custom: {{image: p:1{more}}}}}\n"
            )
        };
        let resource = &load(&[("p", text(""))], Target::Cluster).resources[0].resource;
        let facts = SecretFacts {
            keys: ["connection_string".to_owned()].into(),
            revision: "7".into(),
        };
        let context = Context {
            namespace: "default".into(),
            secrets: BTreeMap::from([("vumi-broker".to_owned(), facts)]),
            ..Context::default()
        };
        let settings = Settings::default();
        let desired = build(
            &validate(resource, &context, &settings).unwrap(),
            &context,
            &settings,
        );
        let runs = &desired.workload().unwrap().object;
        std::fs::write(&file, to_yaml(runs)).unwrap();
        let arguments = Arguments {
            paths: vec![manifest.clone()],
            files: Vec::new(),
            namespace: "default".into(),
            settings: None,
            image: None,
            running: Some(file),
            without: Vec::new(),
        };
        let printed = |more: &str| {
            std::fs::write(&manifest, text(more)).unwrap();
            let (objects, refusals) = objects(&arguments).unwrap();
            assert_eq!(refusals, Vec::<String>::new());
            let mut objects = objects.into_iter();
            objects.find(|o| o["kind"] == "Deployment").unwrap()
        };
        assert_eq!(printed(""), *runs);
        // An edit changes what it says, and nothing beside.
        let mut edited = printed(", args: [a]")["spec"]["template"].take();
        let container = &mut edited["spec"]["containers"][0];
        let arguments = container.as_object_mut().unwrap().remove("args");
        assert_eq!(arguments, Some(serde_json::json!(["a"])));
        assert_eq!(edited, runs["spec"]["template"]);
    }

    #[test]
    fn a_mistake_in_the_settings_has_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("operator.yaml");
        std::fs::write(&file, "imagee: x\n").unwrap();
        let error = settings(&file).unwrap_err();
        assert_eq!(error.code, CliError::VALIDATION);
        assert!(
            error.text.contains("operator.yaml: ") && error.text.contains("imagee"),
            "{error}"
        );
        std::fs::write(&file, "image: vumi:2\npodMonitor: {interval: 30s}\n").unwrap();
        assert_eq!(settings(&file).unwrap().image, "vumi:2");
    }
}
