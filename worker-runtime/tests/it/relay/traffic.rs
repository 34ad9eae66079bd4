//! What is published for one subscriber meanwhile, and how soon it arrives.

use super::endpoint::Endpoint;
use crate::harness::amqp::{Amqp, user_message};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use vumi_core::message::Event;

/// Between two events: 20 a second, whatever the scale.
const PACE: Duration = Duration::from_millis(50);
/// Users who write messages with numbers.
pub(super) const USERS: usize = 10;
/// In how many spans of which length latency is measured: each gives the time in which half and in which 99 of 100 come, and the
/// middle one of them counts.
pub(super) const SPANS: (u32, Duration) = (5, Duration::from_secs(5));
/// What half of another subscriber's may take more than of one's who shares neither process nor store with the endpoint that is
/// away: a tenth, or so many milliseconds where a tenth is less than that. Who waits behind the endpoint waits a back-off of
/// hundreds; a process whose every attempt is compressed from six hours into half a minute, not optimised, on cores that others
/// use too, was up to eight later than one that does nothing else.
const FAIR: (f64, f64) = (0.1, 25.0);
/// The same of 99 of 100, which on a machine with few cores also say what else it does: twice as much more, or so many
/// milliseconds.
const LATE: (f64, f64) = (2.0, 100.0);

/// What is published for one subscriber, at its pace, until it is told to stop.
pub(super) struct Traffic {
    amqp: Amqp,
    connector: String,
    number: usize,
    /// When each id was published.
    pub(super) sent: BTreeMap<String, Instant>,
}

impl Traffic {
    pub(super) async fn new(url: &str, connector: &str) -> Self {
        Self {
            amqp: Amqp::connect(url).await,
            connector: connector.to_owned(),
            number: 0,
            sent: BTreeMap::new(),
        }
    }

    pub(super) async fn message(&mut self, id: &str, user: usize, content: &str) {
        let mut message = user_message(id, &self.connector, content);
        message["from_addr"] = format!("+2782000{user:04}").into();
        let queue = format!("{}.inbound", self.connector);
        self.sent.insert(id.to_owned(), Instant::now());
        self.amqp
            .publish(&queue, message.to_string().as_bytes())
            .await;
    }

    /// An event each time, and every fourth time a message of the next user, with the user's next number.
    pub(super) async fn flows(&mut self, time: Duration) {
        let mut ticks = tokio::time::interval(PACE);
        let end = Instant::now() + time;
        while Instant::now() < end {
            ticks.tick().await;
            let n = self.number;
            self.number += 1;
            let event = Event::ack(&format!("{}-sent-{n}", self.connector), "remote");
            let queue = format!("{}.event", self.connector);
            self.sent
                .insert(event.event_id().to_owned(), Instant::now());
            self.amqp.publish(&queue, &event.encode()).await;
            if n.is_multiple_of(4) {
                let (user, number) = (n / 4 % USERS, n / 4 / USERS);
                let id = format!("{}-{user}-{number}", self.connector);
                self.message(&id, user, &number.to_string()).await;
            }
        }
    }

    pub(super) fn ids(&self) -> BTreeSet<String> {
        self.sent.keys().cloned().collect()
    }
}

/// Milliseconds in which half, and in which 99 of 100 arrive, in the middle one of the [`SPANS`] since `from`.
pub(super) fn latency(traffic: &Traffic, endpoint: &Endpoint, from: Instant) -> [f64; 2] {
    let (count, length) = SPANS;
    let mut spans = vec![Vec::new(); count as usize];
    for taken in endpoint.taken() {
        let sent = traffic.sent[&taken.id];
        if let Some(since) = sent.checked_duration_since(from) {
            let span = (since.as_secs_f64() / length.as_secs_f64()) as usize;
            let took = taken.at.duration_since(sent).as_secs_f64() * 1000.0;
            spans[span.min(count as usize - 1)].push(took);
        }
    }
    for times in &mut spans {
        assert!(times.len() >= 50, "{} are too few", times.len());
        times.sort_by(f64::total_cmp);
    }
    [50, 99].map(|of_100| {
        let times = spans.iter();
        middle(
            times
                .map(|t| t[(t.len() * of_100).div_ceil(100) - 1])
                .collect(),
        )
    })
}

/// Whether latencies are as good as those of one apart.
pub(super) fn is_fair(latency: [f64; 2], apart: [f64; 2]) -> bool {
    let mut both = latency.into_iter().zip(apart).zip([FAIR, LATE]);
    both.all(|((latency, apart), (share, least))| latency <= apart + (apart * share).max(least))
}

fn middle(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
