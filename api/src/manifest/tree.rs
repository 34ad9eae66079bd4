//! YAML documents as trees that know where each key and value stands. Multi-document files, comments, anchors and merge
//! keys (`<<`) are read; scalars follow the YAML 1.2 core schema.
//!
//! Built on the parser's events rather than on a ready-made document type, because those drop the places of keys and
//! all but one of several equal keys.

use super::finding::{DUPLICATE_KEY, SYNTAX};
use super::report::Report;
use super::scalar;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::Value;
use std::collections::HashMap;

/// Nodes that one file may hold once its aliases are expanded.
const MAX_NODES: usize = 200_000;
/// Levels that one document may have.
const MAX_DEPTH: usize = 64;

/// A place in a file: line and column, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub line: usize,
    pub column: usize,
}

impl From<Span> for Place {
    fn from(span: Span) -> Self {
        Self {
            line: span.start.line(),
            column: span.start.col() + 1,
        }
    }
}

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub place: Place,
    pub data: Data,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Text, and whether it was written without quotes.
    Text(String, bool),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

/// One field of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub place: Place,
    pub value: Node,
}

impl Node {
    /// The entries of an object; none for other values.
    pub fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The entry of an object with this key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The value under a key of an object.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The text of a text value.
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text, _) => Some(text),
            _ => None,
        }
    }

    /// The value as JSON.
    pub fn json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(bool) => (*bool).into(),
            Data::Int(int) => (*int).into(),
            Data::Float(float) => (*float).into(),
            Data::Text(text, _) => text.as_str().into(),
            Data::List(items) => items.iter().map(Node::json).collect(),
            Data::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.json()))
                .collect(),
        }
    }
}

/// A collection that is still being read.
struct Open {
    place: Place,
    anchor: usize,
    kind: Collection,
}

enum Collection {
    List(Vec<Node>),
    /// Entries so far, and the key whose value comes next.
    Map(Vec<Entry>, Option<(String, Place)>),
}

/// Reads all documents of a file. What is wrong goes to `report`; documents before a syntax error are kept.
pub(super) fn read(text: &str, report: &mut Report<'_>) -> Vec<Node> {
    let mut builder = Builder {
        report,
        documents: Vec::new(),
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
    };
    for event in Parser::new_from_str(text) {
        let result = match event {
            Ok((event, span)) => builder.event(event, span.into()),
            Err(error) => Err((
                Place {
                    line: error.marker().line(),
                    column: error.marker().col() + 1,
                },
                format!("not YAML: {}", error.info()),
            )),
        };
        if let Err((place, message)) = result {
            builder.report.error(SYNTAX, place, "", message, None);
            break;
        }
    }
    builder.documents
}

struct Builder<'r, 'f> {
    report: &'r mut Report<'f>,
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

type Fatal = (Place, String);

impl Builder<'_, '_> {
    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), Fatal> {
        match event {
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let data = match &tag {
                    Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == "str") => {
                        return Err((
                            place,
                            "tags such as !name have no meaning in a manifest".into(),
                        ));
                    }
                    None if plain => scalar::resolve(&text),
                    _ => Data::Text(text.into_owned(), false),
                };
                self.finish(Node { place, data }, anchor, 1)?;
            }
            Event::Alias(anchor) => {
                let Some(mut node) = self.anchors.get(&anchor).cloned() else {
                    return Err((place, "an alias to the object it stands in".into()));
                };
                node.place = place;
                let (size, depth) = measure(&node);
                if self.open.len() + depth > MAX_DEPTH {
                    return Err((
                        place,
                        format!("nested deeper than {MAX_DEPTH} levels once aliases are expanded"),
                    ));
                }
                self.finish(node, 0, size)?;
            }
            Event::SequenceStart(anchor, _) => {
                self.start(anchor, place, Collection::List(Vec::new()))?
            }
            Event::MappingStart(anchor, _) => {
                self.start(anchor, place, Collection::Map(Vec::new(), None))?
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Ok(());
                };
                let data = match open.kind {
                    Collection::List(items) => Data::List(items),
                    Collection::Map(entries, _) => Data::Map(merged(entries)),
                };
                let node = Node {
                    place: open.place,
                    data,
                };
                self.finish(node, open.anchor, 1)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn start(&mut self, anchor: usize, place: Place, kind: Collection) -> Result<(), Fatal> {
        if self.open.len() >= MAX_DEPTH {
            return Err((place, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.open.push(Open {
            place,
            anchor,
            kind,
        });
        Ok(())
    }

    /// Puts a whole value where it belongs: into the open collection, or among the documents.
    fn finish(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Fatal> {
        self.nodes += size;
        if self.nodes > MAX_NODES {
            return Err((
                node.place,
                format!("more than {MAX_NODES} values once aliases are expanded"),
            ));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let parent = self.path();
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match &mut open.kind {
            Collection::List(items) => items.push(node),
            Collection::Map(entries, next) => match next.take() {
                None => *next = Some((key_text(&node)?, node.place)),
                Some((key, place)) => {
                    if let Some(first) = entries.iter().find(|e| e.key == key && key != "<<") {
                        let help =
                            format!("the first one is in line {}: keep one", first.place.line);
                        self.report.error(
                            DUPLICATE_KEY,
                            place,
                            parent,
                            "this key stands here twice",
                            Some(help),
                        );
                    } else {
                        entries.push(Entry {
                            key,
                            place,
                            value: node,
                        });
                    }
                }
            },
        }
        Ok(())
    }

    /// Path to the value that is being finished.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.kind {
                Collection::List(items) => path.push_str(&format!("[{}]", items.len())),
                Collection::Map(_, Some((key, _))) => path = below(&path, key),
                Collection::Map(_, None) => {}
            }
        }
        path
    }
}

/// The path to a field of the object at `path`; keys with dots or spaces stand in brackets.
pub(super) fn below(path: &str, key: &str) -> String {
    let plain = key
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '/'));
    match (plain, path) {
        (true, "") => key.to_owned(),
        (true, _) => format!("{path}.{key}"),
        (false, _) => format!("{path}[{key:?}]"),
    }
}

fn key_text(node: &Node) -> Result<String, Fatal> {
    match &node.data {
        Data::Text(text, _) => Ok(text.clone()),
        Data::Bool(bool) => Ok(bool.to_string()),
        Data::Int(int) => Ok(int.to_string()),
        Data::Float(float) => Ok(float.to_string()),
        Data::Null => Err((node.place, "a key is missing before the colon".into())),
        Data::List(_) | Data::Map(_) => Err((
            node.place,
            "a key must be text; put braces in a value in quotes".into(),
        )),
    }
}

/// Number of values in a tree, and its levels.
fn measure(node: &Node) -> (usize, usize) {
    let add = |(size, depth): (usize, usize), below: &Node| {
        let (s, d) = measure(below);
        (size + s, depth.max(d + 1))
    };
    match &node.data {
        Data::List(items) => items.iter().fold((1, 1), add),
        Data::Map(entries) => entries.iter().map(|entry| &entry.value).fold((1, 1), add),
        _ => (1, 1),
    }
}

/// Merge keys: the entries of `<<: *anchor` (or of a list of them) where the object itself has no such key.
fn merged(entries: Vec<Entry>) -> Vec<Entry> {
    let (merges, mut own): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|e| e.key == "<<");
    for merge in merges {
        let sources = match merge.value.data {
            Data::List(items) => items,
            _ => vec![merge.value],
        };
        for source in sources {
            for entry in source.entries() {
                if own.iter().all(|e| e.key != entry.key) {
                    own.push(entry.clone());
                }
            }
        }
    }
    own
}
