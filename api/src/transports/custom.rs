//! What it is: a program of your own, in any language, in a container: an existing Vumi transport, or a new one that keeps to the
//! wire protocol (`docs/wire-protocol.md`). On a cluster the operator runs it as it runs ours.
//!
//! Statuses: those that the program reports itself.
//!
//! Limits: what our transports do by themselves (middleware, retries, rate limits, order, the journal, the ledger) is the program's
//! own affair, and the settings for it are refused. `vumi run` starts no containers: start the program beside it.
//!
//! What the container is given: as for an [application](../applications/custom.md).

pub use crate::applications::Custom;
