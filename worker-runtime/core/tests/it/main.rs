//! Integration tests of the core: one binary, one module per part.

mod amqp;
mod amqp_access;
mod amqp_experiments;
mod amqp_faults;
mod amqp_pipeline;
mod amqp_standby;
mod amqp_ways;
mod broker_suite;
mod child;
mod embedded;
mod embedded_faults;
mod redis;
mod state;
mod state_faults;
mod state_measure;
mod state_suite;
