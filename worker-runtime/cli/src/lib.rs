//! What the command lines `vumi` and `kubectl vumi` share: how a command ends, what it prints, which files it reads, and the
//! pages that are generated from the source tree.

pub mod error;
pub mod files;
pub mod findings;
pub mod generated;
pub mod output;
pub mod table;
