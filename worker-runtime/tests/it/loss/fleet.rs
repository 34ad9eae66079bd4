//! The workers of the loss test, one process each; dispatcher and application have a warm standby.

use crate::harness::campaign::Campaign;
use crate::harness::process::Process;
use crate::harness::telnet::greeted;
use crate::harness::{PATIENCE, http, wait_for};
use std::time::Duration;

/// Connector that the application serves, and the one that the test reads: the dispatcher copies to both.
const DISPATCHER: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Dispatcher\nmetadata: {name: join}\nspec:\n  simple:\n    transports: [http, telnet]\n    exposed: [survey, observed]\n    routes: {http: [survey, observed], telnet: [survey, observed]}\n";
const ECHO: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: echo}\nspec:\n  echo: {}\n  transportName: survey\n";

/// Members whose manifest may be edited while they run.
pub const RELOADED: [&str; 4] = ["http", "telnet", "join-b", "echo-a"];

/// One process.
pub struct Member {
    pub name: &'static str,
    pub process: Process,
}

/// All of them.
pub struct Fleet {
    pub url: String,
    pub http_port: u16,
    pub telnet_port: u16,
    pub members: Vec<Member>,
    edits: usize,
    // Last, so that the logs are there when members are dropped.
    campaign: Campaign,
}

impl Fleet {
    pub fn start(url: &str) -> Self {
        let port = || vumi_testkit::free_port().unwrap();
        let (http_port, telnet_port) = (port(), port());
        let http = format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: http}}\nspec:\n  httpApi: {{idField: id}}\n  http: {{host: 127.0.0.1, port: {http_port}, path: /messages}}\n"
        );
        let telnet = format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: telnet}}\nspec:\n  telnet: {{host: 127.0.0.1, port: {telnet_port}}}\n"
        );
        let campaign = Campaign::empty();
        let members = [
            ("http", http.as_str()),
            ("telnet", telnet.as_str()),
            ("join-a", DISPATCHER),
            ("join-b", DISPATCHER),
            ("echo-a", ECHO),
            ("echo-b", ECHO),
        ]
        .into_iter()
        .map(|(name, manifest)| {
            campaign.place(name, manifest);
            let process = launch(&campaign, name, url);
            Member { name, process }
        })
        .collect();
        Self {
            campaign,
            url: url.to_owned(),
            http_port,
            telnet_port,
            members,
            edits: 0,
        }
    }

    /// Waits until both ways in are up.
    pub async fn ready(&mut self) {
        greeted(self.telnet_port, PATIENCE).await;
        wait_for("the HTTP API listens", PATIENCE, || async {
            let health = http::get(self.http_port, "/health", PATIENCE).await;
            health.map_err(|error| format!("{error:?}"))
        })
        .await;
    }

    pub fn member(&mut self, name: &str) -> &mut Member {
        self.members.iter_mut().find(|m| m.name == name).unwrap()
    }

    /// Starts a member again that has ended.
    pub fn restart(&mut self, name: &str) {
        let process = launch(&self.campaign, name, &self.url);
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

    pub fn assert_running(&mut self) {
        for member in &mut self.members {
            member.process.assert_running();
        }
    }
}

/// As pods run, by `vumi worker`, whose manifest is fixed; those that are reloaded by `vumi run`.
fn launch(campaign: &Campaign, name: &str, url: &str) -> Process {
    match RELOADED.contains(&name) {
        true => campaign.run_again(name, url),
        false => campaign.worker_again(name, url),
    }
}

fn started(log: &str) -> usize {
    log.matches(" started").count()
}
