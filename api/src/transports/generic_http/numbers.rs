//! Numbers of users: how providers want them, and what becomes of one that has no one spelling.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a provider wants the numbers of users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum NumberForm {
    /// `+27820000001`.
    E164,
    /// `27820000001`.
    Digits,
    /// `0820000001`: as inside the country of `numbersOf`; numbers of other countries cannot be sent to.
    National,
}

/// What becomes of a message from or to a number that belongs to no numbering plan, or to two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum UnclearNumbers {
    /// A request with one from it is answered as invalid, and one to it gets a nack.
    #[default]
    Refuse,
    /// It goes on with the number as it is; one that came in is marked `helper_metadata.number: unclear`.
    Pass,
}

/// What is said where `unclearNumbers` stands alone.
pub(crate) const WITHOUT_COUNTRY: &str =
    "has no effect without numbersOf: no number is read, so none is unclear";
