//! Answers that are too long to be kept, and requests of theirs that come again.

use super::file::CaseFile;
use super::{folder, logged, run};

/// More than is kept of an answer.
fn long() -> String {
    "thank you ".repeat(200)
}

fn passes(yaml: &str) {
    let file = CaseFile::parse(yaml, &folder().join("long.yaml")).unwrap();
    for case in &file.cases {
        let done = logged(&file, run(&file, case));
        assert_eq!(done, Ok(()), "{}", case.name);
    }
}

/// The steps of a request that comes twice: as it is, or with what is between.
fn twice(request: &str, first: &str, second: &str) -> String {
    format!(
        "cases:\n  - name: it comes again\n    steps:\n      - request: {request}\n        message: {{content: hello there}}\n{first}\n      - request: {request}\n        response: {second}\n"
    )
}

/// What follows from the request is made again, to the same letters, and makes no second message.
#[test]
fn an_answer_that_follows_from_the_request_is_made_again() {
    let manifest = "manifest: |\n  apiVersion: vumi.dev/v1alpha1\n  kind: Transport\n  metadata: {name: long}\n  spec:\n    genericHttp:\n      requests:\n        - name: sms\n          message: {fromAddr: '{{ params.from }}', toAddr: '8123', content: '{{ params.text }}', id: '{{ params.id }}'}\n          answer: {body: 'LONG{{ message.message_id }}'}\n    http: {host: 127.0.0.1, port: 8090}\n";
    let manifest = manifest.replace("LONG", &long());
    let request = "{path: /, query: {from: '27820000001', text: hello there, id: m-1}}";
    let id = vumi_core::message::derived_id(&["inbound", "long", "m-1"]);
    let answer = format!("{{status: 200, body: '{}{id}'}}", long());
    let first = format!("        response: {answer}");
    passes(&format!("{manifest}{}", twice(request, &first, &answer)));
}

/// A reply is not kept, and nobody can make it again: the repeat hears that there was one.
#[test]
fn in_the_place_of_a_reply_stands_that_there_was_one() {
    let manifest = "manifest: |\n  apiVersion: vumi.dev/v1alpha1\n  kind: Transport\n  metadata: {name: long}\n  spec:\n    httpRpc: {idField: id}\n    http: {host: 127.0.0.1, port: 8090}\n";
    let request = "{path: /, query: {from_addr: '27820000001', to_addr: '8123', content: hello there, id: m-1}}";
    for (reply, again) in [
        (long(), "{status: 410}".to_owned()),
        (
            "thank you".to_owned(),
            "{status: 200, body: thank you}".to_owned(),
        ),
    ] {
        let first = format!(
            "        reply: {{content: '{reply}'}}\n        response: {{status: 200, body: '{reply}'}}\n        event: {{event_type: ack}}"
        );
        passes(&format!("{manifest}{}", twice(request, &first, &again)));
    }
}
