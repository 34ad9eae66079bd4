//! The contract seen from outside: the same manifests before the reader and before a real API server, the generated
//! pages, and the command line.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

#[path = "../../../api/tests/it/table.rs"]
mod table;

mod api_server;
mod campaign_tests;
mod command_line;
mod compared;
mod guarantees;
mod owned;
mod reference;
mod rendered;
mod scaffold;
mod scaled;

use std::path::{Path, PathBuf};

/// The root of the source tree.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
