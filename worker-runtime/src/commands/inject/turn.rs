//! Which records are to be sent, in turn; and whether those that an earlier run has sent are still the same.

use super::progress::Progress;
use super::records::Record;
use super::repeats::Repeats;
use crate::error::CliError;
use bytes::Bytes;
use std::collections::VecDeque;
use vumi_core::message::derived_id;

/// The records of one run.
pub struct Turn {
    /// Valid ones that an earlier run has sent.
    before: u64,
    /// Whether ids are looked at: those of a source that can be read twice were before.
    looks: bool,
    skip_invalid: bool,
    /// Go on whatever was sent before.
    force: bool,
    /// Records read.
    pub read: u64,
    /// Of those, valid.
    pub valid: u64,
    /// The others.
    pub invalid: u64,
    /// Ids that came twice.
    pub repeats: Repeats,
    /// What was sent before is not what is read now.
    pub changed: bool,
    /// What was read so far, as a hash.
    all: String,
    /// The same after each record that was sent and is not known to be confirmed.
    sent: VecDeque<String>,
    /// How many are, and the hash after those; empty if an earlier run left none.
    confirmed: u64,
    contents: String,
}

impl Turn {
    /// Goes on after `progress`.
    pub fn new(progress: &Progress, looks: bool, skip_invalid: bool, force: bool) -> Self {
        Self {
            before: progress.confirmed,
            looks,
            skip_invalid,
            force,
            read: 0,
            valid: 0,
            invalid: 0,
            repeats: Repeats::default(),
            changed: false,
            all: String::new(),
            sent: VecDeque::new(),
            confirmed: 0,
            contents: progress.contents.clone(),
        }
    }

    /// What is to be sent of a record; none if nothing is.
    pub fn of(&mut self, record: Record) -> Result<Option<Bytes>, CliError> {
        self.read += 1;
        if self.looks {
            self.repeats.look(&record);
        }
        match record.body {
            Ok(body) => {
                self.valid += 1;
                self.all = derived_id(&[self.all.as_str(), record.said.as_str()]);
                if self.valid > self.before {
                    self.sent.push_back(self.all.clone());
                    return Ok(Some(body));
                }
                if self.valid == self.before {
                    let same = self.contents.is_empty() || self.contents == self.all;
                    self.is_as_before(same, "the records that it sent have changed since")?;
                    self.contents.clone_from(&self.all);
                }
                Ok(None)
            }
            Err(why) => {
                self.invalid += 1;
                if self.skip_invalid {
                    return Ok(None);
                }
                // Only what can be read once comes this far unchecked.
                Err(CliError::validation(format!(
                    "{}: {why}; what stands before it was sent",
                    record.place
                )))
            }
        }
    }

    /// Everything was read.
    pub fn ends(&mut self) -> Result<(), CliError> {
        let valid = self.valid;
        let what = format!("there are only {valid} records now");
        self.is_as_before(valid >= self.before, &what)
    }

    fn is_as_before(&mut self, same: bool, what: &str) -> Result<(), CliError> {
        if same || self.force {
            return Ok(());
        }
        self.changed = true;
        let before = self.before;
        Err(CliError::validation(format!(
            "an earlier run sent {before} messages, and {what}; nothing was sent now. Give what it was given, begin anew with another --resume FILE, or go on after message {before} with --force"
        )))
    }

    /// The hash of the records that an earlier run has sent, and of so many more.
    pub fn contents(&mut self, confirmed: u64) -> String {
        while self.confirmed < confirmed {
            let Some(next) = self.sent.pop_front() else {
                break;
            };
            self.contents = next;
            self.confirmed += 1;
        }
        self.contents.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(said: &str) -> Record {
        Record {
            place: "a.txt:1".into(),
            id: None,
            said: said.into(),
            body: Ok(Bytes::new()),
        }
    }

    fn progress(confirmed: u64, contents: String) -> Progress {
        Progress {
            target: "sms.inbound".into(),
            input: vec!["a.txt".into()],
            options: String::new(),
            run: "run".into(),
            confirmed,
            contents,
        }
    }

    /// Sends these, of which two are confirmed.
    fn first(said: &[&str]) -> Progress {
        let mut turn = Turn::new(&progress(0, String::new()), false, false, false);
        for said in said {
            assert!(turn.of(record(said)).unwrap().is_some());
        }
        turn.ends().unwrap();
        assert_eq!(turn.contents(1), turn.contents(1));
        progress(2, turn.contents(2))
    }

    /// How many are sent after that.
    fn goes_on(progress: &Progress, said: &[&str], force: bool) -> Result<usize, String> {
        let mut turn = Turn::new(progress, false, false, force);
        let mut sent = 0;
        let all = said.iter().try_for_each(|said| {
            sent += usize::from(turn.of(record(said))?.is_some());
            Ok::<(), CliError>(())
        });
        let ended = all.and_then(|()| turn.ends());
        assert_eq!(turn.changed, ended.is_err());
        ended.map(|()| sent).map_err(|error| error.text)
    }

    #[test]
    fn what_was_sent_must_be_what_is_read_and_the_rest_may_change() {
        let progress = first(&["a", "b", "c"]);
        assert_eq!(goes_on(&progress, &["a", "b", "c"], false), Ok(1));
        assert_eq!(goes_on(&progress, &["a", "b", "x", "y"], false), Ok(2));
        for changed in [&["x", "b", "c"], &["b", "a", "c"], &["a", "x", "c"]] {
            let why = goes_on(&progress, changed, false).unwrap_err();
            assert!(why.contains("have changed since"), "{why}");
            assert!(why.contains("after message 2 with --force"), "{why}");
            assert_eq!(goes_on(&progress, changed, true), Ok(1));
        }
        let why = goes_on(&progress, &["a"], false).unwrap_err();
        assert!(why.contains("only 1 records now"), "{why}");
        assert_eq!(goes_on(&progress, &["a"], true), Ok(0));
    }

    #[test]
    fn an_earlier_version_did_not_say_what_it_sent() {
        let old = progress(2, String::new());
        assert_eq!(goes_on(&old, &["x", "y", "z"], false), Ok(1));
    }

    #[test]
    fn a_run_that_sends_nothing_keeps_what_is_known() {
        let progress = first(&["a", "b", "c"]);
        let mut turn = Turn::new(&progress, false, false, false);
        assert_eq!(turn.contents(0), progress.contents);
        turn.of(record("a")).unwrap();
        assert_eq!(turn.contents(0), progress.contents);
    }
}
