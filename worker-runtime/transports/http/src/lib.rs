//! Transports that speak HTTP, each a declaration on one request/reply engine.

#[cfg(test)]
mod cases;
#[cfg(test)]
mod conformance_test;
mod described;
mod engine;
#[cfg(test)]
mod examples_test;
mod findings;
mod front;
mod generic_http;
mod http_api;
mod http_rpc;
mod mediafone;
mod peer;
mod pending;
mod repeated;
#[cfg(test)]
mod tests;

use vumi_core::worker::Registration;

/// The worker types of this family.
pub const WORKERS: &[Registration] = &[
    Registration::of::<http_api::Def>(),
    Registration::of::<http_rpc::Def>(),
    Registration::of::<generic_http::Def>(),
    Registration::of::<mediafone::Def>(),
];
