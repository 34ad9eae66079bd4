//! Runs a set of workers in one process: plan, build, start, stop, replace; owns the listeners and the control socket.

pub mod listeners;
pub mod plan;
