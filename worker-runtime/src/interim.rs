//! In place of the RabbitMQ client until it is merged: says so.

use std::path::Path;
use std::sync::Arc;
use vumi_api::shared::BrokerRef;
use vumi_core::broker::Broker;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::secrets::Secrets;

#[derive(Debug)]
pub(crate) struct AmqpConfig;

impl AmqpConfig {
    pub(crate) fn from_url(_: &str) -> Result<Self, WorkError> {
        Err(WorkError::new(
            ErrorClass::Config,
            vumi_core::codes::CONFIG_INVALID,
            "RabbitMQ is not supported by this build yet",
        ))
    }

    pub(crate) fn from_secret(_: Arc<Secrets>, _: &BrokerRef) -> Self {
        Self
    }

    pub(crate) fn with_ca_file(self, _: &Path) -> Self {
        self
    }

    pub(crate) fn with_name(self, _: &str) -> Self {
        self
    }
}

pub(crate) struct AmqpBroker;

impl AmqpBroker {
    pub(crate) fn connect(_: AmqpConfig) -> Arc<dyn Broker> {
        unreachable!("no configuration can be made")
    }
}
