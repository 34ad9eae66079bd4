//! A person at the command line: runs commands of `vumi` about one place, none of which may print what is to be hidden.

use super::campaign::Campaign;
use super::process::{run, said};
use serde_json::Value;
use std::process::Output;

/// Runs commands about one place.
#[derive(Clone)]
pub struct Operator<'c> {
    campaign: &'c Campaign,
    place: Vec<String>,
    hidden: Vec<String>,
}

/// What must not be in `text`.
pub fn assert_hidden(place: &str, text: &str, words: &[impl AsRef<str>]) {
    for word in words.iter().map(AsRef::as_ref) {
        let shown = text.lines().find(|line| line.contains(word));
        assert_eq!(shown, None, "{place} shows {word}");
    }
}

impl<'c> Operator<'c> {
    /// `place` stands behind every command: `--redis URL`, `--state DIR`, or nothing for the only process.
    pub fn new(campaign: &'c Campaign, place: &[&str]) -> Self {
        Self {
            campaign,
            place: place.iter().map(|&part| part.to_owned()).collect(),
            hidden: Vec::new(),
        }
    }

    /// Fails the test as soon as a command prints one of these.
    pub fn hiding(mut self, words: &[&str]) -> Self {
        self.hidden = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The same person, who says more about the place.
    pub fn and(&self, more: &[&str]) -> Self {
        let mut other = self.clone();
        other.place.extend(more.iter().map(|&part| part.to_owned()));
        other
    }

    /// What stands behind every command.
    pub fn place(&self) -> Vec<&str> {
        self.place.iter().map(String::as_str).collect()
    }

    /// Runs a command; its exit code and what it printed.
    pub fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.output(arguments);
        (output.status.code().unwrap(), said(&output))
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let all = [arguments, &self.place()[..]].concat();
        let output = run(self.campaign.path(), &all);
        assert_hidden(&format!("vumi {arguments:?}"), &said(&output), &self.hidden);
        output
    }

    /// What a command that succeeds prints; what it complains of if it does not.
    pub fn done(&self, arguments: &[&str]) -> Result<String, String> {
        match self.run(arguments) {
            (0, text) => Ok(text),
            (code, text) => Err(format!("{arguments:?}: exit code {code}: {text}")),
        }
    }

    /// What a command that succeeds prints as JSON. That it waits for something, it says elsewhere.
    pub fn json(&self, arguments: &[&str]) -> Result<Value, String> {
        let output = self.output(arguments);
        match serde_json::from_slice(&output.stdout) {
            Ok(value) if output.status.success() => Ok(value),
            _ => Err(format!("{arguments:?}: {}", said(&output))),
        }
    }
}
