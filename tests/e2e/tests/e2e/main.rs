//! On a whole cluster: see `tests/e2e/README.md`.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod cluster;
mod definitions;
mod operator;
mod operator_autoscaling;
mod operator_custom;
mod operator_ends;
mod operator_faults;
mod operator_plugin;
mod operator_secrets;
mod operator_state;
mod operator_upgrade;
mod worker;
