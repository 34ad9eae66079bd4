//! Sessions of which something fails on the way: the publication, or the state store.

use super::file::{CaseFile, Sent, Step};
use super::folder;
use super::scene::Scene;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vumi_core::codes;
use vumi_core::conformance::stand_in::PATIENCE;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::derived_id;
use vumi_core::state::StateStore;
use vumi_core::worker::Services;

async fn scene() -> Scene {
    scene_with(&[]).await
}

/// With some of the manifest put otherwise.
async fn scene_with(changes: &[(&str, &str)]) -> Scene {
    let path = folder().join("ussd.yaml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in changes {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        text = changed;
    }
    let file = CaseFile::parse(&text, &path).unwrap();
    Scene::start(&file).await.unwrap()
}

/// The provider gives its requests ids.
const IDS: &[(&str, &str)] = &[
    (
        "            toAddr:",
        "            id: \"{{ params.id }}\"\n            toAddr:",
    ),
    ("op, input]", "op, input]\n          optional: [id]"),
];

/// What is kept of the user's session with `*120*1#` that was cut off.
async fn kept(store: &dyn StateStore) -> Option<BTreeMap<String, String>> {
    let scope = format!("ussd:redial:{}", derived_id(&["service", "*120*1#"]));
    store.load(&scope, "+27820000001").await.unwrap()
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|_| panic!("not so: {what}"));
}

fn steps(text: &str) -> Vec<Step> {
    serde_yaml::from_str(text).unwrap()
}

async fn play(scene: &mut Scene, text: &str) {
    for (n, step) in steps(text).iter().enumerate() {
        let done = scene.step(step).await;
        done.unwrap_or_else(|what| panic!("step {}: {what}", n + 1));
    }
}

/// Dials, and is asked something.
const ASKED: &str = r##"
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: BEG, input: "*120*1#"}}
  message: {session_event: new}
  reply: {content: what is your name?}
  response: {body: "<page><div>what is your name?</div><more/></page>"}
  event: {event_type: ack}
"##;

/// Dials again after a session that was cut off, and goes on with it.
const RESUMED: &str = r##"
- request: {path: /ussd, query: {user: "27820000001", session: s2, op: BEG, input: "*120*1#"}}
  message: {session_event: resume, helper_metadata: {redial: true}}
  reply: {content: where were we?}
  response: {body: "<page><div>where were we?</div><more/></page>"}
  event: {event_type: ack}
"##;

/// Dials, and waits longer than the network does.
const CUT_OFF: &str = r##"
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: BEG, input: "*120*1#"}}
  message: {session_event: new}
  response: {body: "<page><div>Please dial again &amp; wait</div></page>"}
"##;

/// The same, and the application's reply comes then.
const LATE: &str = r##"
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: BEG, input: "*120*1#"}}
  message: {session_event: new}
  reply: {content: what is your name?, late: true}
  response: {body: "<page><div>Please dial again &amp; wait</div></page>"}
  event: {event_type: nack}
"##;

/// The broker is away, and the user is told to dial again, in the network's words.
const IN_VAIN: &str = r##"
- request: {path: /ussd, query: {user: "27820000001", session: s2, op: BEG, input: "*120*1#"}}
  response: {body: "<page><div>Please dial again &amp; wait</div></page>"}
"##;

const REFUSED: &str = r##"
- request: {path: /ussd, query: {user: "27820000001", session: s2, op: BEG, input: "*120*1#"}}
  response: {status: 503}
"##;

#[tokio::test]
async fn who_dials_again_in_vain_is_still_known_the_next_time() {
    let mut scene = scene().await;
    play(&mut scene, CUT_OFF).await;
    let away = WorkError::new(ErrorClass::Connect, codes::BROKER_UNREACHABLE, "away");
    scene.engine.refuse(Some(away));
    play(&mut scene, IN_VAIN).await;
    scene.engine.refuse(None);
    play(
        &mut scene,
        r##"
- request: {path: /ussd, query: {user: "27820000001", session: s3, op: BEG, input: "*120*1#"}}
  message: {session_event: resume, helper_metadata: {redial: true}}
  reply: {content: where were we?}
  response: {body: "<page><div>where were we?</div><more/></page>"}
  event: {event_type: ack}
- request: {path: /ussd, query: {user: "27820000001", session: s4, op: BEG, input: "*120*1#"}}
  message: {session_event: new}
  reply: {content: hello}
  response: {body: "<page><div>hello</div><more/></page>"}
  event: {event_type: ack}
"##,
    )
    .await;
}

#[tokio::test]
async fn a_late_reply_that_could_not_be_read_is_read_the_next_time() {
    let mut scene = scene().await;
    play(&mut scene, LATE).await;
    scene.engine.fail_state("sessions.create", 1);
    play(&mut scene, REFUSED).await;
    play(
        &mut scene,
        r##"
- request: {path: /ussd, query: {user: "27820000001", session: s3, op: BEG, input: "*120*1#"}}
  response: {body: "<page><div>what is your name?</div><more/></page>"}
- request: {path: /ussd, query: {user: "27820000001", session: s4, op: BEG, input: "*120*1#"}}
  message: {session_event: new}
  reply: {content: hello}
  response: {body: "<page><div>hello</div><more/></page>"}
  event: {event_type: ack}
"##,
    )
    .await;
}

#[tokio::test]
async fn a_session_is_there_although_the_store_failed_when_it_began() {
    let mut scene = scene().await;
    scene.engine.fail_state("sessions.create", 2);
    play(&mut scene, ASKED).await;
    let store = scene.engine.state().unwrap();
    let written = async || store.load("ussd", "s1").await.unwrap().is_some();
    until("the session is written down", written).await;
    play(
        &mut scene,
        r##"
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: "", input: Thandi}}
  message: {session_event: resume, content: Thandi}
  reply: {content: thank you}
  response: {body: "<page><div>thank you</div><more/></page>"}
  event: {event_type: ack}
"##,
    )
    .await;
}

/// The process that took the first delivery ended before it wrote the session down.
#[tokio::test]
async fn a_repeat_makes_up_for_a_session_that_nobody_wrote_down() {
    let mut scene = scene_with(IDS).await;
    let first = r##"
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: BEG, input: "*120*1#", id: "7"}}
  message: {session_event: new}
  reply: {content: what is your name?}
  response: {body: "<page><div>what is your name?</div><more/></page>"}
  event: {event_type: ack}
"##;
    play(&mut scene, first).await;
    let store = scene.engine.state().unwrap();
    store.clear("ussd", "s1").await.unwrap();
    play(
        &mut scene,
        r##"
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: BEG, input: "*120*1#", id: "7"}}
  response: {body: "<page><div>what is your name?</div><more/></page>"}
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: "", input: Thandi}}
  message: {session_event: resume, content: Thandi, to_addr: "*120*1#"}
  reply: {content: thank you}
  response: {body: "<page><div>thank you</div><more/></page>"}
  event: {event_type: ack}
"##,
    )
    .await;
}

/// A session that begins and ends while the store is away has ended, and does not come back when the store does.
#[tokio::test]
async fn what_a_session_comes_to_is_written_in_order() {
    let mut scene = scene().await;
    scene.engine.fail_state("sessions.create", 2);
    play(
        &mut scene,
        r##"
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: BEG, input: "*120*1#"}}
  message: {session_event: new}
  reply: {content: thank you, close: true}
  response: {body: "<page><div>thank you</div></page>"}
  event: {event_type: ack}
"##,
    )
    .await;
    let engine = Arc::clone(&scene.engine);
    // The end waits for what is not written down yet.
    scene.stop().await.unwrap();
    let store = engine.state().unwrap();
    assert_eq!(store.load("ussd", "s1").await.unwrap(), None);
}

/// The deadline cuts off a session of which nobody has written down yet that it began.
#[tokio::test]
async fn a_session_that_is_cut_off_before_it_is_written_down_is_kept() {
    let mut scene = scene().await;
    // Longer than the deadline of a second.
    scene.engine.fail_state("sessions.create", 4);
    play(&mut scene, CUT_OFF).await;
    let store = scene.engine.state().unwrap();
    until("it is kept", async || kept(&*store).await.is_some()).await;
    play(&mut scene, RESUMED).await;
}

/// Who waits when the worker ends hears what they would hear at the deadline, and goes on where they were.
#[tokio::test]
async fn a_stop_tells_users_to_dial_again_and_keeps_their_sessions() {
    let scene = scene_with(&[("after: 1s", "after: 60s")]).await;
    let dials: Sent = serde_yaml::from_str(
        r##"{path: /ussd, query: {user: "27820000001", session: s1, op: BEG, input: "*120*1#"}}"##,
    )
    .unwrap();
    let ends = async {
        scene.engine.output(0).await.unwrap();
        scene.end().await;
    };
    let (answer, ()) = tokio::join!(scene.ask(scene.call(&dials)), ends);
    let answer = answer.unwrap();
    let told = "<page><div>Please dial again &amp; wait</div></page>";
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, told.as_bytes())
    );
    let store = scene.engine.state().unwrap();
    let kept = kept(&*store).await.unwrap();
    assert_eq!(kept["vumi_session"], "s1");
}

/// The network does not wait as long as a publication may take.
#[tokio::test]
async fn the_deadline_comes_although_the_broker_does_not_answer() {
    let mut scene = scene().await;
    play(&mut scene, ASKED).await;
    scene.engine.hang(true);
    let began = Instant::now();
    play(
        &mut scene,
        r##"
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: "", input: Thandi}}
  response: {body: "<page><div>Please dial again &amp; wait</div></page>"}
  status: {component: response, level: down, reason: deadline}
"##,
    )
    .await;
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    scene.engine.hang(false);
    let store = scene.engine.state().unwrap();
    until("it is kept", async || kept(&*store).await.is_some()).await;
    play(&mut scene, RESUMED).await;
}

/// The network waits from the head of its request on, and a body may take its time.
#[tokio::test]
async fn the_deadline_begins_with_the_head() {
    let scene = scene_with(&[("after: 1s", "after: 3s")]).await;
    let form = "user=27820000001&session=s1&op=BEG&input=1";
    let head = format!(
        "POST /ussd HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        form.len()
    );
    let mut caller = TcpStream::connect(("127.0.0.1", scene.port()))
        .await
        .unwrap();
    caller.write_all(head.as_bytes()).await.unwrap();
    // Past the deadline.
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let began = Instant::now();
    caller.write_all(form.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = caller.read_to_string(&mut answer);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert!(answer.contains("Please dial again"), "{answer}");
    assert!(
        began.elapsed() < Duration::from_millis(2500),
        "{:?}",
        began.elapsed()
    );
}

/// Each request gets one answer, however often it comes: also the one that is cut off, and the one that reads what came
/// too late.
#[tokio::test]
async fn repeats_of_a_redial_get_the_same_answer() {
    let mut scene = scene_with(IDS).await;
    let first = r##"
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: BEG, input: "*120*1#", id: "1"}}
  message: {session_event: new}
  reply: {content: what is your name?, late: true}
  response: {body: "<page><div>Please dial again &amp; wait</div></page>"}
  event: {event_type: nack}
"##;
    play(&mut scene, first).await;
    let again = r##"
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: BEG, input: "*120*1#", id: "1"}}
  response: {body: "<page><div>Please dial again &amp; wait</div></page>"}
"##;
    let redial = r##"
- request: {path: /ussd, query: {user: "27820000001", session: s2, op: BEG, input: "*120*1#", id: "2"}}
  response: {body: "<page><div>what is your name?</div><more/></page>"}
"##;
    let store = scene.engine.state().unwrap();
    play(&mut scene, again).await;
    assert!(kept(&*store).await.is_some(), "it is not for the repeat");
    play(&mut scene, redial).await;
    until("it was read", async || kept(&*store).await.is_none()).await;
    for repeat in [redial, again, redial] {
        play(&mut scene, repeat).await;
    }
    assert_eq!(scene.engine.repeats(), 4, "each is counted once");
    play(
        &mut scene,
        r##"
- request: {path: /ussd, query: {user: "27820000001", session: s2, op: "", input: Thandi, id: "3"}}
  message: {session_event: resume, content: Thandi}
  reply: {content: thank you}
  response: {body: "<page><div>thank you</div><more/></page>"}
  event: {event_type: ack}
"##,
    )
    .await;
}

/// The last answer of a session ends it, and is the answer to whoever asks the same again.
#[tokio::test]
async fn a_repeat_after_the_end_of_its_session_gets_the_first_answer() {
    let mut scene = scene_with(IDS).await;
    play(
        &mut scene,
        r##"
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: BEG, input: "*120*1#", id: "1"}}
  message: {session_event: new}
  reply: {content: what is your name?}
  response: {body: "<page><div>what is your name?</div><more/></page>"}
  event: {event_type: ack}
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: "", input: Thandi, id: "2"}}
  message: {session_event: resume, content: Thandi}
  reply: {content: thank you, close: true}
  response: {body: "<page><div>thank you</div></page>"}
  event: {event_type: ack}
"##,
    )
    .await;
    let store = scene.engine.state().unwrap();
    assert_eq!(store.load("ussd", "s1").await.unwrap(), None);
    play(
        &mut scene,
        r##"
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: "", input: Thandi, id: "2"}}
  response: {body: "<page><div>thank you</div></page>"}
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: "", input: more, id: "3"}}
  response: {status: 400, json: {unknown_session: [it is not known]}}
"##,
    )
    .await;
    assert_eq!(scene.engine.repeats(), 1, "counted once");
    scene.stop().await.unwrap();
}
