//! Templates in declarations of HTTP providers: texts with `{{ … }}` in the Jinja language, by the crate minijinja.
//!
//! A text that is one expression, `{{ params.msisdn }}`, keeps the expression's type: nothing (`none`, or a name that is
//! not there) leaves out what it would fill. In any other text, nothing is written as nothing.

use crate::patterns::is_match;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minijinja::value::{Object, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Expression, UndefinedBehavior};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

pub use minijinja::Value;

/// Steps that one evaluation may take: what a manifest says can be wrong, and must end all the same.
const FUEL: u64 = 100_000;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Chainable);
    env.set_fuel(Some(FUEL));
    env.set_auto_escape_callback(|name| match name {
        "json" => AutoEscape::Json,
        "xml" => AutoEscape::Custom("xml".into()),
        _ => AutoEscape::None,
    });
    env.set_formatter(|out, state, value| {
        let escape = state.auto_escape();
        if matches!(escape, AutoEscape::Custom(name) if name == "xml") && !value.is_safe() {
            return match value.is_none() || value.is_undefined() {
                true => Ok(()),
                false => out
                    .write_str(&escape_xml(&value.to_string()))
                    .map_err(Error::from),
            };
        }
        match value.is_none() && !matches!(escape, AutoEscape::Json) {
            true => Ok(()),
            false => minijinja::escape_formatter(out, state, value),
        }
    });
    // Nothing stays nothing.
    env.add_filter("ltrim", |value: Value| match value.as_str() {
        Some(text) => text.trim_start().into(),
        None => value,
    });
    env.add_filter("base64", |value: Value| match value.as_str() {
        Some(text) => BASE64_STANDARD.encode(text).into(),
        None => value,
    });
    env.add_test("matching", |text: String, pattern: String| {
        is_match(&pattern, &text)
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
    });
    env
}

/// XML character data and attribute values (XML 1.0, section 2.4); characters that XML cannot hold are left out.
fn escape_xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // In attributes between single quotes; as a number, because HTML 4 does not know the name.
            '\'' => out.push_str("&#39;"),
            '\n' | '\r' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}') => {}
            c => out.push(c),
        }
    }
    out
}

/// How values are written into a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// As they are.
    None,
    /// As JSON values, quotes included.
    Json,
    /// As XML character data.
    Xml,
}

impl Escape {
    /// As the content type of a text wants it, in any case (RFC 9110, section 8.3.1).
    pub fn of(content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let kind = kind.to_ascii_lowercase();
        match kind.as_str() {
            kind if kind.ends_with("/json") || kind.ends_with("+json") => Escape::Json,
            kind if kind.ends_with("/xml") || kind.ends_with("+xml") => Escape::Xml,
            _ => Escape::None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Escape::None => "text",
            Escape::Json => "json",
            Escape::Xml => "xml",
        }
    }
}

/// Why a template has no value. The text says where, and holds nothing of what it was filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError(String);

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TemplateError {}

impl TemplateError {
    fn new(source: &str, error: &Error) -> Self {
        // The detail of a failed evaluation may quote a value.
        let detail = match error.kind() {
            ErrorKind::SyntaxError | ErrorKind::UnknownFilter | ErrorKind::UnknownTest => {
                error.detail()
            }
            ErrorKind::UnknownFunction | ErrorKind::UnknownMethod => error.detail(),
            _ => None,
        };
        let detail = detail.map_or(String::new(), |detail| format!(": {detail}"));
        Self(format!("{} in {source:?}{detail}", error.kind()))
    }
}

/// A compiled template.
pub struct Template {
    source: String,
    form: Form,
}

enum Form {
    /// Nothing to fill in.
    Fixed,
    /// One expression.
    Expression(Expression<'static, 'static>),
    /// Text with expressions.
    Text,
}

impl Template {
    /// Compiles a text.
    ///
    /// # Errors
    /// What is wrong with its syntax.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        let wrong = |error: Error| TemplateError::new(source, &error);
        let form = if !source.contains("{{") && !source.contains("{%") && !source.contains("{#") {
            Form::Fixed
        } else if let Some(expression) = only_expression(source) {
            let compiled = ENVIRONMENT.compile_expression_owned(expression.to_owned());
            Form::Expression(compiled.map_err(wrong)?)
        } else {
            text(source, Escape::None).map(drop).map_err(wrong)?;
            Form::Text
        };
        Ok(Self {
            source: source.to_owned(),
            form,
        })
    }

    /// The value: of its own type if the text is one expression, else text. None where there is nothing.
    ///
    /// # Errors
    /// An expression that cannot be evaluated with this context.
    pub fn value(&self, context: &Value) -> Result<Option<Value>, TemplateError> {
        let value = match &self.form {
            Form::Fixed => Value::from(self.source.as_str()),
            Form::Expression(expression) => expression
                .eval(context.clone())
                .map_err(|error| TemplateError::new(&self.source, &error))?,
            Form::Text => Value::from(self.render(context, Escape::None)?),
        };
        Ok(Some(value).filter(|value| !value.is_none() && !value.is_undefined()))
    }

    /// The value as text; none where there is nothing.
    ///
    /// # Errors
    /// As [`Self::value`].
    pub fn text(&self, context: &Value) -> Result<Option<String>, TemplateError> {
        Ok(self.value(context)?.map(|value| value.to_string()))
    }

    /// Whether it is true: neither nothing, false, 0 nor empty.
    ///
    /// # Errors
    /// As [`Self::value`].
    pub fn holds(&self, context: &Value) -> Result<bool, TemplateError> {
        Ok(self.value(context)?.is_some_and(|value| value.is_true()))
    }

    /// The whole text, its values escaped.
    ///
    /// # Errors
    /// As [`Self::value`].
    pub fn render(&self, context: &Value, escape: Escape) -> Result<String, TemplateError> {
        if let Form::Fixed = self.form {
            return Ok(self.source.clone());
        }
        text(&self.source, escape)
            .and_then(|template| template.render(context.clone()))
            .map_err(|error| TemplateError::new(&self.source, &error))
    }

    /// Names that it looks up, such as `params.msisdn`.
    fn used(&self) -> Result<BTreeSet<String>, Error> {
        Ok(match &self.form {
            Form::Fixed => BTreeSet::new(),
            Form::Expression(expression) => {
                expression.undeclared_variables(true).into_iter().collect()
            }
            Form::Text => {
                let template = text(&self.source, Escape::None)?;
                template.undeclared_variables(true).into_iter().collect()
            }
        })
    }

    /// Whether its value depends on one of these names, such as `json` for `{{ json.id }}`.
    pub fn reads(&self, names: &[&str]) -> bool {
        let root = |used: &str| used.split('.').next().is_some_and(|r| names.contains(&r));
        self.used().is_ok_and(|used| used.iter().any(|u| root(u)))
    }

    /// Which members of `name` the value for this context is made from, such as `msisdn` of `params`.
    pub fn asks(&self, name: &str, context: &Value) -> BTreeSet<String> {
        let asked = Arc::new(Asked {
            value: context.get_attr(name).unwrap_or_default(),
            names: Mutex::default(),
        });
        let mut all: BTreeMap<String, Value> = BTreeMap::new();
        for key in context.try_iter().into_iter().flatten() {
            let value = context.get_item(&key).unwrap_or_default();
            all.insert(key.to_string(), value);
        }
        all.insert(name.to_owned(), Value::from_dyn_object(Arc::clone(&asked)));
        // One that fails has asked all the same.
        let _ = self.value(&Value::from_pairs(all));
        let names = asked.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.clone()
    }

    /// What is wrong with it where only `names` have values.
    pub fn check(&self, names: &Names) -> Option<String> {
        let used = match self.used() {
            Ok(used) => used,
            Err(error) => return Some(error.to_string()),
        };
        if let Some(sentence) = used.iter().find_map(|name| names.problem(name)) {
            return Some(sentence);
        }
        // Names of filters and tests are looked up when they are used.
        match self.value(&Value::from_pairs([("", "")])) {
            Err(error) if error.0.starts_with("unknown ") => Some(error.to_string()),
            _ => None,
        }
    }
}

/// A value that remembers which of its members were asked for.
#[derive(Debug)]
struct Asked {
    value: Value,
    names: Mutex<BTreeSet<String>>,
}

impl Object for Asked {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        if let Some(name) = key.as_str() {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.insert(name.to_owned());
        }
        let value = self.value.get_item(key).ok();
        value.filter(|value| !value.is_undefined())
    }
}

/// What stands between the braces, if that is all there is.
fn only_expression(source: &str) -> Option<&str> {
    let inner = source.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    let inner = inner.strip_suffix('-').unwrap_or(inner);
    (!inner.contains("}}") && !inner.contains("{{")).then(|| inner.trim())
}

fn text(source: &str, escape: Escape) -> Result<minijinja::Template<'_, '_>, Error> {
    let env: &Environment<'_> = &ENVIRONMENT;
    env.template_from_named_str(escape.name(), source)
}

/// The names that a template may use.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<(&'static str, Option<BTreeSet<String>>)>);

impl Names {
    /// As well a name of which anything may be asked.
    pub fn with(mut self, name: &'static str) -> Self {
        self.0.push((name, None));
        self
    }

    /// As well a name with these members and no others.
    pub fn with_members<S: Into<String>>(
        mut self,
        name: &'static str,
        members: impl IntoIterator<Item = S>,
    ) -> Self {
        let members = members.into_iter().map(Into::into).collect();
        self.0.push((name, Some(members)));
        self
    }

    /// What is wrong with a name such as `params.msisdn`.
    fn problem(&self, used: &str) -> Option<String> {
        let mut parts = used.split('.');
        let root = parts.next().unwrap_or_default();
        let Some((_, members)) = self.0.iter().find(|(name, _)| *name == root) else {
            let known: Vec<&str> = self.0.iter().map(|(name, _)| *name).collect();
            let known = crate::names::listed(known);
            return Some(format!("{root} has no value here; what has: {known}"));
        };
        let (member, members) = parts.next().zip(members.as_ref())?;
        if members.contains(member) {
            return None;
        }
        let all = || members.iter().map(String::as_str);
        Some(match crate::names::nearest(member, all()) {
            Some(near) => format!("there is no {root}.{member}; did you mean {root}.{near}?"),
            None => format!(
                "there is no {root}.{member}; of {root} there is: {}",
                crate::names::listed(all())
            ),
        })
    }
}

/// A value of JSON for templates. By hand, because JSON numbers of any size serialise as objects. A whole number that no
/// integer holds is the text of its digits: it is an id, and none of them may be lost.
pub fn of_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(truth) => Value::from(*truth),
        Json::Number(number) => of_number(number),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(of_json).collect(),
        Json::Object(members) => Value::from_pairs(
            members
                .iter()
                .map(|(name, value)| (name.as_str(), of_json(value))),
        ),
    }
}

fn of_number(number: &serde_json::Number) -> Value {
    if let Some(whole) = number.as_i64() {
        return whole.into();
    }
    if let Some(whole) = number.as_u64() {
        return whole.into();
    }
    let written = number.to_string();
    let whole = !written.contains(['.', 'e', 'E']);
    match number.as_f64().filter(|_| !whole) {
        Some(real) => real.into(),
        None => written.into(),
    }
}

/// A template's value as JSON; what JSON has no word for is text.
pub fn to_json(value: &Value) -> Json {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::Number => {
            let (positive, real) = (u64::try_from(value.clone()), f64::try_from(value.clone()));
            match (value.as_i64(), positive, real) {
                (Some(whole), ..) => whole.into(),
                (None, Ok(whole), _) => whole.into(),
                (None, Err(_), Ok(real)) => real.into(),
                (None, Err(_), Err(_)) => value.to_string().into(),
            }
        }
        ValueKind::Seq => value
            .try_iter()
            .into_iter()
            .flatten()
            .map(|v| to_json(&v))
            .collect(),
        ValueKind::Map => {
            let names = value.try_iter().into_iter().flatten();
            let member = |name: Value| {
                let member = value.get_item(&name).unwrap_or_default();
                (name.to_string(), to_json(&member))
            };
            Json::Object(names.map(member).collect())
        }
        _ => value.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn context() -> Value {
        of_json(&json!({
            "params": {"a": "x < \"y\"", "q": "it's", "empty": ""},
            "n": 7,
            "nothing": null,
        }))
    }

    fn rendered(source: &str, escape: Escape) -> String {
        Template::new(source)
            .unwrap()
            .render(&context(), escape)
            .unwrap()
    }

    #[test]
    fn a_template_says_what_it_is_made_from() {
        let asks = |source: &str| Template::new(source).unwrap().asks("params", &context());
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        assert_eq!(asks("fixed"), BTreeSet::new());
        assert_eq!(asks("{{ n }}"), BTreeSet::new());
        assert_eq!(asks("{{ params.a }}"), names(&["a"]));
        let either = "{{ params[\"a b\"] if params[\"a b\"] is defined else params.q }}";
        assert_eq!(asks(either), names(&["a b", "q"]));
        assert_eq!(
            asks("to {{ params['empty'] or params.missing }}"),
            names(&["empty", "missing"])
        );
    }

    #[test]
    fn one_expression_keeps_its_type_and_nothing_is_nothing() {
        let value = |source: &str| Template::new(source).unwrap().value(&context()).unwrap();
        assert_eq!(value("fixed"), Some("fixed".into()));
        assert_eq!(value("{{ n }}"), Some(7.into()));
        assert_eq!(value(" {{- n + 1 -}} "), Some(8.into()));
        assert_eq!(value("{{ n }}!"), Some("7!".into()));
        assert_eq!(value("{{ params.empty }}"), Some("".into()));
        for nothing in [
            "{{ nothing }}",
            "{{ params.b }}",
            "{{ params.b.c }}",
            "{{ x.y }}",
        ] {
            assert_eq!(value(nothing), None, "{nothing}");
        }
        assert_eq!(value("<{{ nothing }}{{ params.b }}>"), Some("<>".into()));
        assert_eq!(value("{{ n }}{{ n }}"), Some("77".into()));
    }

    #[test]
    fn values_are_escaped_as_the_text_wants() {
        let text = "<a b=\"{{ params.a }}\">{{ nothing }}</a>";
        assert_eq!(
            rendered(text, Escape::Xml),
            "<a b=\"x &lt; &quot;y&quot;\"></a>"
        );
        assert_eq!(
            rendered("<a b='{{ params.q }}'/>", Escape::Xml),
            "<a b='it&#39;s'/>"
        );
        assert_eq!(
            rendered("{\"a\": {{ nothing }}}", Escape::Json),
            "{\"a\": null}"
        );
        let json = rendered("{\"a\": {{ params.a }}, \"n\": {{ n }}}", Escape::Json);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json, json!({"a": "x < \"y\"", "n": 7}));
        assert_eq!(Escape::of("text/xml; charset=utf-8"), Escape::Xml);
        assert_eq!(Escape::of("application/json"), Escape::Json);
        assert_eq!(Escape::of("Application/JSON; charset=utf-8"), Escape::Json);
        assert_eq!(Escape::of("Text/XML"), Escape::Xml);
        assert_eq!(Escape::of("text/plain"), Escape::None);
    }

    #[test]
    fn json_comes_back_as_it_was() {
        let json = json!({"a": [1, -2, 2.5, true, null, "x"], "b": {"c": {}}, "n": 9_007_199_254_740_993_i64});
        assert_eq!(to_json(&of_json(&json)), json);
    }

    /// Two ids that differ must never come out as one.
    #[test]
    fn whole_numbers_keep_all_their_digits() {
        for digits in [
            "9223372036854775807",
            "-9223372036854775808",
            "18446744073709540001",
            "18446744073709540002",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "123456789012345678901234567890",
        ] {
            let json: Json = serde_json::from_str(&format!("{{\"id\": {digits}}}")).unwrap();
            let context = of_json(&json);
            let id = Template::new("{{ id }}").unwrap();
            assert_eq!(id.text(&context).unwrap().as_deref(), Some(digits));
            let in_text = Template::new("<{{ id }}>").unwrap();
            let in_text = in_text.text(&context).unwrap().unwrap();
            assert_eq!(in_text, format!("<{digits}>"));
            let back = to_json(&id.value(&context).unwrap().unwrap());
            let back = back.as_str().map_or(back.to_string(), str::to_owned);
            assert_eq!(back, digits);
        }
        let real: Json = serde_json::from_str("[2.5, 1e3, 1e400]").unwrap();
        let reals = to_json(&of_json(&real));
        assert_eq!(reals[0], json!(2.5));
        assert_eq!(reals[1].as_f64(), Some(1000.0));
        assert!(reals[2].is_string(), "what no number here holds is text");
    }

    #[test]
    fn what_a_template_reads_is_known() {
        let reads = |source: &str| Template::new(source).unwrap().reads(&["json", "body"]);
        for source in [
            "{{ json.id }}",
            "{{ 'OK' in body }}",
            "a {{ status }} {{ json }}",
            "{% if body %}x{% endif %}",
        ] {
            assert!(reads(source), "{source}");
        }
        for source in ["fixed", "{{ status == 200 }}", "{{ headers.json }}"] {
            assert!(!reads(source), "{source}");
        }
    }

    #[test]
    fn own_filters_and_tests() {
        assert_eq!(rendered("{{ ' a ' | ltrim }}|", Escape::None), "a |");
        assert_eq!(rendered("{{ 'u:p' | base64 }}", Escape::None), "dTpw");
        assert_eq!(
            rendered("<{{ nothing | ltrim | base64 }}>", Escape::None),
            "<>"
        );
        let long = Template::new("{{ params.a is matching('^x <') }}").unwrap();
        assert!(long.holds(&context()).unwrap());
    }

    #[test]
    fn what_is_wrong_is_said_before_it_is_used() {
        let names = Names::default()
            .with("n")
            .with_members("params", ["msisdn", "text"]);
        let wrong = |source: &str| {
            let template = Template::new(source).unwrap();
            template.check(&names).unwrap_or_default()
        };
        assert_eq!(wrong("{{ params.msisdn }} {{ n.anything }}"), "");
        assert!(wrong("{{ params.mssidn }}").contains("did you mean params.msisdn?"));
        assert!(wrong("a{{ parms.text }}").contains("parms has no value here"));
        assert!(wrong("{{ params.text | shout }}").contains("shout"));
        assert!(Template::new("{{ a b }}").is_err());
        assert!(Template::new("{% if n %}").is_err());
    }

    #[test]
    fn an_endless_template_ends() {
        let long = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        let error = Template::new(long)
            .unwrap()
            .render(&context(), Escape::None);
        assert!(error.unwrap_err().to_string().contains("fuel"));
    }
}
