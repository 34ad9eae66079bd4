//! Dispatchers, one module per router. A router chooses ports; the message itself is forwarded as it is, unknown
//! fields included, and every copy keeps its id.

#[cfg(test)]
mod conformance_test;
#[cfg(test)]
mod examples_test;
mod routing_table;
mod simple;

use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::worker::Registration;

/// The worker types of this family.
pub const WORKERS: &[Registration] = &[
    Registration::of::<simple::Def>(),
    Registration::of::<routing_table::Def>(),
];

/// No row: the engine sends a nack event back (outbound) or parks the message (inbound, event).
fn no_route(sentence: String) -> WorkError {
    WorkError::new(ErrorClass::Unroutable, codes::ROUTE_NONE, sentence)
}
