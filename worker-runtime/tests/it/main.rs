//! End-to-end tests of the `vumi` binary: real processes, real sockets, real brokers.

#![allow(clippy::unwrap_used)]

mod examples;
mod harness;
mod loss;
mod replicas;
