//! How the provider shows who it is: parameters, headers, a signature.

use super::super::answers::Answers;
use super::super::scope::{Config, Scope};
use super::super::{failed, template};
use super::{broken, fields};
use crate::engine::Refused;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vumi_api::SecretValue;
use vumi_api::template::Template;
use vumi_api::transports::GenericHttp;
use vumi_api::transports::generic_http::{self, Signature, SignatureEncoding};
use vumi_core::clock;
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::reasons::{self, Reason};
use vumi_core::worker::WorkerContext;
use vumi_http::webhook::{self, signing_key};
use vumi_http::{Answer, Encoding, ParamError, Params, Request, Signed, StatusCode, equal};

/// [`Access`] for a provider that is programmed: with what its templates find under `config`.
pub(crate) struct Door {
    access: Access,
    config: Config,
}

impl Door {
    /// As a manifest has it.
    ///
    /// # Errors
    /// A template that cannot be read, or a secret that is not there.
    pub(crate) fn new(
        access: &generic_http::Access,
        secrets: Option<BTreeMap<String, SecretValue>>,
        cx: &Arc<WorkerContext>,
    ) -> Result<Self, WorkError> {
        let described = GenericHttp {
            secrets,
            ..GenericHttp::default()
        };
        let config = Config::new(&described, Arc::clone(cx));
        config.value()?;
        Ok(Self {
            access: Access::new(Some(access), cx)?,
            config,
        })
    }

    /// Parameters that are asked for.
    pub(crate) fn asks(&self, name: &str) -> bool {
        self.access.parameters().any(|asked| asked == name)
    }

    /// See [`Access::unsigned`].
    pub(crate) fn unsigned(&self, request: &Request) -> Result<Vec<String>, ParamError> {
        self.access.unsigned(request)
    }

    /// Refuses a request that does not show who it is. `params` are those that are read so far; with `more`, others may be
    /// in the body, and are left for [`Self::check_inside`].
    pub(crate) fn check(
        &self,
        request: &Request,
        params: &Params,
        more: bool,
    ) -> Result<(), Refused> {
        let scope = self.scope(request, params)?;
        match self.access.check(request, &scope, more)? {
            None => Ok(()),
            Some(refused) => Err(refused),
        }
    }

    /// The same by all parameters of a request.
    pub(crate) fn check_inside(&self, request: &Request, params: &Params) -> Result<(), Refused> {
        match self.access.check_inside(&self.scope(request, params)?)? {
            None => Ok(()),
            Some(refused) => Err(refused),
        }
    }

    fn scope(&self, request: &Request, params: &Params) -> Result<Scope, Refused> {
        let config = self.config.value().map_err(|error| broken(&error))?;
        Ok(fields::outside(params, request).with("config", config))
    }
}

pub(super) struct Access {
    parameters: Vec<(String, Template)>,
    /// Names in lower case.
    headers: Vec<(String, Template)>,
    signature: Option<Signature>,
    refused: Option<Answers>,
    cx: Arc<WorkerContext>,
}

impl Access {
    pub(super) fn new(
        access: Option<&generic_http::Access>,
        cx: &Arc<WorkerContext>,
    ) -> Result<Self, WorkError> {
        let access = access.cloned().unwrap_or_default();
        let compiled = |map: Option<BTreeMap<String, String>>| {
            let entries = map.into_iter().flatten();
            let entries = entries.map(|(name, source)| Ok((name, template(&source)?)));
            entries.collect::<Result<Vec<_>, WorkError>>()
        };
        // What is missing or empty now is said now; what is rotated later is read when it is used.
        if let Some(signature) = &access.signature {
            keys(signature, cx)?;
        }
        let mut headers = compiled(access.headers)?;
        for (name, _) in &mut headers {
            name.make_ascii_lowercase();
        }
        Ok(Self {
            parameters: compiled(access.parameters)?,
            headers,
            signature: access.signature,
            refused: access.refused.as_ref().map(Answers::new).transpose()?,
            cx: Arc::clone(cx),
        })
    }

    /// Parameters that are asked for.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(|(name, _)| name.as_str())
    }

    /// Parameters of a query that nobody vouches for: beside a signature, which is of the body, whoever has a signed request
    /// could add to it.
    pub(super) fn unsigned(&self, request: &Request) -> Result<Vec<String>, ParamError> {
        if self.signature.is_none() {
            return Ok(Vec::new());
        }
        let query = Params::encoded(&request.head.query, b"")?;
        let asked = |name: &String| self.parameters().any(|asked| asked == name);
        Ok(query.names().filter(|name| !asked(name)).collect())
    }

    /// Why a request is refused by what stands outside its body, or by its signature, if it is. Parameters that are not
    /// there may be in the body, with `inside`: then they are left for [`Self::check_inside`].
    pub(super) fn check(
        &self,
        request: &Request,
        scope: &Scope,
        inside: bool,
    ) -> Result<Option<Refused>, Refused> {
        let right = shown("headers", &self.headers, scope, false)?
            & shown("params", &self.parameters, scope, inside)?;
        if !right {
            return self.unknown(scope);
        }
        let Some(signature) = &self.signature else {
            return Ok(None);
        };
        match self.verify(signature, request) {
            Ok(None) => Ok(None),
            Ok(Some(why)) => self.refuse(
                reasons::WRONG_SIGNATURE,
                &format!("a request: {why}"),
                scope,
            ),
            Err(error) => Err(broken(&error)),
        }
    }

    /// Why a request is refused by its parameters, if it is, now that its body is read.
    pub(super) fn check_inside(&self, scope: &Scope) -> Result<Option<Refused>, Refused> {
        match shown("params", &self.parameters, scope, false)? {
            true => Ok(None),
            false => self.unknown(scope),
        }
    }

    fn unknown(&self, scope: &Scope) -> Result<Option<Refused>, Refused> {
        let text = "a request has wrong credentials, or none";
        self.refuse(reasons::WRONG_CREDENTIALS, text, scope)
    }

    fn verify(
        &self,
        rule: &Signature,
        request: &Request,
    ) -> Result<Option<vumi_http::SignatureError>, WorkError> {
        let header = |name: &Option<String>| {
            let value = request.head.headers.get(name.as_deref()?)?;
            value.to_str().ok()
        };
        let secrets = keys(rule, &self.cx)?;
        let signed = Signed {
            // A header that is asked for and missing is empty, and no signature is right for that but one over it.
            id: rule
                .id_header
                .as_ref()
                .map(|_| header(&rule.id_header).unwrap_or_default()),
            timestamp: rule
                .timestamp_header
                .as_ref()
                .map(|_| header(&rule.timestamp_header).unwrap_or_default()),
            body: &request.body,
        };
        let encoding = match rule.encoding.unwrap_or_default() {
            SignatureEncoding::Hex => Encoding::Hex,
            SignatureEncoding::Base64 => Encoding::Base64,
        };
        let verified = signed.verify(
            header(&Some(rule.header.clone())).unwrap_or_default(),
            rule.prefix.as_deref().unwrap_or_default(),
            encoding,
            &secrets,
            rule.tolerance.map_or(Duration::from_secs(300), |d| d.0),
            clock::now(),
        );
        Ok(verified.err())
    }

    fn refuse(
        &self,
        reason: Reason,
        text: &str,
        scope: &Scope,
    ) -> Result<Option<Refused>, Refused> {
        let answer = match &self.refused {
            Some(refused) => refused.answer(scope).map_err(|error| broken(&error))?,
            None => Answer::text(StatusCode::FORBIDDEN, "Forbidden"),
        };
        Ok(Some(Refused::new(answer, reason, text)))
    }
}

/// Whether all that is asked for is there and right; with `later`, what is not there counts as right.
fn shown(
    under: &str,
    asked: &[(String, Template)],
    scope: &Scope,
    later: bool,
) -> Result<bool, Refused> {
    let values = scope.value();
    let all = values.get_attr(under).unwrap_or_default();
    let mut right = true;
    for (name, template) in asked {
        let expected = template.text(&values).map_err(|e| broken(&failed(&e)))?;
        // One that has no value, as one that is not set, is not asked for.
        let Some(expected) = expected.filter(|text| !text.is_empty()) else {
            continue;
        };
        let given = all.get_attr(name).unwrap_or_default();
        if given.is_undefined() && later {
            continue;
        }
        let given = match given.is_undefined() {
            true => String::new(),
            false => given.to_string(),
        };
        right &= equal(given.as_bytes(), expected.as_bytes());
    }
    Ok(right)
}

/// The keys of a signature: as Standard Webhooks writes them, after `whsec_`; any other secret is its own key.
fn keys(rule: &Signature, cx: &WorkerContext) -> Result<Vec<Vec<u8>>, WorkError> {
    let keys = rule.secrets.iter().map(|secret| {
        let text = cx.secrets().resolve(secret)?;
        match signing_key(&text) {
            Ok(key) => Ok(key),
            Err(bad) if text.trim_start().starts_with(webhook::PREFIX) => {
                let text = format!("access.signature.secrets: {bad}");
                Err(WorkError::new(
                    ErrorClass::Config,
                    codes::CONFIG_INVALID,
                    text,
                ))
            }
            Err(_) => Ok(text.into_bytes()),
        }
    });
    keys.collect()
}
