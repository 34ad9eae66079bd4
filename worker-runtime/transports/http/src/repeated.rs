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

    /// Looks at a request; `members` are those of its body that came more than once, where `params` does not know of them,
    /// and `names` those of the manifest.
    pub(crate) fn look<'n>(
        &self,
        params: &Params,
        members: &BTreeSet<String>,
        names: impl IntoIterator<Item = &'n String>,
    ) {
        if !params.has_repeated() && members.is_empty() {
            return;
        }
        self.cx.http(HttpSeen::RepeatedParameter);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let repeated = |name: &&String| params.is_repeated(name) || members.contains(*name);
        for name in names.into_iter().filter(repeated) {
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
