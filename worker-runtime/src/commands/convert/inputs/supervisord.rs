//! Programs of a supervisord file.

mod sections;

use super::{Found, below, configuration, mapping, set_option, stem};
use crate::commands::convert::table::TABLE;
use crate::error::CliError;
use sections::{Known, Section, folder_of, merge, sections};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The programs of a file and of those that it includes.
pub(super) fn read(text: &str, file: &Path) -> Result<Vec<Found>, CliError> {
    let (mut all, mut aside) = (Vec::new(), aside(file));
    gather(text, file, false, &mut all, &mut aside)?;
    let mut found = Vec::new();
    for section in &all {
        let named = section.name.split_once(':');
        match named.map_or((&*section.name, ""), |(kind, name)| (kind, name.trim())) {
            ("program", name) => found.extend(programs(name, section)?),
            (kind, name) => other(kind, name, section, &mut aside),
        }
    }
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

/// The sections of a file, then those of the files that it includes.
fn gather(
    text: &str,
    file: &Path,
    is_included: bool,
    all: &mut Vec<Section>,
    aside: &mut Found,
) -> Result<(), CliError> {
    let (found, strays) = sections(text, file);
    let place = match is_included {
        true => format!("{}: ", file.display()),
        false => String::new(),
    };
    aside.lost.extend(strays.into_iter().map(|line| {
        format!("{place}line {line} is not converted: it is no section, no setting and no comment")
    }));
    let mut includes = Vec::new();
    for section in found {
        match (&*section.name, is_included) {
            ("include", false) => merge(&mut includes, section),
            ("include", true) => aside.lost.push(format!(
                "{place}its [include] is not converted: supervisord reads none in a file that is included"
            )),
            _ => merge(all, section),
        }
    }
    for section in includes {
        for file in included(&section, file, aside)? {
            let text = super::text(&file)?;
            gather(&text, &file, true, all, aside)?;
        }
        aside.dropped.extend(section.dropped);
    }
    Ok(())
}

/// Names a section that is no program.
fn other(kind: &str, name: &str, section: &Section, aside: &mut Found) {
    aside.dropped.extend(section.dropped.iter().cloned());
    match kind {
        "group" => aside.lost.push(format!(
            "group:{name} is not converted: {} start and stop together there; here one folder for `vumi run -f` does that",
            section.text("programs").unwrap_or("its programs")
        )),
        "supervisord" if section.setting("environment").is_some() => {
            aside.lost.push(
                "environment of [supervisord] is not converted: nothing has its meaning".into(),
            );
        }
        "supervisord" | "supervisorctl" | "unix_http_server" | "inet_http_server" | "rpcinterface"
        | "ctlplugin" => {
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

/// The files that an `[include]` names: patterns, relative to the file.
fn included(section: &Section, file: &Path, aside: &mut Found) -> Result<Vec<PathBuf>, CliError> {
    let here = folder_of(file);
    let mut files = Vec::new();
    let nothing = Known {
        program: None,
        process: None,
    };
    let patterns = section.text("files").unwrap_or_default();
    for pattern in patterns.split_whitespace() {
        let (pattern, left) = nothing.expand_text(pattern, &here);
        if !left.is_empty() {
            aside.lost.push(format!(
                "[include] {pattern} is not converted: only supervisord knows {}; name the file to `vumi convert`",
                left.join(" and ")
            ));
            continue;
        }
        let whole = below(&here, &pattern);
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

/// Whether the processes of a program differ in more than their logs.
fn counts(section: &Section) -> bool {
    let mut asked = ["command", "directory"].iter();
    asked.any(|key| {
        let text = section.text(key);
        text.is_some_and(|text| text.contains("%(process_num)"))
    })
}

/// The processes of a program that are not the same: several only if its command says which of them it is.
fn programs(name: &str, section: &Section) -> Result<Vec<Found>, CliError> {
    let number = |key: &str| section.text(key).and_then(|n| n.parse::<u32>().ok());
    let count = number("numprocs").unwrap_or(1);
    let first = number("numprocs_start").unwrap_or(0);
    if count < 2 || !counts(section) {
        return Ok(vec![program(name, first, section)]);
    }
    const MOST: u32 = 1000;
    if count > MOST {
        return Err(CliError::validation(format!(
            "{}, program:{name}: numprocs is {count}; the most that is converted is {MOST}",
            section.file.display()
        )));
    }
    let each = (first..first.saturating_add(count)).map(|process| {
        let mut found = program(name, process, section);
        found.name = format!("{name}-{process}");
        found.from = format!("{} {process}", found.from);
        // Each of them is a worker now.
        found.lost.retain(|lost| !lost.starts_with("numprocs "));
        found
    });
    Ok(each.collect())
}

fn program(name: &str, process: u32, section: &Section) -> Found {
    let mut found = Found {
        from: format!("{}, program:{name}", section.file.display()),
        name: name.to_owned(),
        dropped: section.dropped.clone(),
        ..Found::default()
    };
    for sections::Setting { key, value, .. } in &section.settings {
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
    let known = Known {
        program: Some(name),
        process: Some(process),
    };
    let mut unknown = Vec::new();
    let mut setting = |key: &str| {
        let (text, left) = known.expand(section.setting(key)?);
        unknown.extend(left.iter().map(|left| {
            format!("{left} in its {key} is not converted: only supervisord knows it; write what it stands for")
        }));
        Some(text)
    };
    let command = setting("command").unwrap_or_default();
    let directory = setting("directory");
    let Some(words) = shlex::split(&command) else {
        found
            .lost
            .push("its command has a quotation mark without a second one".into());
        return found;
    };
    let plugin = ["vumi_worker", "start_worker"];
    let Some(place) = words
        .iter()
        .position(|word| plugin.contains(&word.as_str()))
    else {
        found
            .lost
            .push("it runs no Vumi worker; leave it to supervisord".into());
        return found;
    };
    found.lost.extend(unknown);
    let folder = match directory {
        Some(folder) => below(&folder_of(&section.file), &folder),
        None => PathBuf::new(),
    };
    if let Err(error) = options(&mut found, &words[place + 1..], &folder) {
        // The others can be converted.
        found.class.clear();
        found.is_unreadable |= error.code == CliError::ENVIRONMENT;
        found.lost.push(format!("it is not converted: {error}"));
    }
    found
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
                found.config = read_mapping(&file)?;
                if found.name.is_empty() {
                    found.name = stem(&file);
                }
            }
            "vumi-config" => {
                let file = below(folder, &value);
                let mut options = read_mapping(&file)?;
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

fn read_mapping(file: &Path) -> Result<Map<String, Value>, CliError> {
    mapping(configuration(file)?, file)
}
