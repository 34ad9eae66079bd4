//! Conditions that follow from what workers say of themselves and what the broker says of queues.

use super::{Candidate, Observed, Wish};
use crate::observed::{Broker, Level, Pod, Report, Sight, Unread};
use crate::reasons::Reason;
use k8s_openapi::jiff::SignedDuration;
use std::collections::{BTreeMap, BTreeSet};
use vumi_api::{ConditionType, Status, Truth};

pub const SHORT: SignedDuration = SignedDuration::from_secs(10);
const LONG: SignedDuration = SignedDuration::from_secs(60);
/// Longer than any worker is silent: an operator that has just started has heard of nobody, and of a new pod nobody has.
const GRACE: SignedDuration = SignedDuration::from_secs(90);
/// Messages that wait while nothing is handled.
const STANDSTILL: SignedDuration = SignedDuration::from_secs(120);
/// Components behind which the peer is. Those of a program that is not ours all count as that.
const PEER: &[&str] = &["peer", "provider", "endpoint", "bind", "link"];

/// What fresh reports say, worst first.
pub struct Health<'a> {
    reports: Vec<&'a Report>,
    /// Whether some have become too old.
    stale: bool,
}

impl<'a> Health<'a> {
    /// The reports that count: of these pods, and not too old.
    pub fn of(sight: &Sight<'a>) -> Self {
        let own = sight.reports.iter();
        let own = own.filter(|r| r.is_of(sight.resource) && r.is_from(sight.pods));
        let fresh = |report: &&Report| report.expires().is_none_or(|at| at > sight.now);
        let (mut reports, old): (Vec<&Report>, Vec<&Report>) = own.partition(fresh);
        // Of equals the first by name, so that the order in which they came changes nothing.
        reports.sort_by_key(|report| (std::cmp::Reverse(report.level), report.key()));
        Self {
            reports,
            stale: !old.is_empty(),
        }
    }

    /// How long nobody need have said anything before that is told. Who has been silent for three minutes has had his time.
    pub fn grace(&self) -> SignedDuration {
        match self.stale {
            true => SignedDuration::ZERO,
            false => GRACE,
        }
    }

    /// The worst report with one of these reasons.
    pub fn says(&self, reasons: &[&str]) -> Option<&'a Report> {
        let mut reports = self.reports.iter();
        reports
            .find(|report| reasons.contains(&report.reason.as_str()))
            .copied()
    }

    /// Why a worker is not ready, in its own words, and whether that needs an edit.
    pub fn cause(&self) -> Option<(Reason, String, bool)> {
        const CAUSES: &[(&str, &str, Reason, bool)] = &[
            (
                "queue",
                "queue_type_mismatch",
                Reason::QueueTypeMismatch,
                true,
            ),
            (
                "queue",
                "fence_not_honoured",
                Reason::FenceNotHonoured,
                true,
            ),
            (
                "queue",
                "foreign_consumer",
                Reason::QueueHeldByForeignConsumer,
                false,
            ),
            ("broker", "refused", Reason::BrokerRefuses, false),
            ("broker", "unreachable", Reason::BrokerUnreachable, false),
            ("broker", "blocked", Reason::BrokerBlocked, false),
            ("state", "state_unavailable", Reason::StoreAway, false),
            ("listener", "listen_failed", Reason::ListenFailed, false),
        ];
        CAUSES.iter().find_map(|(part, reason, ours, edit)| {
            let mut reports = self.reports.iter();
            let said = reports.find(|r| r.part() == *part && r.reason == *reason)?;
            Some((*ours, said.message.clone(), *edit))
        })
    }

    /// Whether more pods would not help now: the peer is away or asks to slow down, or the worker pauses.
    pub fn is_hindered(&self, sight: &Sight<'_>) -> bool {
        let link = self.link(sight);
        let away = link.is_some_and(|(_, word)| ["DOWN", "THROTTLED"].contains(&word));
        away || self.says(&["too_many_parked", "backlog_full"]).is_some()
    }

    /// Whether every pod says that its journals are empty.
    pub fn keeps_nothing(&self, sight: &Sight<'_>) -> bool {
        let journals = || {
            self.reports
                .iter()
                .filter(|report| report.part() == "journal")
        };
        let said_by = |pod: &Pod| journals().any(|r| r.is_from(std::slice::from_ref(pod)));
        let empty = journals().all(|report| report.reason == "nothing_kept");
        empty && !sight.pods.is_empty() && sight.pods.iter().all(said_by)
    }

    /// The reports about a component, by its whole name.
    fn components(&self, is: impl Fn(&Report) -> bool) -> BTreeMap<&'a str, Vec<&'a Report>> {
        let mut components: BTreeMap<&str, Vec<&Report>> = BTreeMap::new();
        for report in self.reports.iter().copied().filter(|report| is(report)) {
            components
                .entry(&report.component)
                .or_default()
                .push(report);
        }
        components
    }

    fn sentence(report: &Report) -> String {
        match report.identity {
            Some(_) => format!(
                "{}: {} ({})",
                report.component, report.message, report.reason
            ),
            None => format!(
                "{}: {} ({}), as it said last",
                report.component, report.message, report.reason
            ),
        }
    }

    /// Whether the peer can be reached, and the word for it. A component is down when it is down in every pod.
    pub fn link(&self, sight: &Sight<'_>) -> Option<(Candidate, &'static str)> {
        let foreign = sight.resource.in_container();
        let components = self.components(|r| foreign || PEER.contains(&r.part()));
        let mut all = components.values().flatten();
        // Several binds are one link that is up as long as one of them is.
        let binds = components.keys().filter(|name| name.starts_with("bind"));
        let all_down = |reports: &Vec<&Report>| reports.iter().all(|r| r.level == Level::Down);
        let bound = binds.clone().any(|name| !all_down(&components[name]));
        let excused = |reports: &Vec<&Report>| bound && reports[0].part() == "bind";
        let down = |reports: &&Vec<&Report>| all_down(reports) && !excused(reports);
        if let Some(reports) = components.values().find(down) {
            let text = Self::sentence(reports[0]);
            let candidate = Candidate::new(Truth::False, Reason::PeerDown, text);
            return Some((candidate.after(SHORT), "DOWN"));
        }
        let throttled = self.says(&["slowed_down", "provider_throttles", "endpoint_throttles"]);
        let first = all.next().or(throttled.as_ref())?;
        let worse = components
            .values()
            .flatten()
            .find(|report| report.level > Level::Ok);
        let (reason, text, word) = match (throttled, worse) {
            (Some(report), _) => (Reason::PeerThrottles, Self::sentence(report), "THROTTLED"),
            (None, Some(report)) => (Reason::PeerDegraded, Self::sentence(report), "DEGRADED"),
            (None, None) if bound => (Reason::PeerUp, Self::sentence(first), "BOUND"),
            (None, None) => (Reason::PeerUp, Self::sentence(first), "UP"),
        };
        let candidate = Candidate::new(Truth::True, reason, text);
        Some((candidate.after(SHORT), word))
    }

    /// The state store.
    fn store(&self) -> Option<Candidate> {
        let report = self
            .reports
            .iter()
            .find(|report| report.part() == "state")?;
        let (truth, reason) = match report.reason.as_str() {
            "state_unavailable" => (Truth::False, Reason::StateUnavailable),
            "state_not_durable" => (Truth::False, Reason::StateNotDurable),
            _ => (Truth::True, Reason::StoreUp),
        };
        let text = report.message.clone();
        Some(Candidate::new(truth, reason, text).after(SHORT))
    }

    /// Credentials of broker and peer.
    fn credentials(&self, broker: &Broker) -> Option<Candidate> {
        if let Some(Unread::Refused(text)) = &broker.unread {
            // Pods have the same, and what they say of it comes over the broker that refuses them.
            let (truth, reason) = (Truth::False, Reason::CredentialsRefused);
            return Some(Candidate::new(truth, reason, text.clone()).after(SHORT));
        }
        let refused = ["provider_credentials", "endpoint_credentials"];
        let refused = self.says(&refused).or_else(|| {
            let mut reports = self.reports.iter().copied();
            reports.find(|report| report.part() == "broker" && report.reason == "refused")
        });
        if let Some(report) = refused {
            let (truth, reason) = (Truth::False, Reason::CredentialsRefused);
            let text = Self::sentence(report);
            return Some(Candidate::new(truth, reason, text).after(SHORT));
        }
        self.reports.first()?;
        let text = "nobody refuses them".to_owned();
        let candidate = Candidate::new(Truth::True, Reason::CredentialsAccepted, text);
        Some(candidate.after(LONG))
    }

    /// A condition that is there only while some component says so.
    fn while_said(&self, said: &str, reason: Reason) -> Option<Candidate> {
        let parts: BTreeSet<&str> = self
            .reports
            .iter()
            .filter(|report| report.reason == said)
            .map(|report| {
                report
                    .component
                    .split_once(' ')
                    .map_or("", |(_, name)| name)
            })
            .collect();
        let candidate = Candidate::new(Truth::True, reason, first_ten(&parts));
        (!parts.is_empty()).then(|| candidate.reworded_slowly())
    }
}

/// Names for a sentence: how many, and at most ten of them (K36).
fn first_ten(names: &BTreeSet<&str>) -> String {
    let shown: Vec<&str> = names.iter().take(10).copied().collect();
    match names.len() {
        0..=10 => shown.join(", "),
        all => format!("{all}, among them {}", shown.join(", ")),
    }
}

/// All conditions but Ready, Reconciling and Stalled: what they are to be, and after what time those that are over end.
/// `runs`: there are to be pods.
pub fn conditions(
    seen: &Observed<'_>,
    health: &Health<'_>,
    previous: &Status,
    runs: bool,
) -> Vec<(ConditionType, Wish, SignedDuration)> {
    use ConditionType as T;
    // Of whom nothing was heard, nothing has changed as far as anybody knows.
    let over = match health.reports.is_empty() && runs {
        true => GRACE,
        false => SHORT,
    };
    let said = |kind: T, said: Option<Candidate>| match said.filter(|_| runs) {
        Some(candidate) => Wish::Is(candidate),
        None if runs && !kind.only_while_true() && previous.condition(kind).is_some() => {
            let text = "nothing was heard of it for a while".to_owned();
            Wish::Is(Candidate::new(Truth::Unknown, Reason::NoReports, text).after(health.grace()))
        }
        None => Wish::Gone,
    };
    let paused = health.while_said("too_many_parked", Reason::TooManyParked);
    let was_left = previous
        .condition(T::Paused)
        .is_some_and(|c| c.reason == Reason::ReconciliationPaused.as_str());
    let taken_up = match was_left {
        true => SignedDuration::ZERO,
        false => over,
    };
    let pause = match seen.left_alone {
        true => Wish::Is(left_alone()),
        false => said(T::Paused, paused.clone()),
    };
    let link = health.link(&seen.sight).map(|(candidate, _)| candidate);
    let away = link.as_ref().is_some_and(|link| link.truth == Truth::False);
    let excused = paused.is_some() || away;
    let full = health.while_said("backlog_full", Reason::LimitReached);
    let unread = health.while_said("no_consumer", Reason::NobodyReads);
    vec![
        (T::LinkUp, said(T::LinkUp, link), over),
        (T::Paused, pause, taken_up),
        (T::BacklogKnown, known(seen), SHORT),
        (T::BacklogFull, said(T::BacklogFull, full), over.max(LONG)),
        (T::NoConsumer, said(T::NoConsumer, unread), over),
        (T::ForeignConsumer, foreign(seen), LONG),
        (T::StateHealthy, said(T::StateHealthy, health.store()), over),
        (T::UpdateAvailable, update(seen), SignedDuration::ZERO),
        (T::TrafficStalled, stuck(seen, excused), SHORT),
        (
            T::CredentialsValid,
            said(T::CredentialsValid, health.credentials(seen.sight.broker)),
            over,
        ),
    ]
}

/// That an annotation asks for it.
pub(super) fn left_alone() -> Candidate {
    let text = "an annotation asks the operator to leave it alone; edits have no effect";
    Candidate::new(Truth::True, Reason::ReconciliationPaused, text.to_owned())
}

/// Whether depths can be read. While nobody has looked, it stays as it was.
fn known(seen: &Observed<'_>) -> Wish {
    let (truth, reason, text) = match &seen.sight.broker.unread {
        None => (Truth::True, Reason::BacklogRead, "depths are read"),
        Some(Unread::NotYet) => return Wish::Keep,
        Some(Unread::Broker(text)) => (Truth::False, Reason::BrokerUnreachable, text.as_str()),
        Some(Unread::Refused(text)) => (Truth::False, Reason::BrokerRefuses, text.as_str()),
        Some(Unread::Management(text)) => {
            (Truth::False, Reason::ManagementUnreachable, text.as_str())
        }
        Some(Unread::Forbidden(text)) => (Truth::False, Reason::ManagementForbidden, text.as_str()),
    };
    Wish::Is(Candidate::new(truth, reason, text.to_owned()).after(SHORT))
}

/// More consumers than pods: each pod has one on a queue at most. That is how a migration looks. A program that is not ours may have
/// as many as it likes: there it shows only while it has no pods.
fn foreign(seen: &Observed<'_>) -> Wish {
    if seen.sight.broker.unread == Some(Unread::NotYet) {
        return Wish::Keep;
    }
    let pods = u32::try_from(seen.sight.pods.len()).unwrap_or(u32::MAX);
    let ours = !seen.sight.resource.in_container();
    let consumers = seen.sight.broker.consumers(seen.sight.resource);
    let shared: BTreeSet<&str> = consumers
        .iter()
        .filter(|(_, consumers)| *consumers > pods && (pods == 0 || ours))
        .map(|(queue, _)| queue.as_str())
        .collect();
    if shared.is_empty() {
        return Wish::Gone;
    }
    let text = format!("somebody else reads {}", first_ten(&shared));
    let candidate = Candidate::new(Truth::True, Reason::OtherConsumers, text);
    Wish::Is(candidate.after(LONG).reworded_slowly())
}

fn update(seen: &Observed<'_>) -> Wish {
    match seen.plan {
        Err(_) => Wish::Keep,
        Ok(desired) if desired.update_available => {
            let image = &desired.image;
            let text = format!(
                "the pods have {image} and take a newer one with the next edit, or with updatePolicy: Immediate"
            );
            Wish::Is(Candidate::new(Truth::True, Reason::RuntimeOutdated, text).reworded())
        }
        Ok(_) => Wish::Gone,
    }
}

/// Messages wait where consumers are, and none is finished. A pause and a peer that is away are said elsewhere.
fn stuck(seen: &Observed<'_>, excused: bool) -> Wish {
    let Some(totals) = seen.sight.broker.totals(seen.sight.resource) else {
        return Wish::Keep;
    };
    let broker = seen.sight.broker;
    let waits = broker.waits_before_consumers(seen.sight.resource);
    if excused || !waits || totals.handled.is_none_or(|rate| rate > 0.0) {
        return Wish::Gone;
    }
    let text = "messages wait and are not handled".to_owned();
    Wish::Is(Candidate::new(Truth::True, Reason::NothingHandled, text).after(STANDSTILL))
}
