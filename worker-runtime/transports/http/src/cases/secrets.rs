//! Secrets that are no secrets: nothing starts with them, and nothing passes by them.

use super::file::{CaseFile, Step};
use super::folder;
use super::scene::Scene;

async fn why(name: &str, change: impl FnOnce(&mut CaseFile)) -> String {
    let mut file = CaseFile::read(&folder().join(name)).unwrap();
    change(&mut file);
    match Scene::start(&file).await {
        Ok(_) => panic!("{name} starts"),
        Err(why) => why,
    }
}

fn signing(file: &mut CaseFile) -> &mut vumi_api::transports::generic_http::Signature {
    let vumi_api::Spec::Transport(transport) = &mut file.resource.spec else {
        panic!("no transport");
    };
    let generic = transport.generic_http.as_mut().unwrap();
    let access = generic.access.as_mut().unwrap();
    access.signature.as_mut().unwrap()
}

#[tokio::test]
async fn an_empty_secret_does_not_start() {
    let empty = why("airtel.yaml", |file| {
        let airtel = file.secrets.get_mut("airtel").unwrap();
        airtel.insert("password".into(), " ".into());
    });
    let says = empty.await;
    assert!(
        says.contains("\"password\" of Secret \"airtel\" is empty"),
        "{says}"
    );
    let says = why("signed.yaml", |file| {
        signing(file).secrets[1].value = Some(String::new());
    });
    let says = says.await;
    assert!(says.contains("empty"), "{says}");
}

/// Half of the credentials is none.
#[tokio::test]
async fn without_a_user_name_nobody_is_asked_for_the_password() {
    let mut file = CaseFile::read(&folder().join("airtel.yaml")).unwrap();
    let vumi_api::Spec::Transport(transport) = &mut file.resource.spec else {
        panic!("no transport");
    };
    let generic = transport.generic_http.as_mut().unwrap();
    let settings = generic.settings.as_mut().unwrap();
    settings.insert("username".into(), String::new());
    let mut scene = Scene::start(&file).await.unwrap();
    let step = r##"
request: {path: /airtel, query: {SessionID: a, MSISDN: "27820000001", MSC: m, input: "167*7"}}
message: {session_event: new}
reply: {content: menu}
response: {body: menu}
event: {event_type: ack}
"##;
    let step: Step = serde_yaml::from_str(step).unwrap();
    scene.step(&step).await.unwrap();
    scene.stop().await.unwrap();
}

#[tokio::test]
async fn a_key_that_only_begins_like_one_does_not_start() {
    let says = why("signed.yaml", |file| {
        signing(file).secrets[0].value = Some("whsec_c2hvcnQ=".into());
    });
    let says = says.await;
    assert!(
        says.contains("whsec_") && !says.contains("c2hvcnQ"),
        "{says}"
    );
}

/// An address that no message has a part in is wrong for all of them, and said when the worker starts.
#[tokio::test]
async fn an_address_of_settings_alone_is_judged_at_the_start() {
    let says = why("acme.yaml", |file| {
        let vumi_api::Spec::Transport(transport) = &mut file.resource.spec else {
            panic!("no transport");
        };
        let send = transport.generic_http.as_mut().unwrap().send.as_mut();
        send.unwrap().url = "ftp://{{ config.key }}/".into();
    });
    let says = says.await;
    assert!(says.contains("send.url must begin with http"), "{says}");
}
