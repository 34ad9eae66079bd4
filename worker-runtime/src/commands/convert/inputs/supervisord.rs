//! Programs of a supervisord file. Its format: sections, `key=value`, lines that begin with white space go on, `;` and `#`
//! begin comments. It is not that of the INI crates, which know neither the comments nor the lines that go on.

use super::{Found, below, configuration, mapping, set_option, stem};
use crate::commands::convert::table::TABLE;
use crate::error::CliError;
use std::path::{Path, PathBuf};

/// A section with its settings.
struct Section {
    name: String,
    settings: Vec<(String, String)>,
}

/// The programs of a file and of those that it includes.
pub(super) fn read(text: &str, file: &Path) -> Result<Vec<Found>, CliError> {
    let (mut found, mut aside) = (Vec::new(), aside(file));
    one(text, file, false, &mut found, &mut aside)?;
    if found.is_empty() {
        return Err(CliError::validation(format!(
            "{} has no [program:…], and includes none",
            file.display()
        )));
    }
    if !(aside.lost.is_empty() && aside.dropped.is_empty()) {
        found.push(aside);
    }
    Ok(found)
}

/// Where it is written down what is not about one program.
fn aside(file: &Path) -> Found {
    Found {
        from: file.display().to_string(),
        is_worker: false,
        ..Found::default()
    }
}

fn one(
    text: &str,
    file: &Path,
    is_included: bool,
    found: &mut Vec<Found>,
    aside: &mut Found,
) -> Result<(), CliError> {
    let (sections, strays) = sections(text);
    aside.lost.extend(strays.into_iter().map(|line| {
        format!("line {line} is not converted: it is no section, no setting and no comment")
    }));
    for section in sections {
        let named = section.name.split_once(':');
        match named.map_or((&*section.name, ""), |(kind, name)| (kind, name.trim())) {
            ("program", name) => found.extend(programs(name, &section, file)?),
            ("include", _) if is_included => aside
                .lost
                .push("its [include] is not converted: supervisord reads none in a file that is included".into()),
            ("include", _) => {
                for file in included(&section, file, aside)? {
                    let text = super::text(&file)?;
                    let mut inner = self::aside(&file);
                    one(&text, &file, true, found, &mut inner)?;
                    let of = |lost: String| format!("{}: {lost}", file.display());
                    aside.lost.extend(inner.lost.into_iter().map(of));
                    aside.dropped.extend(inner.dropped);
                }
            }
            ("group", name) => aside.lost.push(format!(
                "group:{name} is not converted: {} start and stop together there; here one folder for `vumi run -f` does that",
                section.setting("programs").unwrap_or("its programs")
            )),
            ("supervisord", _) if section.setting("environment").is_some() => {
                aside.lost.push(
                    "environment of [supervisord] is not converted: nothing has its meaning".into(),
                );
            }
            ("supervisord" | "supervisorctl" | "unix_http_server" | "inet_http_server", _)
            | ("rpcinterface" | "ctlplugin", _) => {
                let name = &section.name;
                aside
                    .dropped
                    .push(format!("[{name}]: it is supervisord's own"));
            }
            _ => aside.lost.push(format!(
                "[{}] is not converted: it is no program that supervisord starts by itself",
                section.name
            )),
        }
    }
    Ok(())
}

/// The files that an `[include]` names: patterns, relative to the file.
fn included(section: &Section, file: &Path, aside: &mut Found) -> Result<Vec<PathBuf>, CliError> {
    let here = file.parent().unwrap_or(Path::new(""));
    let mut files = Vec::new();
    let patterns = section.setting("files").unwrap_or_default();
    for pattern in patterns.split_whitespace() {
        let pattern = pattern.replace("%(here)s", &here.display().to_string());
        let whole = below(here, &pattern);
        let matching = glob::glob(&whole.to_string_lossy())
            .map_err(|error| {
                let text = format!("{}: [include] {pattern}: {error}", file.display());
                CliError::validation(text)
            })?
            .collect::<Result<Vec<PathBuf>, _>>()
            .map_err(|error| CliError::environment(error.to_string()))?;
        if matching.is_empty() {
            aside.lost.push(format!(
                "[include] {pattern} is not converted: there is no such file"
            ));
        }
        files.extend(matching);
    }
    Ok(files)
}

/// Sections, and the numbers of lines that mean nothing.
fn sections(text: &str) -> (Vec<Section>, Vec<usize>) {
    let (mut sections, mut strays): (Vec<Section>, _) = (Vec::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        let goes_on = line.starts_with(char::is_whitespace);
        let line = match line.find(" ;").or_else(|| line.find("\t;")) {
            Some(comment) => &line[..comment],
            None => line,
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            sections.push(Section {
                name: name.trim().to_owned(),
                settings: Vec::new(),
            });
            continue;
        }
        let Some(section) = sections.last_mut() else {
            strays.push(at + 1);
            continue;
        };
        match (goes_on, section.settings.last_mut(), line.split_once('=')) {
            (true, Some((_, value)), _) => {
                value.push(' ');
                value.push_str(line);
            }
            (_, _, Some((key, value))) => {
                let setting = (key.trim().to_owned(), value.trim().to_owned());
                section.settings.push(setting);
            }
            // A file that lost its white space when it was copied: an option cannot begin a setting.
            (_, Some((_, value)), None) => {
                value.push(' ');
                value.push_str(line);
            }
            (_, None, None) => strays.push(at + 1),
        }
    }
    (sections, strays)
}

impl Section {
    fn setting(&self, key: &str) -> Option<&str> {
        let mut settings = self.settings.iter();
        settings
            .find(|(known, _)| known == key)
            .map(|(_, value)| value.as_str())
    }

    /// Whether its processes differ in more than their logs.
    fn counts(&self) -> bool {
        let mut asked = ["command", "directory"].iter();
        asked.any(|key| {
            self.setting(key)
                .is_some_and(|v| v.contains("%(process_num)"))
        })
    }
}

/// The processes of a program that are not the same: several only if its command says which of them it is.
fn programs(name: &str, section: &Section, file: &Path) -> Result<Vec<Found>, CliError> {
    let number = |key: &str| section.setting(key).and_then(|n| n.parse::<u32>().ok());
    let count = number("numprocs").unwrap_or(1);
    if count < 2 || !section.counts() {
        let first = number("numprocs_start").unwrap_or(0);
        return Ok(vec![program(name, first, section, file)?]);
    }
    const MOST: u32 = 1000;
    if count > MOST {
        return Err(CliError::validation(format!(
            "{}, program:{name}: numprocs is {count}; the most that is converted is {MOST}",
            file.display()
        )));
    }
    let first = number("numprocs_start").unwrap_or(0);
    let each = (first..first.saturating_add(count)).map(|process| {
        let mut found = program(name, process, section, file)?;
        found.name = format!("{name}-{process}");
        found.from = format!("{} {process}", found.from);
        // Each of them is a worker now.
        found.lost.retain(|lost| !lost.starts_with("numprocs "));
        Ok(found)
    });
    each.collect()
}

/// `%(process_num)s`, `…d` and `…02d`.
fn numbered(text: &str, process: u32) -> String {
    let (mut rest, mut out) = (text, String::new());
    while let Some((before, after)) = rest.split_once("%(process_num)") {
        out += before;
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (width, end) = after.split_at(digits);
        let Some(end) = end.strip_prefix(['s', 'd']) else {
            out += "%(process_num)";
            rest = after;
            continue;
        };
        let wide: usize = width.parse().unwrap_or(0);
        let wide = wide.min(20);
        out += &match width.starts_with('0') {
            true => format!("{process:0wide$}"),
            false => format!("{process:wide$}"),
        };
        rest = end;
    }
    out + rest
}

fn program(name: &str, process: u32, section: &Section, file: &Path) -> Result<Found, CliError> {
    let mut found = Found {
        from: format!("{}, program:{name}", file.display()),
        name: name.to_owned(),
        ..Found::default()
    };
    let here = file.parent().unwrap_or(Path::new(""));
    let expand = |text: &str| {
        numbered(text, process)
            .replace("%(program_name)s", name)
            .replace("%(here)s", &here.display().to_string())
    };
    let setting = |key: &str| section.setting(key).map(expand);
    for (key, value) in &section.settings {
        let Some(rule) = TABLE.program.get(key) else {
            // An option of the command whose line lost its white space.
            let option = key.starts_with('-');
            let why = if option {
                "begin its line with white space"
            } else {
                "nothing has its meaning"
            };
            found.lost.push(format!("{key} is not converted: {why}"));
            continue;
        };
        let usual = rule.unless.as_ref().is_some_and(|usual| {
            usual
                .as_str()
                .map_or_else(|| usual.to_string(), str::to_owned)
                == value.to_lowercase()
        });
        let why = |why: &Option<String>| why.clone().filter(|why| !usual && !why.is_empty());
        if let Some(why) = why(&rule.lost) {
            found
                .lost
                .push(format!("{key} {value} is not converted: {why}"));
        }
        if let Some(why) = why(&rule.drop) {
            found.dropped.push(format!("{key}: {why}"));
        }
    }
    let command = setting("command").unwrap_or_default();
    let Some(words) = shlex::split(&command) else {
        found
            .lost
            .push("its command has a quotation mark without a second one".into());
        return Ok(found);
    };
    let plugin = ["vumi_worker", "start_worker"];
    let Some(place) = words
        .iter()
        .position(|word| plugin.contains(&word.as_str()))
    else {
        found
            .lost
            .push("it runs no Vumi worker; leave it to supervisord".into());
        return Ok(found);
    };
    let folder = match setting("directory") {
        Some(folder) => below(here, &folder),
        None => PathBuf::new(),
    };
    options(&mut found, &words[place + 1..], &folder)?;
    Ok(found)
}

/// The options of `vumi_worker`.
fn options(found: &mut Found, words: &[String], folder: &Path) -> Result<(), CliError> {
    let mut words = words.iter();
    let (mut class, mut set) = (None, Vec::new());
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix("--") else {
            found
                .lost
                .push(format!("{word:?} in its command is not understood"));
            continue;
        };
        let (option, value) = match option.split_once('=') {
            Some((option, value)) => (option, value.to_owned()),
            None => (option, words.next().cloned().unwrap_or_default()),
        };
        match option {
            "worker-class" => class = Some(value),
            "worker_class" => class = class.or(Some(value)),
            "config" => {
                let file = below(folder, &value);
                found.config = mapping(configuration(&file)?, &file)?;
                if found.name.is_empty() {
                    found.name = stem(&file);
                }
            }
            "vumi-config" => {
                let file = below(folder, &value);
                let mut options = mapping(configuration(&file)?, &file)?;
                options.append(&mut found.options);
                found.options = options;
            }
            "set-option" => set.push(value),
            option => {
                found.options.insert(option.to_owned(), value.into());
            }
        }
    }
    // Whatever their order, options count more than the file.
    for option in &set {
        set_option(&mut found.config, option);
    }
    found.class = class.unwrap_or_default();
    if found.class.is_empty() {
        found
            .lost
            .push("its command names no --worker-class".into());
    }
    Ok(())
}
