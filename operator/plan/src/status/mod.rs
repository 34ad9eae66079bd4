//! What to tell of a resource: from what was built or refused and what was seen to its `status`. Pure; the same input gives
//! the same status, and one that is equal to the last is not written. It tells edges and coarse classes, no numbers that change
//! all the time (K7).

mod edges;
mod health;
mod ready;
mod settle;
mod wish;

pub use edges::{Edge, edges};
pub use settle::Memory;

use crate::desired::Desired;
use crate::names::Names;
use crate::observed::{Sight, Unread, Workload};
use crate::reasons::Reason;
use crate::scaling::Decision;
use crate::validate::Refusal;
pub(crate) use health::Health;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
pub(crate) use settle::{BACKLOG, class};
use settle::{PARKED, Settling};
use vumi_api::{AutoscalingStatus, ConditionType, Status, Truth};
pub(crate) use wish::time;
use wish::{Candidate, Wish};

/// Longest `why`, in characters.
const WHY: usize = 160;
/// Between writing a workload and its controller's having seen it.
const BEHIND: SignedDuration = SignedDuration::from_secs(5);
/// Reasons to reconcile that do not pass by themselves; of several, the first is told.
const IN_THE_WAY: [Reason; 4] = [
    Reason::ApplyFailed,
    Reason::GatewayMissing,
    Reason::PodMonitorMissing,
    Reason::ObjectLeaving,
];

/// What was seen of a resource, and what was made of it.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// What was seen.
    pub sight: Sight<'a>,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its `metadata.generation`.
    pub generation: i64,
    /// What was built, or why nothing was. Of who has lost a clash, [`crate::Clash::refusal`].
    pub plan: Result<&'a Desired, &'a Refusal>,
    /// Why what was built was not applied, or not all of it: [`Reason::ApplyFailed`] or [`Reason::OverridesInvalid`].
    pub failure: Option<&'a Refusal>,
    /// Its Deployment or StatefulSet.
    pub workload: Option<&'a Workload>,
    /// What the scaler has decided, where it decides.
    pub scaling: Option<&'a Decision>,
    /// Whether an annotation asks to leave it alone.
    pub left_alone: bool,
}

/// What to write and what to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// The status. Equal to the last one: nothing to write.
    pub status: Status,
    /// For the next look.
    pub memory: Memory,
    /// When to look again if nothing happens before: something may have lasted long enough then.
    pub again: Option<Timestamp>,
}

/// The status of a resource after this look. None if it must not be written to: a newer CRD was rolled back, and a write would
/// destroy the spec for good (K2).
pub fn status(seen: &Observed<'_>, previous: &Status, memory: &Memory) -> Option<Outlook> {
    if seen
        .plan
        .is_err_and(|refusal| refusal.reason == Reason::Pruned)
    {
        return None;
    }
    let mut settling = Settling::new(memory, seen.sight.now);
    // What runs is not what was written since, and cannot be judged by that.
    if seen.left_alone && seen.generation != previous.observed_generation {
        return Some(outlook(as_it_was(seen, previous), settling));
    }
    let applied = seen.plan.is_ok() && seen.failure.is_none();
    let behind = |workload: &Workload| applied && !ready::is_current(workload, seen);
    // Of a new resource nothing was said that could stay.
    let is_new = previous.observed_generation < 0;
    let behind = seen.workload.is_some_and(behind) && !is_new;
    // What the workload says is about another template or number still. To call that a roll would be wrong for most, to call it
    // ready worse.
    if !settling.lasts("workload", behind, BEHIND) && behind {
        return Some(outlook(previous.clone(), settling));
    }
    let health = Health::of(&seen.sight);
    let readiness = ready::readiness(seen, previous, &health);
    let runs = ready::wanted(seen) > 0;
    let mut wishes = vec![
        (ConditionType::Ready, readiness.ready, SignedDuration::ZERO),
        (
            ConditionType::Reconciling,
            readiness.reconciling,
            SignedDuration::ZERO,
        ),
        (
            ConditionType::Stalled,
            readiness.stalled,
            SignedDuration::ZERO,
        ),
    ];
    wishes.extend(health::conditions(seen, &health, previous, runs));
    let conditions = wishes.into_iter();
    let conditions = conditions
        .filter_map(|(kind, wish, over)| {
            let before = previous.condition(kind);
            wish::condition(kind, wish, over, before, seen, &mut settling)
        })
        .collect();
    let selector = Names::new(seen.sight.resource, seen.namespace, None).selector_labels();
    let selector: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let desired = seen.plan.ok();
    let mut status = Status {
        observed_generation: seen.generation,
        applied_generation: match applied {
            true => Some(seen.generation),
            false => previous.applied_generation,
        },
        worker_type: match (seen.sight.resource.worker_type(), desired) {
            // It cannot be read.
            (None, None) => previous.worker_type.clone(),
            (worker, _) => worker.map(|worker| worker.key.to_owned()),
        },
        replicas: seen.workload.map_or(0, |workload| workload.total),
        ready_replicas: seen.workload.map_or(0, |workload| workload.ready),
        selector: selector.join(","),
        address: desired.map_or_else(|| previous.address.clone(), |d| d.address.clone()),
        url: desired.map_or_else(|| previous.url.clone(), |d| d.url.clone()),
        link: link(seen, &health, previous, runs, &mut settling),
        backlog: previous.backlog.clone(),
        parked: previous.parked.clone(),
        why: None,
        broker: seen
            .sight
            .broker
            .address
            .clone()
            .or_else(|| previous.broker.clone()),
        runtime_version: match desired {
            Some(desired) if !seen.sight.resource.in_container() => version(&desired.image),
            Some(_) => None,
            None => previous.runtime_version.clone(),
        },
        autoscaling: match seen.scaling {
            Some(decision) => Some(AutoscalingStatus::from(decision)),
            None if applied => None,
            // What was decided last is what runs.
            None => previous.autoscaling.clone(),
        },
        conditions,
    };
    classes(seen, &mut status, &mut settling);
    status.why = why(&status);
    let ends = seen.sight.pods.iter().filter_map(ready::gone);
    ends.for_each(|at| settling.look_again(at));
    for report in seen.sight.reports {
        report
            .expires()
            .into_iter()
            .for_each(|at| settling.look_again(at));
    }
    Some(outlook(status, settling))
}

fn outlook(status: Status, settling: Settling) -> Outlook {
    Outlook {
        status,
        again: settling.again,
        memory: settling.memory(),
    }
}

/// Of a resource whose edit is not looked at, only that, and how many pods there are.
fn as_it_was(seen: &Observed<'_>, previous: &Status) -> Status {
    let before = previous.condition(ConditionType::Paused);
    let paused = wish::written(ConditionType::Paused, health::left_alone(), before, seen);
    let mut status = previous.clone();
    status
        .conditions
        .retain(|condition| condition.kind != paused.kind);
    status.conditions.push(paused);
    status.replicas = seen.workload.map_or(0, |workload| workload.total);
    status.ready_replicas = seen.workload.map_or(0, |workload| workload.ready);
    status.why = why(&status);
    status
}

/// The word for the peer. It follows the condition: what is too short for that is too short for the word.
fn link(
    seen: &Observed<'_>,
    health: &Health<'_>,
    previous: &Status,
    runs: bool,
    settling: &mut Settling,
) -> Option<String> {
    let wanted = match health.link(&seen.sight) {
        _ if !runs => None,
        Some((_, word)) => Some(word),
        None => previous.link.is_some().then_some("UNKNOWN"),
    };
    let after = match (wanted, previous.link.as_deref()) {
        (Some("UNKNOWN"), _) => health.grace(),
        (Some("UP" | "BOUND"), None) => SignedDuration::ZERO,
        _ => health::SHORT,
    };
    let before = previous.link.as_deref().unwrap_or_default();
    match settling.settles("link", before, wanted.unwrap_or_default(), after) {
        true => wanted.map(str::to_owned),
        false => previous.link.clone(),
    }
}

/// The coarse classes of what waits and of what was set aside.
fn classes(seen: &Observed<'_>, status: &mut Status, settling: &mut Settling) {
    if seen.sight.broker.unread == Some(Unread::NotYet) {
        return;
    }
    let backlog = seen.sight.broker.totals(seen.sight.resource);
    let backlog = backlog.map(|totals| class(totals.ready, BACKLOG));
    status.backlog = settling.class("backlog", status.backlog.take(), backlog);
    let parked = seen.sight.broker.parked(seen.sight.resource);
    let parked = parked.map(|parked| class(parked, PARKED));
    status.parked = settling.class("parked", status.parked.take(), parked);
}

/// The version in the name of an image: its tag, else the beginning of its digest.
fn version(image: &str) -> Option<String> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    let tag = last.split_once(':').map(|(_, tag)| tag.to_owned());
    tag.or_else(|| digest.map(|digest| digest.chars().take(19).collect()))
}

/// What is wrong first of all.
fn why(status: &Status) -> Option<String> {
    use ConditionType as T;
    let bad = |kind: T, truth: Truth| status.condition(kind).filter(|c| c.status == truth);
    let quiet = ["Running", "PeerUp"];
    let condition = [
        (T::Stalled, Truth::True),
        (T::Paused, Truth::True),
        (T::Ready, Truth::False),
        (T::Reconciling, Truth::True),
        (T::LinkUp, Truth::False),
        (T::CredentialsValid, Truth::False),
        (T::StateHealthy, Truth::False),
        (T::TrafficStalled, Truth::True),
        (T::BacklogFull, Truth::True),
        (T::NoConsumer, Truth::True),
        (T::LinkUp, Truth::Unknown),
        (T::ForeignConsumer, Truth::True),
        (T::LinkUp, Truth::True),
        (T::Ready, Truth::True),
        (T::BacklogKnown, Truth::False),
    ]
    .into_iter()
    .filter_map(|(kind, truth)| bad(kind, truth))
    .find(|condition| !quiet.contains(&condition.reason.as_str()))?;
    let text = format!("{}: {}", condition.reason, condition.message);
    Some(match text.chars().count() > WHY {
        true => text.chars().take(WHY - 1).chain(['…']).collect(),
        false => text,
    })
}
