//! What a provider says about a message that it took.

use super::super::scope::Scope;
use super::super::{failed, template};
use std::collections::BTreeMap;
use std::sync::Arc;
use vumi_api::template::Template;
use vumi_api::transports::generic_http::{ReceiptRule, ReceiptStatus};
use vumi_core::error::WorkError;
use vumi_core::outcome::table::ErrorTable;
use vumi_core::outcome::{Receipt, ReceiptOutcome};
use vumi_core::telemetry::HttpSeen;
use vumi_core::worker::WorkerContext;

pub(super) struct Receipts {
    message_id: Option<Template>,
    remote_id: Option<Template>,
    status: Template,
    statuses: BTreeMap<String, ReceiptStatus>,
    code: Option<Template>,
    table: Arc<ErrorTable>,
    cx: Arc<WorkerContext>,
}

impl Receipts {
    pub(super) fn new(
        rule: &ReceiptRule,
        table: Arc<ErrorTable>,
        cx: &Arc<WorkerContext>,
    ) -> Result<Self, WorkError> {
        Ok(Self {
            message_id: rule.message_id.as_deref().map(template).transpose()?,
            remote_id: rule.remote_id.as_deref().map(template).transpose()?,
            status: template(&rule.status)?,
            statuses: rule.statuses.clone(),
            code: rule.code.as_deref().map(template).transpose()?,
            table,
            cx: Arc::clone(cx),
        })
    }

    /// The receipt in a request; none if it names no message.
    pub(super) fn receipt(&self, scope: &Scope) -> Result<Option<Receipt>, WorkError> {
        let values = scope.value();
        let text = |template: &Template| template.text(&values).map_err(|e| failed(&e));
        let optional = |template: &Option<Template>| match template {
            Some(template) => Ok::<_, WorkError>(text(template)?.filter(|id| !id.is_empty())),
            None => Ok(None),
        };
        let remote_id = optional(&self.remote_id)?;
        let message_id = optional(&self.message_id)?;
        if message_id.is_none() && remote_id.is_none() {
            self.cx.http(HttpSeen::Receipt("orphan"));
            tracing::warn!(worker = self.cx.worker_name(), "a receipt names no message");
            return Ok(None);
        }
        let status = text(&self.status)?.unwrap_or_default();
        let outcome = match self.statuses.get(&status) {
            Some(ReceiptStatus::Delivered) => {
                self.cx.http(HttpSeen::Receipt("delivered"));
                ReceiptOutcome::Delivered
            }
            Some(ReceiptStatus::Failed) => {
                self.cx.http(HttpSeen::Receipt("failed"));
                let code = optional(&self.code)?.unwrap_or(status);
                ReceiptOutcome::Failed(self.table.refusal(&code))
            }
            Some(ReceiptStatus::Pending) => {
                self.cx.http(HttpSeen::Receipt("pending"));
                ReceiptOutcome::Pending
            }
            None => {
                self.cx.http(HttpSeen::Receipt("unknown"));
                let status: String = status.chars().take(64).collect();
                tracing::warn!(
                    worker = self.cx.worker_name(),
                    message_id,
                    status,
                    "the provider has a status that nobody wrote down; it counts as pending"
                );
                ReceiptOutcome::Pending
            }
        };
        Ok(Some(Receipt {
            message_id,
            remote_id,
            outcome,
        }))
    }
}
