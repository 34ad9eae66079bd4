//! Transports that speak HTTP, each a declaration on one request/reply engine.

#[cfg(test)]
mod conformance_test;
mod desk;
mod engine;
#[cfg(test)]
mod examples_test;
mod http_api;
mod peer;
mod pending;
#[cfg(test)]
mod tests;

use vumi_core::worker::Registration;

/// The worker types of this family.
pub const WORKERS: &[Registration] = &[Registration::of::<http_api::Def>()];
