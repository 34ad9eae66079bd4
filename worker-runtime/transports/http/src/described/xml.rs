//! Values from documents of XML, by their paths.
//!
//! Of XML as providers send it: elements, attributes, text and CDATA in UTF-8. A document type, and with it every entity
//! that is not one of XML's own five, is refused, so nothing is fetched and nothing grows.

use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use std::collections::BTreeMap;
use vumi_api::transports::generic_http::{XmlPath, XmlStep};
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};

/// Deepest element.
const DEPTH: usize = 32;
/// Most elements.
const ELEMENTS: usize = 10_000;

/// Names, and where in a document each has its value.
pub(super) struct Paths(Vec<(String, XmlPath)>);

impl Paths {
    pub(super) fn new(map: &BTreeMap<String, String>) -> Result<Self, WorkError> {
        let path = |(name, source): (&String, &String)| {
            let path = source.parse().map_err(|wrong: String| {
                let text = format!("the path of {name}: {wrong}");
                WorkError::new(ErrorClass::Config, codes::CONFIG_INVALID, text)
            })?;
            Ok((name.clone(), path))
        };
        map.iter().map(path).collect::<Result<_, _>>().map(Self)
    }

    /// The values that a document has; why it is none. The reason holds nothing of it.
    pub(super) fn read(&self, document: &[u8]) -> Result<Vec<(String, String)>, String> {
        let root = element(document)?;
        let value = |(name, path): &(String, XmlPath)| Some((name.clone(), root.find(path)?));
        Ok(self.0.iter().filter_map(value).collect())
    }
}

/// An element.
#[derive(Default)]
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
    text: String,
}

impl Element {
    fn find(&self, path: &XmlPath) -> Option<String> {
        let mut at = self;
        for step in &path.steps {
            at = at.children.iter().find(|child| child.fits(step))?;
        }
        match &path.attribute {
            None => Some(at.whole_text()),
            Some(wanted) => {
                let mut attributes = at.attributes.iter();
                attributes.find_map(|(name, text)| (name == wanted).then(|| text.clone()))
            }
        }
    }

    fn fits(&self, step: &XmlStep) -> bool {
        self.name == step.name
            && step.having.as_ref().is_none_or(|(name, text)| {
                let mut children = self.children.iter();
                children.any(|child| child.name == *name && child.whole_text().trim() == text)
            })
    }

    /// Its own text, or, where it has none, that of the elements in it.
    fn whole_text(&self) -> String {
        match self.text.trim().is_empty() && !self.children.is_empty() {
            true => self.children.iter().map(Element::whole_text).collect(),
            false => self.text.clone(),
        }
    }
}

/// The root element of a document.
fn element(document: &[u8]) -> Result<Element, String> {
    let text = std::str::from_utf8(document).map_err(|_| "it is no XML in UTF-8")?;
    let broken = |_| "it is no XML".to_owned();
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    let mut elements = 0;
    loop {
        let event = reader.read_event().map_err(broken)?;
        match &event {
            Event::Start(start) | Event::Empty(start) => {
                elements += 1;
                if open.len() == DEPTH || elements > ELEMENTS {
                    return Err("its XML is too deep or has too many elements".into());
                }
                if open.is_empty() && root.is_some() {
                    return Err("it is no XML".into());
                }
                open.push(begun(start)?);
            }
            Event::Text(text) => {
                let text = text.xml10_content().map_err(|_| "it is no XML in UTF-8")?;
                add(&mut open, &text)?;
            }
            Event::CData(text) => {
                let text = text.xml10_content().map_err(|_| "it is no XML in UTF-8")?;
                add(&mut open, &text)?;
            }
            Event::GeneralRef(name) => {
                let text = referred(name)?;
                add(&mut open, &text)?;
            }
            Event::DocType(_) => return Err("its XML has a document type".into()),
            Event::End(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
        if matches!(event, Event::End(_) | Event::Empty(_)) {
            let done = open.pop().ok_or("it is no XML")?;
            match open.last_mut() {
                Some(parent) => parent.children.push(done),
                None => root = Some(done),
            }
        }
    }
    root.filter(|_| open.is_empty())
        .ok_or_else(|| "it is no XML".into())
}

fn begun(start: &BytesStart<'_>) -> Result<Element, String> {
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|_| "it is no XML")?;
        // Of entities, XML's own five are known here and no others.
        let text = attribute.normalized_value(XmlVersion::Implicit1_0);
        let text = text.map_err(|_| "it is no XML")?;
        attributes.push((name(attribute.key.local_name().as_ref()), text.into_owned()));
    }
    Ok(Element {
        name: name(start.local_name().as_ref()),
        attributes,
        ..Element::default()
    })
}

/// Adds text to the element that is open. Between elements there is space, and outside of the root nothing else.
fn add(open: &mut [Element], text: &str) -> Result<(), String> {
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err("it is no XML".into()),
    }
    Ok(())
}

/// What `&…;` stands for.
fn referred(name: &BytesRef<'_>) -> Result<String, String> {
    if let Some(letter) = name.resolve_char_ref().map_err(|_| "it is no XML")? {
        return Ok(letter.into());
    }
    let name = name.decode().map_err(|_| "it is no XML in UTF-8")?;
    let known = quick_xml::escape::resolve_xml_entity(&name);
    known
        .map(str::to_owned)
        .ok_or_else(|| "its XML has an entity that XML does not define".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, document: &str) -> Result<Option<String>, String> {
        let map = BTreeMap::from([("x".to_owned(), path.to_owned())]);
        let found = Paths::new(&map).unwrap().read(document.as_bytes())?;
        Ok(found.into_iter().next().map(|(_, text)| text))
    }

    #[test]
    fn values_are_found_by_their_paths() {
        let event = "<?xml version=\"1.0\"?>\n<Message xmlns:v=\"urn:x\"><!-- c --><Response Type=\"OnUSSEvent\">
            <v:OnUSSEvent Type='Request'><USSContext MSISDN=\"27&amp;8\" ConnStr='*120#'/>
            <USSText>a &lt;b&gt; &#233;<![CDATA[ & c]]></USSText><Empty/></v:OnUSSEvent></Response></Message>";
        let call = "<methodCall><params><param><value><struct>
            <member><name>one</name><value><string>1</string></value></member>
            <member><name>two</name><value>2</value></member>
            </struct></value></param></params></methodCall>";
        for (path, document, expected) in [
            ("Response/@Type", event, Some("OnUSSEvent")),
            ("Response/OnUSSEvent/@Type", event, Some("Request")),
            (
                "Response/OnUSSEvent/USSContext/@MSISDN",
                event,
                Some("27&8"),
            ),
            ("Response/OnUSSEvent/USSText", event, Some("a <b> é & c")),
            ("Response/OnUSSEvent/Empty", event, Some("")),
            ("Response/OnUSSEvent/None", event, None),
            ("Response/@Nothing", event, None),
            (
                "params/param/value/struct/member[name=one]/value",
                call,
                Some("1"),
            ),
            (
                "params/param/value/struct/member[name=two]/value",
                call,
                Some("2"),
            ),
            (
                "params/param/value/struct/member[name=six]/value",
                call,
                None,
            ),
            ("@status_code", "<r status_code=\"-1\"/>", Some("-1")),
        ] {
            let found = read(path, document).unwrap();
            assert_eq!(found.as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_document_or_more_than_one_is_refused() {
        let deep = format!("{}{}", "<a>".repeat(DEPTH + 1), "</a>".repeat(DEPTH + 1));
        let wide = format!("<a>{}</a>", "<b/>".repeat(ELEMENTS));
        for (document, says) in [
            ("", "no XML"),
            ("blah", "no XML"),
            ("<a>", "no XML"),
            ("<a></b>", "no XML"),
            ("<a/><b/>", "no XML"),
            ("<a/>x", "no XML"),
            ("<a b=1/>", "no XML"),
            ("<a>&amp</a>", "no XML"),
            ("<a b='&x;'/>", "no XML"),
            ("<a>&x;</a>", "an entity"),
            (
                "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
                "a document type",
            ),
            (deep.as_str(), "too deep"),
            (wide.as_str(), "too many elements"),
        ] {
            let error = read("b", document).unwrap_err();
            assert!(error.contains(says), "{document:.40}: {error}");
        }
        let bytes = Paths::new(&BTreeMap::new()).unwrap().read(b"<a>\xff</a>");
        assert!(bytes.unwrap_err().contains("UTF-8"));
    }
}
