//! Integration tests of the core: one binary, one module per part.

mod amqp;
mod broker_suite;
mod embedded;
mod embedded_faults;
