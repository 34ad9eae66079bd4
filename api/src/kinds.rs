//! The four kinds. Each spec is a typed union (exactly one worker type, its name is the key) with the shared settings
//! beside it.

use crate::applications::{
    Calculator, Custom, Echo, Hangman, HttpRelay, MemoBot, Reverse, RockPaperScissors, StaticReply,
    TicTacToe, WordCount,
};
use crate::dispatchers::{RoutingTable, Simple};
use crate::resource::{Kind, Resource, Spec, WorkerConfig, WorkerType};
use crate::shared::shapes::HoldLimit;
use crate::shared::{
    Autoscaling, BrokerRef, Classes, ConnectorName, Dedupe, Deployment, Duration, HttpClient,
    HttpListener, MiddlewareItem, NetworkPolicySettings, OnUnknown, Ordering, Overrides, RateLimit,
    ReadinessSettings, ResourceSettings, Retention, Retry, ServiceSettings, StateRef, StateVolume,
    UpdatePolicy,
};
use crate::transports::{DevNull, GenericHttp, HttpApi, HttpRpc, Mediafone, Telnet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares one kind: its spec struct (worker types first, then the settings that stand beside them) and the table of
/// its worker types, from which the exactly-one rule, validation, topology and the reference pages are made. The module
/// of a type is `<folder>/<field>.rs`; the `//!` lines of that file are the head of its reference page.
macro_rules! kind {
    (
        $(#[$meta:meta])*
        $spec:ident, kind $kind:ident in $folder:literal, types $table:ident {
            $( $(#[$type_meta:meta])* $field:ident : $type:path = $key:literal, )*
        }
        settings {
            $( $(#[$setting_meta:meta])* $setting:ident : $setting_type:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $spec {
            $(
                $(#[$type_meta])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
            $(
                $(#[$setting_meta])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $setting: Option<$setting_type>,
            )*
        }

        #[doc = concat!("Worker types of kind ", stringify!($kind), ", in the order of the schema.")]
        pub static $table: &[WorkerType] = &[$(
            WorkerType {
                kind: Kind::$kind,
                key: $key,
                ordering: <$type as WorkerConfig>::ORDERING,
                attempts: <$type as WorkerConfig>::ATTEMPTS,
                needs: <$type as WorkerConfig>::NEEDS,
                honours: <$type as WorkerConfig>::HONOURS,
                state: <$type as WorkerConfig>::STATE,
                container: <$type as WorkerConfig>::CONTAINER,
                state_of: |resource| <$type>::pick(resource).map(WorkerConfig::state),
                source: include_str!(concat!($folder, "/", stringify!($field), ".rs")),
                topology: |resource| <$type>::pick(resource).map(|c| c.topology(resource)),
                validate: |resource| {
                    <$type>::pick(resource).map(|c| c.validate(resource)).unwrap_or_default()
                },
            },
        )*];

        impl $spec {
            /// Keys of the worker types that are set: exactly one in a valid spec.
            #[allow(unused_mut)] // a kind may have no worker type yet
            pub fn types_set(&self) -> Vec<&'static str> {
                let mut set = Vec::new();
                $( if self.$field.is_some() { set.push($key); } )*
                set
            }
        }
    };
}

/// [`kind!`] for kinds whose workers run: the settings that all of these share stand after those of its own.
macro_rules! worker_kind {
    (
        $(#[$meta:meta])*
        $spec:ident, kind $kind:ident in $folder:literal, types $table:ident { $($types:tt)* }
        settings { $($own:tt)* }
    ) => {
        kind! {
            $(#[$meta])*
            $spec, kind $kind in $folder, types $table { $($types)* }
            settings {
                $($own)*
                /// What is kept in order. The default depends on the worker type.
                ordering: Ordering,
                /// The broker. Default: the Secret `vumi-broker`; with `vumi run`, the broker inside the process.
                broker: BrokerRef,
                /// Where the worker keeps what must outlive a message. Default: the Secret `vumi-redis` where there is
                /// one; with `vumi run`, the store of the process.
                state: StateRef,
                /// Whether a state store is good enough whose contents may be lost in a crash. Default `false`.
                allow_volatile_state: bool,
                /// How long things are kept.
                retention: Retention,
                /// How temporary errors are retried.
                retry: Retry,
                /// How long one message may be held in its lane before it is given up or set aside. Default `30s`.
                #[schemars(with = "Option<HoldLimit>")]
                hold_limit: Duration,
                /// Messages waiting in a target queue above which no new work is taken. Default `10000`.
                #[schemars(range(min = 1, max = 10000000))]
                backlog_limit: u32,
                /// Run around every message, in order. Default: none.
                #[schemars(length(max = 32))]
                middleware: Vec<MiddlewareItem>,
                /// How many pods, on a cluster. With `ordering.partitions`, those above that number stand by. Default `1`.
                #[schemars(range(min = 0, max = 1000))]
                replicas: u16,
                /// How the operator decides how many pods there are, on a cluster. Default: `replicas` says it.
                autoscaling: Autoscaling,
                /// Whether there are no pods for now, on a cluster. Messages wait. Default `false`.
                suspend: bool,
                /// When the pods take a new version of the runtime that the operator brings. Default `OnChange`.
                update_policy: UpdatePolicy,
                /// What else it takes to be `Ready`, on a cluster.
                readiness: ReadinessSettings,
                /// What each pod asks for and may use at most, on a cluster.
                resources: ResourceSettings,
                /// Who may reach the pods and whom they may reach, on a cluster. Default: no policy.
                network_policy: NetworkPolicySettings,
                /// Changes of the pod template, on a cluster.
                overrides: Overrides,
            }
        }

        impl $spec {
            fn settings(&self) -> Settings {
                Settings {
                    ordering: self.ordering.clone(),
                    broker: self.broker.clone(),
                    state: self.state.clone(),
                    allow_volatile_state: self.allow_volatile_state.unwrap_or_default(),
                    retention: self.retention.clone().unwrap_or_default(),
                    retry: self.retry.clone(),
                    hold_limit: self.hold_limit,
                    backlog_limit: self.backlog_limit,
                    middleware: self.middleware.clone().unwrap_or_default(),
                }
            }

            fn deployment(&self) -> Deployment {
                Deployment {
                    replicas: self.replicas,
                    autoscaling: self.autoscaling.clone(),
                    suspend: self.suspend.unwrap_or_default(),
                    update_policy: self.update_policy.unwrap_or_default(),
                    require_link: self
                        .readiness
                        .and_then(|readiness| readiness.require_link)
                        .unwrap_or_default(),
                    service: None,
                    resources: self.resources.clone(),
                    network_policy: self.network_policy.clone(),
                    overrides: self.overrides.clone(),
                }
            }

            /// Leaves what the worker itself reads (K9).
            fn clear_deployment(&mut self) {
                self.replicas = None;
                self.autoscaling = None;
                self.suspend = None;
                self.update_policy = None;
                self.readiness = None;
                self.resources = None;
                self.network_policy = None;
                self.overrides = None;
                if let Some(broker) = self.broker.as_mut() {
                    broker.management = None;
                }
                if let Some(volume) = self.state.as_mut().and_then(|state| state.volume.as_mut()) {
                    *volume = StateVolume::default();
                }
            }
        }
    };
}

worker_kind! {
    /// A worker that speaks to a mobile network, a chat network or an HTTP client.
    TransportSpec, kind Transport in "transports", types TRANSPORT_TYPES {
        /// A line-based TCP server: each connection is one user's session.
        telnet: Telnet = "telnet",
        /// Messages in by HTTP; the reply, if expected, is the response body.
        http_api: HttpApi = "httpApi",
        /// Holds each request until the application replies; parameters have names of your own.
        http_rpc: HttpRpc = "httpRpc",
        /// A provider that speaks HTTP, described in the manifest.
        generic_http: GenericHttp = "genericHttp",
        /// SMS by Mediafone in Cameroon.
        mediafone: Mediafone = "mediafone",
        /// A simulated network: acks, receipts and replies without a provider.
        dev_null: DevNull = "devNull",
        /// A program of your own in a container; on a cluster only.
        custom: crate::transports::Custom = "custom",
    }
    settings {
        /// Name of its queues: `<transportName>.inbound`, `.outbound`, `.event`. Default `metadata.name`.
        #[schemars(with = "Option<ConnectorName>")]
        transport_name: String,
        /// Where the worker serves HTTP; for types that listen for requests.
        http: HttpListener,
        /// How the worker calls its provider; for types that do.
        client: HttpClient,
        /// What is done with a message of which nobody knows whether it was sent. The default depends on the worker
        /// type: `wait` where receipts come, else `fail`.
        on_unknown: OnUnknown,
        /// How fast messages are sent. Default: as fast as the peer takes them.
        rate_limit: RateLimit,
        /// Classes of outbound messages: queues of their own, served by weight, and in turn over batches and tenants.
        /// Default: none; all messages are in one queue, in the order in which they came.
        classes: Classes,
        /// How deliveries that the provider repeats are recognised; for types whose provider gives an id.
        dedupe: Dedupe,
        /// Whether messages that will not be delivered are also published to `<transportName>.failures`, for a Vumi
        /// failure worker, which only stores them. With `retry.external` it has the later attempts made too. Default `false`.
        legacy_failures: bool,
        /// How callers reach a worker that listens, on a cluster.
        service: ServiceSettings,
    }
}

worker_kind! {
    /// A worker that holds the conversation.
    ApplicationSpec, kind Application in "applications", types APPLICATION_TYPES {
        /// Answers every message with its own content.
        echo: Echo = "echo",
        /// Answers every message with one text and ends the session.
        static_reply: StaticReply = "staticReply",
        /// Answers every message with its own text, turned round.
        reverse: Reverse = "reverse",
        /// Answers every message with the number of its words and characters.
        word_count: WordCount = "wordCount",
        /// A menu that adds, subtracts or multiplies two whole numbers.
        calculator: Calculator = "calculator",
        /// The game of hangman.
        hangman: Hangman = "hangman",
        /// Rock, paper, scissors for two users.
        rock_paper_scissors: RockPaperScissors = "rockPaperScissors",
        /// Tic-tac-toe for two users.
        tic_tac_toe: TicTacToe = "ticTacToe",
        /// A bot that keeps memos for people in a chat channel.
        memo_bot: MemoBot = "memoBot",
        /// Relays messages and events by HTTP; the answer may be the reply.
        http_relay: HttpRelay = "httpRelay",
        /// A program of your own in a container; on a cluster only.
        custom: Custom = "custom",
    }
    settings {
        /// How the worker calls its endpoint; for types that do.
        client: HttpClient,
        /// Name of the connector it serves: a transport's, or one that a dispatcher exposes. Required.
        #[schemars(with = "Option<ConnectorName>")]
        transport_name: String,
        /// How callers reach a worker that listens, on a cluster.
        service: ServiceSettings,
    }
}

worker_kind! {
    /// A worker that routes between transports and applications.
    DispatcherSpec, kind Dispatcher in "dispatchers", types DISPATCHER_TYPES {
        /// Fixed routes by transport name.
        simple: Simple = "simple",
        /// Routes by connector and endpoint.
        routing_table: RoutingTable = "routingTable",
    }
    settings {
    }
}

kind! {
    /// A pool of metric workers. Reserved: no worker of this version runs one, so that the API server and `vumi lint` refuse it. Its fields come with the worker.
    MetricAggregatorSpec, kind MetricAggregator in "metrics", types METRIC_AGGREGATOR_TYPES {
    }
    settings {
    }
}

impl Resource {
    /// The spec of a `Transport`.
    pub fn transport(&self) -> Option<&TransportSpec> {
        match &self.spec {
            Spec::Transport(spec) => Some(spec),
            _ => None,
        }
    }

    /// The spec of an `Application`.
    pub fn application(&self) -> Option<&ApplicationSpec> {
        match &self.spec {
            Spec::Application(spec) => Some(spec),
            _ => None,
        }
    }

    /// The spec of a `Dispatcher`.
    pub fn dispatcher(&self) -> Option<&DispatcherSpec> {
        match &self.spec {
            Spec::Dispatcher(spec) => Some(spec),
            _ => None,
        }
    }

    /// The connector name of a transport or application; `metadata.name` where none is written.
    pub fn transport_name(&self) -> &str {
        match &self.spec {
            Spec::Transport(spec) => spec.transport_name.as_deref(),
            Spec::Application(spec) => spec.transport_name.as_deref(),
            Spec::Dispatcher(_) | Spec::MetricAggregator(_) => None,
        }
        .unwrap_or(&self.name)
    }
}

impl Resource {
    /// The settings about its pods.
    pub fn deployment(&self) -> Deployment {
        match &self.spec {
            Spec::Transport(spec) => Deployment {
                service: spec.service.clone(),
                ..spec.deployment()
            },
            Spec::Application(spec) => Deployment {
                service: spec.service.clone(),
                ..spec.deployment()
            },
            Spec::Dispatcher(spec) => spec.deployment(),
            Spec::MetricAggregator(_) => Deployment::default(),
        }
    }

    /// The RuntimeView: the resource as the worker reads it, without settings about its pods. What is equal here is the same
    /// worker (K9).
    pub fn runtime_view(&self) -> Resource {
        let mut view = self.clone();
        match &mut view.spec {
            Spec::Transport(spec) => {
                spec.service = None;
                spec.clear_deployment();
            }
            Spec::Application(spec) => {
                spec.service = None;
                spec.clear_deployment();
            }
            Spec::Dispatcher(spec) => spec.clear_deployment(),
            Spec::MetricAggregator(_) => {}
        }
        view
    }
}

/// The settings that every running worker shares, whatever its kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What is kept in order, when written.
    pub ordering: Option<Ordering>,
    /// The broker, when written.
    pub broker: Option<BrokerRef>,
    /// The state store, when written.
    pub state: Option<StateRef>,
    /// Whether a store is good enough whose contents may be lost in a crash.
    pub allow_volatile_state: bool,
    /// How long things are kept.
    pub retention: Retention,
    /// Retries, when written.
    pub retry: Option<Retry>,
    /// Hold limit, when written.
    pub hold_limit: Option<Duration>,
    /// Backlog limit, when written.
    pub backlog_limit: Option<u32>,
    /// Middleware in list order.
    pub middleware: Vec<MiddlewareItem>,
}

impl Resource {
    /// The settings that every running worker shares.
    pub fn settings(&self) -> Settings {
        match &self.spec {
            Spec::Transport(spec) => spec.settings(),
            Spec::Application(spec) => spec.settings(),
            Spec::Dispatcher(spec) => spec.settings(),
            Spec::MetricAggregator(_) => Settings::default(),
        }
    }
}
