//! The parameters of a request, and what is wrong with them.

use super::super::scope::Scope;
use super::super::xml::Paths;
use super::super::{failed, template};
use super::access::Access;
use super::broken;
use crate::engine::Refused;
use crate::findings::Findings;
use serde_json::{Map, Value as Json};
use std::collections::BTreeSet;
use vumi_api::template::{Template, Value, of_json, to_json};
use vumi_api::transports::generic_http::RequestRule;
use vumi_core::error::WorkError;
use vumi_core::reasons;
use vumi_http::{
    Answer, FORM, MAX_PARAMETERS, MULTIPART, ParamError, Params, Request, StatusCode, unescape,
};

/// A request, read.
pub(super) struct Read {
    params: Map<String, Json>,
    /// Names whose values are no text.
    unreadable: Vec<String>,
    /// Names of JSON members that are lists or objects: `json` has them, and they are no parameters.
    nested: Vec<String>,
    json: Json,
    /// Names of JSON members that came more than once.
    pub(super) repeated: BTreeSet<String>,
    /// Why the body could not be read.
    pub(super) problem: Option<String>,
}

fn kind(request: &Request) -> String {
    request.head.content_type().to_ascii_lowercase()
}

pub(super) fn too_many(error: &ParamError) -> Refused {
    let answer = Answer::error(error.status(), &format!("{error}."));
    let text = "a request has too many parameters";
    Refused::new(answer, reasons::INVALID_REQUEST, text)
}

/// The parameters in the query and in a form, and why that could not be read.
pub(super) async fn params(
    request: &Request,
    xml: Option<&Paths>,
) -> Result<(Params, Option<String>), Refused> {
    let query = &request.head.query;
    let read = match xml.is_some() && is_xml(&kind(request), &request.body) {
        true => Params::encoded(query, b""),
        false => Params::of_form(request).await,
    };
    let (read, problem) = match read {
        Err(ParamError::Multipart(_)) => {
            let problem = "it is no multipart/form-data".to_owned();
            (Params::encoded(query, b""), Some(problem))
        }
        read => (read, None),
    };
    Ok((read.map_err(|error| too_many(&error))?, problem))
}

/// Whether there may be parameters that [`params`] does not see: in JSON, or in XML.
pub(super) fn may_hold_more(request: &Request, xml: Option<&Paths>) -> bool {
    let kind = kind(request);
    kind == "application/json" || (xml.is_some() && is_xml(&kind, &request.body))
}

/// What templates see of a request whose body is not read yet.
pub(super) fn outside(params: &Params, request: &Request) -> Scope {
    let pairs = params.pairs();
    let pairs = pairs.filter_map(|(name, value)| Some((name, Value::from(value?))));
    scope(Value::from_pairs(pairs), &Json::Null, request)
}

fn scope(params: Value, json: &Json, request: &Request) -> Scope {
    let headers = request.head.headers.iter();
    let headers = headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    Scope::default()
        .with("params", params)
        .with("headers", Value::from_pairs(headers))
        .with("method", request.head.method.as_str())
        .with("json", of_json(json))
        .with("session", ())
}

/// Reads the body as well: a form, a JSON value, XML where there are paths in it, or nothing. One of another type is
/// refused, because its sender means it to be read.
pub(super) fn read(
    request: &Request,
    params: &Params,
    mut problem: Option<String>,
    xml: Option<&Paths>,
) -> Result<Read, Refused> {
    let mut json = Json::Null;
    let mut repeated = BTreeSet::new();
    let mut found = Vec::new();
    let kind = kind(request);
    match (kind.as_str(), xml) {
        (kind, Some(paths)) if is_xml(kind, &request.body) => match paths.read(&request.body) {
            Ok(values) => found = values,
            Err(why) => problem = Some(why),
        },
        ("application/json", _) => match vumi_http::json(&request.body) {
            Ok(body) => (json, repeated) = body,
            Err(_) => problem = Some("it is no JSON in UTF-8".to_owned()),
        },
        (FORM | MULTIPART, _) => {}
        _ if request.body.is_empty() => {}
        (_, xml) => {
            let text = match xml {
                None => {
                    "The Content-Type of a body must be application/x-www-form-urlencoded, multipart/form-data or application/json."
                }
                Some(_) => "A body must be a form, JSON or XML, as its Content-Type says.",
            };
            let answer = Answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
            let why = "a request has a body of a type that is not read";
            return Err(Refused::new(answer, reasons::INVALID_REQUEST, why));
        }
    }
    if json.as_object().map_or(0, Map::len) > MAX_PARAMETERS {
        return Err(too_many(&ParamError::TooMany));
    }
    let mut read = Read {
        params: Map::new(),
        unreadable: Vec::new(),
        nested: Vec::new(),
        json,
        repeated,
        problem,
    };
    for (name, value) in params.pairs() {
        match value {
            Some(text) => {
                read.params.insert(name, text.into());
            }
            None => read.unreadable.push(name),
        }
    }
    for (name, value) in read.json.as_object().into_iter().flatten() {
        if value.is_string() || value.is_number() || value.is_boolean() {
            read.params.insert(name.clone(), value.clone());
        } else if !value.is_null() {
            read.nested.push(name.clone());
        }
    }
    let found = found.into_iter();
    read.params
        .extend(found.map(|(name, text)| (name, text.into())));
    Ok(read)
}

/// Whether a body is XML: many providers say another type, or none.
fn is_xml(kind: &str, body: &[u8]) -> bool {
    let says = kind.ends_with("/xml") || kind.ends_with("+xml");
    let bare = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    says || bare.trim_ascii_start().starts_with(b"<")
}

/// A part of a path: `%41` as `A`, and all else as it is; what is not UTF-8 is replaced.
pub(super) fn unescaped(text: &str) -> String {
    let bytes = unescape(text.replace('+', "%2B").as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Read {
    pub(super) fn scope(&self, request: &Request) -> Scope {
        let pairs = self.params.iter();
        let params = Value::from_pairs(pairs.map(|(name, value)| (name.as_str(), of_json(value))));
        scope(params, &self.json, request)
    }
}

/// What a rule wants of the parameters.
pub(super) struct Fields {
    required: Vec<String>,
    /// All that may be there; none where anything may.
    known: Option<BTreeSet<String>>,
    refuse: Vec<(String, Template)>,
    /// Parameters that are read at all; none where all are.
    used: Option<BTreeSet<String>>,
}

impl Fields {
    pub(super) fn new(rule: &RequestRule, access: &Access) -> Result<Self, WorkError> {
        let declared = rule.required.is_some() || rule.optional.is_some();
        let names = rule.required.iter().chain(&rule.optional).flatten();
        let mut known: BTreeSet<String> = names.cloned().collect();
        known.extend(access.parameters().map(str::to_owned));
        let refuse = rule.refuse.iter().flatten();
        let refuse = refuse.map(|(word, source)| Ok((word.clone(), template(source)?)));
        Ok(Self {
            required: rule.required.clone().unwrap_or_default(),
            used: declared.then(|| known.clone()),
            known: rule.strict.unwrap_or(false).then_some(known),
            refuse: refuse.collect::<Result<_, WorkError>>()?,
        })
    }

    /// Parameters that the manifest names.
    pub(super) fn named(&self) -> impl Iterator<Item = &String> {
        self.used.iter().flatten()
    }

    pub(super) fn findings(&self, read: &Read, scope: &Scope) -> Result<Findings, Refused> {
        let mut findings = Findings::default();
        let no_text = || read.unreadable.iter().chain(&read.nested);
        if let Some(known) = &self.known {
            for name in read.params.keys().chain(no_text()) {
                if !known.contains(name) {
                    findings.add("unexpected_parameter", name);
                }
            }
            if !read.json.is_null() && !read.json.is_object() {
                findings.add("invalid_body", "it is no JSON object");
            }
        }
        let no_text: BTreeSet<&String> = no_text().collect();
        for name in &self.required {
            if !read.params.contains_key(name) && !no_text.contains(name) {
                findings.add_ours("missing_parameter", name);
            }
        }
        for name in &read.unreadable {
            match &self.used {
                Some(used) if used.contains(name) => findings.add_ours("invalid_parameter", name),
                Some(_) => {}
                None => findings.add("invalid_parameter", name),
            }
        }
        for name in &read.nested {
            // Where nobody says which parameters there are, templates may read it from `json`.
            if self.used.as_ref().is_some_and(|used| used.contains(name)) {
                findings.add_ours("invalid_parameter", name);
            }
        }
        let values = scope.value();
        for (word, template) in &self.refuse {
            let value = template.value(&values).map_err(|e| broken(&failed(&e)))?;
            let value = value.filter(|value| value.is_true() || value.as_str() == Some(""));
            if let Some(value) = value.filter(|value| value.as_str() != Some("")) {
                findings.set(word, to_json(&value));
            }
        }
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use super::unescaped;

    /// RFC 3986, section 3.3: `&`, `;`, `=` and `+` stand for themselves in a path.
    #[test]
    fn a_part_of_a_path_loses_nothing() {
        for (part, read) in [
            ("a&b;c=d", "a&b;c=d"),
            ("a+b", "a+b"),
            ("a%20b%2Bc%26d", "a b+c&d"),
            ("100%", "100%"),
            ("Zo%C3%AB", "Zoë"),
            ("%FF", "\u{FFFD}"),
        ] {
            assert_eq!(unescaped(part), read, "{part}");
        }
    }
}
