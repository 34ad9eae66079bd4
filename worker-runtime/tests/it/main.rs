//! End-to-end tests of the `vumi` binary: real processes, real sockets, real brokers.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod batches;
mod clock;
mod cluster;
mod conformance;
mod examples;
mod failure_worker;
mod foreign;
mod games;
mod harness;
mod kept;
mod loss;
mod memory;
mod outages;
mod poison;
mod privacy;
mod process;
mod python_client;
mod rebalance;
mod relay;
mod relay_answers;
mod reload;
mod replicas;
mod sending;
mod tools;
mod tutorial;
