//! On a whole cluster: see `tests/e2e/README.md`.

mod cluster;
mod definitions;
mod worker;
