//! Requests that are answered at once: fields, methods, paths, credentials, and what the broker says.

use super::*;
use vumi_core::telemetry::HttpSeen;

const GOOD: &str = "/?content=hi&to_addr=555&from_addr=123";

fn form() -> &'static str {
    "Content-Type: application/x-www-form-urlencoded\r\n"
}

#[tokio::test]
async fn a_request_becomes_a_message_and_gets_its_id() {
    let server = server(json!({}), json!({})).await;
    let got = server
        .get(&format!("{GOOD}&group=%23g&session_event=new"))
        .await;
    assert_eq!(got.status, 200);
    assert!(got.says_json(), "{}", got.head);
    let message = server.inbound(0).await;
    assert_eq!(got.json(), json!({"message_id": message.message_id()}));
    assert_eq!(message.content(), Some("hi"));
    assert_eq!(message.to_addr(), Some("555"));
    assert_eq!(message.from_addr(), Some("123"));
    assert_eq!(message.group(), Some("#g"));
    assert_eq!(message.session_event(), Some(SessionEvent::New));
    assert_eq!(message.transport_name(), Some("api"));
    assert_eq!(message.field("transport_type"), Some(&json!("http_api")));
    assert_eq!(message.field("transport_metadata"), Some(&json!({})));
    assert_eq!(message.field("provider"), Some(&Value::Null));
    UserMessage::decode(&message.encode()).unwrap();
}

#[tokio::test]
async fn get_post_and_put_count_and_forms_and_json_only_for_post() {
    let server = server(json!({}), json!({})).await;
    let body = "content=Zo%C3%AB&to_addr=5&from_addr=1".as_bytes();
    let posted = server.call("POST /?content=query", form(), body).await;
    assert_eq!(posted.status, 200);
    assert_eq!(server.inbound(0).await.content(), Some("Zoë"));
    let put = server.call(&format!("PUT {GOOD}"), form(), body).await;
    assert_eq!(put.status, 200);
    assert_eq!(server.inbound(1).await.content(), Some("hi"));
    let json = r#"{"content": "☃", "to_addr": "5", "from_addr": "1", "group": null}"#;
    let kind = "Content-Type: application/json\r\n";
    let posted = server.call("POST /", kind, json.as_bytes()).await;
    assert_eq!(posted.status, 200);
    assert_eq!(server.inbound(2).await.content(), Some("☃"));
    let chunked =
        "Transfer-Encoding: chunked\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let mut bytes = request("POST /?to_addr=5&from_addr=1", chunked, b"");
    bytes.extend_from_slice(b"9\r\ncontent=c\r\n6\r\nhunked\r\n0\r\n\r\n");
    let got = read_all(&mut server.open(&bytes).await).await;
    assert_eq!(got.status, 200);
    assert_eq!(server.inbound(3).await.content(), Some("chunked"));
}

#[tokio::test]
async fn findings_are_listed_all_at_once() {
    let server = server(json!({}), json!({})).await;
    for (query, expected) in [
        (
            "/?content=hi&to_addr=5&from_addr=1&foo=b",
            json!({"unexpected_parameter": ["foo"]}),
        ),
        (
            "/?content=hi",
            json!({"missing_parameter": ["to_addr", "from_addr"]}),
        ),
        (
            "/",
            json!({"missing_parameter": ["content", "to_addr", "from_addr"]}),
        ),
        (
            "/?content=hi&to_addr=5&x=1&y=2&session_event=later",
            json!({"unexpected_parameter": ["x", "y"], "missing_parameter": ["from_addr"], "invalid_parameter": ["session_event"]}),
        ),
        (
            "/?content=hi&to_addr=&from_addr=+",
            json!({"invalid_parameter": ["to_addr", "from_addr"]}),
        ),
        (
            "/?content=%E9&to_addr=5&from_addr=1",
            json!({"invalid_parameter": ["content"]}),
        ),
        (
            "/?content=hi&to_addr=5&from_addr=1&group=%FF",
            json!({"invalid_parameter": ["group"]}),
        ),
        (
            "/?content=hi&to_addr=5&from_addr=1&message_id=x",
            json!({"unexpected_parameter": ["message_id"]}),
        ),
    ] {
        let got = server.get(query).await;
        assert_eq!(got.status, 400, "{query}");
        assert!(got.says_json(), "{}", got.head);
        assert_eq!(got.json(), expected, "{query}");
    }
    assert_eq!(server.engine.outputs().len(), 0);
    let repeated = server.get(&format!("{GOOD}&content=second")).await;
    assert_eq!(repeated.status, 200);
    assert_eq!(server.inbound(0).await.content(), Some("hi"));
    let empty = server.get("/?content=&to_addr=5&from_addr=1").await;
    assert_eq!(empty.status, 200, "presence is enough");
}

#[tokio::test]
async fn fields_are_allowed_and_defaulted_as_configured() {
    let config = json!({
        "allowedFields": ["content", "from_addr", "provider", "message_id"],
        "fieldDefaults": {"to_addr": "9", "transport_type": "sms", "provider": "acme"},
    });
    let server = server(config, json!({})).await;
    assert_eq!(server.get("/?content=hi&from_addr=1").await.status, 200);
    let message = server.inbound(0).await;
    assert_eq!(message.to_addr(), Some("9"));
    assert_eq!(message.field("transport_type"), Some(&json!("sms")));
    assert_eq!(message.field("provider"), Some(&json!("acme")));
    let got = server
        .get("/?content=hi&from_addr=1&provider=other&message_id=mine")
        .await;
    assert_eq!(got.json(), json!({"message_id": "mine"}));
    let message = server.inbound(1).await;
    assert_eq!(message.field("provider"), Some(&json!("other")));
    assert_eq!(message.message_id(), "mine");
    let got = server.get("/?content=hi&from_addr=1&to_addr=5").await;
    assert_eq!(got.json(), json!({"unexpected_parameter": ["to_addr"]}));
}

#[tokio::test]
async fn a_required_field_that_nobody_may_set_is_null() {
    let server = server(json!({"allowedFields": ["content"]}), json!({})).await;
    assert_eq!(server.get("/?content=hi").await.status, 200);
    assert_eq!(server.inbound(0).await.to_addr(), None);
}

#[tokio::test]
async fn the_callers_id_makes_repeats_recognisable() {
    let server = server(json!({"idField": "id"}), json!({})).await;
    let first = server.get(&format!("{GOOD}&id=7")).await;
    let again = server.get(&format!("{GOOD}&id=7")).await;
    let other = server.get(&format!("{GOOD}&id=8")).await;
    let none = server.get(GOOD).await;
    assert_eq!(first.json(), again.json());
    assert_ne!(first.json(), other.json());
    assert_eq!(none.status, 200);
    let empty = server.get(&format!("{GOOD}&id=")).await;
    assert_eq!(empty.json(), json!({"invalid_parameter": ["id"]}));
}

#[tokio::test]
async fn configurations_that_cannot_work_do_not_build() {
    for spec in [
        json!({"httpApi": {}}),
        json!({"httpApi": {}, "http": {"port": 8080, "auth": {"username": "a", "password": {"secretKeyRef": {"name": "none", "key": "k"}}}}}),
        json!({"httpApi": {}, "http": {"port": 8080, "auth": {"username": "a", "password": {"value": ""}}}}),
    ] {
        let error = built(&StandIn::new(), "one", spec.clone()).await.err();
        let error = error.unwrap_or_else(|| panic!("{spec} builds"));
        assert_eq!(error.class, ErrorClass::Config, "{spec}");
    }
}

#[tokio::test]
async fn paths_and_methods() {
    let http = json!({"path": "/api/messages/", "healthPath": "/up"});
    let server = server(json!({}), http).await;
    let query = "?content=hi&to_addr=555&from_addr=123";
    for (method, path, status) in [
        ("GET", "/api/messages", 200),
        ("GET", "/api/messages/", 200),
        ("GET", "/api/messages/below", 200),
        ("GET", "/api/messagesX", 404),
        ("GET", "/", 404),
        ("GET", "/up", 200),
        ("GET", "/up/", 200),
        ("POST", "/up", 405),
        ("HEAD", "/api/messages", 200),
        ("HEAD", "/api/messagesX", 404),
        ("HEAD", "/up", 200),
        ("DELETE", "/api/messages", 405),
        ("OPTIONS", "/api/messages", 405),
    ] {
        let got = server
            .call(&format!("{method} {path}{query}"), "", b"")
            .await;
        assert_eq!(got.status, status, "{method} {path}");
        assert!(method == "HEAD" || got.json().is_object());
        assert!(got.says_json() || method == "HEAD", "{}", got.head);
        assert!(got.body.is_empty() || method != "HEAD", "{}", got.body);
        assert_eq!(
            got.head.contains("allow: get"),
            status == 405,
            "{}",
            got.head
        );
    }
    assert_eq!(server.engine.outputs().len(), 3);
    assert_eq!(
        server.get("/up").await.json(),
        json!({"pending_requests": 0})
    );
}

#[tokio::test]
async fn credentials_guard_the_messages_but_not_the_health() {
    let auth = json!({"auth": {"username": "ada", "password": {"value": "love%lace"}}});
    let server = server(json!({}), auth).await;
    let got = server.get(GOOD).await;
    assert_eq!(got.error(401), "unauthorized");
    assert!(
        got.head.contains("www-authenticate: basic realm="),
        "{}",
        got.head
    );
    let wrong = "Authorization: Basic YWRhOndyb25n\r\n";
    assert_eq!(
        server.call(&format!("GET {GOOD}"), wrong, b"").await.status,
        401
    );
    let right = "Authorization: Basic YWRhOmxvdmUlbGFjZQ==\r\n";
    assert_eq!(
        server.call(&format!("GET {GOOD}"), right, b"").await.status,
        200
    );
    assert_eq!(server.get("/health").await.status, 200);
    assert_eq!(server.engine.outputs().len(), 1);
    assert_eq!(server.get("/health/x").await.status, 200);
    let counted = server.engine.counted().into_iter();
    let results: Vec<_> = counted
        .filter_map(|seen| match seen {
            HttpSeen::Request { result, .. } => Some(result),
            _ => None,
        })
        .collect();
    assert_eq!(results, ["4xx", "4xx", "2xx"], "health is no traffic");
}

#[tokio::test]
async fn what_the_broker_refuses_is_never_ok() {
    let server = server(json!({}), json!({})).await;
    let waits = ErrorClass::Throttled(Some(Duration::from_secs(7)));
    for (class, code, status, retry) in [
        (
            ErrorClass::Connect,
            codes::BROKER_UNREACHABLE,
            503,
            Some("5"),
        ),
        (waits, codes::BACKLOG_FULL, 503, Some("7")),
        (
            ErrorClass::Unroutable,
            codes::ROUTE_NO_QUEUE,
            503,
            Some("5"),
        ),
        (ErrorClass::BadInput, codes::MESSAGE_INVALID, 400, None),
        (ErrorClass::BadInput, codes::MESSAGE_TOO_LARGE, 413, None),
    ] {
        let error = WorkError::new(class, code, "amqp://user@secret-host is away");
        server.engine.refuse(Some(error));
        let got = server.get(GOOD).await;
        assert_eq!(got.status, status, "{class:?}");
        assert_eq!(got.json()["error"], code.name);
        assert!(!got.body.contains("secret-host"), "{}", got.body);
        let header = retry.map(|seconds| format!("retry-after: {seconds}"));
        assert_eq!(header.is_some(), got.head.contains("retry-after"));
        assert!(header.is_none_or(|h| got.head.contains(&h)), "{}", got.head);
    }
    server.engine.refuse(None);
    assert_eq!(server.get(GOOD).await.status, 200);
}

#[tokio::test]
async fn a_broker_that_does_not_confirm_is_503_within_the_deadline() {
    let server = server(json!({}), json!({"requestTimeout": "100ms"})).await;
    server.engine.hang(true);
    let got = server.get(GOOD).await;
    assert_eq!(got.status, 503);
    assert_eq!(got.json()["error"], codes::BROKER_UNREACHABLE.name);
}

#[tokio::test]
async fn replies_that_nobody_expects_get_a_nack() {
    let server = server(json!({}), json!({})).await;
    server.get(GOOD).await;
    let reply = server.inbound(0).await.reply("a", 0, Some("x"), false);
    let event = event(server.outbound(&reply).await);
    assert_eq!(event.event_type(), EventType::Nack);
    assert_eq!(event.fate().unwrap().code, codes::REPLY_NOT_EXPECTED.name);
}

#[tokio::test]
async fn the_listener_is_reported() {
    let server = server(json!({}), json!({})).await;
    server.get(GOOD).await;
    let reports = server.engine.reports();
    assert_eq!(reports[0].component, "listener");
    assert_eq!(reports[0].level, StatusLevel::Ok);
    assert_eq!(reports[1].reason, "response_sent");
    server.stop().await;
}
