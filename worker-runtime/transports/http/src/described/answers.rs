//! Answers made from templates.

use super::scope::Scope;
use super::{failed, template, unfit};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use std::collections::BTreeMap;
use vumi_api::template::{Escape, Template};
use vumi_api::transports::generic_http;
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_http::{Answer, HeaderMap, StatusCode};

/// Content type where a description names none.
const TEXT: &str = "text/plain; charset=utf-8";

/// Makes answers of one kind.
pub(super) struct Answers {
    status: StatusCode,
    content_type: HeaderValue,
    escape: Escape,
    headers: Headers,
    body: Option<Template>,
}

impl Answers {
    pub(super) fn new(answer: &generic_http::Answer) -> Result<Self, WorkError> {
        let content_type = answer.content_type.as_deref().unwrap_or(TEXT);
        let status = StatusCode::from_u16(answer.status.unwrap_or(200));
        Ok(Self {
            status: status.unwrap_or(StatusCode::OK),
            content_type: HeaderValue::from_str(content_type)
                .map_err(|_| config(format!("{content_type:?} is no content type")))?,
            escape: Escape::of(content_type),
            headers: Headers::new(answer.headers.as_ref())?,
            body: answer.body.as_deref().map(template).transpose()?,
        })
    }

    /// The content of the message, as text.
    pub(super) fn of_content() -> Result<Self, WorkError> {
        Self::new(&generic_http::Answer {
            body: Some("{{ message.content }}".into()),
            ..generic_http::Answer::default()
        })
    }

    pub(super) fn content_type(&self) -> HeaderValue {
        self.content_type.clone()
    }

    pub(super) fn answer(&self, scope: &Scope) -> Result<Answer, WorkError> {
        let values = scope.value();
        let body = match &self.body {
            Some(body) => body.render(&values, self.escape).map_err(|e| failed(&e))?,
            None => String::new(),
        };
        let mut answer = Answer::text(self.status, body);
        answer
            .headers
            .insert(CONTENT_TYPE, self.content_type.clone());
        self.headers.fill(&mut answer.headers, scope)?;
        Ok(answer)
    }
}

/// Headers made from templates.
pub(super) struct Headers(Vec<(HeaderName, Template)>);

impl Headers {
    pub(super) fn new(headers: Option<&BTreeMap<String, String>>) -> Result<Self, WorkError> {
        let headers = headers.into_iter().flatten().map(|(name, source)| {
            let wrong = |_| config(format!("{name:?} is no name of a header"));
            let header: HeaderName = name.parse().map_err(wrong)?;
            Ok((header, template(source)?))
        });
        headers.collect::<Result<_, WorkError>>().map(Self)
    }

    /// Adds those that have a value.
    pub(super) fn fill(&self, headers: &mut HeaderMap, scope: &Scope) -> Result<(), WorkError> {
        let values = scope.value();
        for (name, template) in &self.0 {
            if let Some(text) = template.text(&values).map_err(|e| failed(&e))? {
                headers.insert(name.clone(), header(&text)?);
            }
        }
        Ok(())
    }
}

fn header(text: &str) -> Result<HeaderValue, WorkError> {
    let wrong = |_| unfit("a header of the manifest cannot hold what its template makes".into());
    HeaderValue::from_str(text).map_err(wrong)
}

fn config(text: String) -> WorkError {
    WorkError::new(ErrorClass::Config, codes::CONFIG_INVALID, text)
}
