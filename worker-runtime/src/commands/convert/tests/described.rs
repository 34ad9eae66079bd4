//! Transports of providers, which descriptions of `genericHttp` replace.

use super::*;
use serde_json::json;

#[test]
fn a_provider_that_is_described_gets_its_description() {
    let class = "vumi.transports.airtel.AirtelUSSDTransport";
    let text = "
transport_name: airtel_ug
web_path: api/ussd
web_port: 8000
airtel_username: partner
airtel_password: pass word
airtel_charge: true
airtel_charge_amount: 5
ussd_session_timeout: 300
to_addr_pattern: '\\*120\\*'
session_key_prefix: shared
validation_mode: strict
airtel_colour: red
redis_manager: {host: redis}
";
    let (made, lost) = one(class, text);
    let spec = &made["worker"];
    let described = &spec["genericHttp"];
    assert_eq!(
        described["settings"],
        json!({"username": "partner", "charge": "Y", "amount": "5", "to_addr_pattern": "\\*120\\*"})
    );
    let reference = json!({"secretKeyRef": {"name": "worker", "key": "airtel_password"}});
    assert_eq!(described["secrets"], json!({"password": reference}));
    assert_eq!(described["session"]["keep"], "300s");
    assert_eq!(described["requests"][0]["name"], "cleanup");
    assert_eq!(spec["http"], json!({"path": "/api/ussd", "port": 8000}));
    assert_eq!(made["secret worker"], yaml("{airtel_password: pass word}"));
    for part in [
        "airtel_colour is not converted: genericHttp has no setting",
        "session_key_prefix is not converted: sessions are kept under transportName",
        "validation_mode is not converted: parameters that the description does not name",
    ] {
        assert!(lost.iter().any(|l| l.contains(part)), "{part}: {lost:#?}");
    }
    // Without credentials nobody is asked for any; nor with half of them, as in Vumi.
    let open = "transport_name: a\nweb_path: a\nweb_port: 1\n";
    for (more, lost_key) in [
        ("", None),
        (
            "airtel_username: partner\n",
            Some("airtel_username is not converted: it stands without airtel_password"),
        ),
        (
            "airtel_password: pass word\nairtel_username: null\n",
            Some("airtel_password is not converted: it stands without airtel_username"),
        ),
    ] {
        let (made, lost) = one(class, &format!("{open}{more}"));
        let settings = &made["worker"]["genericHttp"]["settings"];
        assert_eq!(
            (&settings["username"], &settings["password"]),
            (&json!(""), &json!(""))
        );
        let said = lost.iter().filter(|l| l.contains("it stands without"));
        let said: Vec<_> = said.collect();
        assert_eq!(said.len(), usize::from(lost_key.is_some()), "{lost:#?}");
        assert!(said.iter().all(|l| l.contains(lost_key.unwrap())));
    }
}

#[test]
fn accounts_of_senders() {
    let text = "
transport_name: apposit
web_path: in
web_port: 8000
outbound_url: https://gateway.example/send
validation_mode: permissive
credentials:
  '8123': {username: one, password: p1, service_id: 77}
  '+251900': {username: two, password: p2, service_id: s, colour: red}
";
    let (made, lost) = one("vumi.transports.apposit.AppositTransport", text);
    let described = &made["worker"]["genericHttp"];
    assert_eq!(
        described["settings"],
        json!({"username_8123": "one", "service_8123": "77", "username_+251900": "two", "service_+251900": "s"})
    );
    let reference = |key| json!({"secretKeyRef": {"name": "worker", "key": key}});
    assert_eq!(
        described["secrets"],
        json!({"password_8123": reference("password_8123"), "password_+251900": reference("password_251900")})
    );
    assert_eq!(described["send"]["url"], "https://gateway.example/send");
    let secret = yaml("{password_8123: p1, password_251900: p2}");
    assert_eq!(made["secret worker"], secret);
    for part in [
        "credentials.….colour is not converted",
        "say `strict: false`",
    ] {
        assert!(lost.iter().any(|l| l.contains(part)), "{part}: {lost:#?}");
    }
    assert!(!lost.iter().any(|l| l.contains("251900")), "{lost:#?}");
}
