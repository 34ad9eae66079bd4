//! The operator: makes pods of Vumi's resources and keeps them as they should be. What is wanted is computed by `vumi_plan`,
//! without I/O; here is what reads, applies, prunes and tells.

pub mod admin;
pub mod arguments;
pub mod bounded;
pub mod brokers;
pub mod bucket;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod dereference;
pub mod engine;
pub mod gate;
pub mod health;
pub mod metrics;
pub mod run;
pub mod secrets;
