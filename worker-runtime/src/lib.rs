//! The `vumi` command line and worker runtime: what its commands share, and one module per command.

pub mod brokers;
pub mod commands;
pub mod error;
pub mod junit;
pub mod kept;
pub mod manifests;
pub mod moments;
pub mod output;
pub mod process;
pub mod reference;
pub mod registry;
pub mod stores;
pub mod trial;
pub mod watch;
