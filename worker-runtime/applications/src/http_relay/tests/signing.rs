//! Signatures by each secret while one replaces another, and the recipe of the page by which they are verified.

use super::*;
use std::time::{Duration, SystemTime};
use vumi_http::webhook::signing_key;
use vumi_http::{Encoding, Signed};

const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Whether a request has a right signature by this secret.
fn is_signed(request: &Request, secret: &str) -> bool {
    let (id, sent) = (
        header(request, "webhook-id"),
        header(request, "webhook-timestamp"),
    );
    let signed = Signed {
        id: Some(id),
        timestamp: Some(sent),
        body: &request.body,
    };
    let keys = [signing_key(secret).unwrap()];
    let given = header(request, "webhook-signature");
    let tolerance = Duration::from_secs(60);
    let now = SystemTime::now();
    let verified = signed.verify(given, "v1,", Encoding::Base64, &keys, tolerance, now);
    verified.is_ok()
}

#[tokio::test]
async fn either_secret_signs_while_one_replaces_the_other() {
    let endpoint = Endpoint::open(answer(204, &[], "")).await;
    let config = |keys: &[&str]| {
        let secrets: Vec<Value> = keys.iter().map(|key| of(key)).collect();
        json!({"url": endpoint.url(), "signing": {"secrets": secrets}})
    };
    let (one, two) = (
        relay(config(&["signing"])).await,
        relay(config(&["signing", "old"])).await,
    );
    let signed_by = async |relay: &Relay| {
        relay.says("m").await.unwrap();
        let seen = endpoint.take();
        [OLD, NEW].map(|secret| is_signed(&seen[0], secret))
    };
    assert_eq!(signed_by(&one).await, [true, false]);
    for relay in [&one, &two] {
        relay.cx.secrets().replace(secrets(NEW));
    }
    assert_eq!(signed_by(&one).await, [false, true], "without a restart");
    assert_eq!(signed_by(&two).await, [true, true]);
    // Half of a rotation: what cannot be signed waits, and is not sent without a signature.
    two.cx.secrets().replace(BTreeMap::new());
    let error = two.says("m").await.unwrap_err();
    assert_eq!(
        (error.class.label(), error.code.name),
        ("auth", "secret.missing")
    );
    assert_eq!(
        two.status(),
        (StatusLevel::Down, "endpoint_credentials".into())
    );
    two.cx.secrets().replace(secrets(""));
    let error = two.says("m").await.unwrap_err();
    assert_eq!(
        (error.class.label(), error.code.name),
        ("auth", "secret.empty")
    );
    assert!(endpoint.take().is_empty(), "nothing goes out unsigned");
    two.cx.secrets().replace(secrets("change-me"));
    let error = two.says("m").await.unwrap_err();
    assert_eq!(
        (error.class.label(), error.code.name),
        ("auth", "config.invalid")
    );
    assert!(!error.text.contains("change-me"));
    assert!(endpoint.take().is_empty());
    // At the start it is said at once.
    let error = built("crm", config(&["password"])).await.err().unwrap();
    assert_eq!(
        (error.class.label(), error.code.name),
        ("config", "config.invalid")
    );
}

#[tokio::test]
async fn an_empty_secret_does_not_start() {
    let empty = json!({"value": ""});
    for config in [
        json!({"url": "http://127.0.0.1:9/", "auth": {"username": "me", "password": empty}}),
        json!({"url": "http://127.0.0.1:9/", "signing": {"secrets": [of("signing"), empty]}}),
    ] {
        let error = built("crm", config).await.err().expect("it does not start");
        assert_eq!(
            (error.class.label(), error.code.name),
            ("config", "secret.empty")
        );
    }
}

/// The recipe of the page is run over the published vectors, with what must be right and what must not.
#[test]
fn the_recipe_in_the_documentation_verifies_the_vectors() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/webhooks.md")).unwrap();
    let recipe = page.split("```python\n").nth(1).unwrap();
    let recipe = recipe.split("```").next().unwrap();
    let vectors = root.join("docs/webhook-vectors.json");
    let check = format!(
        r#"{recipe}
import json, sys
vectors = json.load(open(sys.argv[1], encoding="utf-8"))
other = "whsec_" + base64.b64encode(b"x" * 32).decode()
for vector in vectors:
    body, sent = vector["body"].encode(), vector["timestamp"]
    headers = {{"webhook-id": vector["id"], "webhook-timestamp": str(sent), "webhook-signature": vector["signature"]}}
    for secret in vector["secrets"]:
        assert verify(secret, headers, body, now=sent + 300), vector["name"]
        assert not verify(secret, headers, body, now=sent + 301), "too old"
        assert not verify(secret, headers, body, now=sent - 301), "of the future"
        assert not verify(secret, headers, body + b" ", now=sent), "another body"
        assert not verify(secret, {{**headers, "webhook-id": "x"}}, body, now=sent), "another id"
    assert not verify(other, headers, body, now=sent), "another secret"
    for name in headers:
        for bad in ("", "x", "v1,", "v1", "1e9", "-1", "\u0661\u0662", "\u20ac\udcff", "9" * 5000, " ", "v1,\u00e9 v2,=="):
            assert not verify(vector["secrets"][0], {{**headers, name: bad}}, body, now=sent), (name, bad)
        lacks = {{key: value for key, value in headers.items() if key != name}}
        assert not verify(vector["secrets"][0], lacks, body, now=sent), "without " + name
    assert not verify(vector["secrets"][0], {{}}, body, now=sent), "without any"
print(len(vectors))
"#
    );
    let python = vumi_testkit::python_with("hmac").expect("python3 runs the recipe");
    let output = std::process::Command::new(python)
        .args(["-B", "-c", &check])
        .arg(vectors)
        .output()
        .expect("python3 runs the recipe");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "6");
}
