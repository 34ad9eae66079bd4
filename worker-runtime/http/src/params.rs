//! Request parameters as Vumi's transports read them. By hand, because Vumi separates pairs by `;` too and refuses
//! what is not UTF-8, where the usual crates replace it.
//!
//! * Pairs are separated by `&` or `;`; a pair without `=` is dropped; `+` is a space; a malformed `%` stays literal.
//! * Names are case-sensitive. Of repeated names the first value counts.
//! * More than [`MAX_PARAMETERS`] are refused, repeated ones included.
//! * The body of a POST with `application/x-www-form-urlencoded` or `multipart/form-data` (RFC 7578) counts before the
//!   query string; bodies of other methods are not read. Of a part only its name and its bytes count, also of one that is a
//!   file. Added to that: a POST with `application/json`, an object of text values, where null means absent; a body of any
//!   other type is refused, because its sender means it to be read.

use crate::server::Request;
use http::{Method, StatusCode};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;

/// Content type of parameters in a body.
pub const FORM: &str = "application/x-www-form-urlencoded";
/// Content type of parameters in the parts of a body.
pub const MULTIPART: &str = "multipart/form-data";
/// Most parameters of one request. No provider is known to send a tenth of it.
pub const MAX_PARAMETERS: usize = 1000;

/// Why the parameters of a request cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// The JSON body is not an object of text values.
    #[error("The JSON body must be one object of text values: {0}")]
    Json(String),
    /// The body has another type, or none.
    #[error(
        "The Content-Type of a body must be application/x-www-form-urlencoded, multipart/form-data or application/json"
    )]
    Type,
    /// The parts of the body cannot be told apart.
    #[error("The body cannot be read as multipart/form-data: {0}")]
    Multipart(String),
    /// There are too many.
    #[error("A request may have at most {MAX_PARAMETERS} parameters")]
    TooMany,
}

impl ParamError {
    /// Status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            ParamError::Json(_) | ParamError::Multipart(_) | ParamError::TooMany => {
                StatusCode::BAD_REQUEST
            }
            ParamError::Type => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

/// The parameters of one request, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// In the order of the request.
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where each name stands.
    places: HashMap<Vec<u8>, usize>,
    /// Names that came more than once.
    repeated: BTreeSet<Vec<u8>>,
    /// How many were read, repeated ones included.
    count: usize,
}

impl Params {
    /// Reads query and body.
    ///
    /// # Errors
    /// As [`ParamError`] says.
    pub async fn read(request: &Request) -> Result<Self, ParamError> {
        if Self::may_hold_json(request) {
            let mut params = Self::default();
            params.add_json(&request.body)?;
            params.add_encoded(request.head.query.as_bytes())?;
            return Ok(params);
        }
        if request.head.method != Method::POST {
            return Self::encoded(&request.head.query, b"");
        }
        let is_form = is_form(request);
        if !is_form && !request.body.is_empty() {
            return Err(ParamError::Type);
        }
        Self::of_form(request).await
    }

    /// Whether [`Self::read`] reads the body as JSON.
    pub fn may_hold_json(request: &Request) -> bool {
        let kind = request.head.content_type();
        request.head.method == Method::POST && kind.eq_ignore_ascii_case("application/json")
    }

    /// Of the query, and before it of the body where that is a form: [`FORM`] or [`MULTIPART`], whatever the method.
    ///
    /// # Errors
    /// [`ParamError::TooMany`] and [`ParamError::Multipart`].
    pub async fn of_form(request: &Request) -> Result<Self, ParamError> {
        let kind = request.head.content_type();
        if kind.eq_ignore_ascii_case(FORM) {
            return Self::encoded(&request.head.query, &request.body);
        }
        let mut params = Self::default();
        if kind.eq_ignore_ascii_case(MULTIPART) {
            params.add_parts(request).await?;
        }
        params.add_encoded(request.head.query.as_bytes())?;
        Ok(params)
    }

    /// Of the query string, and of an `application/x-www-form-urlencoded` body before it.
    ///
    /// # Errors
    /// [`ParamError::TooMany`].
    pub fn encoded(query: &str, form: &[u8]) -> Result<Self, ParamError> {
        let mut params = Self::default();
        params.add_encoded(form)?;
        params.add_encoded(query.as_bytes())?;
        Ok(params)
    }

    /// Each name with its value; none where that is not UTF-8. A name that is not UTF-8 is replaced.
    pub fn pairs(&self) -> impl Iterator<Item = (String, Option<&str>)> + '_ {
        self.pairs.iter().map(|(name, value)| {
            let name = String::from_utf8_lossy(name).into_owned();
            (name, std::str::from_utf8(value).ok())
        })
    }

    /// Value of a parameter: none if absent, an error if it is not UTF-8.
    pub fn get(&self, name: &str) -> Option<Result<&str, std::str::Utf8Error>> {
        let (_, value) = self.pairs.get(*self.places.get(name.as_bytes())?)?;
        Some(std::str::from_utf8(value))
    }

    /// Whether any name came more than once.
    pub fn has_repeated(&self) -> bool {
        !self.repeated.is_empty()
    }

    /// Whether this name came more than once.
    pub fn is_repeated(&self, name: &str) -> bool {
        self.repeated.contains(name.as_bytes())
    }

    /// All names in the order of the request; bytes that are not UTF-8 replaced.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.pairs
            .iter()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
    }

    fn add(&mut self, name: Vec<u8>, value: Vec<u8>) -> Result<(), ParamError> {
        self.count += 1;
        if self.count > MAX_PARAMETERS {
            return Err(ParamError::TooMany);
        }
        if self.places.contains_key(&name) {
            self.repeated.insert(name);
        } else {
            self.places.insert(name.clone(), self.pairs.len());
            self.pairs.push((name, value));
        }
        Ok(())
    }

    fn add_encoded(&mut self, text: &[u8]) -> Result<(), ParamError> {
        for pair in text.split(|byte| matches!(byte, b'&' | b';')) {
            if let Some(at) = pair.iter().position(|byte| *byte == b'=') {
                self.add(unescape(&pair[..at]), unescape(&pair[at + 1..]))?;
            }
        }
        Ok(())
    }

    /// The parts of a body: it is here as a whole, and within its limit.
    async fn add_parts(&mut self, request: &Request) -> Result<(), ParamError> {
        let bad = |error: multer::Error| ParamError::Multipart(error.to_string());
        let kind = request.head.headers.get(http::header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let boundary = multer::parse_boundary(kind).map_err(bad)?;
        let body = Ok::<_, Infallible>(request.body.clone());
        let body = futures::stream::once(std::future::ready(body));
        let mut parts = multer::Multipart::new(body, boundary);
        while let Some(part) = parts.next_field().await.map_err(bad)? {
            let Some(name) = part.name().map(|name| name.as_bytes().to_vec()) else {
                return Err(ParamError::Multipart("a part has no name".into()));
            };
            let value = part.bytes().await.map_err(bad)?;
            self.add(name, value.into())?;
        }
        Ok(())
    }

    fn add_json(&mut self, body: &[u8]) -> Result<(), ParamError> {
        let bad = |text: String| ParamError::Json(text);
        let members: Members = serde_json::from_slice(body).map_err(|e| bad(e.to_string()))?;
        for (name, value) in members.0 {
            match value {
                Value::Null => {}
                Value::String(text) => self.add(name.into_bytes(), text.into_bytes())?,
                _ => return Err(bad(format!("{name:?} is not text"))),
            }
        }
        Ok(())
    }
}

/// Whether a body is a form of either type.
pub fn is_form(request: &Request) -> bool {
    let kind = request.head.content_type();
    [FORM, MULTIPART]
        .iter()
        .any(|form| kind.eq_ignore_ascii_case(form))
}

/// `%41` as `A`, `+` as a space; a malformed `%` stays as it is.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| {
        let byte = *text.get(at)?;
        char::from(byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high * 16 + low);
                at += 3;
                continue;
            }
            (b'+', _, _) => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    out
}

/// A JSON value, and the names that came more than once. Of members of an object that have one name the first counts, as of
/// repeated parameters; deeper ones are as `serde_json` reads them.
///
/// # Errors
/// It is none, in UTF-8.
pub fn json(body: &[u8]) -> serde_json::Result<(Value, BTreeSet<String>)> {
    let value: Value = serde_json::from_slice(body)?;
    let mut repeated = BTreeSet::new();
    let Value::Object(mut object) = value else {
        return Ok((value, repeated));
    };
    let Members(members) = serde_json::from_slice(body)?;
    if members.len() > object.len() {
        object.clear();
        for (name, value) in members {
            if object.contains_key(&name) {
                repeated.insert(name);
            } else {
                object.insert(name, value);
            }
        }
    }
    Ok((Value::Object(object), repeated))
}

/// The members of a JSON object in order, repeated names included.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Head;
    use http::{HeaderMap, HeaderValue};

    fn read(
        method: Method,
        query: &str,
        kind: Option<&'static str>,
        body: &[u8],
    ) -> Result<Vec<(String, Option<String>)>, ParamError> {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert("content-type", HeaderValue::from_static(kind));
        }
        let head = Head {
            method,
            path: "/".into(),
            query: query.into(),
            headers,
        };
        let request = Request {
            head,
            body: body.to_vec().into(),
            began: tokio::time::Instant::now(),
            room: None,
        };
        let params = futures::executor::block_on(Params::read(&request))?;
        Ok(params
            .names()
            .map(|name| {
                let value = params.get(&name).and_then(Result::ok).map(str::to_owned);
                (name, value)
            })
            .collect())
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, Option<String>)> {
        let owned = |(n, v): &(&str, &str)| ((*n).to_owned(), Some((*v).to_owned()));
        list.iter().map(owned).collect()
    }

    #[test]
    fn of_members_with_one_name_the_first_counts() {
        let body = br#"{"a": 1, "b": {"c": 1, "c": 2}, "a": 2, "a": null}"#;
        let (value, repeated) = json(body).unwrap();
        assert_eq!(value, serde_json::json!({"a": 1, "b": {"c": 2}}));
        assert_eq!(repeated, BTreeSet::from(["a".to_owned()]));
        let (value, repeated) = json(b"[1, 2]").unwrap();
        assert_eq!(value, serde_json::json!([1, 2]));
        assert!(repeated.is_empty());
        assert!(json(b"{\"a\": \"\xff\"}").is_err());
    }

    #[test]
    fn query_strings() {
        for (query, expected) in [
            ("", &[][..]),
            ("a=1&b=2", &[("a", "1"), ("b", "2")]),
            ("a=1;b=2", &[("a", "1"), ("b", "2")]),
            ("a=1&a=2", &[("a", "1")]),
            ("a&b=2&&=3", &[("b", "2"), ("", "3")]),
            ("a=&A=x", &[("a", ""), ("A", "x")]),
            ("a=b%20c+d%2Be", &[("a", "b c d+e")]),
            (
                "a=100%&b=%zz&c=%4",
                &[("a", "100%"), ("b", "%zz"), ("c", "%4")],
            ),
            ("group=%23g&x=1=2", &[("group", "#g"), ("x", "1=2")]),
            ("a=Zo%C3%AB", &[("a", "Zoë")]),
        ] {
            assert_eq!(
                read(Method::GET, query, None, b""),
                Ok(pairs(expected)),
                "{query}"
            );
        }
    }

    #[test]
    fn what_came_more_than_once_is_known() {
        let params = Params::encoded("a=1&b=2&a=1", b"c=3&c=").unwrap();
        assert!(params.has_repeated());
        for (name, repeated) in [("a", true), ("b", false), ("c", true), ("d", false)] {
            assert_eq!(params.is_repeated(name), repeated, "{name}");
        }
        assert!(!Params::encoded("a=1&A=1", b"").unwrap().has_repeated());
    }

    #[test]
    fn more_than_a_request_may_have_are_refused() {
        let form = Some(FORM);
        let json = Some("application/json");
        let of = |count: usize, name: &dyn Fn(usize) -> String| {
            let pairs: Vec<String> = (0..count).map(|n| format!("{}=x", name(n))).collect();
            pairs.join("&")
        };
        let each = |n: usize| format!("p{n}");
        let most = of(MAX_PARAMETERS, &each);
        let read_all = read(Method::GET, &most, None, b"").unwrap();
        assert_eq!(read_all.len(), MAX_PARAMETERS);
        let object = |count: usize| {
            let members: serde_json::Map<String, Value> =
                (0..count).map(|n| (each(n), "x".into())).collect();
            Value::Object(members).to_string()
        };
        let began = std::time::Instant::now();
        for (query, kind, body) in [
            (of(MAX_PARAMETERS + 1, &each), None, String::new()),
            (of(300_000, &each), None, String::new()),
            (of(300_000, &|_| "same".into()), None, String::new()),
            (String::new(), form, of(300_000, &each)),
            (String::new(), json, object(300_000)),
            ("one=more".into(), form, most),
            ("one=more".into(), json, object(MAX_PARAMETERS)),
        ] {
            let error = read(Method::POST, &query, kind, body.as_bytes()).unwrap_err();
            assert_eq!(error, ParamError::TooMany);
            assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        }
        // With work that grows with the square this took minutes.
        let took = began.elapsed();
        assert!(took < std::time::Duration::from_secs(20), "{took:?}");
    }

    #[test]
    fn what_is_not_utf_8_is_present_but_has_no_text() {
        let params = read(Method::GET, "a=%E9", None, b"").unwrap();
        assert_eq!(params, [("a".to_owned(), None)]);
    }

    #[test]
    fn bodies_that_count() {
        let form = Some("application/x-www-form-urlencoded; charset=utf-8");
        let json = Some("application/json");
        let read = |method, kind, body: &str| read(method, "a=query&b=2", kind, body.as_bytes());
        let query = Ok(pairs(&[("a", "query"), ("b", "2")]));
        assert_eq!(
            read(Method::POST, form, "a=form&a=second"),
            Ok(pairs(&[("a", "form"), ("b", "2")]))
        );
        assert_eq!(read(Method::PUT, form, "a=form"), query);
        assert_eq!(read(Method::POST, None, ""), query);
        assert_eq!(read(Method::PUT, Some("text/xml"), "a=form"), query);
        assert_eq!(
            read(Method::POST, json, r#"{"a": "Zoë", "c": null, "a": "x"}"#),
            Ok(pairs(&[("a", "Zoë"), ("b", "2")]))
        );
        for bad in ["", "[]", "{", r#"{"a": 1}"#, r#"{"a": {"b": "c"}}"#] {
            let error = read(Method::POST, json, bad).unwrap_err();
            assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{bad}");
        }
        let deep = format!("{{\"a\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(Method::POST, json, &deep).is_err());
        for kind in [Some("text/xml"), None] {
            let error = read(Method::POST, kind, "a=form").unwrap_err();
            assert_eq!(error.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
    }

    /// RFC 7578: names and bytes of parts, whatever else is said of them.
    #[test]
    fn parts_count_as_a_form_does() {
        let kind = Some("Multipart/Form-Data; boundary=\"x y\"");
        let part = |head: &str, body: &str| {
            format!("--x y\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n")
        };
        let body = [
            part("name=\"a\"", "Zo\u{eb} & y=1\r\n--x"),
            part("name=\"a\"", "second"),
            part(
                "name=\"file\"; filename=\"f.txt\"\r\nContent-Type: text/plain",
                "what is in it",
            ),
            part("name=\"empty\"", ""),
            "--x y--\r\n".to_owned(),
        ]
        .concat();
        let read = |method, body: &[u8]| read(method, "a=query&b=2", kind, body);
        let all = [
            ("a", "Zo\u{eb} & y=1\r\n--x"),
            ("file", "what is in it"),
            ("empty", ""),
            ("b", "2"),
        ];
        assert_eq!(read(Method::POST, body.as_bytes()), Ok(pairs(&all)));
        let query = Ok(pairs(&[("a", "query"), ("b", "2")]));
        assert_eq!(read(Method::PUT, body.as_bytes()), query);
        assert_eq!(read(Method::POST, b"--x y--"), query);
        let no_text = [part("name=\"a\"", "?"), "--x y--".into()].concat();
        let no_text = no_text.replace('?', "\u{1}").into_bytes();
        let no_text: Vec<u8> = no_text
            .into_iter()
            .map(|byte| if byte == 1 { 0xff } else { byte })
            .collect();
        let found = read(Method::POST, &no_text).unwrap();
        assert_eq!(found[0], ("a".to_owned(), None));
        for bad in [
            String::new(),
            "a=form".into(),
            body.replace("--x y--", ""),
            body[..body.len() / 2].to_owned(),
            part("filename=\"f\"", "no name") + "--x y--",
        ] {
            let error = read(Method::POST, bad.as_bytes()).unwrap_err();
            assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{bad}");
            assert!(matches!(error, ParamError::Multipart(_)), "{error}");
        }
        let many: String = (0..=MAX_PARAMETERS)
            .map(|n| part(&format!("name=\"p{n}\""), "x"))
            .collect();
        let many = many + "--x y--";
        assert_eq!(
            read(Method::POST, many.as_bytes()),
            Err(ParamError::TooMany)
        );
    }
}
