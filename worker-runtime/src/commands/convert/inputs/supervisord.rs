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

/// The programs of a file.
pub(super) fn read(text: &str, file: &Path) -> Result<Vec<Found>, CliError> {
    let mut found = Vec::new();
    for section in sections(text) {
        if let Some(name) = section.name.strip_prefix("program:") {
            found.push(program(name.trim(), &section, file)?);
        }
    }
    if found.is_empty() {
        return Err(CliError::validation(format!(
            "{} has no [program:…]",
            file.display()
        )));
    }
    Ok(found)
}

fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines() {
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
            (_, None, None) => {}
        }
    }
    sections
}

fn program(name: &str, section: &Section, file: &Path) -> Result<Found, CliError> {
    let mut found = Found {
        from: format!("{}, program:{name}", file.display()),
        name: name.to_owned(),
        ..Found::default()
    };
    let here = file.parent().unwrap_or(Path::new(""));
    let expand = |text: &str| {
        text.replace("%(program_name)s", name)
            .replace("%(process_num)s", "0")
            .replace("%(here)s", &here.display().to_string())
    };
    let setting = |key: &str| {
        let mut settings = section.settings.iter();
        settings
            .find(|(known, _)| known == key)
            .map(|(_, value)| expand(value))
    };
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
        let why = rule.drop.as_deref().unwrap_or_default();
        let usual = rule.unless.as_ref().is_some_and(|usual| {
            usual
                .as_str()
                .map_or_else(|| usual.to_string(), str::to_owned)
                == value.to_lowercase()
        });
        if !why.is_empty() && !usual {
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
