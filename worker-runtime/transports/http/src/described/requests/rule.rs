//! One kind of request: for which paths and methods it is, and what it carries.

use super::super::answers::Answers;
use super::super::template;
use super::access::Access;
use super::fields::{self, Fields};
use super::message::Message;
use super::receipts::Receipts;
use std::sync::Arc;
use vumi_api::template::Template;
use vumi_api::transports::generic_http::{RequestMethod, RequestRule};
use vumi_core::error::WorkError;
use vumi_core::outcome::table::ErrorTable;
use vumi_core::worker::WorkerContext;
use vumi_http::Method;

pub(super) struct Rule {
    path: Option<Vec<Part>>,
    pub(super) methods: Vec<Method>,
    pub(super) when: Option<Template>,
    pub(super) fields: Fields,
    pub(super) message: Option<Message>,
    pub(super) receipts: Option<Receipts>,
    pub(super) answer: Option<Arc<Answers>>,
}

/// One part of a path.
enum Part {
    Fixed(String),
    Named(String),
}

impl Rule {
    pub(super) fn new(
        rule: &RequestRule,
        access: &Access,
        table: &Arc<ErrorTable>,
        cx: &Arc<WorkerContext>,
    ) -> Result<Self, WorkError> {
        let default = [RequestMethod::Get, RequestMethod::Post];
        let methods = rule.methods.as_deref().unwrap_or(&default);
        let methods = methods
            .iter()
            .filter_map(|method| method.as_str().parse().ok());
        let receipts = rule.receipt.as_ref();
        Ok(Self {
            path: rule.path.as_deref().map(parts_of),
            methods: methods.collect(),
            when: rule.when.as_deref().map(template).transpose()?,
            fields: Fields::new(rule, access)?,
            message: rule.message.as_ref().map(Message::new).transpose()?,
            receipts: receipts
                .map(|receipt| Receipts::new(receipt, Arc::clone(table), cx))
                .transpose()?,
            answer: rule
                .answer
                .as_ref()
                .map(Answers::new)
                .transpose()?
                .map(Arc::new),
        })
    }

    /// The named parts of a path, if the rule is for it.
    pub(super) fn parts(&self, below: &str) -> Option<Vec<(&str, String)>> {
        let Some(parts) = &self.path else {
            return Some(Vec::new());
        };
        let given: Vec<&str> = below.split('/').filter(|part| !part.is_empty()).collect();
        if given.len() != parts.len() {
            return None;
        }
        let mut named = Vec::new();
        for (part, given) in parts.iter().zip(given) {
            match part {
                Part::Fixed(text) if text == given => {}
                Part::Fixed(_) => return None,
                Part::Named(name) => named.push((name.as_str(), fields::unescaped(given))),
            }
        }
        Some(named)
    }
}

fn parts_of(path: &str) -> Vec<Part> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    let part = |part: &str| match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
        Some(name) => Part::Named(name.to_owned()),
        None => Part::Fixed(part.to_owned()),
    };
    parts.map(part).collect()
}
