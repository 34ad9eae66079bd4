//! From a validated resource to its objects: one file per kind of object.

mod access;
mod custom;
mod manifest;
mod monitoring;
mod pods;
mod service;
mod workload;

pub use pods::STOP_BESIDE_DRAIN;

use crate::context::{Context, Live};
use crate::desired::{Child, Desired, Note};
use crate::hash::hash;
use crate::names::{Names, TEMPLATE_HASH};
use crate::settings::Settings;
use crate::validate::Validated;
use serde_json::{Value, json};
use vumi_api::applications::Custom;
use vumi_api::{Resource, WorkerConfig};

/// What the files of this module share about one resource.
struct Cx<'a> {
    resource: &'a Resource,
    names: Names,
    context: &'a Context,
    settings: &'a Settings,
}

impl Cx<'_> {
    /// The program in a container of its own, if it is one.
    fn custom(&self) -> Option<&Custom> {
        Custom::pick(self.resource)
    }

    /// The ports on which the worker listens, each with a name.
    fn ports(&self) -> Vec<(String, u16)> {
        if let Some(custom) = self.custom() {
            let ports = custom.ports.iter().flatten();
            return ports.map(|port| (port.name.clone(), port.port)).collect();
        }
        let ports = self.resource.topology().listens;
        let http = self.resource.transport().is_some_and(|t| t.http.is_some());
        let name = if http { "http" } else { "tcp" };
        let single = ports.len() == 1;
        let named = |(_, port): &(String, u16)| match single {
            true => (name.to_owned(), *port),
            false => (format!("{name}-{port}"), *port),
        };
        ports.iter().map(named).collect()
    }
}

/// The objects of one resource. Pure: the same input gives the same objects.
pub fn build(validated: &Validated, context: &Context, settings: &Settings) -> Desired {
    let resource = validated.resource();
    let cx = Cx {
        resource,
        names: Names::new(resource, &context.namespace, context.uid.as_deref()),
        context,
        settings,
    };
    let mut notes: Vec<Note> = Vec::new();
    let (file, view) = manifest::document(&cx);
    let view_hash = hash(&view);
    let mut children = vec![
        access::service_account(&cx),
        Child::of(&manifest::config_map(&cx, file, &view, &view_hash)),
    ];
    let service = service::service(&cx);
    let address = service.as_ref().map(|_| service::address(&cx));
    children.extend(service.iter().map(Child::of));
    children.extend(access::network_policy(&cx).iter().map(Child::of));
    children.push(Child::of(&access::disruption_budget(&cx)));
    let input_hash = hash(&json!({
        "view": [resource.key(), resource.runtime_view().spec.to_json()],
        "deployment": pods::inputs(resource),
        "secrets": custom::secret_revisions(&cx),
    }));
    let workload = workload::workload(&cx, &view_hash, &input_hash);
    children.push(workload.child);
    let (exposed, note) = service::exposed(&cx);
    children.extend(exposed);
    notes.extend(note);
    let (monitor, note) = monitoring::pod_monitor(&cx);
    children.extend(monitor);
    notes.extend(note);
    Desired {
        children,
        input_hash,
        update_available: workload.update_available,
        image: workload.image,
        address,
        url: service::url(&cx),
        notes,
    }
}

/// The pod template of a workload as it is built anew, if it is the same one. A template that is kept is read from what runs: it has
/// defaults of the server in it, which are nobody's, and what others may have done to it. None while an update waits: nobody can say
/// what that template was made of.
pub fn own_template(
    validated: &Validated,
    context: &Context,
    settings: &Settings,
    workload: &Child,
) -> Option<Value> {
    // Nothing that runs is kept, but for what is known by its annotations alone.
    let live = context.live.as_ref().map(|live| Live {
        restarted: live.restarted.clone(),
        template: json!({"metadata": live.template["metadata"]}),
        ..Live::default()
    });
    let context = Context {
        live,
        ..context.clone()
    };
    let desired = build(validated, &context, settings);
    let hash = |child: &Child| child.object["metadata"]["annotations"][TEMPLATE_HASH].clone();
    let fresh = desired
        .workload()
        .filter(|fresh| hash(fresh) == hash(workload))?;
    Some(fresh.object["spec"]["template"].clone())
}
