//! The format of a supervisord file: sections, `key=value`, lines that begin with white space go on, `;` and `#` begin comments,
//! `%(name)s` stands for something. It is not that of the INI crates, which know neither the comments nor the lines that go on.

use std::path::{Path, PathBuf};

/// A section with its settings, each key once.
pub(super) struct Section {
    pub(super) name: String,
    pub(super) settings: Vec<Setting>,
    /// Where it stands, or stands first.
    pub(super) file: PathBuf,
    /// Settings that do not count, and why.
    pub(super) dropped: Vec<String>,
}

pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: String,
    /// The folder of the file in which it stands.
    here: PathBuf,
}

impl Section {
    pub(super) fn setting(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }

    /// Text of a setting, as it is written.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.setting(key).map(|setting| setting.value.as_str())
    }

    /// Of a key that stands twice the last one counts.
    fn add(&mut self, setting: Setting) {
        if let Some(at) = self.settings.iter().position(|s| s.key == setting.key) {
            self.settings.remove(at);
            self.dropped.push(format!(
                "the first {}: it stands twice, and the last one counts, as in supervisord",
                setting.key
            ));
        }
        self.settings.push(setting);
    }
}

/// Adds a section. One that is there already gets its settings.
pub(super) fn merge(all: &mut Vec<Section>, section: Section) {
    let Some(known) = all.iter_mut().find(|known| known.name == section.name) else {
        return all.push(section);
    };
    known.dropped.extend(section.dropped);
    known.dropped.push(format!(
        "the second [{}]: its settings are added to those of the first, as in supervisord",
        section.name
    ));
    for setting in section.settings {
        known.add(setting);
    }
}

/// The sections of a file, and the numbers of lines that mean nothing.
pub(super) fn sections(text: &str, file: &Path) -> (Vec<Section>, Vec<usize>) {
    let (mut sections, mut strays): (Vec<Section>, _) = (Vec::new(), Vec::new());
    let here = folder_of(file);
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
        let name = line.strip_prefix('[');
        if let Some(name) = name.and_then(|line| line.strip_suffix(']')) {
            sections.push(Section {
                name: name.trim().to_owned(),
                settings: Vec::new(),
                file: file.to_owned(),
                dropped: Vec::new(),
            });
            continue;
        }
        let Some(section) = sections.last_mut() else {
            strays.push(at + 1);
            continue;
        };
        match (goes_on, section.settings.last_mut(), line.split_once('=')) {
            (true, Some(Setting { value, .. }), _) => {
                value.push(' ');
                value.push_str(line);
            }
            (_, _, Some((key, value))) => section.add(Setting {
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
                here: here.clone(),
            }),
            // A file that lost its white space when it was copied: an option cannot begin a setting.
            (_, Some(Setting { value, .. }), None) => {
                value.push(' ');
                value.push_str(line);
            }
            (_, None, None) => strays.push(at + 1),
        }
    }
    (sections, strays)
}

/// The folder of a file; empty for one that stands where we are.
pub(super) fn folder_of(file: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).to_owned()
}

/// What `%(name)s` may stand for.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) program: Option<&'a str>,
    pub(super) process: Option<u32>,
}

impl Known<'_> {
    /// As [`expanded`], of a setting.
    pub(super) fn expand(&self, setting: &Setting) -> (String, Vec<String>) {
        self.expand_text(&setting.value, &setting.here)
    }

    /// Text with what is known in place and `%%` as `%`; and all else that only supervisord knows, as it is written.
    pub(super) fn expand_text(&self, text: &str, here: &Path) -> (String, Vec<String>) {
        let (mut rest, mut out, mut left) = (text, String::new(), Vec::new());
        while let Some((before, after)) = rest.split_once('%') {
            out += before;
            if let Some(after) = after.strip_prefix('%') {
                out.push('%');
                rest = after;
                continue;
            }
            let Some((name, width, end)) = placeholder(after) else {
                out.push('%');
                rest = after;
                continue;
            };
            let written = &after[..after.len() - end.len()];
            let stands_for = match (name, self.program, self.process) {
                ("here", ..) => Some(here.display().to_string()),
                ("program_name", Some(program), _) => Some(program.to_owned()),
                ("process_num", _, Some(process)) => Some(number(process, width)),
                _ => None,
            };
            out += &stands_for.unwrap_or_else(|| {
                left.push(format!("%{written}"));
                format!("%{written}")
            });
            rest = end;
        }
        (out + rest, left)
    }
}

/// Name and width of a placeholder whose `%` was read, as in `(process_num)02d`, and what stands behind it.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (name, after) = text.strip_prefix('(')?.split_once(')')?;
    let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (width, end) = after.split_at(digits);
    Some((name, width, end.strip_prefix(['s', 'd'])?))
}

fn number(number: u32, width: &str) -> String {
    let wide: usize = width.parse().unwrap_or(0);
    let wide = wide.min(20);
    match width.starts_with('0') {
        true => format!("{number:0wide$}"),
        false => format!("{number:wide$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_put_in_place_and_the_rest_is_told() {
        let known = Known {
            program: Some("sms"),
            process: Some(7),
        };
        let expand = |text: &str| known.expand_text(text, Path::new("/etc"));
        for (text, expected) in [
            ("%(here)s/%(program_name)s.yaml", "/etc/sms.yaml"),
            (
                "%(process_num)s %(process_num)02d %(process_num)3d",
                "7 07   7",
            ),
            ("100%% of %%(here)s", "100% of %(here)s"),
            ("50% off (here)", "50% off (here)"),
            ("%(here", "%(here"),
        ] {
            assert_eq!(expand(text), (expected.to_owned(), Vec::new()), "{text}");
        }
        let (text, left) = expand("%(ENV_HOME)s/%(group_name)s %(program_name)s");
        assert_eq!(text, "%(ENV_HOME)s/%(group_name)s sms");
        assert_eq!(left, ["%(ENV_HOME)s", "%(group_name)s"]);
    }

    #[test]
    fn what_stands_twice_counts_as_in_supervisord() {
        let text = "[program:a]\ncommand=one\n two\npriority=1\n[x]\n[program:a]\ncommand = three\n four\n";
        let (found, strays) = sections(text, Path::new("etc/super.conf"));
        assert!(strays.is_empty());
        let mut all = Vec::new();
        found
            .into_iter()
            .for_each(|section| merge(&mut all, section));
        let names: Vec<&str> = all.iter().map(|section| section.name.as_str()).collect();
        assert_eq!(names, ["program:a", "x"]);
        assert_eq!(all[0].text("command"), Some("three four"));
        assert_eq!(all[0].text("priority"), Some("1"));
        assert_eq!(all[0].dropped.len(), 2, "{:?}", all[0].dropped);
        let (once, _) = sections("[a]\nx=1\nx=2\n more\n", Path::new("f"));
        assert_eq!(once[0].text("x"), Some("2 more"));
        assert!(once[0].dropped[0].contains("the first x: it stands twice"));
    }
}
