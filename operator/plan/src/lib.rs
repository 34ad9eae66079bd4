//! What a resource needs on a cluster, as pure functions: from a resource and what was read about its surroundings to the
//! objects that the operator applies. No I/O, no clock: the same input gives the same objects, on a cluster and in
//! `vumi render`.
//!
//! [`validate()`] says whether there is anything to build, [`build()`] makes the objects. [`clashes()`] says who may read a queue
//! that several want, [`Scaler`] how many pods there are to be, [`status()`] what to tell of a resource.

pub mod build;
pub mod clashes;
pub mod context;
pub mod desired;
pub mod found;
pub mod hash;
pub mod kept;
pub mod kinds;
pub mod merge;
pub mod names;
pub mod observed;
pub mod reasons;
pub mod scaling;
pub mod secret;
pub mod settings;
pub mod status;
pub mod validate;

pub use build::{build, own_template};
pub use clashes::{BrokerIdentity, Claim, Clash, clashes, consumed};
pub use context::{Context, Live, Platform, SecretFacts};
pub use desired::{Child, Desired, Note};
pub use found::Found;
pub use kinds::{CHILDREN, ChildKind};
pub use names::Names;
pub use observed::{
    Broker, Identity, Level, Pod, Problem, Queue, Report, Sight, TEMPLATE_LABELS, Unread, Workload,
};
pub use reasons::Reason;
pub use scaling::{Decision, Demand, Scaler};
pub use settings::Settings;
pub use status::{Edge, Memory, Observed, Outlook, edges, status};
pub use validate::{Outcome, Refusal, Validated, validate};
