//! What users see in outages that no other test covers: one test per row of `docs/outages.md` that names this file.

use crate::harness::campaign::Campaign;
use crate::harness::process::{Process, installed};
use crate::harness::telnet::greeted;
use crate::harness::{PATIENCE, wait_for};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(60);

/// The wall clock of one process, moved while it runs; its monotonic clock goes on undisturbed, as when an operator or a
/// time service sets the machine's clock.
struct Clock {
    offset: std::path::PathBuf,
}

impl Clock {
    fn new(folder: &Path) -> Self {
        let clock = Self {
            offset: folder.join("clock"),
        };
        clock.step("+0");
        clock
    }

    /// Moves it to so many seconds from the real time.
    fn step(&self, offset: &str) {
        let draft = self.offset.with_extension("draft");
        std::fs::write(&draft, offset).unwrap();
        std::fs::rename(draft, &self.offset).unwrap();
    }

    fn environment(&self) -> Option<Vec<(&'static str, String)>> {
        let library = installed("libfaketime", "libfaketimeMT.so.1")?;
        Some(vec![
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_stepped_disturbs_nobody() {
    let campaign = Campaign::example("telnet-echo", &[9010]);
    let clock = Clock::new(campaign.path());
    let Some(environment) = clock.environment() else {
        vumi_testkit::skip("libfaketime is not installed");
        return;
    };
    let manifests = campaign.manifests();
    let arguments = ["run", "-f", manifests.to_str().unwrap()];
    let mut run = Process::start_with(campaign.path(), "run", &arguments, &environment);
    let mut user = greeted(campaign.port(9010), PATIENCE).await;
    for (n, offset) in ["+3600", "-7200", "+86400", "+0"].iter().enumerate() {
        clock.step(offset);
        let line = format!("after step {n}");
        assert_eq!(user.ask(&line, ANSWER).await, Some(line), "{offset}");
        let mut other = greeted(campaign.port(9010), PATIENCE).await;
        assert_eq!(other.ask("hi", ANSWER).await.as_deref(), Some("hi"));
        if *offset == "+86400" {
            // A reload on that day leaves lines in the log that prove the step.
            campaign.write(
                "echo.yaml",
                &format!("{}  backlogLimit: 5000\n", campaign.read("echo.yaml")),
            );
            wait_for("the edit is applied", PATIENCE, || async {
                let applied = run.log().contains("manifests applied");
                applied.then_some(()).ok_or_else(|| run.log())
            })
            .await;
        }
    }
    run.assert_running();
    assert_eq!(run.stop(STOP).await, Some(143));
    let log = run.log();
    let dated = log.lines().filter(|line| line.contains("  INFO "));
    let days: BTreeSet<&str> = dated.filter_map(|line| line.get(..10)).collect();
    assert!(days.len() > 1, "its clock was stepped: {log}");
    assert!(!log.contains("ERROR"), "{log}");
}
