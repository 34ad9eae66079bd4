//! Settings whose values are said in another way, or cannot be said.

use super::*;

#[test]
fn session_length_keeps_its_times_in_the_store() {
    let text = "
transport_name: t
telnet_port: 9010
middleware: [{length: vumi.middleware.session_length.SessionLengthMiddleware}]
length: {timeout: 120, namespace_type: transport_name, field_name: call, redis_manager: {host: redis}, colour: red}
";
    let (made, lost) = one("vumi.transports.telnet.TelnetServerTransport", text);
    let spec = yaml(
        "telnet: {port: 9010}
transportName: t
state: {redis: {secretRef: {name: worker-redis}, keyPrefix: ''}}
middleware: [{name: length, sessionLength: {sessionTimeout: 120s, namespace: transportName, fieldName: call}}]",
    );
    assert_eq!(made["worker"], spec);
    let named = lost
        .iter()
        .any(|l| l.contains("length.colour is not converted"));
    assert!(named, "{lost:#?}");
}

#[test]
fn a_separator_of_keys_is_kept_where_it_has_an_effect() {
    let class = "vumi.demos.hangman.HangmanWorker";
    for (manager, redis) in [
        (
            "key_prefix: demo, key_separator: '/'",
            "keyPrefix: demo, keySeparator: '/'",
        ),
        ("key_prefix: demo, key_separator: ':'", "keyPrefix: demo"),
        ("key_separator: '/'", "keyPrefix: ''"),
    ] {
        let text = format!(
            "transport_name: t\nworker_name: w\nrandom_word_url: http://words\nredis_manager: {{{manager}}}\n"
        );
        let (made, lost) = one(class, &text);
        let redis = yaml(&format!("{{secretRef: {{name: worker-redis}}, {redis}}}"));
        assert_eq!(made["worker"]["state"]["redis"], redis, "{manager}");
        assert!(
            !lost.iter().any(|l| l.contains("redis_manager")),
            "{lost:#?}"
        );
    }
}

#[test]
fn values_that_cannot_be_said_are_named_without_the_value() {
    let class = Some("vumi.transports.devnull.DevNullTransport");
    let set = [
        "transport_name:d",
        "ack_rate:0.123",
        "failure_rate:many",
        "reply_rate:-1",
    ];
    let (files, lost) = convert(&read(&[], class, &set), false);
    for key in ["ack_rate", "failure_rate", "reply_rate"] {
        let named = lost
            .iter()
            .any(|l| l.contains(&format!("{key} is not converted: ")));
        assert!(named && files[0].1.contains(key), "{key}: {lost:?}");
    }
    let class = Some("vumi2.applications.StaticReplyApplication");
    let (_, lost) = convert(&read(&[], class, &["reply_text:Hello {user}"]), false);
    assert!(
        lost.iter()
            .any(|l| l.contains("{user} and {now} would be filled in"))
    );
    let class = Some("vumi.demos.static_reply.StaticReplyApplication");
    let (files, lost) = convert(&read(&[], class, &["reply_text:Hello {user}"]), false);
    assert!(!lost.iter().any(|l| l.contains("reply_text")), "{lost:?}");
    assert!(files[0].1.contains("Hello {user}"), "{}", files[0].1);
}

/// `no` is a word to YAML 1.2, and false to the reader that Vumi has.
#[test]
fn an_unquoted_no_is_false_as_it_was() {
    let api = "vumi.transports.api.HttpApiTransport";
    let airtel = "vumi.transports.airtel.AirtelUSSDTransport";
    let common = "transport_name: a\nweb_path: a\nweb_port: 1\n";
    let of = |class: &str, line: &str| {
        let (made, _) = one(class, &format!("{common}{line}\n"));
        made["worker"].clone()
    };
    for (written, expects, charges) in [
        ("no", false, "N"),
        ("Off", false, "N"),
        ("false", false, "N"),
        ("yes", true, "Y"),
        ("ON", true, "Y"),
        // A text, of which only `false`, `0` and nothing are false.
        ("'no'", true, "Y"),
    ] {
        let spec = of(api, &format!("reply_expected: {written}"));
        assert_eq!(spec["httpApi"]["replyExpected"], expects, "{written}");
        let spec = of(airtel, &format!("airtel_charge: {written}"));
        assert_eq!(
            spec["genericHttp"]["settings"]["charge"], charges,
            "{written}"
        );
    }
    // Options on a command line are texts in Vumi, too.
    let (texts, _) = made(&read(&[], Some(api), &["reply_expected:no"]), false);
    assert_eq!(texts["httpapitransport"]["httpApi"]["replyExpected"], true);
}
