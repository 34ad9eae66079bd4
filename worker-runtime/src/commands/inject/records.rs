//! What `vumi inject` reads: lines, CSV or JSON lines, each record made into one whole message.

use crate::error::CliError;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use vumi_api::Flow;
use vumi_api::shared::Class;
use vumi_core::message::{MAX_BODY, Message, Timestamp, UserMessage, derived_id};

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    /// Each line is the content of a message
    Lines,
    /// A header with the names of fields, then a row for each message
    Csv,
    /// Each line is a JSON object with the fields of a message
    Jsonl,
}

impl Layout {
    /// What the ending of a file's name says.
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("csv") => Layout::Csv,
            Some("jsonl" | "ndjson" | "json") => Layout::Jsonl,
            _ => Layout::Lines,
        }
    }
}

/// Columns of a CSV file that are fields of the message, by each of their names.
const COLUMNS: &[(&str, &str)] = &[
    ("to", "to_addr"),
    ("to_addr", "to_addr"),
    ("from", "from_addr"),
    ("from_addr", "from_addr"),
    ("content", "content"),
    ("message_id", "message_id"),
    ("session_event", "session_event"),
    ("in_reply_to", "in_reply_to"),
    ("group", "group"),
    ("provider", "provider"),
    ("transport_type", "transport_type"),
];
/// Columns that are labels in `helper_metadata`.
const LABELS: &[&str] = &["class", "batch", "tenant"];

/// What records do not say themselves. `{i}` in the texts of the command line is the number of the record.
#[derive(Clone, Debug, Default)]
pub struct Template {
    /// Connector: the `transport_name`.
    pub connector: String,
    /// Which of its flows; inbound if there is none.
    pub flow: Option<Flow>,
    /// `to_addr`.
    pub to: Option<String>,
    /// `from_addr`.
    pub from: Option<String>,
    /// Content of records without any.
    pub content: Option<String>,
    /// `session_event`.
    pub session: Option<String>,
    /// `transport_type`.
    pub transport_type: String,
    /// Endpoint in `routing_metadata`.
    pub endpoint: Option<String>,
    /// Labels in `helper_metadata`.
    pub labels: Vec<(&'static str, String)>,
    /// From which, with the number of a record, its id is derived: a record that is sent again has the same.
    pub run: String,
}

impl Template {
    /// Names everything that decides which messages are made of what is read, but not the run: the same for the same command.
    pub fn fingerprint(&self, layout: Option<Layout>, skips_invalid: bool) -> String {
        let said = [
            &self.to,
            &self.from,
            &self.content,
            &self.session,
            &self.endpoint,
        ];
        let said = json!([said, self.transport_type, self.labels]).to_string();
        match (layout, skips_invalid) {
            // As earlier versions wrote it.
            (None, false) => derived_id(&["inject", &said]),
            how => derived_id(&["inject", &said, &format!("{how:?}")]),
        }
    }

    fn flow(&self) -> Flow {
        self.flow.unwrap_or(Flow::Inbound)
    }

    /// The message of record `number`, of which `fields` are known.
    fn message(&self, number: u64, fields: Map<String, Value>) -> Result<Bytes, String> {
        let id = derived_id(&["inject", &self.run, &number.to_string()]);
        let mut message = match self.flow() {
            Flow::Event => event(&id),
            Flow::Inbound | Flow::Outbound => self.user_message(number, &id),
        };
        let whole = message.as_object_mut().ok_or("not an object")?;
        whole.extend(fields);
        if whole.get("transport_name").is_none_or(Value::is_null) {
            whole.insert("transport_name".into(), self.connector.clone().into());
        }
        for (label, value) in &self.labels {
            let metadata = whole.entry("helper_metadata").or_insert_with(|| json!({}));
            if let Some(metadata) = metadata.as_object_mut() {
                metadata
                    .entry(*label)
                    .or_insert_with(|| value.clone().into());
            }
        }
        if let Some(endpoint) = &self.endpoint {
            let metadata = whole.entry("routing_metadata").or_insert_with(|| json!({}));
            if let Some(metadata) = metadata.as_object_mut() {
                metadata
                    .entry("endpoint_name")
                    .or_insert_with(|| endpoint.clone().into());
            }
        }
        let (needed, cure) = match self.flow() {
            Flow::Inbound => ("from_addr", "give --from, or a column"),
            Flow::Outbound => ("to_addr", "give --to, or a column"),
            Flow::Event => (
                "user_message_id",
                "events are given as JSON, one in a line, with all of their fields",
            ),
        };
        if whole.get(needed).is_none_or(Value::is_null) {
            return Err(format!("it has no {needed}; {cure}"));
        }
        for address in ["from_addr", "to_addr"] {
            if whole.get(address).is_some_and(|given| given == "") {
                return Err(format!(
                    "its {address} is empty; leave it out, or name somebody"
                ));
            }
        }
        let metadata = whole.get("helper_metadata");
        if let Some(Value::String(class)) = metadata.and_then(|labels| labels.get("class")) {
            class.parse::<Class>()?;
        }
        let body = message.to_string();
        let message = Message::decode(self.flow(), body.as_bytes()).map_err(|e| e.to_string())?;
        Ok(message.encode())
    }

    fn user_message(&self, number: u64, id: &str) -> Value {
        let numbered = |text: &Option<String>| {
            let text = text.as_ref()?;
            Some(text.replace("{i}", &number.to_string()))
        };
        let (to, from) = (numbered(&self.to), numbered(&self.from));
        let mut message = UserMessage::new(&self.transport_type, to.as_deref(), from.as_deref());
        message.set_message_id(id);
        message.set_content(numbered(&self.content).as_deref());
        if let Some(session) = &self.session {
            message.set_field("session_event", session.as_str());
        }
        serde_json::from_slice(&message.encode()).unwrap_or_default()
    }
}

fn event(id: &str) -> Value {
    json!({
        "message_version": "20110921", "message_type": "event", "event_id": id,
        "timestamp": Timestamp::now().to_string(), "transport_metadata": {}, "helper_metadata": {},
        "routing_metadata": {},
    })
}

/// Where records come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Files, one after the other; `-` is standard input.
    Files(Vec<PathBuf>, Option<Layout>),
    /// The content of the template, so many times.
    Repeated(u64),
}

/// One record.
pub struct Record {
    /// Where it stands, as in `numbers.csv:12`.
    pub place: String,
    /// The id that it gives itself.
    pub id: Option<String>,
    /// What it says, as a hash; empty if nothing of its own.
    pub said: String,
    /// Its message, or why it is none.
    pub body: Result<Bytes, String>,
}

fn repeated(template: &Template, number: u64) -> Record {
    Record {
        place: format!("message {number}"),
        id: None,
        said: String::new(),
        body: template.message(number, Map::new()),
    }
}

impl Source {
    /// Whether it can be read twice.
    pub fn is_known(&self) -> bool {
        match self {
            Source::Repeated(_) => true,
            Source::Files(paths, _) => paths
                .iter()
                .all(|path| std::fs::metadata(path).is_ok_and(|about| about.is_file())),
        }
    }

    /// Names of what is read, for whoever goes on later.
    pub fn names(&self) -> Vec<String> {
        match self {
            Source::Repeated(count) => vec![format!("--count {count}")],
            Source::Files(paths, _) => paths
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
        }
    }

    /// What must be looked at before anything is sent. Of messages that differ by their number alone, the first and the last:
    /// there may be a great many.
    pub fn to_check<'a>(
        &'a self,
        template: &'a Template,
    ) -> Box<dyn Iterator<Item = Result<Record, CliError>> + 'a> {
        match self {
            Source::Repeated(count) => {
                let ends = (1..=*count).take(1).chain((2..=*count).next_back());
                Box::new(ends.map(|number| Ok(repeated(template, number))))
            }
            Source::Files(..) => self.records(template),
        }
    }

    /// Reads it from its beginning.
    pub fn records<'a>(
        &'a self,
        template: &'a Template,
    ) -> Box<dyn Iterator<Item = Result<Record, CliError>> + 'a> {
        match self {
            Source::Repeated(count) => {
                Box::new((1..=*count).map(|number| Ok(repeated(template, number))))
            }
            Source::Files(paths, layout) => {
                let mut number = 0;
                let rows = paths.iter().flat_map(move |path| rows(path, *layout));
                Box::new(rows.map(move |row| {
                    let Row { place, fields } = row?;
                    number += 1;
                    let id = fields.as_ref().ok().and_then(|fields| {
                        let id = fields.get("message_id").or_else(|| fields.get("event_id"));
                        id?.as_str().map(str::to_owned)
                    });
                    let said = fields.as_ref().ok().map(|fields| {
                        let fields = serde_json::to_string(fields).unwrap_or_default();
                        derived_id(&[fields.as_str()])
                    });
                    Ok(Record {
                        place,
                        id,
                        said: said.unwrap_or_default(),
                        body: fields.and_then(|fields| template.message(number, fields)),
                    })
                }))
            }
        }
    }
}

/// One record as it is written.
struct Row {
    place: String,
    fields: Result<Map<String, Value>, String>,
}

type Rows = Box<dyn Iterator<Item = Result<Row, CliError>>>;

fn rows(path: &Path, layout: Option<Layout>) -> Rows {
    let name = match path.as_os_str() == "-" {
        true => "<stdin>".to_owned(),
        false => path.display().to_string(),
    };
    let reader: Result<Box<dyn Read>, _> = match path.as_os_str() == "-" {
        true => Ok(Box::new(std::io::stdin().lock())),
        false => File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
    };
    let reader = match reader {
        Ok(reader) => BufReader::new(reader),
        Err(error) => return Box::new(std::iter::once(Err(CliError::unreadable(&name, &error)))),
    };
    match layout.unwrap_or_else(|| Layout::of(path)) {
        Layout::Csv => csv_rows(name, reader),
        Layout::Lines => Box::new(lines(name, reader, |line| {
            Ok(Map::from_iter([("content".to_owned(), line.into())]))
        })),
        Layout::Jsonl => Box::new(lines(name, reader, |line| {
            serde_json::from_str(line).map_err(|error| format!("not a JSON object: {error}"))
        })),
    }
}

/// Lines that are not empty, each with its number. A line longer than any message is not kept.
fn lines(
    name: String,
    mut reader: BufReader<Box<dyn Read>>,
    read: impl Fn(&str) -> Result<Map<String, Value>, String> + 'static,
) -> impl Iterator<Item = Result<Row, CliError>> {
    let mut at = 0u64;
    std::iter::from_fn(move || {
        loop {
            let mut line = Vec::new();
            let limit = MAX_BODY as u64 + 1;
            match reader.by_ref().take(limit).read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(CliError::unreadable(&name, &error))),
            }
            at += 1;
            let place = format!("{name}:{at}");
            if line.len() as u64 >= limit {
                let _ = reader.skip_until(b'\n');
                let fields = Err(format!("it is longer than {MAX_BODY} bytes"));
                return Some(Ok(Row { place, fields }));
            }
            let fields = match std::str::from_utf8(&line) {
                Ok(text) => match text.trim_end_matches(['\r', '\n']) {
                    "" => continue,
                    text => read(text),
                },
                Err(_) => Err("it is not UTF-8 text".into()),
            };
            return Some(Ok(Row { place, fields }));
        }
    })
}

fn csv_rows(name: String, reader: BufReader<Box<dyn Read>>) -> Rows {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::Headers)
        .from_reader(reader);
    let failed = |error: &dyn std::fmt::Display| {
        let error = CliError::validation(format!("{name}: {error}"));
        Box::new(std::iter::once(Err(error))) as Rows
    };
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => return failed(&error),
    };
    for column in &header {
        let known = COLUMNS.iter().any(|(name, _)| *name == column)
            || LABELS.contains(&column)
            || column == "endpoint";
        if !known {
            let mut names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
            names.extend(LABELS);
            names.push("endpoint");
            return failed(&format!(
                "the column {column:?} is no field of a message; columns are {}",
                names.join(", ")
            ));
        }
    }
    let mut records = reader.into_records();
    Box::new(std::iter::from_fn(move || {
        let record = records.next()?;
        Some(match record {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                let cells = header.iter().zip(&record);
                Ok(Row {
                    place: format!("{name}:{line}"),
                    fields: Ok(fields(cells)),
                })
            }
            Err(error) => match error.kind() {
                csv::ErrorKind::Io(error) => Err(CliError::unreadable(&name, error)),
                _ => {
                    let line = error.position().map_or(0, csv::Position::line);
                    Ok(Row {
                        place: format!("{name}:{line}"),
                        fields: Err(error.to_string()),
                    })
                }
            },
        })
    }))
}

/// The fields of a row; an empty cell says nothing.
fn fields<'a>(cells: impl Iterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut labels = Map::new();
    for (column, cell) in cells.filter(|(_, cell)| !cell.is_empty()) {
        if LABELS.contains(&column) {
            labels.insert(column.to_owned(), cell.into());
        } else if column == "endpoint" {
            fields.insert("routing_metadata".into(), json!({"endpoint_name": cell}));
        } else if let Some((_, field)) = COLUMNS.iter().find(|(name, _)| *name == column) {
            fields.insert((*field).to_owned(), cell.into());
        }
    }
    if !labels.is_empty() {
        fields.insert("helper_metadata".into(), labels.into());
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Template {
        Template {
            connector: "sms".into(),
            from: Some("2782{i}".into()),
            to: Some("12345".into()),
            transport_type: "sms".into(),
            labels: vec![("class", "bulk".into())],
            run: "r".into(),
            ..Template::default()
        }
    }

    fn read(file: &str, text: &str, template: &Template) -> Vec<Result<Value, String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        std::fs::write(&path, text).unwrap();
        let source = Source::Files(vec![path], None);
        let records = source.records(template);
        records
            .map(|record| {
                let record = record.map_err(|error| error.text)?;
                let place = record.place.rsplit('/').next().unwrap_or("").to_owned();
                let body = record.body.map_err(|why| format!("{place}: {why}"))?;
                serde_json::from_slice(&body).map_err(|error| error.to_string())
            })
            .collect()
    }

    #[test]
    fn lines_are_contents_and_the_template_says_the_rest() {
        let read = read("a.txt", "hello\r\n\ngrüße\n", &template());
        let first = read[0].as_ref().unwrap();
        assert_eq!(
            (&first["content"], &first["from_addr"]),
            (&"hello".into(), &"27821".into())
        );
        assert_eq!(first["transport_name"], "sms");
        assert_eq!(first["helper_metadata"], json!({"class": "bulk"}));
        let second = read[1].as_ref().unwrap();
        assert_eq!(
            (&second["content"], &second["from_addr"]),
            (&"grüße".into(), &"27822".into())
        );
        assert_ne!(first["message_id"], second["message_id"]);
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn ids_are_the_same_when_a_record_is_read_again() {
        let ids = |run: &str| {
            let template = Template {
                run: run.into(),
                ..template()
            };
            let read = read("a.txt", "hello\nhello\n", &template);
            read.into_iter()
                .map(|m| m.unwrap()["message_id"].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids("1"), ids("1"));
        assert_ne!(ids("1"), ids("2"));
    }

    #[test]
    fn another_command_is_told_from_the_same_one() {
        let print = |change: fn(&mut Template)| {
            let mut template = template();
            change(&mut template);
            template.fingerprint(None, false)
        };
        let same = print(|_| {});
        assert_eq!(print(|t| t.run = "another".into()), same);
        let others = [
            print(|t| t.content = Some("another".into())),
            print(|t| t.from = Some("27829".into())),
            print(|t| t.labels = vec![("batch", "another".into())]),
            template().fingerprint(Some(Layout::Lines), false),
            template().fingerprint(Some(Layout::Csv), false),
            template().fingerprint(None, true),
        ];
        assert_ne!(others[3], others[4]);
        assert!(others.iter().all(|other| *other != same));
    }

    #[test]
    fn of_a_great_many_messages_the_ends_are_looked_at() {
        let template = template();
        let looked_at = |count| {
            let records = Source::Repeated(count);
            let records = records.to_check(&template).map(|r| r.unwrap().place);
            records.collect::<Vec<_>>()
        };
        assert_eq!(looked_at(1), ["message 1"]);
        assert_eq!(looked_at(2), ["message 1", "message 2"]);
        let many = u64::MAX;
        assert_eq!(
            looked_at(many),
            ["message 1".to_owned(), format!("message {many}")]
        );
    }

    #[test]
    fn a_row_of_csv_wins_over_the_template() {
        let text = "to,content,class,endpoint\n1,\"a, b\",interactive,\n,plain,,second\n";
        let read = read("a.csv", text, &template());
        let first = read[0].as_ref().unwrap();
        assert_eq!(
            (&first["to_addr"], &first["content"]),
            (&"1".into(), &"a, b".into())
        );
        assert_eq!(first["helper_metadata"]["class"], "interactive");
        let second = read[1].as_ref().unwrap();
        assert_eq!(
            (&second["to_addr"], &second["helper_metadata"]["class"]),
            (&"12345".into(), &"bulk".into())
        );
        assert_eq!(second["routing_metadata"]["endpoint_name"], "second");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let bad = |file: &str, text: &str| -> String {
            let read = read(file, text, &template());
            read.into_iter().find_map(Result::err).unwrap_or_default()
        };
        assert!(bad("a.csv", "to,contnt\n1,x\n").contains("\"contnt\" is no field"));
        assert!(bad("a.csv", "to,content\n1,x\n2\n").starts_with("a.csv:3: "));
        assert!(bad("a.jsonl", "{}\n[1]\n").starts_with("a.jsonl:2: not a JSON object"));
        assert!(
            bad("a.jsonl", "{\"session_event\": \"x\"}\n")
                .starts_with("a.jsonl:1: field session_event")
        );
        let class = bad("a.csv", "content,class\nx,bulk\nx,purple\n");
        assert!(class.starts_with("a.csv:3: "), "{class}");
        assert!(
            class.contains("interactive, transactional, bulk"),
            "{class}"
        );
        let empty = bad("a.jsonl", "{\"to_addr\": \"\"}\n");
        assert!(
            empty.starts_with("a.jsonl:1: its to_addr is empty"),
            "{empty}"
        );
        let long = "x".repeat(MAX_BODY + 5) + "\nshort\n";
        let read = read("a.txt", &long, &template());
        assert!(
            read[0]
                .as_ref()
                .is_err_and(|why| why.contains("longer than")),
            "{:?}",
            read[0]
        );
        assert_eq!(read[1].as_ref().unwrap()["content"], "short");
    }

    #[test]
    fn a_whole_message_keeps_all_its_fields() {
        let mut message = UserMessage::new("ussd", Some("*120#"), Some("2783"));
        message.set_field("extra", "kept");
        message.set_transport_name("old");
        let text = String::from_utf8(message.encode().to_vec()).unwrap() + "\n";
        let read = read("a.jsonl", &text, &template());
        let read = read[0].as_ref().unwrap();
        assert_eq!(
            (&read["extra"], &read["from_addr"]),
            (&"kept".into(), &"2783".into())
        );
        assert_eq!(read["message_id"], message.message_id());
        assert_eq!(read["transport_name"], "old");
    }
}
