//! The `vumi` command line and worker runtime: what its commands share, and one module per command.

pub mod brokers;
pub mod commands;
pub mod junit;
pub mod kept;
pub mod manifests;
pub mod moments;
pub mod patience;
pub mod process;
pub mod reference;
pub mod registry;
pub mod stores;
pub mod trial;
pub mod watch;

pub use vumi_cli::{error, output};
