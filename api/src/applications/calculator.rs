//! What it is: a menu that adds, subtracts or multiplies two whole numbers and ends the session with the result.
//!
//! Limits: whole numbers of up to 1000 digits. What is no whole number ends the session with `Sorry invalid input!`. After
//! a result the user begins anew with a new session; where there are no sessions, with anything that is no number. What a
//! user has entered is forgotten after a day.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::{OrderingMode, StateNeed};
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A menu that adds, subtracts or multiplies two whole numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Calculator {}

impl WorkerConfig for Calculator {
    const KIND: Kind = Kind::Application;
    const TYPE: &'static str = "calculator";
    const ORDERING: OrderingMode = OrderingMode::PerUser;
    const STATE: StateNeed = StateNeed::Shared;

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.application().and_then(|a| a.calculator.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        Topology::application(resource.transport_name())
    }

    fn validate(&self, _: &Resource) -> Vec<(String, String)> {
        Vec::new()
    }
}
