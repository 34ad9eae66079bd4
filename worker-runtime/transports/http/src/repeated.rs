//! Parameters that come more than once in a request.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use vumi_core::telemetry::HttpSeen;
use vumi_core::worker::WorkerContext;
use vumi_http::Params;

/// Tells that parameters come more than once, of which the first value counts: each such request is counted, and each name
/// that the manifest names as well is logged once.
pub(crate) struct Repeated {
    cx: Arc<WorkerContext>,
    told: Mutex<BTreeSet<String>>,
}

impl Repeated {
    pub(crate) fn new(cx: &Arc<WorkerContext>) -> Self {
        Self {
            cx: Arc::clone(cx),
            told: Mutex::default(),
        }
    }

    /// Looks at a request; `names` are those of the manifest.
    pub(crate) fn look<'n>(&self, params: &Params, names: impl IntoIterator<Item = &'n String>) {
        if !params.has_repeated() {
            return;
        }
        self.cx.http(HttpSeen::RepeatedParameter);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names.into_iter().filter(|name| params.is_repeated(name)) {
            if told.insert(name.clone()) {
                tracing::warn!(
                    worker = self.cx.worker_name(),
                    parameter = name.as_str(),
                    "a parameter comes more than once: its first value counts"
                );
            }
        }
    }
}
