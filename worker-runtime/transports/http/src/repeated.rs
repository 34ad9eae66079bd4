//! Parameters that come more than once in a request.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use vumi_core::reasons::{self, Reason};
use vumi_core::telemetry::HttpSeen;
use vumi_core::worker::WorkerContext;
use vumi_http::Params;

/// Stands for what callers make up themselves, which is in no log.
const OTHER: &str = "a parameter that the manifest does not list";

/// Tells that parameters come more than once, of which the first value counts: each such request is counted and is a status,
/// and each name that the manifest lists is logged once, as are all others together.
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
    /// and `names` those of the manifest. What is odd about it, if anything is.
    pub(crate) fn look<'n>(
        &self,
        params: &Params,
        members: &BTreeSet<String>,
        names: impl IntoIterator<Item = &'n String>,
    ) -> Option<(Reason, String)> {
        if !params.has_repeated() && members.is_empty() {
            return None;
        }
        self.cx.http(HttpSeen::RepeatedParameter);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let repeated = |name: &&String| params.is_repeated(name) || members.contains(*name);
        let named: Vec<&String> = names.into_iter().filter(repeated).collect();
        for name in &named {
            if told.insert((*name).clone()) {
                tracing::warn!(
                    worker = self.cx.worker_name(),
                    parameter = name.as_str(),
                    "a parameter comes more than once: its first value counts"
                );
            }
        }
        if named.is_empty() && told.insert(String::new()) {
            tracing::warn!(
                worker = self.cx.worker_name(),
                "{OTHER} comes more than once: its first value counts"
            );
        }
        let names: Vec<&str> = named.into_iter().map(String::as_str).collect();
        let which = match names.is_empty() {
            true => OTHER.to_owned(),
            false => names.join(", "),
        };
        let text = format!("a request has more than one value of {which}: the first counts");
        Some((reasons::REPEATED_PARAMETER, text))
    }
}
