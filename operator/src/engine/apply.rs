//! Applies what is wanted and not so: a child that is missing, one that is to be another one, and one of whose fields somebody
//! else has taken (K23). Everything else is left alone, without a call.

use super::Engine;
use super::kinds::ObjectKind;
use super::seen::{Held, Seen, hold};
use super::store::{Family, Key};
use crate::client::{ApiError, Apply};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;
use vumi_plan::names::{HASH, SECRET_REVISION, TEMPLATE_HASH};
use vumi_plan::{Child, Desired, Found};

/// For so long a workload that was refused is not asked of again.
const REFUSED: Duration = Duration::from_secs(600);

/// Why not everything could be applied.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A call went wrong.
    Call {
        /// Kind and name of the object.
        object: String,
        /// What was said.
        error: ApiError,
    },
    /// An object that is not ours has the name.
    Taken(String),
    /// Objects that are on their way out still have these names.
    Leaving(Vec<Leaving>),
}

/// An object that is in the way until it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Kind and name.
    pub object: String,
    /// Since when it is being deleted. None: it belonged to an earlier resource, and nobody has asked for its end yet.
    pub since: Option<Timestamp>,
    /// What holds it.
    pub finalizers: Vec<String>,
}

impl Leaving {
    /// What is kept of such an object.
    pub fn of(held: &Held) -> Self {
        let end = held.end.as_deref();
        Self {
            object: format!("{} {}", held.kind.kind, held.name),
            since: end.map(|end| end.at),
            finalizers: end.map(|end| end.finalizers.clone()).unwrap_or_default(),
        }
    }

    /// What is in the way, since when, what holds it, and what to do. `made`: when the resource was.
    pub fn sentence(&self, made: Option<Timestamp>) -> String {
        let object = &self.object;
        let Some(since) = self.since else {
            let made = made.map_or_else(String::new, |made| format!(" since {}", seconds(made)));
            return format!(
                "{object} belongs to an earlier resource of this name and is in the way{made}: the garbage collector is to delete it; if it does not, look at kube-controller-manager, or delete it by hand"
            );
        };
        let since = seconds(since);
        match self.finalizers.as_slice() {
            [] => format!(
                "{object} is being deleted since {since} and is not gone: nothing holds it, so look whether the API server and kube-controller-manager work"
            ),
            [one] if one == "foregroundDeletion" => format!(
                "{object} is being deleted since {since}, and foregroundDeletion holds it until what it owns is gone: look which of its pods does not end"
            ),
            held => format!(
                "{object} is being deleted since {since}, held by the finalizers {}: whoever set them has to take them off; if that program is gone for good, take them off with kubectl edit",
                held.join(", ")
            ),
        }
    }
}

/// A time in whole seconds.
fn seconds(at: Timestamp) -> String {
    let whole = Timestamp::from_second(at.as_second());
    whole.unwrap_or(at).to_string()
}

/// What is done with a child, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// It is as it should be.
    Nothing,
    /// It is not there.
    Create,
    /// It is to be another one.
    Change,
    /// It is to say of which Secrets pods were told, and is as it should be else.
    Mark,
    /// Somebody else has taken this field.
    Drift(String),
    /// It is in the way until it is gone.
    Wait(Leaving),
}

/// A child that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub need: Need,
}

/// What is to be written, in the order of writing.
#[derive(Debug, Default)]
pub struct Plan<'a> {
    steps: Vec<(&'static ObjectKind, &'a Child, Value, Need)>,
}

impl Plan<'_> {
    /// Whether everything is as it should be.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Compares what is wanted with what there is. `own` gives the template of the workload as it is built anew
/// ([`vumi_plan::own_template`]): it has no defaults of the server in it, so that its fields can be compared with those that are ours.
pub fn plan<'a>(
    family: &Family,
    uid: &str,
    desired: &'a Desired,
    own: &dyn Fn(&Child) -> Option<Value>,
) -> Plan<'a> {
    let mut plan = Plan::default();
    for child in &desired.children {
        let Some(kind) = ObjectKind::named(&child.kind) else {
            debug_assert!(false, "{} is not among the kinds", child.kind);
            continue;
        };
        let held = family.child(kind.kind, &child.name);
        let need = need(held, child, uid, || {
            let mut object = child.object.clone();
            if kind.is_workload() {
                // While an update waits, it is not compared.
                object["spec"]["template"] = own(child).unwrap_or_default();
            }
            object
        });
        if need == Need::Nothing {
            continue;
        }
        let mut object = child.object.clone();
        // What runs may have been changed by others: where the same template can be built anew, that one is written.
        if kind.is_workload()
            && let Some(template) = own(child)
        {
            object["spec"]["template"] = template;
        }
        plan.steps.push((kind, child, object, need));
    }
    plan
}

/// Whether an annotation of a child says what it is to say.
fn says(held: &Held, child: &Child, name: &str) -> bool {
    held.annotation(name) == child.object["metadata"]["annotations"][name].as_str()
}

/// What a child needs.
fn need(held: Option<&Held>, child: &Child, uid: &str, wanted: impl FnOnce() -> Value) -> Need {
    let Some(held) = held else {
        return Need::Create;
    };
    let found = Found::labelled(held.is_deleting(), held.owner.as_deref(), Some(uid));
    if found == Found::Leaving {
        return Need::Wait(Leaving::of(held));
    }
    let names = [HASH, TEMPLATE_HASH];
    // One that belongs to nobody is to be ours, which no hash says.
    if held.owner.is_none() || !names.into_iter().all(|name| says(held, child, name)) {
        return Need::Change;
    }
    // Where none is wanted, an older operator may have written one.
    let marked = child.object["metadata"]["annotations"][SECRET_REVISION].is_null()
        || says(held, child, SECRET_REVISION);
    if !marked {
        return Need::Mark;
    }
    match held.lost(wanted) {
        Some(path) => Need::Drift(path),
        None => Need::Nothing,
    }
}

/// A workload that the API server has refused.
#[derive(Debug)]
pub struct Refused {
    version: String,
    error: ApiError,
    at: Instant,
}

/// Asks whether the API server would take the workload as it is planned, before anything of it is applied: once for each version of
/// it (K21). One that was refused is asked of again after a while, since it may be a policy that refuses it.
///
/// # Errors
/// What it said.
pub async fn try_workload(
    engine: &Engine,
    key: &Key,
    uid: &str,
    plan: &Plan<'_>,
) -> Result<(), ApiError> {
    let step = plan.steps.iter().find(|(kind, ..)| kind.is_workload());
    let Some((kind, child, object, Need::Create | Need::Change)) = step else {
        return Ok(());
    };
    let template = &child.object["metadata"]["annotations"][TEMPLATE_HASH];
    let version = format!("{} {} {template}", child.kind, child.hash);
    let known = engine.recall.with(key, uid, |known| {
        let refused = known.refused.as_ref()?;
        let same = refused.version == version && refused.at.elapsed() < REFUSED;
        same.then(|| refused.error.clone())
    });
    if let Some(error) = known {
        return Err(error);
    }
    let how = Apply {
        force: true,
        dry_run: true,
    };
    let path = kind.path(&key.namespace, &child.name);
    engine.metrics.wrote("dry-run");
    let answer = engine.api.apply(&path, object, how).await;
    let refused = answer.as_ref().err().filter(|error| is_refusal(error));
    let refused = refused.map(|error| {
        Box::new(Refused {
            version,
            error: error.clone(),
            at: Instant::now(),
        })
    });
    engine
        .recall
        .with(key, uid, |known| known.refused = refused);
    answer.map(|_| ())
}

/// Whether a dry run says that the object itself is wrong. What is forbidden may be allowed any time.
pub fn is_refusal(error: &ApiError) -> bool {
    error.is_about_the_object() && error.code() != Some(403)
}

/// Writes what is planned for a resource, one after the other, and says what was written, even if something went wrong then.
pub async fn apply(
    engine: &Engine,
    key: &Key,
    resource: &Held,
    plan: &Plan<'_>,
) -> (Vec<Written>, Option<Fault>) {
    let mut written = Vec::new();
    let mut leaving = Vec::new();
    for (kind, child, object, need) in &plan.steps {
        let named = format!("{} {}", child.kind, child.name);
        if let Need::Wait(one) = need {
            leaving.push(one.clone());
            continue;
        }
        // A new one must not take over what somebody else made.
        let force = *need != Need::Create;
        let path = kind.path(&key.namespace, &child.name);
        let answer = match force {
            true => insist(engine, kind, &path, object).await,
            false => create(engine, key, resource, &path, object).await,
        };
        match answer {
            Ok(None) => return (written, Some(Fault::Taken(named))),
            Ok(Some(now)) => {
                engine.metrics.wrote(match need {
                    Need::Create => "create",
                    Need::Drift(_) => "drift",
                    _ => "change",
                });
                remember(engine, kind, now);
                written.push(Written {
                    kind: child.kind.clone(),
                    name: child.name.clone(),
                    need: need.clone(),
                });
            }
            Err(error) => {
                let taken =
                    !force && error.is_conflict() && error.to_string().starts_with("Apply failed");
                let fault = match taken {
                    true => Fault::Taken(named),
                    false => Fault::Call {
                        object: named,
                        error,
                    },
                };
                return (written, Some(fault));
            }
        }
    }
    (
        written,
        (!leaving.is_empty()).then_some(Fault::Leaving(leaving)),
    )
}

/// Makes an object. None if somebody else's has its name: one with other fields refuses ours, and one without, as a ServiceAccount
/// often is, is older than the resource.
async fn create(
    engine: &Engine,
    key: &Key,
    resource: &Held,
    path: &str,
    object: &Value,
) -> Result<Option<Value>, ApiError> {
    let is_older = |answer: &Value| {
        let made = answer["metadata"]["creationTimestamp"].as_str();
        let made = made.and_then(|made| made.parse::<Timestamp>().ok());
        made.zip(resource.created)
            .is_some_and(|(made, created)| made < created)
    };
    let how = |force: bool, dry_run: bool| Apply { force, dry_run };
    let taken = |path: Option<String>| {
        let recall = &engine.recall;
        recall.with(key, &resource.uid, |known| {
            std::mem::replace(&mut known.taken, path)
        })
    };
    let api = engine.writer().await?;
    // What is known to be somebody else's is not written to again.
    if taken(None).as_deref() == Some(path) {
        engine.metrics.wrote("dry-run");
        if is_older(&api.apply(path, object, how(false, true)).await?) {
            taken(Some(path.to_owned()));
            return Ok(None);
        }
    }
    let now = api.apply(path, object, how(false, false)).await?;
    if !is_older(&now) {
        return Ok(Some(now));
    }
    taken(Some(path.to_owned()));
    engine.metrics.wrote("change");
    // Of what is applied without any field, none stays ours.
    let nothing = json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": {"name": object["metadata"]["name"]},
    });
    api.apply(path, &nothing, how(true, false)).await?;
    Ok(None)
}

/// Writes an object of ours.
async fn insist(
    engine: &Engine,
    kind: &ObjectKind,
    path: &str,
    object: &Value,
) -> Result<Option<Value>, ApiError> {
    let how = Apply {
        force: true,
        dry_run: false,
    };
    let api = engine.writer().await?;
    match api.apply(path, object, how).await {
        // Ports are told apart by their numbers. One to which somebody gave another number is not ours any more and still has its name.
        Err(error) if kind.kind == "Service" && error.code() == Some(422) => {
            let ports = json!({"spec": {"ports": object["spec"]["ports"]}});
            api.merge(path, &ports).await?;
            api.apply(path, object, how).await.map(Some)
        }
        answer => answer.map(Some),
    }
}

/// Takes the pods of what runs away, whatever the rest of the resource says. Nothing else is known to be right, so nothing else is
/// written. Without its hash the workload is written anew with the next spec that can be built. Returns what had how many pods.
///
/// # Errors
/// What the API server said.
pub async fn suspend(
    engine: &Engine,
    key: &Key,
    family: &Family,
    uid: &str,
) -> Result<Vec<(String, Value)>, ApiError> {
    let mut stopped = Vec::new();
    for held in family.others().filter(|held| held.kind.is_workload()) {
        let (kind, name) = (held.kind, &held.name);
        let before = held.body()["spec"]["replicas"].take();
        if held.is_deleting() || held.owner.as_deref() != Some(uid) || before == 0 {
            continue;
        }
        let change = json!({
            "metadata": {"uid": held.uid, "annotations": {HASH: null}},
            "spec": {"replicas": 0},
        });
        let path = kind.path(&key.namespace, name);
        match engine.writer().await?.merge(&path, &change).await {
            Ok(now) => {
                engine.metrics.wrote("change");
                remember(engine, kind, now);
                stopped.push((format!("{} {name}", kind.kind), before));
            }
            // Gone already, or another one by now.
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(stopped)
}

/// Keeps the answer to a write, so that nobody decides by what was before it.
pub fn remember(engine: &Engine, kind: &'static ObjectKind, answer: Value) {
    if let Ok(seen) = serde_json::from_value::<Seen<false>>(answer)
        && let Some((key, held)) = hold(kind, seen, &engine.stores.packer)
    {
        engine.stores.put(&key, held);
    }
}
