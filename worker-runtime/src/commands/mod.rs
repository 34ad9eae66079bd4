//! The commands, one module each: `Arguments` are what the user writes, `run` does it.

pub mod batch;
pub mod completions;
pub mod conformance;
pub mod convert;
pub mod crds;
pub mod diff;
pub mod docs;
pub mod doctor;
pub mod erase;
pub mod explain;
pub mod inject;
pub mod journal;
pub mod ledger;
pub mod lint;
pub mod new;
pub mod parked;
pub mod run;
pub mod status;
pub mod tap;
pub mod test;
pub mod top;
pub mod why;
pub mod worker;
