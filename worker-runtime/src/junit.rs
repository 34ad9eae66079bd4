//! Results as JUnit XML, as build servers read them.

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// One result.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Results of one suite stand together.
    pub suite: String,
    /// What was tested.
    pub name: String,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub end: End,
}

/// How a test ended.
#[derive(Clone, Debug)]
pub enum End {
    /// Well.
    Passed,
    /// Not well, and why; the first line is the heading.
    Failed(String),
    /// It could not be run as it is, and why; likewise.
    Broken(String),
    /// It was not run, and why.
    Skipped(String),
}

/// The document.
///
/// # Errors
/// Does not happen: what is written stays in memory.
pub fn document(entries: &[Entry]) -> io::Result<Vec<u8>> {
    let mut suites: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        suites.entry(&entry.suite).or_default().push(entry);
    }
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    writer
        .create_element("testsuites")
        .write_inner_content(|writer| {
            for (name, entries) in &suites {
                suite(writer, name, entries)?;
            }
            Ok(())
        })?;
    let mut xml = writer.into_inner();
    xml.push(b'\n');
    Ok(xml)
}

fn suite(writer: &mut Writer<Vec<u8>>, name: &str, entries: &[&Entry]) -> io::Result<()> {
    let count = |which: fn(&End) -> bool| {
        let these = entries.iter().filter(|entry| which(&entry.end));
        these.count().to_string()
    };
    let took: Duration = entries.iter().map(|entry| entry.took).sum();
    writer
        .create_element("testsuite")
        .with_attribute(("name", name))
        .with_attribute(("tests", &*entries.len().to_string()))
        .with_attribute(("failures", &*count(|end| matches!(end, End::Failed(_)))))
        .with_attribute(("errors", &*count(|end| matches!(end, End::Broken(_)))))
        .with_attribute(("skipped", &*count(|end| matches!(end, End::Skipped(_)))))
        .with_attribute(("time", &*seconds(took)))
        .write_inner_content(|writer| entries.iter().try_for_each(|entry| case(writer, entry)))?;
    Ok(())
}

fn case(writer: &mut Writer<Vec<u8>>, entry: &Entry) -> io::Result<()> {
    let case = writer
        .create_element("testcase")
        .with_attribute(("classname", &*entry.suite))
        .with_attribute(("name", &*writable(&entry.name)))
        .with_attribute(("time", &*seconds(entry.took)));
    let (element, text) = match &entry.end {
        End::Passed => {
            case.write_empty()?;
            return Ok(());
        }
        End::Failed(text) => ("failure", writable(text)),
        End::Broken(text) => ("error", writable(text)),
        End::Skipped(why) => ("skipped", writable(why)),
    };
    let first = text.lines().next().unwrap_or_default();
    case.write_inner_content(|writer| {
        writer
            .create_element(element)
            .with_attribute(("message", first))
            .write_text_content(BytesText::new(&text))?;
        Ok(())
    })?;
    Ok(())
}

fn seconds(span: Duration) -> String {
    format!("{:.3}", span.as_secs_f64())
}

/// Control characters that XML cannot hold are left out.
fn writable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_a_suite_for_each_name_and_escapes() {
        let entry = |name: &str, end| Entry {
            suite: "a/tests/x.yaml".into(),
            name: name.into(),
            took: Duration::from_millis(12),
            end,
        };
        let entries = [
            entry("one & two", End::Passed),
            entry("three", End::Failed("step 1:\n  <\u{1}>".into())),
            entry("four", End::Skipped("not here".into())),
        ];
        let xml = String::from_utf8(document(&entries).unwrap()).unwrap();
        for part in [
            "<testsuite name=\"a/tests/x.yaml\" tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\" time=\"0.036\">",
            "<testcase classname=\"a/tests/x.yaml\" name=\"one &amp; two\" time=\"0.012\"/>",
            "<failure message=\"step 1:\">step 1:\n  &lt;&gt;</failure>",
            "<skipped message=\"not here\">not here</skipped>",
        ] {
            assert!(xml.contains(part), "{part} is not in\n{xml}");
        }
    }
}
