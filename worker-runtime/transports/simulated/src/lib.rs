//! Transports that simulate a network: for trying out campaigns, for load and for faults, without a provider.

#[cfg(test)]
mod conformance_test;
mod dev_null;
#[cfg(test)]
mod examples_test;
mod receipts;

use vumi_core::worker::Registration;

/// The worker types of this family.
pub const WORKERS: &[Registration] = &[Registration::of::<dev_null::Def>()];
