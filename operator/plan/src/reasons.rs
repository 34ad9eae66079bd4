//! Every reason of a condition, of a scaling decision and of a note, registered once with what it means and what to do.
//! `vumi explain` and the reference pages print this table.

/// Why a condition is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The word, CamelCase.
    pub name: &'static str,
    /// Where it stands: types of conditions, `autoscaling` or `event`.
    pub place: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do; empty where nothing is to be done.
    pub fix: &'static str,
}

macro_rules! reasons {
    ($( $name:ident in $place:literal: $meaning:literal, $fix:literal; )*) => {
        /// Why a condition, a decision or a refusal is as it is: a closed list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $( #[doc = $meaning] $name, )*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As conditions and events have it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What there is to know about it.
            pub fn entry(self) -> Entry {
                match self {
                    $(Self::$name => Entry {
                        name: stringify!($name),
                        place: $place,
                        meaning: $meaning,
                        fix: $fix,
                    },)*
                }
            }
        }
    };
}

reasons! {
    // Nothing is applied and nothing pruned.
    Pruned in "event": "No worker type is set, because the CRD that is installed does not know it: the resource and its pods are left alone.",
        "Install the newest CRDs; they never go back.";
    KindReserved in "Ready, Stalled": "No worker of this version runs resources of this kind: its name is reserved.",
        "Delete it, or upgrade the CRDs and the operator to a version that has the kind.";
    Invalid in "Ready, Stalled": "The spec cannot be built; what ran before runs on.",
        "Correct the field that the message names; `vumi lint` finds it before it is applied.";
    NoStateStore in "Ready, Stalled": "The worker needs a state store and has none.",
        "Write spec.state, or make the Secret vumi-redis in the namespace.";
    BrokerKeys in "Ready, Stalled": "The broker's Secret holds no address that a program which is not ours can be given.",
        "Give it connection_string, or host, username and password; beside spec.broker.vhost the latter.";
    OverridesNotAllowed in "Ready, Stalled": "This operator does not allow overrides.",
        "Remove spec.overrides, or set allowOverrides for the operator.";
    OverridesInvalid in "Ready, Stalled": "The API server refuses the pods as spec.overrides changes them.",
        "Correct spec.overrides as the API server's message says.";
    CustomNotAllowed in "Ready, Stalled": "This operator runs no programs but its own.",
        "Use another type, or set allowCustom for the operator.";
    QueueClash in "Ready, Stalled": "An older resource reads the same queue; this one gets no pods.",
        "Rename the connector of one of them, or delete one.";
    SecretMissing in "Ready, Reconciling": "A Secret that the resource names is not there yet.",
        "Make it; it is noticed within a minute.";
    SecretKeyMissing in "Ready, Reconciling": "A Secret that the resource names lacks a key.",
        "Add the key; it is noticed within a minute.";
    ApplyFailed in "Ready, Reconciling": "The API server refuses, or failed several times at, something that the worker needs: an object of it, a Secret, the end of what is not wanted any more; it is tried again.",
        "Do as the API server's message says: often it is a quota, an admission policy or webhook, or missing rights of the operator.";
    ObjectLeaving in "Ready, Reconciling": "An object of the same name, or one that is not wanted any more, is being deleted and does not go.",
        "See to what holds the object that the message names, or take its finalizers off if nobody else will.";
    GatewayMissing in "Reconciling": "service.expose asks for an HTTPRoute, and the cluster knows none.",
        "Install the CRDs of the Gateway API, or use ingress.";
    DefinitionsOlder in "event": "The CRDs lack something that this operator knows: the API server drops it, so nothing is written.",
        "Upgrade the CRDs: `kubectl apply --server-side -f deploy/crds`.";
    PodMonitorMissing in "Reconciling": "The operator is to make PodMonitors, and the cluster knows none.",
        "Install the Prometheus operator, or switch podMonitor off.";

    // Pods.
    Running in "Ready": "The pods of this generation run and the broker sees their consumers, or they pause on purpose.", "";
    Suspended in "Ready": "There are no pods because spec.suspend says so; messages wait.", "";
    ScaledToZero in "Ready": "There are no pods because none are needed or wanted; messages wait.", "";
    Starting in "Ready, Reconciling": "The first pods of this generation start.", "";
    RollingOut in "Ready, Reconciling": "Pods are being replaced, one after the other.", "";
    PodsNotReady in "Ready": "Pods are missing or not ready.",
        "`kubectl describe pod` and the log of the pod say why.";
    PodsRefused in "Ready, Reconciling": "The API server refuses to make pods.",
        "Do as the API server's message says: often it is a quota or the Pod Security of the namespace.";
    Unschedulable in "Ready, Reconciling": "No node can take a pod.",
        "Add nodes, or ask for less in spec.resources; the message is the scheduler's.";
    ImageUnavailable in "Ready, Reconciling, Stalled": "The image cannot be fetched.",
        "Correct its name, or the pull secret, or make the registry reachable from the nodes.";
    ContainerConfig in "Ready, Reconciling, Stalled": "A container cannot be made as its pod says.",
        "Do as the kubelet's message says; often an object that spec.overrides names is missing.";
    CrashLooping in "Ready, Reconciling, Stalled": "A container ends again and again.",
        "`kubectl logs --previous` shows its last words.";
    OutOfMemory in "Ready, Reconciling, Stalled": "A container was ended because it used more memory than it may.",
        "Raise spec.resources.limits.memory.";

    // What workers and broker say.
    NotConsuming in "Ready": "The broker sees no consumer on a queue that the worker reads.",
        "If it lasts, the log of the pod says why.";
    BrokerUnreachable in "Ready, BacklogKnown": "The broker cannot be reached.",
        "Check that it runs, the host in its Secret, and that no NetworkPolicy is in the way; work goes on by itself.";
    BrokerRefuses in "Ready, BacklogKnown": "The broker refuses user, password or virtual host.",
        "Correct the broker's Secret; pods read it again by themselves.";
    BrokerBlocked in "Ready": "The broker takes no messages for now: it is short of memory or disk.",
        "Free memory or disk at the broker; work goes on by itself.";
    QueueHeldByForeignConsumer in "Ready": "Another program holds the queue that this worker is to read in order.",
        "Stop it; while both must run, write ordering: {mode: none}.";
    QueueTypeMismatch in "Ready, Stalled": "A queue exists with other properties than ours.",
        "Give Vumi's queues a virtual host of their own, or set broker.profile.";
    FenceNotHonoured in "Ready, Stalled": "The broker accepts a second consumer beside an exclusive one, so order cannot be kept.",
        "Use a virtual host whose default queue type is classic, or broker.profile: quorum.";
    ListenFailed in "Ready": "The worker cannot open the address on which it is to listen.",
        "Free the port, or name another one: it may be in use in its pod.";
    StoreAway in "Ready": "The worker waits for its state store.",
        "Check the store; work goes on by itself.";

    PeerUp in "LinkUp": "The peer takes messages.", "";
    PeerDegraded in "LinkUp": "The peer can be reached, with trouble.",
        "Look at the peer; `vumi explain` tells more of the reason in the message, such as `provider_unreachable`.";
    PeerThrottles in "LinkUp": "The peer asks to slow down, and is obeyed.",
        "Nothing, if it passes; else set rateLimit to what it allows.";
    PeerDown in "LinkUp, Ready": "The peer cannot be reached or refuses us.",
        "Look at the peer; `vumi explain` tells more of the reason in the message, such as `provider_unreachable`.";
    NoReports in "LinkUp, Ready, StateHealthy, CredentialsValid": "The worker has said nothing for three minutes, so nobody can tell.",
        "Look whether its pods run and reach the broker, and whether the operator does.";

    TooManyParked in "Paused": "The worker paused because too many messages had to be set aside.",
        "Look with `vumi parked list`, cure the cause, requeue or drop, then `vumi parked resume`.";
    ReconciliationPaused in "Paused": "An annotation asks the operator to leave the resource alone.",
        "Remove the annotation.";
    BacklogRead in "BacklogKnown": "The depth of the queues is read.", "";
    ManagementUnreachable in "BacklogKnown": "The broker's management API does not answer; nothing is scaled by it meanwhile.",
        "Check that the management plugin runs and can be reached from the operator.";
    ManagementForbidden in "BacklogKnown": "The broker's management API refuses the user of the Secret; nothing is scaled by it.",
        "Give the user the tag `monitoring`.";
    LimitReached in "BacklogFull": "A queue that the worker publishes to holds as many messages as backlogLimit allows.",
        "Start or scale who reads it, or raise backlogLimit.";
    NobodyReads in "NoConsumer": "A queue that the worker publishes to was read by nobody for five minutes; messages wait there.",
        "Start who is to read it, or correct the name.";
    OtherConsumers in "ForeignConsumer": "The broker sees more consumers on its queues than its pods have.",
        "Nothing while an old worker is being replaced; else stop the other one.";
    StoreUp in "StateHealthy": "The state store answers.", "";
    StateUnavailable in "StateHealthy": "The state store does not answer: what needs it waits.",
        "Check the store; work goes on by itself.";
    StateNotDurable in "StateHealthy": "What the worker keeps may be lost in a crash of the state store.",
        "Let Redis write an append-only file, or accept it with allowVolatileState: true.";
    RuntimeOutdated in "UpdateAvailable": "The pods have an older version of the runtime than the operator brings.",
        "They take it with the next edit; at once with updatePolicy: Immediate.";
    NothingHandled in "TrafficStalled": "Messages wait, consumers are there, and for two minutes nothing was handled.",
        "`vumi why` of a waiting message, and the log of the pod, say what holds it.";
    CredentialsAccepted in "CredentialsValid": "The credentials are accepted.", "";
    CredentialsRefused in "CredentialsValid": "Broker or peer refuse the credentials.",
        "Correct them in the Secret; they take effect without a restart.";

    // Decisions of autoscaling.
    FirstDecision in "autoscaling": "Nothing is decided yet: it begins with the pods that there are.", "";
    AutoscalingRemoved in "event": "spec.autoscaling is gone: spec.replicas decides, in a moment.", "";
    BacklogDemands in "autoscaling": "So many pods are needed for the messages that wait and are in hand.", "";
    RateDemands in "autoscaling": "So many pods are needed for the rate at which messages come.", "";
    AtMaximum in "autoscaling": "More pods would be needed than maxReplicas allows.",
        "Raise maxReplicas, if what the worker calls can take it.";
    AtMinimum in "autoscaling": "Fewer pods would do, but minReplicas asks for so many.", "";
    Idle in "autoscaling": "Nothing waited for a while, so there are no pods.", "";
    Woken in "autoscaling": "A message came while there were no pods.", "";
    WokenBlind in "autoscaling": "Nobody can tell whether messages wait, so there is a pod to be safe.",
        "Let the operator read the broker: see BacklogKnown.";
    OutOfBounds in "autoscaling": "The bounds were changed, and the number of pods was outside of them.", "";
}

impl Reason {
    /// The reason of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use vumi_api::ConditionType;

    #[test]
    fn names_are_unique_and_short_enough() {
        let names: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        assert!(names.iter().all(|name| name.len() <= 63));
    }

    #[test]
    fn a_reason_names_its_places_and_says_what_to_do_where_something_is_wrong() {
        let places: BTreeSet<&str> = ConditionType::ALL
            .iter()
            .map(|kind| kind.as_str())
            .collect();
        for reason in Reason::ALL {
            let entry = reason.entry();
            assert!(entry.meaning.ends_with('.'), "{entry:?}");
            assert!(
                entry.fix.is_empty() || entry.fix.ends_with('.'),
                "{entry:?}"
            );
            for place in entry.place.split(", ") {
                let known = places.contains(place) || ["autoscaling", "event"].contains(&place);
                assert!(known, "{entry:?}");
            }
            if entry.place.contains("Stalled") {
                assert!(!entry.fix.is_empty(), "{entry:?}");
            }
            assert_eq!(Reason::find(entry.name), Some(*reason));
        }
    }
}
