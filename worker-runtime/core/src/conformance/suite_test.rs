//! The suite judged: a good worker has no findings, and each bad one is found by the case meant for it.

use super::Fixture;
use super::delegate::Double;
use super::suite::{BrokerSource, Embedded, findings};
use crate::broker::{Broker, Confirmation, Publication, Receipt};
use crate::error::{ErrorClass, WorkError};
use crate::message::{Message, SessionEvent, random_id};
use crate::status::{StatusLevel, StatusReport};
use crate::worker::{Input, Output, Registration, Worker, WorkerContext, WorkerType};
use async_trait::async_trait;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use vumi_api::applications::Echo;
use vumi_api::{Flow, Port};

const GOOD: u8 = 0;
const RANDOM_IDS: u8 = 1;
const FORGETFUL: u8 = 2;
const TALKATIVE: u8 = 3;
const LOSES_METADATA: u8 = 4;
const PEER_SIDE_ENDS: u8 = 5;
const PUBLISHES_BY_ITSELF: u8 = 6;
const LEAVES_A_TASK: u8 = 7;
const OUTLIVES_ITSELF: u8 = 8;
const QUOTES_IN_STATUS: u8 = 9;

/// What is missing here is missing on purpose, and every case that finds so waits for it.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(6));

/// An echo with one flaw.
struct Flawed<const FLAW: u8> {
    cx: Arc<WorkerContext>,
    itself: Weak<Self>,
}

#[async_trait]
impl<const FLAW: u8> WorkerType for Flawed<FLAW> {
    type Config = Echo;

    async fn build(_: Echo, cx: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        Ok(Arc::new_cyclic(|itself| Self {
            cx,
            itself: Weak::clone(itself),
        }))
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: flawed}\nspec:\n  echo: {}\n  transportName: sms\n",
            peer: None,
        }
    }
}

#[async_trait]
impl<const FLAW: u8> Worker for Flawed<FLAW> {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let Message::User(message) = &input.message else {
            return Ok(Vec::new());
        };
        if message.session_event() == Some(SessionEvent::Close) {
            return Ok(Vec::new());
        }
        let mut reply = message.reply(self.cx.worker_name(), 0, message.content(), false);
        match FLAW {
            RANDOM_IDS => reply.set_message_id(&random_id()),
            FORGETFUL if message.content().is_some_and(|c| c.ends_with("2 3")) => {
                return Ok(Vec::new());
            }
            TALKATIVE => tracing::debug!(content = message.content(), "handled"),
            LOSES_METADATA => reply.set_field("helper_metadata", json!({})),
            LEAVES_A_TASK => drop(tokio::spawn(std::future::pending::<()>())),
            QUOTES_IN_STATUS => {
                let text = format!("handled {:?}", message.content());
                let report =
                    StatusReport::new("handler", StatusLevel::Ok, crate::reasons::UP, text);
                self.cx.report(report);
            }
            _ => {}
        }
        let output = Output::new(Port::new(self.cx.transport_name(), Flow::Outbound), reply);
        if FLAW == PUBLISHES_BY_ITSELF {
            let services = Arc::clone(&self.cx.services);
            tokio::spawn(async move { services.accept(output).await });
            return Ok(Vec::new());
        }
        Ok(vec![output])
    }

    async fn close(&self) {
        if FLAW == OUTLIVES_ITSELF {
            std::mem::forget(self.itself.upgrade());
        }
    }

    async fn run(&self, cx: Arc<WorkerContext>) -> Result<(), WorkError> {
        if FLAW == PEER_SIDE_ENDS {
            let code = crate::codes::LISTEN_FAILED;
            return Err(WorkError::new(ErrorClass::Connect, code, "never opens"));
        }
        cx.closing().cancelled().await;
        Ok(())
    }
}

/// The cases that find something.
fn found<const FLAW: u8>() -> Vec<String> {
    let findings = findings(
        &[Registration::of::<Flawed<FLAW>>()],
        &[&Embedded],
        PATIENCE,
    );
    let case = |finding: String| {
        let (place, _) = finding.split_once(" on ").unwrap();
        place.trim_start_matches("echo / ").to_owned()
    };
    findings.into_iter().map(case).collect()
}

#[test]
fn a_good_worker_has_no_findings() {
    let findings = findings(&[Registration::of::<Flawed<GOOD>>()], &[&Embedded], None);
    assert!(findings.is_empty(), "{findings:#?}");
}

#[test]
fn random_ids_are_found_wherever_a_message_is_handled_twice() {
    let found = found::<RANDOM_IDS>();
    // Not after a lost channel: what a process had finished then is not handled again.
    for case in ["equal-ids", "stop-bounded"] {
        assert!(found.iter().any(|f| f == case), "{case} not in {found:?}");
    }
    assert!(!found.iter().any(|f| f == "flow"), "{found:?}");
}

#[test]
fn a_message_that_is_forgotten_is_found() {
    let cases = ["order", "order-divert", "rebalance", "reload"];
    assert_eq!(found::<FORGETFUL>(), cases);
}

#[test]
fn a_content_in_the_log_is_found_in_every_case_with_messages() {
    let found = found::<TALKATIVE>();
    assert!(found.len() >= 12, "{found:?}");
}

#[test]
fn lost_metadata_is_found() {
    assert_eq!(found::<LOSES_METADATA>(), ["helper-metadata"]);
}

#[test]
fn a_bad_status_is_found() {
    assert_eq!(found::<PEER_SIDE_ENDS>(), ["statuses"]);
}

#[test]
fn an_output_that_the_acknowledgement_does_not_wait_for_is_found() {
    let found = found::<PUBLISHES_BY_ITSELF>();
    for case in ["confirm-before-ack", "publication-troubles", "unroutable"] {
        assert!(found.iter().any(|f| f == case), "{case} not in {found:?}");
    }
}

#[test]
fn what_a_stop_leaves_behind_is_found() {
    assert_eq!(found::<LEAVES_A_TASK>(), ["no-task-left"]);
    assert_eq!(found::<OUTLIVES_ITSELF>(), ["no-task-left"]);
}

#[test]
fn a_content_in_a_status_is_found_in_every_case_with_messages() {
    let found = found::<QUOTES_IN_STATUS>();
    assert!(found.len() >= 12, "{found:?}");
}

/// Confirms everything and keeps two of three data messages.
struct Leaky {
    inner: Arc<dyn Broker>,
    count: AtomicU64,
}

#[async_trait]
impl Double for Leaky {
    fn inner(&self) -> &Arc<dyn Broker> {
        &self.inner
    }

    async fn take(&self, publication: Publication) -> Receipt {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        if publication.routing_key.ends_with(".outbound") && count.is_multiple_of(3) {
            let (resolve, receipt) = Receipt::new();
            let _ = resolve.send(Confirmation::Confirmed);
            return receipt;
        }
        self.inner.publish(publication).await
    }
}

struct LeakySource;

#[async_trait]
impl BrokerSource for LeakySource {
    fn name(&self) -> &str {
        "leaky"
    }
    async fn open(&self) -> Result<Arc<dyn Broker>, String> {
        Ok(Arc::new(Leaky {
            inner: Embedded.open().await?,
            count: AtomicU64::new(0),
        }))
    }
}

#[test]
fn a_broker_that_loses_what_it_confirmed_is_found() {
    let good = Registration::of::<Flawed<GOOD>>();
    let findings = findings(&[good], &[&LeakySource], PATIENCE);
    let order = findings.iter().find(|f| f.contains("/ order on leaky"));
    assert!(order.is_some(), "{findings:?}");
}

/// A family that lists worker types and does not call the suite over them.
#[test]
fn no_family_forgets_the_suite() {
    let runtime = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = ["", "transports"].map(|f| std::fs::read_dir(runtime.join(f)).unwrap());
    let sources = folders
        .into_iter()
        .flatten()
        .map(|f| f.unwrap().path().join("src"));
    let mut families = 0;
    for source in sources {
        let lib = std::fs::read_to_string(source.join("lib.rs")).unwrap_or_default();
        if !lib.contains("pub const WORKERS: &[Registration]") {
            continue;
        }
        families += 1;
        let test = std::fs::read_to_string(source.join("conformance_test.rs")).unwrap_or_default();
        let called = test.contains("conformance::check(crate::WORKERS)");
        assert!(
            called && lib.contains("mod conformance_test;"),
            "{}",
            source.display()
        );
    }
    assert!(families >= 4, "only {families} families found");
}
