//! Transports of the chat family: each speaks to many users at once over connections that last.

#[cfg(test)]
mod conformance_test;
#[cfg(test)]
mod examples_test;
mod telnet;

use vumi_core::worker::Registration;

/// The worker types of this family.
pub const WORKERS: &[Registration] = &[Registration::of::<telnet::Def>()];
