//! Starts real brokers, stores and API servers for tests, on free ports in temporary folders.

pub mod kubernetes;
mod skip;

pub use skip::skip;
