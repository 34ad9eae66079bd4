//! One suite over the registration table: every worker type, with a simulated peer, on every broker. Those of its cases
//! that can be judged from the queues are also demanded of workers of others ([`outside`]).

#[cfg(any(test, feature = "conformance"))]
mod cases;
#[cfg(any(test, feature = "conformance"))]
pub(crate) mod delegate;
#[cfg(any(test, feature = "conformance"))]
pub mod examples;
#[cfg(any(test, feature = "conformance"))]
pub(crate) mod failing_store;
#[cfg(any(test, feature = "conformance"))]
mod far_end;
#[cfg(any(test, feature = "conformance"))]
pub(crate) mod faults;
#[cfg(any(test, feature = "conformance"))]
mod fixture;
#[cfg(any(test, feature = "conformance"))]
mod frozen;
#[cfg(any(test, feature = "conformance"))]
mod inside;
#[cfg(any(test, feature = "conformance"))]
mod line;
#[cfg(any(test, feature = "conformance"))]
pub mod oracle;
#[cfg(any(test, feature = "conformance"))]
pub mod outside;
#[cfg(any(test, feature = "conformance"))]
mod provider;
#[cfg(any(test, feature = "conformance"))]
mod rig;
#[cfg(any(test, feature = "conformance"))]
mod saboteur;
#[cfg(test)]
pub(crate) mod simulated_time;
#[cfg(any(test, feature = "conformance"))]
pub mod stand_in;
#[cfg(test)]
pub(crate) mod store_faults;
#[cfg(any(test, feature = "conformance"))]
mod suite;
#[cfg(test)]
mod suite_test;
#[cfg(any(test, feature = "conformance"))]
mod told;
#[cfg(any(test, feature = "conformance"))]
mod waivers;

#[cfg(any(test, feature = "conformance"))]
pub use suite::{BrokerSource, Embedded, check, check_on};

use async_trait::async_trait;

/// What a worker type brings to the suite.
pub struct Fixture {
    /// A manifest (YAML) that runs as it is; `{port}` is replaced by a free port, and `{provider}` by that of a provider that
    /// takes every HTTP request with 200 and `OK`. Several documents are allowed, the
    /// first is the worker under test.
    pub manifest: &'static str,
    /// Makes the simulated peer for a worker listening on (or calling) `port`. `None` for workers whose only peers are
    /// queues: applications and dispatchers.
    pub peer: Option<fn(port: u16) -> Box<dyn Peer>>,
}

/// The far end of a transport, driven by the suite.
#[async_trait]
pub trait Peer: Send {
    /// Sends `text` as user `user`, and returns once the peer got its OK (the protocol's own answer that it was taken
    /// over; for protocols without one, the bytes were written).
    async fn send(&mut self, user: usize, text: &str) -> Result<(), String>;
    /// The next thing that user `user` receives; an error after `within`.
    async fn receive(&mut self, user: usize, within: std::time::Duration)
    -> Result<String, String>;
    /// Sends bytes that are not the protocol.
    async fn garbage(&mut self) -> Result<(), String>;
}
