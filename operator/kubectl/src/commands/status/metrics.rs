//! The metrics of a pod, in Prometheus' text format. It is parsed here: of the crates that do it, prometheus-parse was last released in
//! 2023 and openmetrics-parser is under the LGPL, and what has to be understood is what our own runtime writes.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// One series and its value.
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// The metrics of a pod at one moment.
pub(super) struct Page(Vec<Sample>);

impl Page {
    /// Reads them. What is not wholly understood is no page: a series that was passed over would be missing in a sum.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples: Option<Vec<Sample>> = lines.map(sample).collect();
        let page = Self(samples.ok_or("what it answers are no metrics")?);
        match page.uptime() {
            Some(_) => Ok(page),
            None => Err("what it answers are not the metrics of a Vumi worker".into()),
        }
    }

    /// Age of the process, in seconds: the clock by which it counts.
    pub(super) fn uptime(&self) -> Option<f64> {
        let mut found = self.0.iter();
        let found = found.find(|sample| sample.name == "vumi_uptime_seconds");
        found.map(|sample| sample.value)
    }

    /// All series of a metric and a worker.
    fn of<'a>(&'a self, name: &'a str, worker: &'a str) -> impl Iterator<Item = &'a Sample> {
        let of = |sample: &Sample, name: &str, worker: &str| {
            let label = sample.labels.get("worker");
            sample.name == name && label.is_some_and(|label| label == worker)
        };
        let all = self.0.iter();
        all.filter(move |sample| of(sample, name, worker))
    }

    /// What a metric says of each queue of a worker.
    pub(super) fn queues<'a>(
        &'a self,
        name: &'a str,
        worker: &'a str,
    ) -> impl Iterator<Item = (&'a str, f64)> {
        self.of(name, worker).filter_map(|sample| {
            let queue = sample.labels.get("queue")?;
            Some((queue.as_str(), sample.value))
        })
    }

    /// Whether the worker's connection to the broker is up and takes messages.
    pub(super) fn is_connected(&self, worker: &str) -> bool {
        let mut found = self.of("vumi_broker_up", worker);
        found.any(|sample| sample.value == 1.0)
    }

    /// Whether another replica reads this queue.
    pub(super) fn stands_by(&self, worker: &str, queue: &str) -> bool {
        let is = |sample: &Sample, label: &str, value: &str| {
            sample.labels.get(label).is_some_and(|is| is == value)
        };
        self.of("vumi_consumer_state", worker).any(|sample| {
            is(sample, "queue", queue) && is(sample, "state", "standby") && sample.value == 1.0
        })
    }
}

/// `name{label="value",…} value`, and perhaps a time.
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    let mut rest = rest.trim_start().chars().peekable();
    if rest.next_if_eq(&'{').is_some() {
        blanks(&mut rest);
        while rest.next_if_eq(&'}').is_none() {
            let (label, value) = label(&mut rest)?;
            labels.insert(label, value);
            blanks(&mut rest);
            // The last one may have a comma as well.
            let more = rest.next_if_eq(&',').is_some();
            blanks(&mut rest);
            if !more && rest.peek() != Some(&'}') {
                return None;
            }
        }
    }
    let rest: String = rest.collect();
    let mut words = rest.split_whitespace();
    let value = words.next()?.parse().ok()?;
    let time = words.next().is_none_or(|time| time.parse::<i64>().is_ok());
    (time && words.next().is_none()).then(|| Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

fn blanks(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|c| c.is_whitespace()).is_some() {}
}

/// `label="value"`, where a value may hold anything.
fn label(rest: &mut Peekable<Chars<'_>>) -> Option<(String, String)> {
    let mut name = String::new();
    loop {
        match rest.next()? {
            '=' => break,
            c => name.push(c),
        }
    }
    let mut value = String::new();
    blanks(rest);
    rest.next_if_eq(&'"')?;
    loop {
        match rest.next()? {
            '"' => return Some((name.trim().to_owned(), value)),
            '\\' => value.push(match rest.next()? {
                'n' => '\n',
                c => c,
            }),
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vumi_core::telemetry::{METRICS, Telemetry};

    #[test]
    fn what_the_runtime_writes_is_read() {
        let telemetry = Telemetry::new();
        let worker = telemetry.worker("transport/sms");
        worker.broker_up.set(1);
        let queue = worker.queue("sms.outbound");
        queue.ready.set(12);
        queue.oldest.set(1.5);
        queue.handling.observe(0.2);
        worker.consumer_state("sms.outbound", "standby");
        telemetry.worker("transport/other").queue("b").ready.set(3);
        let page = Page::parse(&telemetry.render()).unwrap();
        let of = |name, worker| page.queues(name, worker).collect::<Vec<_>>();
        assert_eq!(
            of("vumi_queue_ready", "transport/sms"),
            [("sms.outbound", 12.0)]
        );
        assert_eq!(
            of("vumi_oldest_message_seconds", "transport/sms"),
            [("sms.outbound", 1.5)]
        );
        assert!(page.is_connected("transport/sms") && !page.is_connected("transport/none"));
        assert!(page.stands_by("transport/sms", "sms.outbound"));
        assert!(!page.stands_by("transport/sms", "sms.event"));
        assert!(page.uptime().is_some());
    }

    #[test]
    fn the_format_is_read_as_it_is_specified() {
        let line = r#"m_total{a="x,}\"\\\n=", b="" ,} 1.5e3 1700000000000"#;
        let read = sample(line).unwrap();
        assert_eq!((read.name.as_str(), read.value), ("m_total", 1500.0));
        assert_eq!(read.labels["a"], "x,}\"\\\n=");
        assert_eq!(read.labels.get("b").map(String::as_str), Some(""));
        assert_eq!(sample("m 3").unwrap().value, 3.0);
        assert_eq!(sample("m {} +Inf").unwrap().value, f64::INFINITY);
        assert!(sample("m NaN").unwrap().value.is_nan());
        for wrong in [
            "m",
            "m x",
            "m 1 2 3",
            "m 1 now",
            "m{a=\"b\" 1",
            "m{a=b} 1",
            "m{a=\"b\"c=\"d\"} 1",
            "m{a} 1",
        ] {
            assert!(sample(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_page_of_ours_is_no_page_of_zeros() {
        let said = |text: &str| Page::parse(text).err().unwrap_or_default();
        assert!(said("<html>not here</html>").contains("no metrics"));
        assert!(said("").contains("not the metrics of a Vumi worker"));
        assert!(said("go_threads 7").contains("not the metrics of a Vumi worker"));
        let cut = "vumi_uptime_seconds 7\nvumi_queue_ready{queue=\"a\",wor";
        assert!(said(cut).contains("no metrics"));
    }

    /// A name that is changed there would be zero for ever here.
    #[test]
    fn the_metrics_that_are_read_are_there() {
        let labels = |name: &str| {
            let found = METRICS.iter().find(|(known, ..)| *known == name);
            found.map(|(_, _, labels, _)| *labels)
        };
        for name in super::super::figures::READ {
            assert_eq!(labels(name), Some(["worker", "queue"].as_slice()), "{name}");
        }
        assert_eq!(labels("vumi_broker_up"), Some(["worker"].as_slice()));
        assert_eq!(
            labels("vumi_consumer_state"),
            Some(["worker", "queue", "state"].as_slice())
        );
        assert_eq!(labels("vumi_uptime_seconds"), Some([].as_slice()));
    }
}
