//! What became of tests: for people, and as JUnit XML for build servers.

use super::file::{Test, TestFile};
use crate::error::CliError;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A test that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its file.
    pub file: PathBuf,
    /// Its name.
    pub name: String,
    /// How long it took.
    pub took: Duration,
    /// Why it did not pass.
    pub outcome: Result<(), CliError>,
}

impl Ended {
    pub(super) fn new(
        file: &TestFile,
        test: &Test,
        took: Duration,
        outcome: Result<(), CliError>,
    ) -> Self {
        Self {
            file: file.path.clone(),
            name: test.name.clone(),
            took,
            outcome,
        }
    }

    /// The line, and lines, about it.
    pub fn shown(&self) -> String {
        let millis = self.took.as_millis();
        let place = format!("{}: {}", self.file.display(), self.name);
        match &self.outcome {
            Ok(()) => format!("ok    {place} ({millis} ms)\n"),
            Err(error) => {
                let lines: String = error.text.lines().map(|l| format!("      {l}\n")).collect();
                format!("FAIL  {place} ({millis} ms)\n{lines}")
            }
        }
    }
}

/// The last line.
pub fn summary(ended: &[Ended]) -> String {
    let passed = ended.iter().filter(|test| test.outcome.is_ok()).count();
    let failed = ended.len() - passed;
    let took: Duration = ended.iter().map(|test| test.took).sum();
    format!(
        "{passed} passed, {failed} failed ({} ms)\n",
        took.as_millis()
    )
}

/// JUnit XML: a suite for each file.
pub fn junit(ended: &[Ended]) -> std::io::Result<Vec<u8>> {
    let mut suites: BTreeMap<&PathBuf, Vec<&Ended>> = BTreeMap::new();
    for test in ended {
        suites.entry(&test.file).or_default().push(test);
    }
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    writer
        .create_element("testsuites")
        .write_inner_content(|writer| {
            for (file, tests) in &suites {
                suite(writer, &file.display().to_string(), tests)?;
            }
            Ok(())
        })?;
    let mut xml = writer.into_inner();
    xml.push(b'\n');
    Ok(xml)
}

fn suite(writer: &mut Writer<Vec<u8>>, file: &str, tests: &[&Ended]) -> std::io::Result<()> {
    let count = tests.len().to_string();
    let failed = tests
        .iter()
        .filter(|test| test.outcome.is_err())
        .count()
        .to_string();
    let took: Duration = tests.iter().map(|test| test.took).sum();
    writer
        .create_element("testsuite")
        .with_attribute(("name", file))
        .with_attribute(("tests", &*count))
        .with_attribute(("failures", &*failed))
        .with_attribute(("errors", "0"))
        .with_attribute(("time", &*seconds(took)))
        .write_inner_content(|writer| {
            for test in tests {
                let name = writable(&test.name);
                let case = writer
                    .create_element("testcase")
                    .with_attribute(("classname", file))
                    .with_attribute(("name", &*name));
                let time = seconds(test.took);
                let case = case.with_attribute(("time", &*time));
                match &test.outcome {
                    Ok(()) => case.write_empty()?,
                    Err(error) => {
                        let text = writable(&error.text);
                        let first = text.lines().next().unwrap_or_default().to_owned();
                        case.write_inner_content(|writer| {
                            writer
                                .create_element("failure")
                                .with_attribute(("message", &*first))
                                .write_text_content(BytesText::new(&text))?;
                            Ok(())
                        })?
                    }
                };
            }
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
    fn junit_has_a_suite_for_each_file_and_escapes() {
        let test = |name: &str, outcome| Ended {
            file: "a/tests/x.yaml".into(),
            name: name.into(),
            took: Duration::from_millis(12),
            outcome,
        };
        let ended = [
            test("one & two", Ok(())),
            test("three", Err(CliError::runtime("step 1:\n  <\u{1}>"))),
        ];
        let xml = String::from_utf8(junit(&ended).unwrap()).unwrap();
        for part in [
            "<testsuite name=\"a/tests/x.yaml\" tests=\"2\" failures=\"1\" errors=\"0\" time=\"0.024\">",
            "<testcase classname=\"a/tests/x.yaml\" name=\"one &amp; two\" time=\"0.012\"/>",
            "<failure message=\"step 1:\">step 1:\n  &lt;&gt;</failure>",
        ] {
            assert!(xml.contains(part), "{part} is not in\n{xml}");
        }
        assert_eq!(summary(&ended), "1 passed, 1 failed (24 ms)\n");
        assert!(
            ended[1]
                .shown()
                .starts_with("FAIL  a/tests/x.yaml: three (12 ms)\n      step 1:\n")
        );
    }
}
