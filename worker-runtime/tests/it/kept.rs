//! What is kept, as an operator reaches it: `vumi journal`, `ledger`, `why` and `erase`, through a running process and
//! directly in a Redis. The stores are filled as the engine fills them.

use crate::harness::campaign::Campaign;
use crate::harness::operator::Operator;
use crate::harness::process::{run, said};
use crate::harness::telnet::greeted;
use crate::harness::{PATIENCE, wait_for};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use vumi_core::message::UserMessage;
use vumi_core::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use vumi_core::state::journal::{About, Append, Due, Entry, Lane, Reason};
use vumi_core::state::ledger::{Change, Content, Note, Row, RowState, Step};
use vumi_core::state::redis::{RedisConfig, RedisStore};
use vumi_core::state::{Person, StateStore, StoreHealth};
use vumi_testkit::redis::{Append as AppendOnly, Options, Redis};

const USER: &str = "+27820001111";
/// What no command may print: contents, and the user's number in any spelling.
const HIDDEN: [&str; 2] = ["my secret", "27820001111"];
const QUEUE: &str = "telnet.outbound";
const HOUR: Duration = Duration::from_secs(3600);

fn step(at: u64, worker: &str, text: &str, caused: &[&str]) -> Step {
    Step {
        at,
        worker: worker.into(),
        state: None,
        attempt: 1,
        code: String::new(),
        class: String::new(),
        text: text.into(),
        who: String::new(),
        caused: caused.iter().map(|id| (*id).to_owned()).collect(),
        holder: None,
    }
}

async fn row(store: &dyn StateStore, id: &str, account: &str, state: RowState, patience: Duration) {
    let row = stepped(id, account, state, patience);
    store.put(&row, None, HOUR).await.unwrap();
}

fn stepped(id: &str, account: &str, state: RowState, patience: Duration) -> Row {
    let now = Row::new(id, account, 0);
    let born = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let at = born.unwrap().as_millis() as u64;
    let mut row = Row { born: at, ..now };
    row.person = Some(Person::new(USER).key());
    let change = Change {
        step: step(at, "transport/telnet", "waits for its turn", &[]),
        state,
        patience,
        remote_id: None,
        told: Vec::new(),
    };
    row.after(change).unwrap()
}

fn secret(id: &str, to: &str) -> UserMessage {
    let mut message = UserMessage::new("telnet", Some(to), Some("12345"));
    message.set_message_id(id);
    message.set_content(Some("my secret"));
    message
}

/// A message that waits in the journal to be released, and its row.
async fn hold(store: &dyn StateStore, id: &str, to: &str) {
    row(store, id, "telnet", RowState::Held, HOUR).await;
    let message = secret(id, to);
    let waiting = Append {
        lane: Lane {
            group: String::new(),
            number: Person::new(to).lane(),
        },
        due: Due::Released,
        entry: Entry {
            about: About {
                reason: Reason::Held,
                since: 1_700_000_000_000,
                attempts: 1,
                counted: 0,
                code: "peer.timeout".into(),
                text: "no answer".into(),
                routing_key: QUEUE.into(),
                amqp_message_id: None,
            },
            body: message.encode(),
        },
    };
    store.append(QUEUE, vec![waiting]).await.unwrap();
}

/// Two messages of one user that wait to be released, one that failed, one overdue row of a transport elsewhere, and a
/// trail.
async fn fill(store: &dyn StateStore) {
    for id in ["m1", "m2"] {
        hold(store, id, USER).await;
    }
    row(store, "late", "elsewhere", RowState::Sent, Duration::ZERO).await;
    let mut failed = stepped("failed", "telnet", RowState::Failed, HOUR);
    // Not behind those that wait.
    failed.body = Some(Content::of(&secret("failed", "+27820002222").encode()));
    store.put(&failed, None, HOUR).await.unwrap();
    let note = Note {
        message_id: "question".into(),
        person: Some(Person::new(USER).key()),
        step: step(1_700_000_000_000, "application/echo", "answered", &["m1"]),
    };
    store.note(&[note], HOUR).await.unwrap();
}

/// What both places answer alike; `told`: whether senders of dropped messages can be told.
fn look_around(operator: &Operator<'_>, told: bool) {
    let listed = operator
        .json(&["journal", "list", "--format", "json"])
        .unwrap();
    let ids: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["messageId"])
        .collect();
    assert_eq!(ids, ["m1", "m2"]);
    let (_, table) = operator.run(&["journal", "list", QUEUE, "--address", USER]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(
        table.contains("on release") && table.contains("peer.timeout"),
        "{table}"
    );
    let (_, table) = operator.run(&["journal", "list", QUEUE, "--address", "27829999999"]);
    assert_eq!(table, "nothing waits in a journal\n");

    let (code, why) = operator.run(&["why", "m1"]);
    assert_eq!(code, 0, "{why}");
    let lines: Vec<&str> = why.lines().collect();
    assert!(
        lines[0].contains("application/echo"),
        "the question first: {why}"
    );
    assert!(
        lines[1].contains("transport/telnet") && lines[1].contains("held"),
        "{why}"
    );
    assert!(why.contains("m1: still held since"), "{why}");
    assert!(why.contains("next: tried on release"), "{why}");
    let of_user = operator.json(&["why", USER, "--json"]).unwrap();
    assert!(
        of_user["timelines"].as_array().unwrap().len() >= 2,
        "{of_user}"
    );
    let (code, _) = operator.run(&["why", "--since", "1h"]);
    assert_eq!(code, 0);
    let (code, text) = operator.run(&["why", "--message", "nobody"]);
    assert_eq!(code, 2, "{text}");
    let (code, text) = operator.run(&["why", "quest"]);
    assert_eq!(code, 0, "the beginning of an id: {text}");
    assert!(
        text.contains("question: handled by application/echo"),
        "{text}"
    );
    let (code, text) = operator.run(&["why", "+27 (0)82 000-1111"]);
    assert_eq!(code, 0, "a person however the number is written: {text}");
    for wrong in [
        &["why", "+"][..],
        &["why", "m1", "--limit", "1001"],
        &["erase", "--person", "+", "--yes"],
        &["journal", "list", "telnet.outbund"],
        &["journal", "list", "--limit", "0"],
        &["ledger", "overdue", "telnte"],
        &["batch", "list", "spring"],
    ] {
        let (code, text) = operator.run(wrong);
        assert_eq!(code, 2, "{wrong:?}: {text}");
    }
    let (_, text) = operator.run(&["journal", "list", "telnet.outbund"]);
    assert!(
        text.contains("there are: ") && text.contains(QUEUE),
        "{text}"
    );

    let (code, overdue) = operator.run(&["ledger", "overdue"]);
    assert_eq!(code, 1, "{overdue}");
    assert!(
        overdue.contains("late") && overdue.contains("1 overdue"),
        "{overdue}"
    );
    let (code, text) = operator.run(&["ledger", "overdue", "telnet"]);
    assert_eq!((code, text.as_str()), (0, "nothing is overdue\n"));
    let (code, audit) = operator.run(&["ledger", "audit"]);
    assert_eq!(code, 0, "{audit}");
    assert!(audit.ends_with("imbalance 0\n"), "{audit}");

    let (code, text) = operator.run(&["journal", "drop", QUEUE, "--reason", "held"]);
    assert_eq!(code, 2, "not without --yes: {text}");
    assert!(
        text.contains("Drop 2 messages of telnet.outbound (lanes: 1)"),
        "{text}"
    );
    let (code, text) = operator.run(&["journal", "drop", QUEUE, "--reason", "held", "--yes"]);
    assert_eq!(code, 0, "{text}");
    let told = match told {
        true => "2 dropped, 2 senders told\n",
        false => "2 dropped, 0 senders told\n2 senders are not told",
    };
    assert!(text.starts_with(told), "{text}");
    let (code, text) = operator.run(&["journal", "drop", QUEUE, "--yes"]);
    assert_eq!(code, 2, "nothing is left: {text}");
    let (_, why) = operator.run(&["why", "m1"]);
    assert!(
        why.contains("m1: cancelled: class ours; code journal.dropped"),
        "{why}"
    );
    let (_, counts) = operator.run(&["ledger", "counts"]);
    assert!(counts.contains("cancelled  2"), "{counts}");
    let (code, audit) = operator.run(&["ledger", "audit"]);
    assert_eq!(code, 0, "{audit}");

    let (code, dry) = operator.run(&["erase", "--person", USER, "--dry-run"]);
    assert_eq!(code, 0, "{dry}");
    assert!(dry.contains("would be removed"), "{dry}");
    let (code, _) = operator.run(&["erase", "--person", USER]);
    assert_eq!(code, 2, "not without --yes");
    let report = operator
        .json(&["erase", "--person", USER, "--yes", "--format", "json"])
        .unwrap();
    let removed = report["removed"].as_array().unwrap();
    let ledger = removed.iter().find(|one| one["what"] == "ledger").unwrap();
    assert!(ledger["count"].as_u64().unwrap() >= 3, "{report}");
    let (code, text) = operator.run(&["why", USER]);
    assert_eq!(code, 2, "nothing is known of them any more: {text}");
}

/// Two users' messages wait, and are made due by command.
async fn release(store: &Arc<dyn StateStore>, operator: &Operator<'_>) {
    hold(&**store, "m3", USER).await;
    hold(&**store, "m4", "+27820003333").await;
    let (code, text) = operator.run(&["journal", "release", QUEUE, "--reason", "backoff"]);
    assert_eq!(code, 2, "nothing waits for that reason: {text}");
    let (code, text) = operator.run(&["journal", "release", QUEUE]);
    assert_eq!(code, 2, "not without --yes: {text}");
    assert!(
        text.contains("Release 2 messages of telnet.outbound (lanes: 2)?"),
        "{text}"
    );
    let dues = || {
        let (_, table) = operator.run(&["journal", "list", QUEUE]);
        let count = |due: &str| table.matches(due).count();
        (count("  on release  "), count("  now  "))
    };
    assert_eq!(dues(), (2, 0), "nothing was done");
    // One alone is not asked about.
    let (code, text) = operator.run(&["journal", "release", QUEUE, "--address", USER]);
    assert_eq!((code, text.as_str()), (0, "1 lanes released\n"));
    assert_eq!(dues(), (1, 1));
    let (code, text) = operator.run(&["journal", "release", QUEUE, "--yes"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(dues(), (0, 2));
}

/// A greeting came in, was handled, and its answer was delivered: `why` says so of each.
async fn every_end_is_told(campaign: &Campaign, state: &str) {
    wait_for("the hops are noted", PATIENCE, || async {
        let arguments = ["why", "--since", "1h", "--json", "--state", state];
        let output = run(campaign.path(), &arguments);
        let answer: Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
        let timelines = answer["timelines"].as_array().unwrap().iter();
        let talks: Vec<&Value> = timelines
            .filter(|timeline| timeline["standings"].as_array().unwrap().len() == 2)
            .filter(|timeline| {
                timeline["moments"][0]["step"]["text"]
                    .to_string()
                    .contains("from the peer")
            })
            .collect();
        let Some(talk) = talks.first() else {
            return Err(answer.to_string());
        };
        let ends = |at: usize| {
            (
                talk["standings"][at]["stage"].clone(),
                talk["standings"][at]["isFinal"].clone(),
            )
        };
        match ends(0) == ("handled".into(), true.into()) && ends(1) == ("ended".into(), true.into())
        {
            true => Ok(()),
            false => Err(talk.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_keeps_is_reached_through_its_socket() {
    let campaign = Campaign::example("telnet-echo", &[9010]);
    let state = campaign.path().join("state");
    let store = EmbeddedStore::open(EmbeddedStoreOptions {
        folder: Some(state.join("store")),
        sync: false,
    })
    .unwrap();
    fill(&*store).await;
    store.close(PATIENCE).await;
    drop(store);
    let folder = state.to_str().unwrap();
    let mut process = campaign.run(&["--state", folder, "--admin", "none"]);
    greeted(campaign.port(9010), PATIENCE).await;
    every_end_is_told(&campaign, folder).await;
    let status = campaign.status_of(&["--state", folder]).unwrap();
    let store = &status.worker("transport/telnet").unwrap()["store"];
    assert_eq!(
        (&store["durability"], &store["health"]),
        (&"process".into(), &"up".into())
    );
    assert!(
        process.log().contains("state is kept in embedded"),
        "{}",
        process.log()
    );
    let operator = Operator::new(&campaign, &["--state", folder]).hiding(&HIDDEN);
    let (code, listed) = operator.run(&["ledger", "resend", "--transport", "telnet", "--dry-run"]);
    assert_eq!(code, 0, "{listed}");
    assert!(listed.contains("1 can be sent again"), "{listed}");
    let (code, text) = operator.run(&["ledger", "resend", "failed", "m1"]);
    assert_eq!(code, 1, "{text}");
    assert_eq!(
        text,
        "1 sent again\n1 not: it waits to be sent, or is being sent\n"
    );
    wait_for("it failed again", PATIENCE, || async {
        let (_, why) = operator.run(&["why", "failed"]);
        match why.contains("a person had it sent again") && why.contains("code reply.no_client") {
            true => Ok(()),
            false => Err(why),
        }
    })
    .await;
    look_around(&operator, true);
    assert_eq!(process.stop(PATIENCE).await, Some(143));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_in_redis_is_reached_without_a_process_and_one_can_use_it() {
    let Some(redis) = Redis::start_or_skip(Options {
        append: AppendOnly::EverySec,
        ..Options::default()
    })
    .await
    else {
        return;
    };
    let url = redis.url(3);
    let store: Arc<dyn StateStore> = RedisStore::open(RedisConfig::from_url(&url).unwrap());
    let mut health = store.health();
    let up = health.wait_for(|health| *health == StoreHealth::Up);
    tokio::time::timeout(PATIENCE, up).await.unwrap().unwrap();
    fill(&*store).await;
    let campaign = Campaign::example("telnet-echo", &[9010]);
    let operator = Operator::new(&campaign, &["--redis", &url]).hiding(&HIDDEN);
    let (code, text) = operator.run(&["ledger", "resend", "failed"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("--broker URL"), "{text}");
    look_around(&operator, false);
    release(&store, &operator).await;

    let _process = campaign.run(&["--redis", &url, "--admin", "none"]);
    wait_for("the process uses that Redis", PATIENCE, || async {
        let status = campaign.status()?;
        let store = &status.worker("application/echo")?["store"];
        let name = store["name"].as_str().unwrap_or_default().to_owned();
        match name.starts_with("redis ") && store["health"] == "up" {
            true => Ok(()),
            false => Err(store.to_string()),
        }
    })
    .await;
    wait_for("what was released is tried", PATIENCE, || async {
        let (_, why) = operator.run(&["why", "m4"]);
        match why.contains("m4: failed") && why.contains("code reply.no_client") {
            true => Ok(()),
            false => Err(why),
        }
    })
    .await;
    let (_, listed) = operator.run(&["journal", "list"]);
    assert_eq!(listed, "nothing waits in a journal\n");
    row(&*store, "m9", "elsewhere", RowState::Held, HOUR).await;
    let through = Operator::new(&campaign, &[]).hiding(&HIDDEN);
    let (code, why) = through.run(&["why", "m9"]);
    assert_eq!(code, 0, "{why}");
    assert!(why.contains("m9: still held"), "{why}");
    // A row whose message is nowhere is closed by a person, where its broker is within reach.
    let (code, text) = through.run(&["ledger", "close", "m9"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("--broker URL"), "{text}");
    row(&*store, "gone", "telnet", RowState::Held, HOUR).await;
    let (code, text) = through.run(&["ledger", "close", "gone", "--dry-run", "--force"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("1 can be closed"), "{text}");
    let (code, text) = through.run(&["ledger", "close", "gone", "--force"]);
    assert_eq!(code, 2, "not without --yes: {text}");
    wait_for("the row is closed", PATIENCE, || async {
        match through.run(&["ledger", "close", "gone", "--yes"]) {
            (0, text) if text == "1 closed\n" => Ok(()),
            // Something is still in hand.
            (_, text) => Err(text),
        }
    })
    .await;
    let (_, why) = through.run(&["why", "gone"]);
    assert!(why.contains("gone: cancelled"), "{why}");
    store.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_cannot_be_asked_ends_with_its_code() {
    let campaign = Campaign::empty();
    let port = vumi_testkit::free_port().unwrap();
    for (url, code) in [
        (format!("redis://:hunter2@127.0.0.1:{port}/"), 3),
        ("http://u:hunter2@localhost/".to_owned(), 2),
    ] {
        let output = run(campaign.path(), &["ledger", "counts", "--redis", &url]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!text.contains("vumi lint"), "no manifest is wrong: {text}");
    }
}
