//! Status of a worker's components, published as Vumi status events: edges at once, the present state again every 60 s.

mod desk;

pub use desk::{StatusDesk, StatusIdentity};

use crate::reasons::Reason;
use serde::{Deserialize, Serialize};

/// Health of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatusLevel {
    /// Works.
    Ok,
    /// Works with trouble.
    Degraded,
    /// Does not work.
    Down,
}

impl StatusLevel {
    /// The wire text: `ok`, `degraded` or `down`.
    pub fn as_str(self) -> &'static str {
        match self {
            StatusLevel::Ok => "ok",
            StatusLevel::Degraded => "degraded",
            StatusLevel::Down => "down",
        }
    }
}

/// One report about one component of a worker, e.g. `listener`, `broker`, `link`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusReport {
    /// Part concerned.
    pub component: String,
    /// Its health.
    pub level: StatusLevel,
    /// Machine-readable reason, one of [`crate::reasons`].
    pub reason: String,
    /// A sentence for people; no secrets, no addresses of users.
    pub message: String,
}

impl StatusReport {
    /// A report.
    pub fn new(
        component: impl Into<String>,
        level: StatusLevel,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self {
            component: component.into(),
            level,
            reason: reason.name.to_owned(),
            message: message.into(),
        }
    }
}
