//! `status` of the four kinds, which the operator alone writes. It holds what changes seldom: conditions, coarse classes,
//! addresses. Numbers that change all the time are metrics (K7).
//!
//! It is read leniently: an older operator may find what a newer one wrote.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the operator saw of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Generation of the resource that this status is about; -1 before any operator has seen it.
    #[schemars(range(min = -1, max = 9007199254740991i64))]
    pub observed_generation: i64,
    /// The last generation whose objects were applied. After an edit that cannot be, it is the one that runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9007199254740991i64))]
    pub applied_generation: Option<i64>,
    /// Worker type: the key in `spec`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub worker_type: Option<String>,
    /// Pods that there are.
    #[schemars(range(min = 0, max = 2147483647))]
    pub replicas: u32,
    /// Pods that are ready.
    #[schemars(range(min = 0, max = 2147483647))]
    pub ready_replicas: u32,
    /// Selector of the pods as text, for those who scale by their metrics.
    #[schemars(length(max = 1024))]
    pub selector: String,
    /// Where callers inside the cluster reach it: host and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub address: Option<String>,
    /// What callers outside of the cluster use: the URL to give to a provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
    /// The peer in one word: `UP`, `BOUND`, `DEGRADED`, `THROTTLED`, `DOWN` or `UNKNOWN`; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub link: Option<String>,
    /// Messages that wait in its queues: `0`, `1+`, `100+` or `10k+`; absent while that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub backlog: Option<String>,
    /// Messages that were set aside: `0`, `1+` or `100+`; absent while that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub parked: Option<String>,
    /// Reason and sentence of what is wrong first of all; absent while all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub why: Option<String>,
    /// The broker: host and virtual host, no credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub broker: Option<String>,
    /// Version of the runtime in its pods: the tag of their image.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub runtime_version: Option<String>,
    /// What autoscaling has decided, where it decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// How it is, by type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub conditions: Vec<Condition>,
}

/// The last decision of autoscaling; it is written when it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalingStatus {
    /// How many pods there are to be.
    #[schemars(range(min = 0, max = 1000))]
    pub desired_replicas: u16,
    /// Why, in one word.
    #[schemars(length(max = 63))]
    pub reason: String,
    /// Why, in a sentence with the numbers of the moment in which it was decided.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When it was decided.
    #[schemars(length(max = 64))]
    pub since: String,
}

/// A condition, as all of Kubernetes writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Whether it holds.
    pub status: Truth,
    /// Why, in one word.
    #[schemars(length(min = 1, max = 63))]
    pub reason: String,
    /// Why, in a sentence that says what to do where somebody has to.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Since when the condition holds or does not.
    #[schemars(length(max = 64))]
    pub last_transition_time: String,
    /// Generation of the resource that was looked at.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9007199254740991i64))]
    pub observed_generation: i64,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    #[default]
    Unknown,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            observed_generation: -1,
            applied_generation: None,
            worker_type: None,
            replicas: 0,
            ready_replicas: 0,
            selector: String::new(),
            address: None,
            url: None,
            link: None,
            backlog: None,
            parked: None,
            why: None,
            broker: None,
            runtime_version: None,
            autoscaling: None,
            conditions: Vec::new(),
        }
    }
}

impl Status {
    /// The `status` of an object as the API server gives it. What cannot be read counts as not written: a condition that
    /// nobody here understands costs no more than itself.
    pub fn of(object: &Value) -> Self {
        let mut written = object["status"].clone();
        let fields = written.as_object_mut();
        let conditions = fields.and_then(|fields| fields.remove("conditions"));
        let conditions = conditions.unwrap_or_default();
        let mut status: Self = serde_json::from_value(written).unwrap_or_default();
        let conditions = conditions.as_array().into_iter().flatten();
        status.conditions = conditions
            .filter_map(|condition| serde_json::from_value(condition.clone()).ok())
            .collect();
        status
    }

    /// The condition of a type.
    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind.as_str())
    }

    /// Whether the condition of a type is there and holds.
    pub fn is(&self, kind: ConditionType) -> bool {
        self.condition(kind)
            .is_some_and(|condition| condition.status == Truth::True)
    }
}

macro_rules! condition_types {
    ($( $name:ident $removed:literal $meaning:literal; )*) => {
        /// Types of conditions: a closed list (K13). Everything else is a reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ConditionType {
            $( #[doc = $meaning] $name, )*
        }

        impl ConditionType {
            /// All of them, in the order in which they are listed.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As it stands in `type`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What it means when it holds.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }

            /// Whether it is there only while it holds: those that say that something is wrong, or under way.
            pub fn only_while_true(self) -> bool {
                match self { $(Self::$name => $removed,)* }
            }
        }
    };
}

condition_types! {
    Ready false "The pods of this generation run and the broker sees their consumers, or none are to run.";
    Reconciling true "A roll or an object that is waited for is pending.";
    Stalled true "Nothing goes on until somebody edits the resource.";
    LinkUp false "The peer can be reached: the network, the provider, the endpoint.";
    Paused true "Nothing is taken from the queues, or the operator leaves the resource alone, on purpose.";
    BacklogKnown false "The operator can read how many messages wait.";
    BacklogFull true "A queue that it publishes to is full, so it takes no new work.";
    NoConsumer true "Nobody reads a queue that it publishes to.";
    ForeignConsumer true "Somebody else reads its queues too.";
    StateHealthy false "The state store answers and keeps what it is given.";
    UpdateAvailable true "A newer version of the runtime waits for the next edit.";
    TrafficStalled true "Messages wait and consumers are there, but nothing is handled.";
    CredentialsValid false "Broker and peer accept the credentials.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_newer_operator_wrote_costs_no_more_than_itself() {
        let object = json!({"status": {
            "observedGeneration": 4,
            "appliedGeneration": 3,
            "fromTheFuture": {"a": 1},
            "autoscaling": {"desiredReplicas": 5, "tomorrow": true},
            "conditions": [
                {"type": "Ready", "status": "Perhaps", "reason": "A", "message": "", "lastTransitionTime": "t"},
                {"type": "LinkUp", "status": "True", "reason": "PeerUp", "message": "", "lastTransitionTime": "t", "more": 1},
            ],
        }});
        let status = Status::of(&object);
        assert_eq!(status.observed_generation, 4);
        assert_eq!(status.applied_generation, Some(3));
        assert_eq!(status.autoscaling.as_ref().unwrap().desired_replicas, 5);
        assert!(status.is(ConditionType::LinkUp));
        assert_eq!(status.condition(ConditionType::Ready), None);
    }

    #[test]
    fn a_resource_that_nobody_has_seen_says_so() {
        for object in [
            json!({}),
            json!({"status": null}),
            json!({"status": {"observedGeneration": -1}}),
        ] {
            assert_eq!(Status::of(&object), Status::default());
        }
        let written = serde_json::to_value(Status::default()).unwrap();
        assert_eq!(written["observedGeneration"], -1);
        assert_eq!(Status::of(&json!({"status": written})), Status::default());
    }

    #[test]
    fn what_is_written_is_read() {
        let status = Status {
            observed_generation: 2,
            link: Some("UP".into()),
            conditions: vec![Condition {
                kind: "Ready".into(),
                status: Truth::False,
                reason: "RollingOut".into(),
                message: "one pod".into(),
                last_transition_time: "2026-11-26T16:00:00Z".into(),
                observed_generation: 2,
            }],
            ..Status::default()
        };
        let object = json!({"status": serde_json::to_value(&status).unwrap()});
        assert_eq!(Status::of(&object), status);
    }
}
