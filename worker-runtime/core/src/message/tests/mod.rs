//! Tests of the wire format: what survives, what both Vumi generations read, what is refused.

mod hops;
mod limits;
mod properties;
mod readers;
mod rules;
mod smoke;
mod vectors;
