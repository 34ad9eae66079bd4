//! `httpRpc`: requests that wait for the reply, with parameters that the manifest names. A description, made from its few
//! settings.

use crate::described::Described;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vumi_api::transports::generic_http::{
    Answer, MessageRule, RequestMethod, RequestRule, Signature,
};
use vumi_api::transports::{GenericHttp, HttpRpc, ValidationMode};
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::worker::{Dedupe, Worker, WorkerContext, WorkerType};

pub(crate) struct Def;

#[async_trait]
impl WorkerType for Def {
    type Config = HttpRpc;
    const DEDUPE: Dedupe = Dedupe::ProviderId("the parameter named by `idField`, if set");

    async fn build(config: HttpRpc, cx: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        Described::worker(&description(config), cx)
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: rpc}\nspec:\n  httpRpc: {}\n  http: {host: 127.0.0.1, port: {port}}\n",
            peer: Some(|port| Box::new(crate::peer::HttpPeer::new(port))),
        }
    }
}

/// What the provider of these settings does.
fn description(config: HttpRpc) -> GenericHttp {
    let (fields, defaults) = (
        config.parameters(),
        config.defaults.clone().unwrap_or_default(),
    );
    let may_miss: BTreeSet<&str> = config.optional.iter().flatten().map(|p| &**p).collect();
    let mut required = Vec::new();
    let mut optional: Vec<String> = config.optional.iter().flatten().cloned().collect();
    let signature = config.access.as_ref().and_then(|a| a.signature.as_ref());
    match signature.is_some_and(Signature::is_timeless) {
        // Else a request that somebody recorded would be good for ever.
        true => required.extend(config.id_field.clone()),
        false => optional.extend(config.id_field.clone()),
    }
    let mut templates = BTreeMap::new();
    for ((field, parameter), (_, default)) in fields.entries().into_iter().zip(defaults.entries()) {
        templates.extend(value(parameter, default).map(|template| (field, template)));
        match parameter {
            Some(name) if default.is_some() => optional.push(name.to_owned()),
            Some(name) if !may_miss.contains(name) => required.push(name.to_owned()),
            _ => {}
        }
    }
    let mut of = |field: &str| templates.remove(field);
    let message = MessageRule {
        from_addr: of("fromAddr").unwrap_or_default(),
        to_addr: of("toAddr").unwrap_or_default(),
        content: of("content"),
        session_event: of("sessionEvent"),
        provider: of("provider"),
        group: of("group"),
        id: config
            .id_field
            .as_deref()
            .map(|name| format!("{{{{ {} }}}}", parameter(name))),
        ..MessageRule::default()
    };
    let mut all = vec![RequestMethod::Get, RequestMethod::Post, RequestMethod::Put];
    if config.is_signed() {
        all.retain(|method| *method != RequestMethod::Get);
    }
    GenericHttp {
        transport_type: Some(config.transport_type.unwrap_or_else(|| "http_rpc".into())),
        numbers_of: config.numbers_of,
        unclear_numbers: config.unclear_numbers,
        secrets: config.secrets,
        access: config.access,
        requests: Some(vec![RequestRule {
            name: "rpc".into(),
            methods: Some(config.methods.unwrap_or(all)),
            required: Some(required),
            optional: Some(optional),
            strict: Some(config.validation_mode.unwrap_or_default() == ValidationMode::Strict),
            message: Some(message),
            ..RequestRule::default()
        }]),
        deadline: config.deadline,
        reply: Some(Answer {
            content_type: config.content_type,
            // As the application wrote it, whatever the content type.
            body: Some("{{ message.content | safe }}".into()),
            ..Answer::default()
        }),
        ..GenericHttp::default()
    }
}

/// A parameter in a template, whatever it is called.
fn parameter(name: &str) -> String {
    format!("params[{}]", literal(name))
}

/// A text in a template, whatever is in it.
fn literal(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The template of a field; none if nothing gives it. A default stands in it: `config` holds the secrets, whatever they are
/// called.
fn value(name: Option<&str>, default: Option<&str>) -> Option<String> {
    let (name, default) = (name.map(parameter), default.map(literal));
    match (name, default) {
        (None, None) => None,
        (Some(name), None) => Some(format!("{{{{ {name} }}}}")),
        (None, Some(default)) => Some(format!("{{{{ {default} }}}}")),
        (Some(name), Some(default)) => Some(format!(
            "{{{{ {name} if {name} is defined else {default} }}}}"
        )),
    }
}
