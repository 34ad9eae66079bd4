//! A relay whose endpoint is away, then back and slow, then refuses, then wants another secret: over RabbitMQ and Redis. It is
//! away for 30 s, with back-off at a scale of 1 to 720, so that what comes meanwhile is tried as often as in six hours. What
//! six hours leave behind is in the journal from the beginning, written there as the engine does.

mod endpoint;
mod traffic;

use crate::harness::amqp::user_message;
use crate::harness::campaign::Campaign;
use crate::harness::process::{Process, run, said};
use crate::harness::{PATIENCE, backlog, vhost, wait_for};
use endpoint::{Endpoint, in_order};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use traffic::{SPANS, Traffic, USERS, is_fair, latency};
use vumi_core::state::Journal;
use vumi_core::state::journal::Filter;
use vumi_testkit::redis::{self, Redis};
use vumi_testkit::resident_of;

/// How long the endpoint is away.
const AWAY: Duration = Duration::from_secs(30);
/// Messages, and people who wrote them, that wait for the endpoint since long.
const BACKLOG: (usize, usize) = (20_000, 2_000);
/// What a worker's memory may grow by while its endpoint is away, in MiB: the noise of an allocator.
const NOISE: f64 = 12.0;
/// What each answer of a slow endpoint takes; its time limit is half as long again. Only where nobody waits since long: a
/// worker replays 100 at a time, so that it would take half an hour for what waits. There half a second does: whether it is slow
/// or very slow, deliveries overlap, and order is what can be lost. Behind what waits since six hours, 10 s are taken in
/// `src/trial/relay_outage_test.rs`, in simulated time.
const SLOW: Duration = Duration::from_secs(10);
/// By so much a machine that is busy may be late: less than one more answer would take.
const LATE: Duration = Duration::from_secs(7);
/// So often it is measured before it counts. On two cores that do other things as well, a bad minute is a bad minute of one
/// process or the other; measuring again tells it from a subscriber who waits behind the endpoint, and so is late in every one.
/// The bound stays as it is.
const TRIES: usize = 3;
const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A relay of one connector.
fn manifest(name: &str, port: u16) -> String {
    format!(
        "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {{name: {name}}}\nspec:\n  httpRelay:\n    url: http://127.0.0.1:{port}/in\n    signing:\n      secrets:\n        - {{secretKeyRef: {{name: signing, key: new}}}}\n        - {{secretKeyRef: {{name: signing, key: old}}}}\n  transportName: {name}\n  client: {{answerTimeout: 15s, connectTimeout: 1s}}\n  retry: {{backoff: {{initial: 20ms, max: 400ms}}}}\n  holdLimit: 1s\n"
    )
}

/// The Secret of all relays.
fn secret(new: &str, old: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: signing}}\nstringData: {{new: {new}, old: {old}}}\n"
    )
}

/// A message that waits since long: whose, and the message.
fn waiting(person: usize, number: usize) -> (String, Value) {
    let id = format!("backlog-{person}-{number}");
    let mut message = user_message(&id, "crm", &number.to_string());
    let address = format!("+2783{person:07}");
    message["from_addr"] = address.clone().into();
    (address, message)
}

struct Setting {
    campaign: Campaign,
    process: Process,
    pid: u32,
}

impl Setting {
    /// Resident memory of the worker process in MiB.
    fn memory(&self) -> f64 {
        resident_of(&self.pid.to_string(), "VmRSS") as f64 / 1024.0
    }

    /// `vumi …` as JSON.
    fn asked(&self, arguments: &[&str]) -> Result<Value, String> {
        let output = run(self.campaign.path(), arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).map_err(|_| format!("{arguments:?}: {}", said(&output)))
    }

    fn parked(&self) -> Result<Vec<Value>, String> {
        let listed = self.asked(&["parked", "list", "--format", "json"])?;
        Ok(listed.as_array().cloned().unwrap_or_default())
    }

    async fn endpoint_is(&self, level: &str, reason: &str) {
        wait_for(&format!("the endpoint is {reason}"), PATIENCE, || async {
            let status = self.campaign.status()?;
            let worker = status.worker("application/crm")?;
            let components = worker["components"].as_array().cloned().unwrap_or_default();
            let endpoint = components.iter().find(|c| c["component"] == "endpoint");
            let is = endpoint.map(|c| (c["level"].as_str(), c["reason"].as_str()));
            match is == Some((Some(level), Some(reason))) {
                true => Ok(()),
                false => Err(format!("{endpoint:?}")),
            }
        })
        .await;
    }

    fn secrets(&self, new: &str, old: &str) {
        self.campaign.write("secret.yaml", &secret(new, old));
    }
}

/// Acceptance test 10 of the plan for webhooks that are out.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_away_slow_wrong_and_changes_its_secret_loses_nothing() {
    let Some(url) = vhost("relay-outage").await else {
        return;
    };
    let options = redis::Options {
        append: redis::Append::EverySec,
        ..redis::Options::default()
    };
    let Some(store) = Redis::start_or_skip(options).await else {
        return;
    };
    let (crm, other, apart) = (
        Endpoint::open(&[OLD]).await,
        Endpoint::open(&[OLD, NEW]).await,
        Endpoint::open(&[OLD, NEW]).await,
    );
    let campaign = Campaign::empty();
    campaign.write("crm.yaml", &manifest("crm", crm.port));
    campaign.write("other.yaml", &manifest("other", other.port));
    // Both of a rotation are one to begin with.
    campaign.write("secret.yaml", &secret(OLD, OLD));
    // What the machine and the broker do to everybody is seen at one who has nothing to do with the others.
    let control = Campaign::empty();
    control.write("apart.yaml", &manifest("apart", apart.port));
    control.write("secret.yaml", &secret(OLD, OLD));
    let apart_state = store.url(1);
    let _control = control.run(&["--broker", &url, "--redis", &apart_state, "--admin", "none"]);
    let state = store.url(0);
    let journal = backlog::opened(&state).await;
    backlog::fill(&*journal, "crm.inbound", BACKLOG.0, BACKLOG.1, waiting).await;
    let process = campaign.run(&["--broker", &url, "--redis", &state, "--admin", "none"]);
    let pid = process.id();
    let setting = Setting {
        campaign,
        process,
        pid,
    };
    wait_for("both relays consume", PATIENCE, || async {
        let status = setting.campaign.status()?;
        let apart = control.status()?;
        for (status, name) in [(&status, "crm"), (&status, "other"), (&apart, "apart")] {
            let worker = status.worker(&format!("application/{name}"))?;
            if worker["ready"] != true {
                return Err(worker.to_string());
            }
        }
        Ok(())
    })
    .await;
    let (mut to_crm, mut to_other, mut to_apart) = (
        Traffic::new(&url, "crm").await,
        Traffic::new(&url, "other").await,
        Traffic::new(&url, "apart").await,
    );

    // As it should be.
    tokio::join!(to_crm.flows(AWAY / 10), to_other.flows(AWAY / 10));
    crm.has("all is relayed", &to_crm.ids()).await;
    other
        .has("all is relayed to the other", &to_other.ids())
        .await;
    setting.endpoint_is("ok", "endpoint_answered").await;

    // Away, and a sixth of that before memory is looked at.
    crm.goes_away();
    let before = to_crm.ids();
    let span = AWAY / 6;
    tokio::join!(
        to_crm.flows(span),
        to_other.flows(span),
        to_apart.flows(span)
    );
    setting.endpoint_is("down", "endpoint_unreachable").await;
    let memory = setting.memory();
    let (span, mut grown, mut measured) = (SPANS.1 * SPANS.0, None, Vec::new());
    while measured.len() < TRIES {
        let from = Instant::now();
        tokio::join!(
            to_crm.flows(span),
            to_other.flows(span),
            to_apart.flows(span)
        );
        grown.get_or_insert(setting.memory() - memory);
        other
            .has("the other gets all meanwhile", &to_other.ids())
            .await;
        apart.has("and so does who is apart", &to_apart.ids()).await;
        let (shared, own) = (
            latency(&to_other, &other, from),
            latency(&to_apart, &apart, from),
        );
        measured.push((shared, own));
        if is_fair(shared, own) {
            break;
        }
    }
    let grown = grown.unwrap();
    println!(
        "{} events and messages waited; memory {memory:.1} MiB, {grown:+.1}; half and 99 of 100 of the other and of one apart, in ms, as often as it was measured: {measured:?}",
        to_crm.sent.len() - before.len()
    );
    let (shared, own) = *measured.last().unwrap();
    assert!(
        is_fair(shared, own),
        "of the other and of one apart, in ms: {measured:?}"
    );
    assert!(grown < NOISE, "memory grew by {grown:.1} MiB");
    assert_eq!(setting.parked().unwrap().len(), 0, "nothing is given up");
    assert!(crm.ids().is_subset(&to_crm.ids()));

    // Back, and slow at first: what waited comes, also what waited since long, in the order of each user, while more is published.
    crm.behaves(|manner| manner.delay = Duration::from_millis(500));
    crm.comes_back().await;
    let released = Journal::release(&*journal, "crm.inbound", &Filter::default()).await;
    assert!(released.unwrap() > 0);
    for n in 0..BACKLOG.0 {
        let (_, message) = waiting(n % BACKLOG.1, n / BACKLOG.1);
        let id = message["message_id"].as_str().unwrap().to_owned();
        to_crm.sent.insert(id, Instant::now());
    }
    to_crm.flows(AWAY / 10).await;
    crm.behaves(|manner| manner.delay = Duration::ZERO);
    let began = Instant::now();
    crm.gets(&to_crm.ids()).await;
    println!("{} relayed in {:?}", to_crm.sent.len(), began.elapsed());
    in_order(&crm, USERS + BACKLOG.1);

    // Slow, and nobody waits since long: all are asked beside each other, but a user's two messages one after the other, and
    // nothing is asked again that is being answered.
    let (known, taken, began) = (to_crm.ids(), crm.taken().len(), Instant::now());
    crm.behaves(|manner| manner.delay = SLOW);
    to_crm.flows(AWAY / 10).await;
    crm.has("a slow one gets all", &to_crm.ids()).await;
    let took = began.elapsed();
    let come = crm.taken().split_off(taken);
    let come = come.iter().filter(|taken| !known.contains(&taken.id));
    let (come, new) = (come.count(), to_crm.sent.len() - known.len());
    println!("{new} answers of {SLOW:?} each in {took:?}");
    assert!(took < AWAY / 10 + 2 * SLOW + LATE, "{new} took {took:?}");
    assert_eq!(come, new, "nothing comes twice");
    in_order(&crm, USERS + BACKLOG.1);
    crm.behaves(|manner| manner.delay = Duration::ZERO);

    // Wrong: what is refused for good is set aside at once, and nothing else.
    let gone: BTreeSet<String> = (0..10).map(|n| format!("gone-{n}")).collect();
    crm.behaves(|manner| manner.refuses = gone.clone());
    for (n, id) in gone.iter().enumerate() {
        to_crm.message(id, 100 + n, "refused").await;
    }
    to_crm.flows(AWAY / 30).await;
    let others: BTreeSet<String> = to_crm.ids().difference(&gone).cloned().collect();
    crm.has("what is not refused goes on", &others).await;
    wait_for("what is refused is parked", PATIENCE, || async {
        let parked = setting.parked()?;
        let ids = parked.iter().filter_map(|p| p["messageId"].as_str());
        let ids: BTreeSet<String> = ids.map(str::to_owned).collect();
        match ids == gone && parked.iter().all(|p| p["code"] == "relay.refused") {
            true => Ok(()),
            false => Err(format!("{parked:?}")),
        }
    })
    .await;
    assert_eq!(
        crm.refused.lock().unwrap().get(&404),
        Some(&10),
        "once each"
    );

    // A secret is replaced: the endpoint knows the new one first, then both ends use it alone.
    crm.behaves(|manner| manner.secrets = vec![NEW]);
    let held: BTreeSet<String> = (0..5).map(|n| format!("held-{n}")).collect();
    for (n, id) in held.iter().enumerate() {
        to_crm.message(id, 200 + n, "held").await;
    }
    setting.endpoint_is("down", "endpoint_credentials").await;
    assert!(crm.ids().is_disjoint(&held));
    setting.secrets(NEW, OLD);
    crm.has("the new secret signs without a restart", &held)
        .await;
    crm.behaves(|manner| manner.secrets = vec![OLD]);
    to_crm.message("overlap-old", 300, "by the old one").await;
    crm.has(
        "the old one signs as well",
        &BTreeSet::from(["overlap-old".to_owned()]),
    )
    .await;
    crm.behaves(|manner| manner.secrets = vec![NEW]);
    setting.secrets(NEW, NEW);

    // A person sends again what was set aside: exactly that.
    let taken = crm.taken().len();
    crm.behaves(|manner| manner.refuses.clear());
    let output = run(
        setting.campaign.path(),
        &[
            "parked",
            "requeue",
            "crm.inbound",
            "--code",
            "relay.refused",
            "--yes",
        ],
    );
    assert!(output.status.success(), "{}", said(&output));
    crm.has("what was set aside is delivered", &gone).await;
    wait_for("nothing is parked or waits", PATIENCE, || async {
        let (parked, waits) = (
            setting.parked()?,
            setting.asked(&["journal", "list", "--format", "json"])?,
        );
        match (parked.len(), waits.as_array().map(Vec::len)) {
            (0, Some(0)) => Ok(()),
            other => Err(format!("{other:?}: {waits}")),
        }
    })
    .await;
    let requeued: BTreeSet<String> = crm.taken()[taken..].iter().map(|t| t.id.clone()).collect();
    assert_eq!(requeued, gone, "exactly those");

    // Nothing lost, and whoever got something twice could tell.
    assert_eq!(crm.ids(), to_crm.ids());
    assert_eq!(other.ids(), to_other.ids());
    in_order(&other, USERS);
    let mut deliveries: BTreeMap<String, String> = BTreeMap::new();
    for taken in crm.taken() {
        let first = deliveries.entry(taken.id).or_insert(taken.delivery.clone());
        assert_eq!(*first, taken.delivery, "a repeat has the same id");
    }
    let mut process = setting.process;
    process.assert_running();
    let log = process.log();
    for private in [OLD, NEW, "+27820000001", "by the old one"] {
        assert!(!log.contains(private), "the log holds {private}");
    }
}
