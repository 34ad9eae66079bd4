//! Autoscaling as a pure step: state, reading and time in, state and decision out (K8, K19). What waits, what is in hand and the
//! rate at which messages come decide; a reading that failed is never zero; more pods come at once, fewer only after a while.

use crate::observed::Sight;
use crate::reasons::Reason;
use crate::status::Health;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;
use vumi_api::AutoscalingStatus;
use vumi_api::shared::{Autoscaling, Duration};

/// Between two growths: pods that were asked for start, and take from the backlog, meanwhile.
const GROWTH: SignedDuration = SignedDuration::from_secs(15);
/// Without pods and without a reading for so long, one is started to be safe.
const BLIND: SignedDuration = SignedDuration::from_secs(60);
/// Too much for so long is worth saying.
const TOO_MUCH: SignedDuration = SignedDuration::from_secs(60);
/// Pods may go that would be spare even with so much more to do: what is just enough is not let go.
const MARGIN: f64 = 1.1;
/// Part of what pods were seen to handle that they are counted on for.
const UTILISATION: f64 = 0.9;
/// Weight of the newest look at what pods handle.
const LEARNING: f64 = 0.2;
/// A rate below this is none: brokers let rates fade.
const NO_RATE: f64 = 0.01;

/// What is to be done, as the broker says it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Messages that wait.
    pub ready: u64,
    /// Messages in hand.
    pub unacked: u64,
    /// Messages that come, each second.
    pub arriving: f64,
    /// Messages that are finished, each second; none if not known.
    pub handled: Option<f64>,
    /// Whether all queues exist, so that what is published waits in them. Without that there is always a pod, which makes them.
    pub declared: bool,
    /// Whether it is known that nothing waits where the broker does not show it, in the worker's journal. Without that the last
    /// pod stays.
    pub nothing_kept: bool,
    /// Whether more pods would not help now: the peer is away or asks to slow down, or the worker pauses.
    pub hindered: bool,
}

impl Demand {
    /// What a worker has to do. None if that cannot be read. `has_store`: it has a state store, and so a journal, unless it is a
    /// program that is not ours.
    pub fn of(sight: &Sight<'_>, has_store: bool) -> Option<Self> {
        let totals = sight.broker.totals(sight.resource)?;
        let health = Health::of(sight);
        let no_journal = !has_store || sight.resource.in_container();
        Some(Self {
            ready: totals.ready,
            unacked: totals.unacked,
            arriving: totals.arriving,
            handled: totals.handled,
            declared: totals.declared,
            nothing_kept: no_journal || health.keeps_nothing(sight),
            hindered: health.is_hindered(sight),
        })
    }

    fn is_idle(&self) -> bool {
        self.ready == 0 && self.unacked == 0 && self.arriving < NO_RATE
    }
}

/// How many pods there are to be, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// How many.
    pub replicas: u16,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in a sentence.
    pub message: String,
    /// When it was decided.
    pub since: Timestamp,
}

impl From<&Decision> for AutoscalingStatus {
    fn from(decision: &Decision) -> Self {
        Self {
            desired_replicas: decision.replicas,
            reason: decision.reason.as_str().to_owned(),
            message: decision.message.clone(),
            since: crate::status::time(decision.since),
        }
    }
}

/// The state of one resource's scaling. It is kept in memory: an operator that takes over begins with the last decision, and
/// lets no pod go before it has looked for a while itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaler {
    decision: Decision,
    /// Since when readings have come without a gap.
    reading: Option<Timestamp>,
    /// Since when none has come.
    blind: Option<Timestamp>,
    /// The last growth.
    grown: Option<Timestamp>,
    /// Since when more is needed than may be.
    above: Option<Timestamp>,
    /// Pods that would have been enough, newest last and smallest last: the first is the most of the last while.
    enough: VecDeque<(Timestamp, u16)>,
    /// What one pod was seen to handle each second while messages waited.
    capacity: Option<f64>,
}

impl Scaler {
    /// Begins with the pods that there are.
    pub fn begin(replicas: u16, now: Timestamp) -> Self {
        Self::with(Decision {
            replicas,
            reason: Reason::FirstDecision,
            message: format!("{}: as many as there were when it began", pods(replicas)),
            since: now,
        })
    }

    /// Goes on from what the status says: after a restart of the operator, or with another one.
    pub fn resume(status: &AutoscalingStatus, now: Timestamp) -> Self {
        let replicas = status.desired_replicas;
        let begun = Self::begin(replicas, now);
        match (Reason::find(&status.reason), status.since.parse()) {
            (Some(reason), Ok(since)) => Self::with(Decision {
                replicas,
                reason,
                message: status.message.clone(),
                since,
            }),
            _ => begun,
        }
    }

    fn with(decision: Decision) -> Self {
        Self {
            decision,
            reading: None,
            blind: None,
            grown: None,
            above: None,
            enough: VecDeque::new(),
            capacity: None,
        }
    }

    /// What is decided now.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// One look. `demand` is none where the broker could not be read; `ready` is how many pods are ready.
    #[must_use]
    pub fn step(
        mut self,
        bounds: &Autoscaling,
        demand: Option<&Demand>,
        ready: u32,
        now: Timestamp,
    ) -> Self {
        let (least, most) = (bounds.least(), bounds.most());
        let inside = self.decision.replicas.clamp(least, most);
        if inside != self.decision.replicas {
            let text = format!("{}: the bounds are {least} to {most}", pods(inside));
            self.decide(inside, Reason::OutOfBounds, text, now);
        }
        match demand {
            None => self.blind(now),
            Some(demand) => {
                self.blind = None;
                self.reading.get_or_insert(now);
                self.learn(demand, ready);
                self.look(bounds, demand, now);
            }
        }
        self
    }

    /// Nothing can be read: everything stays as it is, but a worker without pods is woken after a while.
    fn blind(&mut self, now: Timestamp) {
        self.reading = None;
        self.above = None;
        self.enough.clear();
        let since = *self.blind.get_or_insert(now);
        if self.decision.replicas == 0 && now.duration_since(since) >= BLIND {
            let text = "1 pod: the broker could not be read for a minute, and messages may wait";
            self.decide(1, Reason::WokenBlind, text.to_owned(), now);
        }
    }

    /// How much one pod handles shows only while messages wait for all of them.
    fn learn(&mut self, demand: &Demand, ready: u32) {
        let Some(handled) = demand
            .handled
            .filter(|rate| rate.is_finite() && *rate > NO_RATE)
        else {
            return;
        };
        if ready == 0 || demand.hindered || demand.ready < u64::from(ready) {
            return;
        }
        let seen = handled / f64::from(ready);
        self.capacity = Some(match self.capacity {
            Some(known) => known + LEARNING * (seen - known),
            None => seen,
        });
    }

    fn look(&mut self, bounds: &Autoscaling, demand: &Demand, now: Timestamp) {
        let (least, most) = (bounds.least(), bounds.most());
        let replicas = self.decision.replicas;
        let need = self.need(bounds, demand, 1.0);
        self.note_enough(bounds, demand, now);
        self.note_too_much(bounds, demand, &need, now);
        if replicas == 0 {
            let why = match (demand.ready > 0, demand.declared) {
                (true, _) => "a message waits",
                (false, false) => "a queue is missing, so that nothing would wait in it",
                (false, true) => return,
            };
            let first = need.pods.clamp(1, most).min(4);
            let text = format!("{}: {why}", pods(first));
            return self.grow(first, Reason::Woken, text, now);
        }
        let wanted = need.pods.clamp(least, most);
        if wanted > replicas {
            let rested = self.grown.is_none_or(|at| now.duration_since(at) >= GROWTH);
            if demand.hindered || !rested {
                return;
            }
            let step = replicas.saturating_mul(2).max(replicas.saturating_add(4));
            let next = wanted.min(step);
            let (reason, why) = match need.pods > most && next == most {
                true => (Reason::AtMaximum, need.and_more(most)),
                false => (need.reason, need.sentence.clone()),
            };
            let on_the_way = match next < wanted {
                true => format!(", on the way to {wanted}"),
                false => String::new(),
            };
            self.grow(
                next,
                reason,
                format!("{}{on_the_way}: {why}", pods(next)),
                now,
            );
            return;
        }
        self.shrink(bounds, demand, now);
    }

    /// Fewer pods, if they would have been enough for the whole of the last while.
    fn shrink(&mut self, bounds: &Autoscaling, demand: &Demand, now: Timestamp) {
        let patience = SignedDuration::try_from(bounds.patience()).unwrap_or(SignedDuration::MAX);
        let long_enough = self
            .reading
            .is_some_and(|since| now.duration_since(since) >= patience);
        let Some((_, enough)) = self.enough.front().copied().filter(|_| long_enough) else {
            return;
        };
        let (least, replicas) = (bounds.least(), self.decision.replicas);
        let next = enough.max(least);
        if next >= replicas {
            return;
        }
        let while_ = Duration(bounds.patience());
        let (reason, why) = match next {
            0 => (Reason::Idle, format!("nothing waited or came for {while_}")),
            _ if enough <= least => {
                let text = format!("so few were enough for {while_}, and minReplicas is {least}");
                (Reason::AtMinimum, text)
            }
            _ => {
                let need = self.need(bounds, demand, MARGIN);
                let text = format!("so many were enough for {while_}; now {}", need.sentence);
                (need.reason, text)
            }
        };
        self.decide(next, reason, format!("{}: {why}", pods(next)), now);
    }

    /// Remembers how many pods would be enough now, with a margin.
    fn note_enough(&mut self, bounds: &Autoscaling, demand: &Demand, now: Timestamp) {
        let idle = demand.declared && demand.nothing_kept && demand.is_idle();
        let need = self.need(bounds, demand, MARGIN).pods;
        let enough = match idle {
            true => 0,
            false => need.max(1),
        };
        let patience = SignedDuration::try_from(bounds.patience()).unwrap_or(SignedDuration::MAX);
        while self.enough.back().is_some_and(|(_, pods)| *pods <= enough) {
            self.enough.pop_back();
        }
        self.enough.push_back((now, enough));
        while self
            .enough
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) > patience)
        {
            self.enough.pop_front();
        }
    }

    /// That maxReplicas is what limits is said once it lasts, even if it changes nothing.
    fn note_too_much(
        &mut self,
        bounds: &Autoscaling,
        demand: &Demand,
        need: &Need,
        now: Timestamp,
    ) {
        let most = bounds.most();
        if need.pods <= most || self.decision.replicas < most || demand.hindered {
            self.above = None;
            return;
        }
        let since = *self.above.get_or_insert(now);
        let said = self.decision.reason == Reason::AtMaximum;
        if !said && now.duration_since(since) >= TOO_MUCH {
            let text = format!("{}: {}", pods(most), need.and_more(most));
            self.decide(most, Reason::AtMaximum, text, now);
        }
    }

    /// How many pods are needed for what is there, times `margin`.
    fn need(&self, bounds: &Autoscaling, demand: &Demand, margin: f64) -> Need {
        let per_pod = bounds.backlog_per_pod();
        let backlog = demand.ready.saturating_add(demand.unacked);
        let for_backlog = ceiling(backlog as f64 * margin / f64::from(per_pod));
        let learnt = self.capacity.map(|capacity| capacity * UTILISATION);
        let rate = bounds.rate_per_replica.map(f64::from).or(learnt);
        let rate = rate.filter(|rate| *rate > NO_RATE);
        let for_rate = rate.map_or(0, |rate| ceiling(demand.arriving.max(0.0) * margin / rate));
        match for_rate > for_backlog {
            true => Need {
                pods: for_rate,
                reason: Reason::RateDemands,
                sentence: format!(
                    "{:.1} messages come each second, and one pod is counted on for {:.1}",
                    demand.arriving,
                    rate.unwrap_or_default()
                ),
            },
            false => Need {
                pods: for_backlog,
                reason: Reason::BacklogDemands,
                sentence: format!(
                    "{backlog} messages wait or are in hand, and there is one pod for {per_pod}"
                ),
            },
        }
    }

    fn grow(&mut self, replicas: u16, reason: Reason, message: String, now: Timestamp) {
        self.grown = Some(now);
        self.decide(replicas, reason, message, now);
    }

    fn decide(&mut self, replicas: u16, reason: Reason, message: String, now: Timestamp) {
        self.decision = Decision {
            replicas,
            reason,
            message,
            since: now,
        };
    }
}

/// How many pods are needed, and for what.
struct Need {
    pods: u16,
    reason: Reason,
    sentence: String,
}

impl Need {
    fn and_more(&self, most: u16) -> String {
        let Self { pods, sentence, .. } = self;
        format!("maxReplicas is {most}, and {pods} would be needed: {sentence}")
    }
}

/// The next whole number, as pods.
fn ceiling(pods: f64) -> u16 {
    // A cast holds to the bounds of its type, and takes what is no number for 0.
    pods.ceil() as u16
}

fn pods(replicas: u16) -> String {
    match replicas {
        0 => "no pods".into(),
        1 => "1 pod".into(),
        many => format!("{many} pods"),
    }
}
