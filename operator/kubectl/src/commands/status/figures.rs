//! What the metrics of a worker's pods come to: each message once, however many pods tell of it.

use super::metrics::Page;
use serde::Serialize;
use std::collections::BTreeMap;
use vumi_cli::table::ago;

const READY: &str = "vumi_queue_ready";
const KEPT: &str = "vumi_parked_kept";
const IN_FLIGHT: &str = "vumi_messages_in_flight";
const OLDEST: &str = "vumi_oldest_message_seconds";
const JOURNAL: &str = "vumi_journal_messages";
const RECEIVED: &str = "vumi_messages_received_total";
const PUBLISHED: &str = "vumi_published_total";

/// The metrics of queues that are read here.
#[cfg(test)]
pub(super) const READ: &[&str] = &[READY, KEPT, IN_FLIGHT, OLDEST, JOURNAL, RECEIVED, PUBLISHED];

/// A divided queue has two series: under its own name what is passed on to its parts, with this behind it what is read from them.
const PARTS: &str = ".p*";
/// The queue in which a replica gets what another one has taken for it.
const REPLIES: &str = ".reply";

/// The metrics of one pod, read twice.
pub(super) struct Twice {
    pub(super) before: Page,
    pub(super) now: Page,
}

/// The numbers of a worker, none where they are not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    /// Messages that wait in its queues on the broker.
    pub(super) queued: Option<u64>,
    /// Messages that wait in the journal.
    pub(super) waiting: Option<u64>,
    /// Messages that its pods have in hand.
    pub(super) in_flight: Option<u64>,
    /// Age of the oldest message that they hold.
    pub(super) oldest_seconds: Option<f64>,
    /// Messages that are set aside.
    pub(super) parked: Option<u64>,
    /// Messages taken from its queues, a second.
    pub(super) in_per_second: Option<f64>,
    /// Messages published, a second.
    pub(super) out_per_second: Option<f64>,
}

/// Names of the columns.
pub(super) const HEAD: [&str; 7] = [
    "QUEUE", "WAIT", "FLIGHT", "OLDEST", "PARKED", "IN/S", "OUT/S",
];

impl Figures {
    /// The sums over the pods that answered. `all`: none is missing; else nothing is said that takes all of them. `fenced`: the journal of
    /// a queue is one pod's at a time, and not shared by all.
    pub(super) fn of(worker: &str, fenced: bool, pods: &[Twice], all: bool) -> Self {
        let now: Vec<&Page> = pods.iter().map(|pod| &pod.now).collect();
        // What was read before the connection broke is not how it is.
        let connected = now.iter().filter(|page| page.is_connected(worker));
        let connected: Vec<&Page> = connected.copied().collect();
        let at_broker = |name| {
            let known = !connected.is_empty();
            known.then(|| whole(once(&connected, name, worker)))
        };
        let journal = match fenced {
            true => sum(&now, JOURNAL, worker),
            false => once(&now, JOURNAL, worker),
        };
        let divided = |queue: &str| {
            let parts = format!("{queue}{PARTS}");
            let mut series = now.iter().flat_map(|page| page.queues(RECEIVED, worker));
            series.any(|(other, _)| other == parts)
        };
        // These were taken from the queue itself, and are not counted again on their way within the worker.
        let first = |queue: &str| !queue.ends_with(REPLIES) && !divided(queue);
        let complete = all && !pods.is_empty();
        Self {
            queued: at_broker(READY),
            waiting: complete.then(|| whole(journal)),
            in_flight: complete.then(|| whole(sum(&now, IN_FLIGHT, worker))),
            oldest_seconds: oldest(&now, worker).filter(|_| complete).map(tenths),
            parked: at_broker(KEPT),
            in_per_second: rate(pods, RECEIVED, worker, first).filter(|_| complete),
            out_per_second: rate(pods, PUBLISHED, worker, |_| true).filter(|_| complete),
        }
    }

    /// Below the names of the columns.
    pub(super) fn row(&self) -> [String; 7] {
        let unknown = || "-".to_owned();
        let count = |number: Option<u64>| number.map_or_else(unknown, |number| number.to_string());
        let rate = |rate: Option<f64>| rate.map_or_else(unknown, |rate| format!("{rate:.1}"));
        [
            count(self.queued),
            count(self.waiting),
            count(self.in_flight),
            self.oldest_seconds.map_or_else(unknown, |age| match age {
                age if age > 0.0 && age < 10.0 => format!("{age:.1}s"),
                age => ago(age as u64),
            }),
            count(self.parked),
            rate(self.in_per_second),
            rate(self.out_per_second),
        ]
    }
}

/// What each pod tells of itself, together.
fn sum(pages: &[&Page], name: &str, worker: &str) -> f64 {
    let series = pages.iter().flat_map(|page| page.queues(name, worker));
    series.map(|(_, value)| value).sum()
}

/// What all pods tell of the same queues. They looked at different moments; none of them counts messages that were never there.
fn once(pages: &[&Page], name: &str, worker: &str) -> f64 {
    let mut each: BTreeMap<&str, f64> = BTreeMap::new();
    for (queue, value) in pages.iter().flat_map(|page| page.queues(name, worker)) {
        let most = each.entry(queue).or_default();
        *most = most.max(value);
    }
    each.values().sum()
}

/// Who stands by knows since when something waits, and not that it was always something else. A queue by which all stand is read by
/// somebody else, who knows.
fn oldest(pages: &[&Page], worker: &str) -> Option<f64> {
    let mut each: BTreeMap<&str, Option<f64>> = BTreeMap::new();
    for page in pages {
        for (queue, age) in page.queues(OLDEST, worker) {
            let known = each.entry(queue).or_default();
            if !page.stands_by(worker, queue) {
                *known = Some(known.map_or(age, |other| other.max(age)));
            }
        }
    }
    let mut ages = each.into_values();
    ages.try_fold(0.0, |oldest: f64, age| Some(oldest.max(age?)))
}

/// How much a counter grows in a second, over all pods and those queues that count. None where a pod was started again meanwhile.
fn rate(pods: &[Twice], name: &str, worker: &str, counts: impl Fn(&str) -> bool) -> Option<f64> {
    let mut all = 0.0;
    for pod in pods {
        // The pod's own clock: how long an answer was under way does not matter.
        let span = pod.now.uptime()? - pod.before.uptime()?;
        if span <= 0.0 {
            return None;
        }
        let before: BTreeMap<&str, f64> = pod.before.queues(name, worker).collect();
        let now = pod.now.queues(name, worker);
        let more = now.filter(|(queue, _)| counts(queue)).map(|(queue, now)| {
            let before = before.get(queue).copied().unwrap_or(0.0);
            // A worker that was replaced within its process begins at zero.
            if now >= before { now - before } else { now }
        });
        all += more.sum::<f64>() / span;
    }
    Some(tenths(all))
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: &str = "transport/sms";

    /// A page of a process of this age with these series: metric, queue and value.
    fn page(age: f64, series: &[(&str, &str, f64)]) -> Page {
        let mut text = format!(
            "vumi_uptime_seconds {age}\nvumi_broker_up{{worker=\"{WORKER}\"}} 1\n{other}",
            other = "vumi_queue_ready{queue=\"a\",worker=\"transport/other\"} 1000\n"
        );
        for (name, queue, value) in series {
            text += &format!("{name}{{queue=\"{queue}\",worker=\"{WORKER}\"}} {value}\n");
        }
        Page::parse(&text).unwrap()
    }

    fn still(series: &[(&str, &str, f64)]) -> Twice {
        Twice {
            before: page(10.0, series),
            now: page(11.0, series),
        }
    }

    fn figures(pods: &[Twice]) -> Figures {
        Figures::of(WORKER, true, pods, true)
    }

    #[test]
    fn what_several_pods_see_of_a_queue_is_counted_once() {
        let pods = [
            still(&[
                (READY, "sms.outbound", 7.0),
                (READY, "sms.outbound.p*", 40.0),
                (KEPT, "sms.outbound", 2.0),
                (IN_FLIGHT, "sms.outbound", 3.0),
                (OLDEST, "sms.outbound", 4.26),
                (JOURNAL, "sms.outbound", 5.0),
            ]),
            // It looked a moment earlier.
            still(&[
                (READY, "sms.outbound", 9.0),
                (READY, "sms.outbound.p*", 40.0),
                (KEPT, "sms.outbound", 2.0),
                (IN_FLIGHT, "sms.outbound", 4.0),
                (OLDEST, "sms.outbound", 1.0),
                (JOURNAL, "sms.outbound", 6.0),
            ]),
        ];
        let all = figures(&pods);
        assert_eq!((all.queued, all.parked), (Some(49), Some(2)));
        assert_eq!((all.in_flight, all.oldest_seconds), (Some(7), Some(4.3)));
        assert_eq!(all.waiting, Some(11));
        assert_eq!(
            Figures::of(WORKER, false, &pods, true).waiting,
            Some(6),
            "a journal that all of them see"
        );
    }

    #[test]
    fn a_replica_that_stands_by_does_not_make_messages_older() {
        let state = "vumi_consumer_state{queue=\"sms.outbound\",state=\"standby\",worker=\"transport/sms\"} 1\n";
        let standing = |age: f64| {
            let text = format!(
                "vumi_uptime_seconds 9\n{state}{OLDEST}{{queue=\"sms.outbound\",worker=\"{WORKER}\"}} {age}\n"
            );
            Page::parse(&text).unwrap()
        };
        let one = page(9.0, &[(OLDEST, "sms.outbound", 0.5)]);
        assert_eq!(oldest(&[&one, &standing(3600.0)], WORKER), Some(0.5));
        // Somebody else reads it.
        assert_eq!(oldest(&[&standing(3600.0)], WORKER), None);
        assert_eq!(oldest(&[], WORKER), Some(0.0));
    }

    #[test]
    fn rates_are_of_all_pods_and_each_message_is_counted_once() {
        let pod = |before: f64, age: f64, now: f64| {
            let series = |received: f64| {
                [
                    // Passed on to the parts, and read from there.
                    (RECEIVED, "sms.outbound", received),
                    (RECEIVED, "sms.outbound.p*", received),
                    // Taken by one replica for another.
                    (RECEIVED, "sms.reply", received),
                    (PUBLISHED, "sms.event", 2.0 * received),
                ]
            };
            Twice {
                before: page(10.0, &series(before)),
                now: page(age, &series(now)),
            }
        };
        let both = figures(&[pod(100.0, 12.0, 120.0), pod(0.0, 11.0, 5.0)]);
        assert_eq!(both.in_per_second, Some(15.0));
        assert_eq!(both.out_per_second, Some(30.0));
        let replaced = figures(&[pod(100.0, 11.0, 3.0)]);
        assert_eq!(replaced.in_per_second, Some(3.0));
        let restarted = figures(&[pod(100.0, 0.4, 3.0)]);
        assert_eq!(restarted.in_per_second, None);
    }

    #[test]
    fn what_takes_all_pods_is_not_known_without_one() {
        let some = Figures::of(WORKER, true, &[still(&[(READY, "sms.event", 3.0)])], false);
        assert_eq!((some.queued, some.parked), (Some(3), Some(0)));
        let rest = Figures {
            queued: None,
            parked: None,
            ..some.clone()
        };
        assert_eq!(rest, Figures::default());
        assert_eq!(figures(&[]), Figures::default());
        assert_eq!(some.row().join(" "), "3 - - - 0 - -");
    }

    #[test]
    fn without_a_broker_nobody_knows_what_waits_there() {
        let text = format!(
            "vumi_uptime_seconds 9\n{READY}{{queue=\"a\",worker=\"{WORKER}\"}} 5\nvumi_broker_up{{worker=\"{WORKER}\"}} 0\n"
        );
        let pod = Twice {
            before: page(8.0, &[]),
            now: Page::parse(&text).unwrap(),
        };
        let away = figures(&[pod]);
        assert_eq!((away.queued, away.in_flight), (None, Some(0)));
    }

    #[test]
    fn a_row_is_for_people() {
        let mut all = Figures {
            queued: Some(12),
            waiting: Some(0),
            in_flight: Some(3),
            oldest_seconds: Some(0.0),
            parked: Some(1),
            in_per_second: Some(250.04),
            out_per_second: Some(0.0),
        };
        assert_eq!(all.row().join(" "), "12 0 3 0s 1 250.0 0.0");
        all.oldest_seconds = Some(9.5);
        assert_eq!(all.row()[3], "9.5s");
        all.oldest_seconds = Some(65.4);
        assert_eq!(all.row()[3], "1m5s");
    }
}
