//! The last that each replica said of each component. What has become too old stays until its pod is gone: that it is old is
//! what says that nobody can tell any more.

use k8s_openapi::jiff::Timestamp;
use std::collections::HashMap;
use vumi_api::Resource;
use vumi_plan::{Pod, Report};

/// Reports that are kept of one connector; the oldest makes room.
const KEPT: usize = 512;

/// Reports by connector.
#[derive(Debug, Default)]
pub struct Reports(HashMap<String, Vec<Report>>);

impl Reports {
    /// Takes a report. Returns whether it says something else than the last of its kind, or the first thing after a silence.
    pub fn put(&mut self, report: Report) -> bool {
        let reports = self.0.entry(report.connector.clone()).or_default();
        let Some(known) = reports.iter_mut().find(|known| known.key() == report.key()) else {
            if reports.len() >= KEPT
                && let Some(oldest) = (0..reports.len()).min_by_key(|at| reports[*at].received)
            {
                reports.swap_remove(oldest);
            }
            reports.push(report);
            return true;
        };
        let late = known.expires().is_some_and(|at| at <= report.received);
        let news = late
            || (known.level, &known.reason, &known.message)
                != (report.level, &report.reason, &report.message);
        *known = report;
        news
    }

    /// What was said on a connector.
    pub fn of(&self, connector: &str) -> Vec<Report> {
        self.0.get(connector).cloned().unwrap_or_default()
    }

    /// Forgets old reports of replicas of a resource that are not among its pods any more.
    pub fn forget(&mut self, connector: &str, resource: &Resource, pods: &[Pod], now: Timestamp) {
        if let Some(reports) = self.0.get_mut(connector) {
            reports.retain(|report| {
                let fresh = report.expires().is_none_or(|at| at > now);
                fresh || !report.is_of(resource) || report.is_from(pods)
            });
        }
    }

    /// Only these connectors are anybody's business.
    pub fn only(&mut self, connectors: &std::collections::BTreeSet<String>) {
        self.0.retain(|connector, _| connectors.contains(connector));
    }
}
