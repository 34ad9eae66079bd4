//! What a process that has just begun waits for, for whoever asks it too early.

use super::services::Identities;
use super::{Supervisor, lock};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// What each worker that is being built waits for, by its key.
pub(super) type Stages = Mutex<BTreeMap<String, String>>;

/// What one worker that is being built waits for; over when it is dropped.
pub(super) struct Stage<'a> {
    stages: &'a Stages,
    key: String,
}

impl<'a> Stage<'a> {
    /// Its services are being opened.
    pub(super) fn opens(stages: &'a Stages, key: String, services: &Identities) -> Self {
        let stage = Self { stages, key };
        stage.is(format!("{} opens {services}", stage.key));
        stage
    }

    /// Its services are there.
    pub(super) fn is_built(&self) {
        self.is(format!("{} is being built", self.key));
    }

    fn is(&self, what: String) {
        lock(self.stages).insert(self.key.clone(), what);
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        lock(self.stages).remove(&self.key);
    }
}

impl Supervisor {
    /// What the process waits for before it has workers that could answer; none once it has, or when it stops.
    pub fn starting(&self) -> Option<String> {
        let begun = self.applied.load(Ordering::Acquire)
            || self.stopping.is_cancelled()
            || !lock(&self.slots).is_empty();
        if begun {
            return None;
        }
        if self.problem().is_some() {
            return Some("valid manifests are awaited; `vumi status` says what is wrong".into());
        }
        let stages: Vec<String> = lock(&self.shared.stages).values().cloned().collect();
        Some(match stages.is_empty() {
            true => "its workers are about to be built".into(),
            false => stages.join(", "),
        })
    }
}
