//! Lists whose order has a meaning, before a real API server: of two writers who apply one, the last one's is there as a whole.

use serde_json::{Value, json};
use vumi_testkit::kubernetes::ApiServer;

/// The fields that a manager holds.
fn held<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let mut entries = object["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter();
    let entry = entries.find(|entry| entry["manager"] == manager);
    entry.map_or(&Value::Null, |entry| &entry["fieldsV1"])
}

pub fn lists_of_two_writers_are_not_merged(server: &ApiServer) {
    let log = |name: &str, level: &str| json!({"name": name, "logging": {"level": level}});
    let middleware = |items: Value| json!({"devNull": {}, "middleware": items});
    let transports =
        |names: &[&str]| json!({"simple": {"transports": names, "exposed": ["survey"]}});
    for (kind, list, field, first, second) in [
        (
            "Transport",
            "/spec/middleware",
            "/f:spec/f:middleware",
            middleware(json!([
                log("a", "info"),
                log("b", "warn"),
                log("c", "info")
            ])),
            // Another order, one item changed, one gone.
            middleware(json!([log("b", "info"), log("a", "info")])),
        ),
        (
            "Dispatcher",
            "/spec/simple/transports",
            "/f:spec/f:simple/f:transports",
            transports(&["telnet", "sms"]),
            transports(&["sms", "ussd", "telnet"]),
        ),
    ] {
        let object = |spec: &Value| {
            json!({
                "apiVersion": "vumi.dev/v1alpha1", "kind": kind,
                "metadata": {"name": "listed", "namespace": "default"}, "spec": spec,
            })
        };
        let apply = |spec: &Value, manager: &str, more: &str| {
            server.apply_as(&object(spec), manager, more).unwrap()
        };
        let (status, answer) = apply(&first, "one", "");
        assert_eq!(status, 201, "{kind}: {}", answer["message"]);
        assert_eq!(held(&answer, "one").pointer(field), Some(&json!({})));
        // Who does not insist is told whose it is.
        let (status, answer) = apply(&second, "two", "");
        let message = answer["message"].as_str().unwrap_or_default();
        assert_eq!(status, 409, "{kind}: {message}");
        let name = list.rsplit('/').next().unwrap();
        assert!(message.contains(&format!(".{name}")), "{kind}: {message}");
        let (status, answer) = apply(&second, "two", "&force=true");
        assert_eq!(status, 200, "{kind}: {}", answer["message"]);
        let wanted = object(&second);
        assert_eq!(answer.pointer(list), wanted.pointer(list), "{kind}");
        assert_eq!(held(&answer, "one").pointer(field), None, "{kind}");
        assert_eq!(held(&answer, "two").pointer(field), Some(&json!({})));
    }
}
