//! What is remembered of resources between two looks and stands nowhere else. Another operator that takes over begins without.

use super::apply::Refused;
use super::store::Key;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vumi_plan::{Memory, Scaler};

/// What is remembered of one resource.
#[derive(Debug, Default)]
pub struct Remembered {
    uid: String,
    /// What its status is about to say.
    pub memory: Memory,
    /// How many pods it has, where that is decided here.
    pub scaler: Option<Box<Scaler>>,
    /// Which reading of its broker the scaler has had last.
    pub reading: u64,
    /// Its workload, as the API server has refused it last.
    pub refused: Option<Box<Refused>>,
    /// Path of an object of somebody else that has the name of one of its own.
    pub taken: Option<String>,
    /// How many looks in a row have failed.
    pub failures: u32,
}

/// What is remembered of all.
#[derive(Debug, Default)]
pub struct Recall(Mutex<HashMap<Key, Remembered>>);

impl Recall {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses what is remembered of the resource with this uid; of one that was made anew, nothing is.
    pub fn with<T>(&self, key: &Key, uid: &str, work: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut all = self.all();
        let known = all.entry(key.clone()).or_default();
        if known.uid != uid {
            *known = Remembered {
                uid: uid.to_owned(),
                ..Remembered::default()
            };
        }
        work(known)
    }

    /// The resource is gone.
    pub fn forget(&self, key: &Key) {
        self.all().remove(key);
    }

    /// While others led, things have changed: what was about to change then says nothing now.
    pub fn forget_all(&self) {
        self.all().clear();
    }
}
