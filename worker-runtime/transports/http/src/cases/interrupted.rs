//! Sessions of which something fails on the way: the publication, or the state store.

use super::file::{CaseFile, Step};
use super::folder;
use super::scene::Scene;
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};

async fn scene() -> Scene {
    let file = CaseFile::read(&folder().join("ussd.yaml")).unwrap();
    Scene::start(&file).await.unwrap()
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
    play(&mut scene, REFUSED).await;
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
    play(
        &mut scene,
        r##"
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: BEG, input: "*120*1#"}}
  message: {session_event: new}
  reply: {content: what is your name?}
  response: {body: "<page><div>what is your name?</div><more/></page>"}
  event: {event_type: ack}
"##,
    )
    .await;
    let store = vumi_core::worker::Services::state(&*scene.engine).unwrap();
    let written = async {
        while store.load("ussd", "s1").await.unwrap().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let patience = vumi_core::conformance::stand_in::PATIENCE;
    tokio::time::timeout(patience, written).await.unwrap();
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
    let path = folder().join("ussd.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let with_id = text.replacen(
        "            toAddr:",
        "            id: \"{{ params.id }}\"\n            toAddr:",
        1,
    );
    let with_id = with_id.replacen("op, input]", "op, input]\n          optional: [id]", 1);
    let file = CaseFile::parse(&with_id, &path).unwrap();
    let mut scene = Scene::start(&file).await.unwrap();
    let first = r##"
- request: {path: /ussd, query: {user: "27820000001", session: s1, op: BEG, input: "*120*1#", id: "7"}}
  message: {session_event: new}
  reply: {content: what is your name?}
  response: {body: "<page><div>what is your name?</div><more/></page>"}
  event: {event_type: ack}
"##;
    play(&mut scene, first).await;
    let store = vumi_core::worker::Services::state(&*scene.engine).unwrap();
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
