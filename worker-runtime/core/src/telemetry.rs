//! Metrics: every name and label in one place, registered when a worker starts, emitted by the engine around it.

use prometheus::Registry;

/// Metrics of a process.
pub struct Telemetry {
    registry: Registry,
}

impl Telemetry {
    /// An empty set.
    pub fn new() -> Self {
        Self {
            registry: Registry::new(),
        }
    }

    /// The Prometheus text of all metrics.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let encoder = prometheus::TextEncoder::new();
        let _ = encoder.encode_utf8(&self.registry.gather(), &mut text);
        text
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}
