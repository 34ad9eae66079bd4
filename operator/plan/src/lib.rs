//! What a resource needs on a cluster, as pure functions: from a resource and what was read about its surroundings to the
//! objects that the operator applies. No I/O, no clock: the same input gives the same objects, on a cluster and in
//! `vumi render`.
//!
//! [`validate()`] says whether there is anything to build, [`build()`] makes the objects.

pub mod build;
pub mod context;
pub mod desired;
pub mod hash;
pub mod merge;
pub mod names;
pub mod settings;
pub mod validate;

pub use build::build;
pub use context::{Context, Live, Platform, SecretFacts};
pub use desired::{Child, Desired, Note};
pub use names::Names;
pub use settings::Settings;
pub use validate::{Outcome, Reason, Refusal, Validated, validate};
