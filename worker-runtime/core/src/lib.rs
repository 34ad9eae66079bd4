//! The worker runtime's core: everything that workers share and none of what makes one worker special.
//!
//! Life of a message: broker → [`broker::RawDelivery`] → lane of its user → middleware → [`worker::Worker::handle`] →
//! middleware → published and confirmed → acknowledged. The engine owns every loop; a worker says what to do with one
//! message and, if it has a peer, how to listen to it.

pub mod admin;
pub mod audit;
pub mod backoff;
pub mod batch_desk;
mod beacon;
pub mod broker;
pub mod checkup;
pub mod clock;
pub mod close;
pub mod codes;
pub mod conformance;
pub mod engine;
pub mod erase;
pub mod error;
mod folder;
pub mod heartbeat;
pub mod holding;
pub mod inject;
pub mod journal_desk;
pub mod logging;
pub mod message;
pub mod middleware;
pub mod numbers;
pub mod operate;
pub mod outcome;
pub mod outside;
pub mod parking;
pub mod reasons;
pub mod resend;
pub mod schedule;
pub mod secrets;
mod speech;
pub mod state;
pub mod status;
pub mod supervisor;
pub mod tap;
pub mod telemetry;
mod verdict;
pub mod why;
pub mod withdraw;
pub mod worker;
