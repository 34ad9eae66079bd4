//! The operator before a mocked and before a real API server.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod api_server;
mod applied;
mod around;
mod brokers;
mod cluster;
mod dispatched;
mod fake;
mod lease;
mod optional;
mod program;
mod proxy;
mod refused;
mod reserved;
mod rights;
mod rotated;
mod scenarios;
mod twice;
mod world;
