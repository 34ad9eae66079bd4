//! The contract of Vumi on Kubernetes: the kinds of group `vumi.dev`, one config struct per worker type, the
//! settings that all types share, and the rules they must meet. Pure: no I/O, no async, no clocks.
//!
//! One Rust type is the parser, the CRD schema, `kubectl explain` and the reference page. `serde(flatten)` and
//! untagged enums are forbidden here, because they let mistyped keys through.

pub mod applications;
pub mod crds;
pub mod dispatchers;
pub mod docs;
pub mod explain;
mod fields;
pub mod kinds;
pub mod manifest;
pub mod names;
mod patterns;
pub mod resource;
pub mod secret_use;
pub mod shared;
pub mod status;
pub mod template;
pub mod topology;
pub mod transports;

pub use kinds::{ApplicationSpec, DispatcherSpec, MetricAggregatorSpec, Settings, TransportSpec};
pub use manifest::{Finding, Manifests, Severity, Target};
pub use resource::{Kind, Resource, Spec, WorkerConfig, WorkerType};
pub use secret_use::SecretUse;
pub use shared::{Duration, OrderingMode, SecretKeyRef, SecretValue, Size};
pub use status::{AutoscalingStatus, Condition, ConditionType, Status, Truth};
pub use topology::{Flow, Holds, Port, Topology};
