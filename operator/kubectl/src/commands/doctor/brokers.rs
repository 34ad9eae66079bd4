//! Brokers, as statuses tell of them: the operator reads their queues, and workers say whether they are connected. Nothing is asked from
//! here, since whoever runs this often has no way to a broker inside of the cluster.

use super::operator::Leader;
use super::some;
use crate::commands::lasting;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use vumi_api::shared::BrokerRef;
use vumi_api::{Condition, ConditionType, Kind, Status, Truth};
use vumi_core::checkup::{Finding, Level};
use vumi_plan::Reason;

/// What is said of one broker.
#[derive(Default)]
struct Said {
    /// Resources that use it.
    users: usize,
    /// Of how many of them the operator reads the queues.
    read: usize,
    /// By reason and sentence, who says it and since when.
    complaints: BTreeMap<(String, String), Complaint>,
}

/// Whom a complaint is about, and since when.
#[derive(Default)]
pub(super) struct Complaint {
    pub(super) of: Vec<String>,
    pub(super) since: Option<Timestamp>,
}

impl Complaint {
    /// A condition of this resource says it too.
    pub(super) fn add(&mut self, name: &str, condition: &Condition) {
        // Of Ready and BacklogKnown, both say it of the same resource.
        if self.of.last().is_none_or(|last| last != name) {
            self.of.push(name.to_owned());
        }
        let since: Option<Timestamp> = condition.last_transition_time.parse().ok();
        self.since = self.since.into_iter().chain(since).min();
    }
}

/// What statuses say of brokers. `all` are resources with their names for people.
pub(super) fn judge(
    all: &[(Kind, String, &Value)],
    leader: Leader,
    now: Timestamp,
) -> Vec<Finding> {
    let mut brokers: BTreeMap<String, Said> = BTreeMap::new();
    for (_, name, object) in all.iter().filter(|(kind, ..)| has_a_broker(*kind)) {
        let status = Status::of(object);
        // Of whom nobody has seen anything, that is said elsewhere.
        if status.observed_generation < 0 {
            continue;
        }
        let secret = secret(object);
        let said = brokers.entry(label(&status, &secret, object)).or_default();
        said.users += 1;
        said.read += usize::from(status.is(ConditionType::BacklogKnown));
        for condition in complaints(&status, &secret) {
            let key = (condition.reason.clone(), condition.message.clone());
            let complaint = said.complaints.entry(key).or_default();
            complaint.add(name, condition);
        }
    }
    let findings = brokers.into_iter();
    findings
        .flat_map(|(broker, said)| of_one(&format!("broker {broker}"), &said, leader, now))
        .collect()
}

/// Whether resources of a kind have a broker: one that has no worker yet has none.
fn has_a_broker(kind: Kind) -> bool {
    !kind.worker_types().is_empty()
}

/// The Secret with the address of its broker.
fn secret(object: &Value) -> String {
    let written = object["spec"]["broker"]["secretRef"]["name"].as_str();
    written.map_or_else(|| BrokerRef::usual().secret_ref.name, str::to_owned)
}

/// How a broker is called: as statuses show it, else by the Secret that is to name it.
fn label(status: &Status, secret: &str, object: &Value) -> String {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let unnamed = || format!("of the Secret {secret} in {namespace}");
    status.broker.clone().unwrap_or_else(unnamed)
}

/// Conditions that say something bad of the broker.
fn complaints<'a>(status: &'a Status, secret: &str) -> Vec<&'a Condition> {
    use ConditionType as T;
    let of = |kind: T, truth: Truth| status.condition(kind).filter(|c| c.status == truth);
    let is = |condition: &Condition, reasons: &[Reason]| {
        let mut reasons = reasons.iter();
        reasons.any(|reason| condition.reason == reason.as_str())
    };
    let of_broker = [
        Reason::BrokerUnreachable,
        Reason::BrokerRefuses,
        Reason::BrokerBlocked,
    ];
    let of_secret = [
        Reason::SecretMissing,
        Reason::SecretKeyMissing,
        Reason::BrokerKeys,
        // The operator may not read it.
        Reason::ApplyFailed,
    ];
    let of_secret = |c: &&Condition| is(c, &of_secret) && names(&c.message, secret);
    // Ready may be about what runs already, while the Secret is gone.
    let mut places = [
        (T::Ready, Truth::False),
        (T::Reconciling, Truth::True),
        (T::Stalled, Truth::True),
    ]
    .into_iter();
    // Without the Secret nobody asks the broker: what else is said only follows from that.
    if let Some(lacks) = places.find_map(|(kind, truth)| of(kind, truth).filter(of_secret)) {
        return vec![lacks];
    }
    let ready = of(T::Ready, Truth::False).filter(|c| is(c, &of_broker));
    let unread = of(T::BacklogKnown, Truth::False);
    // A silent worker: it, or the operator, may not reach the broker.
    let silent = of(T::LinkUp, Truth::Unknown).filter(|c| is(c, &[Reason::NoReports]));
    [ready, unread, silent].into_iter().flatten().collect()
}

/// Whether it is told here why a condition is as it is.
pub(super) fn tell_of(object: &Value, status: &Status, condition: &Condition) -> bool {
    let told = complaints(status, &secret(object));
    told.iter().any(|told| told.reason == condition.reason)
}

/// Whether a sentence names a Secret.
fn names(sentence: &str, secret: &str) -> bool {
    let mut words = sentence.split(|c: char| c.is_whitespace() || ",;:".contains(c));
    words.any(|word| word == secret)
}

/// The findings about one broker.
fn of_one(about: &str, said: &Said, leader: Leader, now: Timestamp) -> Vec<Finding> {
    let (users, read) = (said.users, said.read);
    if said.complaints.is_empty() {
        return vec![match (leader, read) {
            (_, 0) => Finding::new(
                Level::Note,
                about,
                format!("whether the operator reads it is not known yet, for {users} resources"),
                "Look again in a minute; if it stays so, see what the operator logs.",
            ),
            (Leader::Gone, _) => Finding::new(
                Level::Note,
                about,
                format!(
                    "the last operator read it, for {read} of {users} resources; none says so now"
                ),
                "See what is said of the lease.",
            ),
            _ => Finding::good(
                about,
                format!("the operator reads it, for {read} of {users} resources"),
            ),
        }];
    }
    let complaints = said.complaints.iter();
    complaints
        .map(|((reason, message), complaint)| {
            let since = lasting(complaint.since, now);
            let (level, fix) = weight(reason);
            let of = some(&complaint.of);
            let says = format!("says the status of {of}{since}: {message} [{reason}]");
            Finding::new(level, about, says, fix)
        })
        .collect()
}

/// How bad a reason is for those who use the broker, and what to do.
fn weight(reason: &str) -> (Level, &'static str) {
    let known = Reason::find(reason);
    let level = match known {
        // Workers go on without them: what is lost is that anybody sees it.
        Some(
            Reason::ManagementUnreachable
            | Reason::ManagementForbidden
            | Reason::NoReports
            | Reason::BrokerBlocked,
        )
        | None => Level::Warning,
        Some(_) => Level::Problem,
    };
    let fix = known.map_or("", |reason| reason.entry().fix);
    match fix {
        "" => (level, "`vumi explain`, with that reason, says more."),
        fix => (level, fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-11-26T12:00:00Z",
        })
    }

    fn resource(name: &str, broker: Option<&str>, conditions: Value) -> (Kind, String, Value) {
        let status = json!({"observedGeneration": 1, "broker": broker, "conditions": conditions});
        let object = json!({
            "metadata": {"name": name, "namespace": "n"},
            "spec": {"broker": {"secretRef": {"name": format!("broker-of-{name}")}}},
            "status": status,
        });
        (Kind::Transport, format!("transport/{name}"), object)
    }

    fn judged(all: &[(Kind, String, Value)], leader: Leader) -> Vec<Finding> {
        let all: Vec<(Kind, String, &Value)> = all
            .iter()
            .map(|(kind, name, object)| (*kind, name.clone(), object))
            .collect();
        judge(&all, leader, "2026-11-26T12:05:00Z".parse().unwrap())
    }

    #[test]
    fn brokers_are_judged_by_what_resources_say() {
        let away = "the broker two:5672/ cannot be reached";
        let known = condition("BacklogKnown", "True", "BacklogRead", "read");
        let all = [
            resource("a", Some("one:5672/"), json!([known])),
            resource("b", Some("one:5672/"), json!([])),
            resource("c", Some("none:5672/"), json!([])),
            resource(
                "d",
                Some("two:5672/"),
                json!([
                    condition("Ready", "False", "BrokerUnreachable", away),
                    condition("BacklogKnown", "False", "BrokerUnreachable", away),
                ]),
            ),
            resource(
                "e",
                Some("three:5672/"),
                json!([condition(
                    "BacklogKnown",
                    "False",
                    "ManagementForbidden",
                    "401"
                )]),
            ),
            // It never got as far as its broker.
            resource(
                "f",
                None,
                json!([condition(
                    "Ready",
                    "False",
                    "SecretMissing",
                    "waiting for the Secret broker-of-f"
                )]),
            ),
            // Of another Secret of it.
            resource(
                "g",
                Some("four:5672/"),
                json!([condition(
                    "Ready",
                    "False",
                    "SecretMissing",
                    "waiting for the Secret other"
                )]),
            ),
        ];
        let found = judged(&all, Leader::Lives);
        let of = |about: &str| {
            let those = found.iter().filter(|finding| finding.about == about);
            let those: Vec<&Finding> = those.collect();
            assert_eq!(those.len(), 1, "{about}: {found:?}");
            those[0]
        };
        assert_eq!(of("broker one:5672/").level, Level::Good);
        assert!(of("broker one:5672/").says.contains("1 of 2 resources"));
        assert_eq!(of("broker none:5672/").level, Level::Note);
        let two = of("broker two:5672/");
        assert_eq!(two.level, Level::Problem);
        assert_eq!(
            two.says,
            format!("says the status of transport/d for 5m0s: {away} [BrokerUnreachable]")
        );
        assert_eq!(of("broker three:5672/").level, Level::Warning);
        let unnamed = of("broker of the Secret broker-of-f in n");
        assert_eq!(unnamed.level, Level::Problem);
        assert_eq!(of("broker four:5672/").level, Level::Note);
        assert!(
            found
                .iter()
                .all(|f| f.level == Level::Good || !f.fix.is_empty()),
            "{found:?}"
        );
    }

    #[test]
    fn what_follows_from_a_secret_is_not_told_beside_it() {
        for (reason, message) in [
            ("SecretMissing", "waiting for the Secret broker-of-a"),
            (
                "SecretKeyMissing",
                "the Secret broker-of-a has no value in its key host",
            ),
            (
                "ApplyFailed",
                "the Secret broker-of-a cannot be read: forbidden",
            ),
        ] {
            let unread = condition("BacklogKnown", "False", "BrokerUnreachable", "the Secret");
            for kind in [("Ready", "False"), ("Reconciling", "True")] {
                let lacks = condition(kind.0, kind.1, reason, message);
                let all = [resource("a", None, json!([unread, lacks]))];
                let found = judged(&all, Leader::Lives);
                assert_eq!(found.len(), 1, "{found:?}");
                assert!(found[0].says.contains(reason), "{found:?}");
            }
        }
    }

    #[test]
    fn what_nobody_says_any_more_is_not_taken_for_good() {
        let known = condition("BacklogKnown", "True", "BacklogRead", "read");
        let all = [resource("a", Some("one:5672/"), json!([known]))];
        let levels = [Leader::Lives, Leader::Unseen, Leader::Gone]
            .map(|leader| judged(&all, leader)[0].level);
        assert_eq!(levels, [Level::Good, Level::Good, Level::Note]);
    }

    #[test]
    fn a_reason_that_nobody_here_knows_is_told() {
        let all = [resource(
            "a",
            Some("one:5672/"),
            json!([condition("BacklogKnown", "False", "Other", "why")]),
        )];
        let found = judged(&all, Leader::Lives);
        assert_eq!(found[0].level, Level::Warning);
        assert!(!found[0].fix.is_empty());
    }
}
