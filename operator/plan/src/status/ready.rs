//! `Ready`, `Reconciling` and `Stalled` (K3, K13): the pods, the roll, and what stands in the way.

use super::health::Health;
use super::{Candidate, IN_THE_WAY, Observed, Wish};
use crate::names::TEMPLATE_HASH;
use crate::observed::{Pod, Problem, Unread, Workload};
use crate::reasons::Reason;
use crate::validate::{Outcome, Refusal};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use vumi_api::{Condition, ConditionType, Status, Truth};

/// A pod that is not ready for a moment, or one of several that starts, is no news.
const A_MOMENT: SignedDuration = SignedDuration::from_secs(15);
const A_START: SignedDuration = SignedDuration::from_secs(60);

/// Reasons to reconcile that are no roll.
const WAITS: &[Reason] = &[
    Reason::SecretMissing,
    Reason::SecretKeyMissing,
    Reason::ApplyFailed,
    Reason::ObjectLeaving,
    Reason::GatewayMissing,
    Reason::PodMonitorMissing,
];

/// The three conditions.
pub struct Readiness {
    /// `Ready`.
    pub ready: Wish,
    /// `Reconciling`.
    pub reconciling: Wish,
    /// `Stalled`.
    pub stalled: Wish,
}

impl Readiness {
    fn ready(candidate: Candidate) -> Self {
        Self {
            ready: Wish::Is(candidate),
            reconciling: Wish::Gone,
            stalled: Wish::Gone,
        }
    }

    /// Whether nothing is pending and nothing is stalled.
    fn is_quiet(&self) -> bool {
        matches!((&self.reconciling, &self.stalled), (Wish::Gone, Wish::Gone))
    }

    /// Something is pending.
    fn pending(mut self, candidate: Candidate) -> Self {
        if matches!(self.stalled, Wish::Gone) {
            self.reconciling = Wish::Is(candidate);
        }
        self
    }

    /// Nothing goes on without an edit.
    fn stalled(mut self, candidate: Candidate) -> Self {
        self.reconciling = Wish::Gone;
        self.stalled = Wish::Is(candidate);
        self
    }
}

fn holds(reason: Reason, text: &str) -> Candidate {
    Candidate::new(Truth::True, reason, text.to_owned())
}

/// A sentence of the API server may be another one at every try; ours changes with an edit.
fn as_refused(candidate: Candidate) -> Candidate {
    match candidate.reason {
        Reason::ApplyFailed => candidate.reworded_slowly(),
        _ => candidate.reworded(),
    }
}

fn not_ready(reason: Reason, text: &str) -> Candidate {
    Candidate::new(Truth::False, reason, text.to_owned())
}

/// How many pods there are to be: as it is built, else as it runs.
pub fn wanted(seen: &Observed<'_>) -> u32 {
    let built = seen.plan.ok().and_then(|desired| {
        let replicas = &desired.workload()?.object["spec"]["replicas"];
        u32::try_from(replicas.as_u64()?).ok()
    });
    built.unwrap_or_else(|| seen.workload.map_or(0, |workload| workload.wanted))
}

/// The three conditions of a resource.
pub fn readiness(seen: &Observed<'_>, previous: &Status, health: &Health<'_>) -> Readiness {
    if seen.left_alone {
        return left_alone(seen, previous, health);
    }
    let refusal = match (seen.plan, seen.failure) {
        (Err(refusal), _) | (Ok(_), Some(refusal)) => refusal,
        (Ok(desired), None) => {
            let readiness = of_pods(seen, previous, health);
            // What could not be done beside the rest, what was asked for and the cluster does not have, and what is not wanted any
            // more and does not go.
            let pending = IN_THE_WAY.into_iter().find_map(|reason| {
                let mut notes = desired.notes.iter();
                let note = notes.find(|note| note.reason == reason.as_str())?;
                Some(as_refused(holds(reason, &note.message)))
            });
            return match pending {
                Some(pending) if readiness.is_quiet() => readiness.pending(pending),
                _ => readiness,
            };
        }
    };
    // What is as it was applied last is judged by its pods, whatever is missing now.
    let in_the_way = refusal.reason == Reason::ObjectLeaving && seen.workload.is_none();
    let by_pods = is_applied(seen, previous) && refusal.reason != Reason::QueueClash && !in_the_way;
    let readiness = match by_pods {
        true => of_pods(seen, previous, health),
        false => Readiness::ready(as_refused(not_ready(refusal.reason, &refusal.message))),
    };
    let text = with_running(refusal, seen, previous);
    match refusal.outcome {
        Outcome::Stalled => readiness.stalled(as_refused(holds(refusal.reason, &text))),
        Outcome::Waiting => readiness.pending(as_refused(holds(refusal.reason, &text))),
    }
}

/// Of whom is left alone, and runs as it is written: what pods do is judged as ever, and what else was said stays.
fn left_alone(seen: &Observed<'_>, previous: &Status, health: &Health<'_>) -> Readiness {
    let [ready, reconciling, stalled] = [
        ConditionType::Ready,
        ConditionType::Reconciling,
        ConditionType::Stalled,
    ]
    .map(|kind| previous.condition(kind));
    let gave_way = stalled.is_some_and(|c| c.reason == Reason::QueueClash.as_str());
    if !is_applied(seen, previous) || gave_way {
        return Readiness {
            ready: Wish::Keep,
            reconciling: Wish::Keep,
            stalled: Wish::Keep,
        };
    }
    let none = "its pods are gone, and none are made while the operator leaves it alone";
    let by_pods = match seen.workload {
        Some(_) => of_pods(seen, previous, health),
        None => Readiness::ready(not_ready(Reason::PodsNotReady, none)),
    };
    // Pods that cannot work stall it for the reason for which it is not ready.
    let refused = stalled.is_some_and(|s| ready.is_none_or(|ready| ready.reason != s.reason));
    Readiness {
        reconciling: match reconciling.is_some_and(waits) {
            true => Wish::Keep,
            false => by_pods.reconciling,
        },
        stalled: match refused {
            true => Wish::Keep,
            false => by_pods.stalled,
        },
        ready: by_pods.ready,
    }
}

/// Whether what is written is what was applied last.
fn is_applied(seen: &Observed<'_>, previous: &Status) -> bool {
    previous.applied_generation == Some(seen.generation)
}

/// Whether a condition is about something else than a roll.
fn waits(reconciling: &Condition) -> bool {
    let mut reasons = WAITS.iter();
    reasons.any(|reason| reconciling.reason == reason.as_str())
}

/// The sentence of a refusal, and what runs meanwhile (K3).
fn with_running(refusal: &Refusal, seen: &Observed<'_>, previous: &Status) -> String {
    let runs = seen.workload.is_some_and(|workload| workload.wanted > 0);
    let message = &refusal.message;
    match previous.applied_generation {
        _ if !runs && seen.sight.resource.deployment().suspend => {
            format!("{message}; it has no pods, since spec.suspend is set")
        }
        _ if !runs || refusal.reason == Reason::QueueClash => message.clone(),
        Some(generation) => format!("{message}; running generation {generation}"),
        None => message.clone(),
    }
}

/// What follows from the pods and from the broker.
fn of_pods(seen: &Observed<'_>, previous: &Status, health: &Health<'_>) -> Readiness {
    let wanted = wanted(seen);
    if wanted == 0 {
        let (reason, text) = match seen.sight.resource.deployment().suspend {
            true => (Reason::Suspended, "spec.suspend is set; messages wait"),
            false => (Reason::ScaledToZero, "no pods are wanted; messages wait"),
        };
        return Readiness::ready(Candidate::new(Truth::True, reason, text.to_owned()));
    }
    let first = previous.condition(ConditionType::Ready).is_none();
    let Some(workload) = seen.workload else {
        let text = "the first pods are being made";
        let ready = not_ready(Reason::Starting, text);
        return Readiness::ready(ready).pending(holds(Reason::Starting, text));
    };
    let replaced = !is_current(workload, seen) || workload.updated < workload.total;
    let rolls = replaced || old_pods_end(seen);
    // A roll ends when its pods are ready; more or fewer pods are none.
    let reconciling = previous.condition(ConditionType::Reconciling);
    let rolled = reconciling.is_some_and(|c| !waits(c));
    // An edit after which no pod is ready has to bring its own: from none, or where the old ones had to go first. A worker that the
    // scaler wakes was ready with none.
    let from_none = workload.ready == 0 && !is_applied(seen, previous);
    let unfinished = first || rolled || from_none;
    let pending = rolls || unfinished && workload.ready < wanted;
    let starting = |c: &Condition| c.reason == Reason::Starting.as_str();
    let ready = previous.condition(ConditionType::Ready);
    let had_none = |c: &Condition| {
        let reasons = [Reason::ScaledToZero, Reason::Suspended];
        reasons.iter().any(|reason| c.reason == reason.as_str())
    };
    let woken = ready.is_some_and(had_none);
    let starts = ready.is_none_or(starting) || reconciling.is_some_and(starting) || woken;
    let (reason, text) = match starts {
        true => (Reason::Starting, "the first pods start"),
        false if replaced || workload.ready < wanted => (
            Reason::RollingOut,
            "pods are being replaced, one after the other",
        ),
        false => (
            Reason::RollingOut,
            "the new pods run, and an old one finishes what it holds",
        ),
    };
    if workload.ready >= wanted && !rolls {
        let of_broker = || of_broker(seen, previous, health);
        let of_link = || of_link(seen, previous, health);
        let why = match seen.sight.broker.unread {
            // By the next look it has been asked; what is known to be wrong is wrong until then.
            Some(Unread::NotYet) => of_link().or_else(of_broker),
            _ => of_broker().or_else(of_link),
        };
        return match why {
            Some(candidate) => Readiness::ready(candidate),
            None => Readiness::ready(runs(seen)),
        };
    }
    let cause = cause(seen, workload, health);
    let short = format!("{} of {wanted} pods are ready", workload.ready.min(wanted));
    let readiness = match &cause {
        Some(cause) => {
            let after = match pending || workload.ready == 0 {
                true => SignedDuration::ZERO,
                false => A_MOMENT,
            };
            let ready = not_ready(cause.reason, &cause.message).after(after);
            Readiness::ready(ready)
        }
        None if pending => Readiness::ready(not_ready(reason, text)),
        None => {
            let after = match workload.ready > 0 || woken {
                true => A_START,
                false => A_MOMENT,
            };
            let ready = not_ready(Reason::PodsNotReady, &short).after(after);
            Readiness::ready(ready.reworded_slowly())
        }
    };
    let stalls = cause.as_ref().filter(|cause| cause.needs_edit);
    match (stalls, &cause) {
        (Some(stalls), _) => readiness.stalled(holds(stalls.reason, &stalls.message)),
        (None, Some(cause)) if pending && of_a_roll(cause.reason) => {
            readiness.pending(holds(cause.reason, &cause.message))
        }
        (None, _) if pending => readiness.pending(holds(reason, text)),
        (None, _) => readiness,
    }
}

/// Whether pods of another template than the one that stays are still on their way out. Their controller counts them no
/// more, but they read and answer until they are gone. One that outlives its time stands on a node that nobody hears of.
fn old_pods_end(seen: &Observed<'_>) -> bool {
    let (pods, now) = (seen.sight.pods, seen.sight.now);
    let old = |pod: &&Pod| pods.iter().any(|p| !p.ending && p.template != pod.template);
    let lives = |pod: &Pod| gone(pod).is_none_or(|at| now < at);
    pods.iter().filter(|pod| pod.ending).filter(old).any(lives)
}

/// When a pod that ends is not waited for any more.
pub fn gone(pod: &Pod) -> Option<Timestamp> {
    pod.ends?.checked_add(A_MOMENT).ok()
}

/// Reasons that say why a roll goes no further.
fn of_a_roll(reason: Reason) -> bool {
    reason.entry().place.contains("Reconciling")
}

/// Whether the workload is the one that was built, and its controller has seen it. The number of its pods does not matter.
pub fn is_current(workload: &Workload, seen: &Observed<'_>) -> bool {
    let built = seen.plan.ok().and_then(|desired| {
        let annotations = &desired.workload()?.object["metadata"]["annotations"];
        annotations[TEMPLATE_HASH].as_str()
    });
    let same = built.is_none_or(|hash| hash == workload.template_hash);
    same && workload.current
}

/// Why pods are not ready: what waiting cannot help first, then what workers say, the broker, the API server, the kubelet.
fn cause(seen: &Observed<'_>, workload: &Workload, health: &Health<'_>) -> Option<Problem> {
    let problems = || {
        seen.sight
            .pods
            .iter()
            .filter_map(|pod: &Pod| pod.problem.as_ref())
    };
    if let Some(problem) = problems().find(|problem| problem.needs_edit) {
        return Some(problem.clone());
    }
    if let Some((reason, message, needs_edit)) = health.cause() {
        return Some(Problem {
            reason,
            message,
            needs_edit,
        });
    }
    if let Some((reason, why)) = away(seen) {
        // Pods that wait for the broker are neither late nor broken.
        return Some(Problem {
            reason,
            message: why.to_owned(),
            needs_edit: false,
        });
    }
    if let Some(message) = &workload.refused {
        return Some(Problem {
            reason: Reason::PodsRefused,
            message: message.clone(),
            needs_edit: false,
        });
    }
    let worst = problems().min_by_key(|problem| (problem.reason, problem.message.as_str()))?;
    let hopeless = [
        Reason::ImageUnavailable,
        Reason::ContainerConfig,
        Reason::CrashLooping,
        Reason::OutOfMemory,
    ];
    Some(Problem {
        needs_edit: workload.late && hopeless.contains(&worst.reason),
        ..worst.clone()
    })
}

/// Why nothing is known of the queues: the broker is away, or refuses the Secret.
fn away<'a>(seen: &'a Observed<'_>) -> Option<(Reason, &'a str)> {
    match seen.sight.broker.unread.as_ref()? {
        Unread::Broker(why) => Some((Reason::BrokerUnreachable, why)),
        Unread::Refused(why) => Some((Reason::BrokerRefuses, why)),
        Unread::NotYet | Unread::Management(_) | Unread::Forbidden(_) => None,
    }
}

/// A queue of the worker that the broker sees no consumer on.
fn not_read(seen: &Observed<'_>) -> Option<String> {
    let consumers = seen.sight.broker.consumers(seen.sight.resource);
    let unread = consumers.into_iter().find(|(_, consumers)| *consumers == 0);
    unread.map(|(queue, _)| queue)
}

/// A worker that is ready, and whether it reads.
fn runs(seen: &Observed<'_>) -> Candidate {
    let text = match not_read(seen) {
        None => "the pods run and the broker sees their consumers",
        Some(_) => "the pods run and do not read all their queues now, as they say themselves",
    };
    Candidate::new(Truth::True, Reason::Running, text.into()).reworded_slowly()
}

/// Why a worker whose pods are ready is not; none if the broker sees its consumers.
fn of_broker(seen: &Observed<'_>, previous: &Status, health: &Health<'_>) -> Option<Candidate> {
    let ready_before = previous.is(ConditionType::Ready);
    if let Some((reason, why)) = away(seen) {
        return Some(not_ready(reason, why).after(A_MOMENT));
    }
    let resource = seen.sight.resource;
    let asked = seen.sight.broker.knows_consumers(resource);
    if !asked && ready_before {
        return None;
    }
    if !asked {
        let text = "the pods are ready; the broker has not been asked yet";
        return Some(not_ready(Reason::Starting, text));
    }
    let link = health.link(&seen.sight);
    let away = link.is_some_and(|(link, _)| link.truth == Truth::False);
    // A worker that pauses on purpose is ready; who waits for its peer says so in LinkUp. One that divides its queues anew reads
    // no new part before the old ones are empty.
    let pauses = ["too_many_parked", "backlog_full", "redividing"];
    if away || health.says(&pauses).is_some() {
        return None;
    }
    let queue = not_read(seen)?;
    let text = format!("the broker sees no consumer on {queue}");
    let after = match ready_before {
        true => A_MOMENT,
        false => SignedDuration::ZERO,
    };
    Some(not_ready(Reason::NotConsuming, &text).after(after))
}

/// Why a worker that is to reach its peer is not ready (K13). Others are not kept from being ready by an outage that is not theirs.
fn of_link(seen: &Observed<'_>, previous: &Status, health: &Health<'_>) -> Option<Candidate> {
    if !seen.sight.resource.deployment().require_link {
        return None;
    }
    if let Some((link, _)) = health.link(&seen.sight) {
        return Some(link).filter(|link| link.truth == Truth::False);
    }
    // Nothing was heard of it yet: by a new operator, or of new pods. Who was never heard of has no peer.
    let link = previous.condition(ConditionType::LinkUp)?;
    match link.status {
        Truth::True => None,
        Truth::False => Some(not_ready(Reason::PeerDown, &link.message)),
        Truth::Unknown => {
            let text = "nothing was heard of the peer for a while";
            Some(not_ready(Reason::NoReports, text))
        }
    }
}
