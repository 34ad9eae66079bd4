//! The workers of the loss test, one process each. The dispatcher has a warm standby; two applications, and two replicas of
//! a transport, share partitions.

use super::network::BATCH;
use crate::harness::campaign::Campaign;
use crate::harness::process::{Process, run, said};
use crate::harness::telnet::greeted;
use crate::harness::{PATIENCE, http, wait_for};
use std::time::Duration;

/// Connector that the application serves, and the one that the test reads: the dispatcher copies to both.
const DISPATCHER: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Dispatcher\nmetadata: {name: join}\nspec:\n  simple:\n    transports: [http, talk, telnet]\n    exposed: [survey, observed]\n    routes: {http: [survey, observed], talk: [survey, observed], telnet: [survey, observed]}\n";
const ECHO: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: echo}\nspec:\n  echo: {}\n  transportName: survey\n  ordering: {mode: perUser, partitions: 4}\n";
/// A network behind classes, partitions and a rate, which loses answers: what is unsure waits for its receipt, then is sent
/// again.
const SMS: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: sms}\nspec:\n  devNull: {replyPercent: 100, lostPercent: 2}\n  ordering: {mode: perUser, partitions: 4}\n  classes: {}\n  rateLimit: {rate: 1000, burst: 100}\n  onUnknown: {policy: wait, deadline: 10s, then: retry}\n";
/// Another: what is unsure has failed.
const PAGER: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: pager}\nspec:\n  devNull: {lostPercent: 2}\n  onUnknown: {policy: fail}\n";

/// Every process: the HTTP API that answers at once, the one that waits for replies, telnet, dispatchers and applications
/// in pairs, and the networks.
pub const MEMBERS: [&str; 10] = [
    "http", "talk", "telnet", "join-a", "join-b", "echo-a", "echo-b", "sms-a", "sms-b", "pager",
];

/// Members whose manifest may be edited while they run.
pub const RELOADED: [&str; 5] = ["http", "telnet", "join-b", "echo-a", "sms-a"];

/// One process.
pub struct Member {
    pub name: &'static str,
    pub process: Process,
}

/// All of them.
pub struct Fleet {
    pub url: String,
    pub redis: String,
    pub http_port: u16,
    pub talk_port: u16,
    pub telnet_port: u16,
    pub members: Vec<Member>,
    edits: usize,
    // Last, so that the logs are there when members are dropped.
    campaign: Campaign,
}

impl Fleet {
    /// On the RabbitMQ and the Redis of these addresses.
    pub fn start(url: &str, redis: &str) -> Self {
        let port = || vumi_testkit::free_port().unwrap();
        let (http_port, talk_port, telnet_port) = (port(), port(), port());
        let api = |name: &str, waits: bool, port: u16| {
            format!(
                "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: {name}}}\nspec:\n  httpApi: {{idField: id, replyExpected: {waits}}}\n  http: {{host: 127.0.0.1, port: {port}, path: /messages}}\n"
            )
        };
        let (http, talk) = (api("http", false, http_port), api("talk", true, talk_port));
        let telnet = format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: telnet}}\nspec:\n  telnet: {{host: 127.0.0.1, port: {telnet_port}}}\n"
        );
        let campaign = Campaign::empty();
        let launched = |name| {
            let manifest = match name {
                "http" => &http,
                "talk" => &talk,
                "telnet" => &telnet,
                "join-a" | "join-b" => DISPATCHER,
                "sms-a" | "sms-b" => SMS,
                "pager" => PAGER,
                _ => ECHO,
            };
            campaign.place(name, manifest);
            let process = launch(&campaign, name, url, redis);
            Member { name, process }
        };
        let members = MEMBERS.map(launched).into();
        Self {
            campaign,
            url: url.to_owned(),
            redis: redis.to_owned(),
            http_port,
            talk_port,
            telnet_port,
            members,
            edits: 0,
        }
    }

    /// Waits until all ways in are up.
    pub async fn ready(&mut self) {
        greeted(self.telnet_port, PATIENCE).await;
        for port in [self.http_port, self.talk_port] {
            wait_for("an HTTP API listens", PATIENCE, || async {
                let health = http::get(port, "/health", PATIENCE).await;
                health.map_err(|error| format!("{error:?}"))
            })
            .await;
        }
    }

    pub fn member(&mut self, name: &str) -> &mut Member {
        self.members.iter_mut().find(|m| m.name == name).unwrap()
    }

    /// Starts a member again that has ended.
    pub fn restart(&mut self, name: &str) {
        let process = launch(&self.campaign, name, &self.url, &self.redis);
        self.member(name).process = process;
    }

    /// Edits the manifest of a running member.
    pub fn edit(&mut self, name: &str) {
        self.edits += 1;
        let limit = 20_000 + self.edits;
        self.campaign
            .edit_worker(name, "backlogLimit", &limit.to_string());
    }

    /// Waits until a member has taken over its last edit.
    pub async fn edited(&mut self, name: &str, before: usize) {
        let process = &self.member(name).process;
        wait_for("the edit is applied", Duration::from_secs(30), || async {
            match started(&process.log()) > before {
                true => Ok(()),
                false => Err("not replaced yet".to_owned()),
            }
        })
        .await;
    }

    /// How often a worker was started in this member's log.
    pub fn starts(&mut self, name: &str) -> usize {
        started(&self.member(name).process.log())
    }

    /// What `vumi ledger audit` says of the whole, once it is balanced.
    pub async fn audit(&self) -> String {
        let audit = [
            "ledger",
            "audit",
            "--redis",
            &self.redis,
            "--broker",
            &self.url,
        ];
        wait_for("the ledger is balanced", PATIENCE, || async {
            let output = run(self.campaign.path(), &audit);
            match output.status.success() {
                true => Ok(said(&output)),
                false => Err(said(&output)),
            }
        })
        .await
    }

    /// What `vumi why` says of a message.
    pub fn why(&self, id: &str) -> String {
        let why = ["why", id, "--redis", &self.redis, "--broker", &self.url];
        said(&run(self.campaign.path(), &why))
    }

    /// Gives an order for the campaign's batch.
    pub async fn order(&self, verb: &str) {
        let batch = ["batch", verb, BATCH, "--yes", "--redis", &self.redis];
        let order = [&batch[..], &["--broker", &self.url]].concat();
        wait_for("an order is given", PATIENCE, || async {
            let output = run(self.campaign.path(), &order);
            match output.status.success() {
                true => Ok(()),
                false => Err(said(&output)),
            }
        })
        .await;
    }

    pub fn assert_running(&mut self) {
        for member in &mut self.members {
            member.process.assert_running();
        }
    }
}

/// As pods run, by `vumi worker`, whose manifest is fixed; those that are reloaded by `vumi run`.
fn launch(campaign: &Campaign, name: &str, url: &str, redis: &str) -> Process {
    let command = match RELOADED.contains(&name) {
        true => ["run", "-f"],
        false => ["worker", "--manifests"],
    };
    campaign.alone(command, name, url, &["--redis", redis])
}

fn started(log: &str) -> usize {
    log.matches(" started").count()
}
