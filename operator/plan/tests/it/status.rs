//! What is told of a resource: conditions by what was seen (K13), edges and nothing else (K7).

mod conditions;
mod quiet;
mod steps;

use crate::{built, context, resource};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;
use vumi_api::{ConditionType, Resource, Status, Truth};
use vumi_plan::names::TEMPLATE_HASH;
use vumi_plan::{
    Broker, Desired, Memory, Observed, Pod, Queue, Refusal, Report, Sight, Unread, Workload, status,
};

const ECHO: &str = "echo: {}, transportName: sms";

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_800_000_000 + second)
}

/// A resource on a cluster, and what the operator remembers of it.
struct World {
    resource: Resource,
    generation: i64,
    desired: Desired,
    refusal: Option<Refusal>,
    failure: Option<Refusal>,
    workload: Option<Workload>,
    pods: Vec<Pod>,
    reports: Vec<Report>,
    broker: Broker,
    left_alone: bool,
    second: i64,
    status: Status,
    memory: Memory,
    writes: u32,
}

impl World {
    /// A resource that was just made: nothing was seen of it yet.
    fn new(kind: &str, spec: &str) -> Self {
        let resource = resource(kind, spec);
        let desired = built(&resource, &context(&resource));
        Self {
            resource,
            generation: 1,
            desired,
            refusal: None,
            failure: None,
            workload: None,
            pods: Vec::new(),
            reports: Vec::new(),
            broker: Broker {
                unread: Some(Unread::NotYet),
                ..Broker::default()
            },
            left_alone: false,
            second: 0,
            status: Status::default(),
            memory: Memory::default(),
            writes: 0,
        }
    }

    /// One whose pods run, and which the broker sees.
    fn running(kind: &str, spec: &str) -> Self {
        let mut world = Self::new(kind, spec);
        world.runs(world.wanted());
        world.reads(0, 1);
        world.look();
        world
    }

    fn wanted(&self) -> u32 {
        let replicas = &self.desired.workload().unwrap().object["spec"]["replicas"];
        replicas.as_u64().unwrap().try_into().unwrap()
    }

    fn hash(&self) -> String {
        let annotations = &self.desired.workload().unwrap().object["metadata"]["annotations"];
        annotations[TEMPLATE_HASH].as_str().unwrap().to_owned()
    }

    /// So many pods of the newest template, all ready.
    fn runs(&mut self, pods: u32) {
        self.workload = Some(Workload {
            wanted: self.wanted(),
            total: pods,
            updated: pods,
            ready: pods,
            current: true,
            template_hash: self.hash(),
            ..Workload::default()
        });
        self.pods = (0..pods)
            .map(|n| Pod {
                name: format!("pod-{n}"),
                ready: true,
                ..Pod::default()
            })
            .collect();
    }

    /// Every queue that the worker reads has so many messages and consumers.
    fn reads(&mut self, ready: u64, consumers: u32) {
        let topology = self.resource.topology();
        let ports = topology.intake.iter().chain(&topology.replies);
        let queue = Queue {
            ready,
            unacked: Some(0),
            consumers: Some(consumers),
            arriving: Some(1.0),
            handled: Some(1.0),
        };
        self.broker = Broker {
            address: Some("rabbitmq/campaign".into()),
            unread: None,
            queues: ports.map(|port| (port.queue(), queue)).collect(),
        };
    }

    /// The first pod says something about a component, now.
    fn says(&mut self, component: &str, level: &str, reason: &str, message: &str) {
        let body = json!({
            "message_type": "status_event", "component": component, "status": level, "type": reason, "message": message,
            "details": {"kind": self.resource.kind().as_str(), "name": self.resource.name, "instance": "pod-0-1"},
        });
        let report = Report::parse("one", body.to_string().as_bytes(), at(self.second)).unwrap();
        self.reports.retain(|old| old.key() != report.key());
        self.reports.push(report);
    }

    /// Everything that was said is said again.
    fn repeats(&mut self) {
        let now = at(self.second);
        self.reports
            .iter_mut()
            .for_each(|report| report.received = now);
    }

    fn observed(&self) -> Observed<'_> {
        Observed {
            sight: Sight {
                resource: &self.resource,
                pods: &self.pods,
                reports: &self.reports,
                broker: &self.broker,
                now: at(self.second),
            },
            namespace: "campaign",
            generation: self.generation,
            plan: match &self.refusal {
                Some(refusal) => Err(refusal),
                None => Ok(&self.desired),
            },
            failure: self.failure.as_ref(),
            workload: self.workload.as_ref(),
            scaling: None,
            left_alone: self.left_alone,
        }
    }

    fn look(&mut self) -> &Status {
        let outlook = status(&self.observed(), &self.status, &self.memory).unwrap();
        if outlook.status != self.status {
            self.writes += 1;
        }
        self.memory = outlook.memory;
        self.status = outlook.status;
        &self.status
    }

    /// Looks every five seconds for so long.
    fn pass(&mut self, seconds: i64) {
        let end = self.second + seconds;
        while self.second < end {
            self.second += 5;
            self.look();
        }
    }

    /// A condition as `True/Reason`; empty without it.
    fn is(&self, kind: ConditionType) -> String {
        let condition = self.status.condition(kind);
        condition.map_or(String::new(), |c| format!("{:?}/{}", c.status, c.reason))
    }

    fn message(&self, kind: ConditionType) -> &str {
        &self.status.condition(kind).unwrap().message
    }

    /// Ready, Reconciling and Stalled.
    fn three(&self) -> [String; 3] {
        [
            self.is(ConditionType::Ready),
            self.is(ConditionType::Reconciling),
            self.is(ConditionType::Stalled),
        ]
    }

    /// What those who wait for any resource make of it: kstatus, `helm --wait`, Flux.
    fn kstatus(&self) -> &'static str {
        let is = |kind, truth| {
            let condition = self.status.condition(kind);
            condition.is_some_and(|condition| condition.status == truth)
        };
        match () {
            () if self.status.observed_generation != self.generation => "InProgress",
            () if is(ConditionType::Reconciling, Truth::True) => "InProgress",
            () if is(ConditionType::Stalled, Truth::True) => "Failed",
            () if is(ConditionType::Ready, Truth::True) => "Current",
            () => "InProgress",
        }
    }
}
