//! A worker as read from a manifest: kind, name and spec, and the trait that ties a config struct to its key in the
//! union.

use crate::kinds::{
    APPLICATION_TYPES, ApplicationSpec, DISPATCHER_TYPES, DispatcherSpec, METRIC_AGGREGATOR_TYPES,
    MetricAggregatorSpec, TRANSPORT_TYPES, TransportSpec,
};
use crate::manifest::times;
use crate::shared::{
    Class, Classes, OnUnknown, OrderingMode, StateNeed, deployment, middleware, state,
};
use crate::topology::{Flow, Topology};
use crate::transports::GenericHttp;
use serde::{Deserialize, Serialize};

/// The four kinds of group `vumi.dev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Speaks to a mobile network, a chat network or an HTTP client.
    Transport,
    /// Holds the conversation.
    Application,
    /// Routes between transports and applications.
    Dispatcher,
    /// A pool of metric workers.
    MetricAggregator,
}

impl Kind {
    /// All kinds, in the order in which they are listed to users.
    pub const ALL: [Kind; 4] = [
        Kind::Transport,
        Kind::Application,
        Kind::Dispatcher,
        Kind::MetricAggregator,
    ];

    /// The name as written in a manifest's `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Transport => "Transport",
            Kind::Application => "Application",
            Kind::Dispatcher => "Dispatcher",
            Kind::MetricAggregator => "MetricAggregator",
        }
    }

    /// The plural in lower case, as in URLs and `kubectl get`.
    pub fn plural(self) -> String {
        format!("{}s", self.as_str().to_lowercase())
    }

    /// The worker types of this kind, in the order of the schema.
    pub fn worker_types(self) -> &'static [WorkerType] {
        match self {
            Kind::Transport => TRANSPORT_TYPES,
            Kind::Application => APPLICATION_TYPES,
            Kind::Dispatcher => DISPATCHER_TYPES,
            Kind::MetricAggregator => METRIC_AGGREGATOR_TYPES,
        }
    }
}

/// One worker type, as the kinds' tables list it.
#[derive(Clone, Copy, Debug)]
pub struct WorkerType {
    /// Kind whose union holds it.
    pub kind: Kind,
    /// Key in the union.
    pub key: &'static str,
    /// Ordering when the manifest does not say.
    pub ordering: OrderingMode,
    /// Attempts of a message when the manifest does not say.
    pub attempts: u32,
    /// Shared settings that only types which name them have, and these must have.
    pub needs: &'static [&'static str],
    /// Shared settings that only types which name them may have.
    pub honours: &'static [&'static str],
    /// How much it needs a state store, whatever its settings.
    pub state: StateNeed,
    /// Whether it runs in a container of its own: a program of somebody else, which this runtime cannot start.
    pub container: bool,
    /// How much a resource needs a state store, if it is of this type.
    pub state_of: fn(&Resource) -> Option<StateNeed>,
    /// Source of its config module, whose `//!` lines head the reference page.
    pub source: &'static str,
    /// Topology of a resource, if it is of this type.
    pub topology: fn(&Resource) -> Option<Topology>,
    /// Findings of the type's own validation, as `(path below spec, sentence)`.
    pub validate: fn(&Resource) -> Vec<(String, String)>,
}

impl WorkerType {
    /// Every worker type of every kind.
    pub fn all() -> impl Iterator<Item = &'static WorkerType> {
        Kind::ALL.into_iter().flat_map(|kind| kind.worker_types())
    }

    /// The worker type with this key; of one that several kinds have, that of the first.
    pub fn find(key: &str) -> Option<&'static WorkerType> {
        Self::all().find(|worker| worker.key == key)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The spec of a resource of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// Spec of a `Transport`.
    Transport(Box<TransportSpec>),
    /// Spec of an `Application`.
    Application(Box<ApplicationSpec>),
    /// Spec of a `Dispatcher`.
    Dispatcher(Box<DispatcherSpec>),
    /// Spec of a `MetricAggregator`.
    MetricAggregator(Box<MetricAggregatorSpec>),
}

impl Spec {
    /// The spec of a kind, as it stands in a manifest.
    ///
    /// # Errors
    /// A field is not known, or its value is of another type.
    pub fn from_json(kind: Kind, spec: serde_json::Value) -> Result<Self, serde_json::Error> {
        use serde_json::from_value;
        Ok(match kind {
            Kind::Transport => Spec::Transport(from_value(spec)?),
            Kind::Application => Spec::Application(from_value(spec)?),
            Kind::Dispatcher => Spec::Dispatcher(from_value(spec)?),
            Kind::MetricAggregator => Spec::MetricAggregator(from_value(spec)?),
        })
    }

    /// As it stands in a manifest: what was written, nothing else.
    pub fn to_json(&self) -> serde_json::Value {
        let written = match self {
            Spec::Transport(spec) => serde_json::to_value(spec),
            Spec::Application(spec) => serde_json::to_value(spec),
            Spec::Dispatcher(spec) => serde_json::to_value(spec),
            Spec::MetricAggregator(spec) => serde_json::to_value(spec),
        };
        written.unwrap_or_default()
    }
}

/// One worker as read from a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// `metadata.name`: at most 40 characters, no dots.
    pub name: String,
    /// `metadata.namespace`, when written.
    pub namespace: Option<String>,
    /// The spec, typed.
    pub spec: Spec,
}

impl Resource {
    /// The kind of this resource.
    pub fn kind(&self) -> Kind {
        match self.spec {
            Spec::Transport(_) => Kind::Transport,
            Spec::Application(_) => Kind::Application,
            Spec::Dispatcher(_) => Kind::Dispatcher,
            Spec::MetricAggregator(_) => Kind::MetricAggregator,
        }
    }

    /// The worker type that is set; the first one if an invalid spec sets several.
    pub fn worker_type(&self) -> Option<&'static WorkerType> {
        let set = match &self.spec {
            Spec::Transport(spec) => spec.types_set(),
            Spec::Application(spec) => spec.types_set(),
            Spec::Dispatcher(spec) => spec.types_set(),
            Spec::MetricAggregator(spec) => spec.types_set(),
        };
        let key = set.first()?;
        let mut types = self.kind().worker_types().iter();
        types.find(|worker| worker.key == *key)
    }

    /// Whether it is a program in a container of its own, which only a cluster runs.
    pub fn in_container(&self) -> bool {
        self.worker_type().is_some_and(|worker| worker.container)
    }

    /// Queues and addresses of this worker; empty if no worker type is set.
    pub fn topology(&self) -> Topology {
        self.worker_type()
            .and_then(|worker| (worker.topology)(self))
            .unwrap_or_default()
    }

    /// The ordering that applies: as written, else the worker type's own.
    pub fn ordering_mode(&self) -> OrderingMode {
        let own = || {
            self.worker_type()
                .map_or(OrderingMode::None, |w| w.ordering)
        };
        self.settings().ordering.map_or_else(own, |o| o.mode)
    }

    /// Attempts of a message in all: as written, else the worker type's own.
    pub fn attempts(&self) -> u32 {
        let written = self.settings().retry.and_then(|retry| retry.max_attempts);
        let own = || self.worker_type().map_or(10, |worker| worker.attempts);
        written.unwrap_or_else(own)
    }

    /// How much this worker needs a state store, and which field of `spec` says so: its type's own need, or that of a
    /// setting which means nothing without one.
    pub fn state_need(&self) -> (StateNeed, &'static str) {
        let own = self.worker_type().and_then(|w| (w.state_of)(self));
        let own = own.unwrap_or(StateNeed::None);
        if own != StateNeed::None {
            return (own, self.worker_type().map_or("", |w| w.key));
        }
        match self.transport() {
            Some(t) if t.dedupe.is_some() => (StateNeed::Shared, "dedupe"),
            Some(t)
                if t.dev_null
                    .as_ref()
                    .is_some_and(|n| n.receipt_after.is_some()) =>
            {
                (StateNeed::Shared, "devNull.receiptAfter")
            }
            Some(t) if t.on_unknown.as_ref().is_some_and(OnUnknown::waits) => {
                (StateNeed::Shared, "onUnknown")
            }
            // What two processes have tried is known from its row alone: else a message that comes again is given away twice.
            _ if self.settings().retry.is_some_and(|r| r.is_external()) => {
                (StateNeed::Shared, "retry.external")
            }
            _ if self
                .settings()
                .middleware
                .iter()
                .any(|item| item.session_length.is_some()) =>
            {
                (StateNeed::Shared, "middleware.sessionLength")
            }
            _ => (StateNeed::None, ""),
        }
    }

    /// Which field of `spec` names the id by which a request that comes again is recognised, where there is a state store to
    /// remember it; none where requests have no ids.
    pub fn request_ids(&self) -> Option<&'static str> {
        let transport = self.transport()?;
        let api = transport.http_api.as_ref();
        let rpc = transport.http_rpc.as_ref();
        let described = transport.generic_http.as_ref();
        if api.is_some_and(|api| api.id_field.is_some()) {
            return Some("httpApi.idField");
        }
        if rpc.is_some_and(|rpc| rpc.id_field.is_some()) {
            return Some("httpRpc.idField");
        }
        let has_ids = described.is_some_and(GenericHttp::has_ids);
        has_ids.then_some("genericHttp.requests")
    }

    /// Into how many partitions each consumed queue is divided by user; none where one replica consumes it.
    pub fn partitions(&self) -> Option<u16> {
        let ordering = self.settings().ordering?;
        ordering
            .partitions
            .filter(|_| ordering.mode == OrderingMode::PerUser)
    }

    /// How outbound messages are divided into classes; none where they are not.
    pub fn classes(&self) -> Option<&Classes> {
        self.transport()?.classes.as_ref()
    }

    /// The queues into which a consumed queue of this worker is divided, without its name: `bulk`, `p3`, `bulk.p3`. Empty
    /// where it is not divided.
    pub fn division(&self, flow: Flow) -> Vec<String> {
        let users: Vec<String> = (0..self.partitions().unwrap_or(0))
            .map(|k| format!("p{k}"))
            .collect();
        if flow != Flow::Outbound || self.classes().is_none() {
            return users;
        }
        let classes = Class::ALL.map(Class::as_str);
        if users.is_empty() {
            return classes.map(str::to_owned).into();
        }
        let of_class = |class| users.iter().map(move |part| format!("{class}.{part}"));
        classes.into_iter().flat_map(of_class).collect()
    }

    /// What the schema cannot say about the spec, as `(path below spec, sentence)` pairs. Pure; an empty list means
    /// valid, and then every builder takes it.
    pub fn validate(&self) -> Vec<(String, String)> {
        let own = self.worker_type().map(|worker| (worker.validate)(self));
        let mut findings = own.unwrap_or_default();
        let settings = self.settings();
        findings.extend(middleware::validate(&settings.middleware));
        findings.extend(times::validate(&settings));
        findings.extend(state::validate(
            &settings.retention,
            settings.retry.as_ref(),
        ));
        findings.extend(deployment::validate(self));
        findings
    }

    /// Kind and name as users write them: `transport/smpp-za`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.kind().as_str().to_lowercase(), self.name)
    }
}

/// What a worker type's config struct must say about itself. Implemented beside the struct; the union macros of the
/// kinds tie it to its key.
pub trait WorkerConfig: Sized {
    /// Kind whose union holds this type.
    const KIND: Kind;
    /// Key in the union, camelCase: the name of the worker type.
    const TYPE: &'static str;
    /// Ordering when the manifest does not say (R2).
    const ORDERING: OrderingMode;
    /// Attempts of a message in all, when the manifest does not say.
    const ATTEMPTS: u32 = 10;
    /// Shared settings that this type needs and that types which do not name them must not have, such as `http`.
    const NEEDS: &'static [&'static str] = &[];
    /// Shared settings that this type may have and that types which do not name them must not have, such as `dedupe`.
    const HONOURS: &'static [&'static str] = &[];
    /// How much it needs a state store, whatever its settings (K1).
    const STATE: StateNeed = StateNeed::None;

    /// Whether it runs in a container of its own (K22).
    const CONTAINER: bool = false;

    /// The config inside a resource, if the resource is of this type.
    fn pick(resource: &Resource) -> Option<&Self>;

    /// How much it needs a state store with these settings.
    fn state(&self) -> StateNeed {
        Self::STATE
    }

    /// Queues consumed and published and addresses listened on, as a pure function of the manifest.
    fn topology(&self, resource: &Resource) -> Topology;

    /// What the schema cannot say, as `(path below spec, sentence)` pairs. Pure; an empty list means valid.
    fn validate(&self, resource: &Resource) -> Vec<(String, String)>;
}
