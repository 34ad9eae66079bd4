//! A plan as text: what `vumi diff` prints.

use super::{Action, Change, Plan, Shown, Step, Until};
use std::fmt;

impl Plan {
    /// The plan as text, with colours if `colour`. Ends with a line that counts the steps.
    pub fn render(&self, colour: bool) -> String {
        let paint = |code: &str, text: String| match colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text,
        };
        let mut text = String::new();
        let mut counts = [0usize; 4];
        for step in &self.steps {
            let Step { key, type_name, .. } = step;
            let (index, sign, code, verb) = match step.action {
                Action::Start => (0, '+', "32", "start"),
                Action::Replace(_) => (1, '~', "33", "replace"),
                Action::Stop => (2, '-', "31", "stop"),
                Action::Keep => (3, '=', "2", "keep"),
            };
            counts[index] += 1;
            let line = format!("{sign} {key} ({type_name}): {verb}");
            text += &format!("{}\n", paint(code, line));
            if let Action::Replace(changes) = &step.action {
                for change in changes {
                    text += &format!("    {change}\n");
                }
            }
            for port in &step.ports {
                text += &format!("    {port}\n");
            }
            for wait in step.after.iter().filter(|wait| wait.key != step.key) {
                let what = match wait.until {
                    Until::IntakeClosed => "takes in nothing new",
                    Until::Stopped => "has stopped",
                };
                text += &format!("    starts when {} {what}\n", wait.key);
            }
            if !step.outlives.is_empty() {
                text += &format!(
                    "    runs until {} has answered what it holds\n",
                    step.outlives.join(", ")
                );
            }
        }
        let [start, replace, stop, keep] = counts;
        text +=
            &format!("{start} to start, {replace} to replace, {stop} to stop, {keep} unchanged\n");
        text
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { path, old, new } = self;
        match (old, new) {
            (Shown::Absent, new) => write!(f, "{path}: set to {new}"),
            (old, Shown::Absent) => write!(f, "{path}: removed, was {old}"),
            (Shown::Hidden, _) | (_, Shown::Hidden) => write!(f, "{path}: changed (not shown)"),
            (old, new) => write!(f, "{path}: {old} → {new}"),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shown::Absent => f.write_str("nothing"),
            Shown::Hidden => f.write_str("(not shown)"),
            Shown::Text(text) => f.write_str(text),
        }
    }
}

/// `host:port`, an IPv6 address in brackets.
pub fn shown_address((host, port): &(String, u16)) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}
