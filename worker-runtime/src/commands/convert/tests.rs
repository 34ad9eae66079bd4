//! Realistic configurations become manifests that lint accepts, and whatever is lost is named.

use super::inputs::{self, Found};
use super::table::{self, TABLE};
use super::{Arguments, convert};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vumi_api::{Target, WorkerType};

struct Folder(tempfile::TempDir);

impl Folder {
    fn of(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<Found> {
        read(&[self.path(name)], None, &[])
    }
}

fn read(files: &[PathBuf], class: Option<&str>, set: &[&str]) -> Vec<Found> {
    inputs::read(&arguments(files, class, set)).unwrap()
}

fn arguments(files: &[PathBuf], class: Option<&str>, set: &[&str]) -> Arguments {
    Arguments {
        files: files.to_vec(),
        worker_class: class.map(str::to_owned),
        set_option: set.iter().map(|option| (*option).to_owned()).collect(),
        name: None,
        beside: false,
        out: None,
    }
}

/// The `spec` of each manifest, Secrets by their data, by name; and what was lost. What is made is valid but for what is
/// named as lost.
fn made(found: &[Found], beside: bool) -> (BTreeMap<String, Value>, Vec<String>) {
    let (files, notes) = convert(found, beside);
    let mut made = BTreeMap::new();
    for (_, text) in &files {
        for document in text.split("---\n") {
            let value: Value = serde_yaml::from_str(document).unwrap();
            let name = value["metadata"]["name"].as_str().unwrap().to_owned();
            let held = match value["kind"].as_str() {
                Some("Secret") => ("secret ".to_owned() + &name, value["stringData"].clone()),
                _ => (name, value["spec"].clone()),
            };
            made.insert(held.0, held.1);
        }
    }
    (made, notes)
}

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

#[test]
fn the_table_fits_the_types() {
    for row in &TABLE.workers {
        let known = WorkerType::find(&row.key).unwrap_or_else(|| panic!("no type {}", row.key));
        assert_eq!(known.kind.as_str(), row.kind);
        let schema = vumi_api::crds::spec_schema(known.kind);
        let sets = |rule: &&table::Rule| rule.drop.is_none() && rule.lost.is_none();
        for rule in row.keys.values().filter(sets) {
            assert!(
                has(schema, schema, &rule.to),
                "{} has no {}",
                row.key,
                rule.to
            );
        }
    }
    let transports = vumi_api::crds::spec_schema(vumi_api::Kind::Transport);
    for rule in TABLE.http.values().filter(|rule| rule.drop.is_none()) {
        assert!(has(transports, transports, &rule.to), "{}", rule.to);
    }
    let dropped = [&TABLE.channel, &TABLE.program];
    assert!(dropped.iter().all(|keys| {
        keys.values()
            .all(|rule| rule.drop.is_some() || rule.lost.is_some())
    }));
}

/// Whether a schema has a field at a dotted path.
fn has(root: &Value, schema: &Value, path: &str) -> bool {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let found = root.pointer(reference.trim_start_matches('#'));
        return found.is_some_and(|found| has(root, found, path));
    }
    let variants = schema.get("anyOf").and_then(Value::as_array);
    if variants.is_some_and(|variants| variants.iter().any(|one| has(root, one, path))) {
        return true;
    }
    let (key, rest) = match path.split_once('.') {
        Some((key, rest)) => (key, Some(rest)),
        None => (path, None),
    };
    let property = schema.get("properties").and_then(|all| all.get(key));
    let property = property.or_else(|| {
        let others = schema.get("additionalProperties")?;
        others.is_object().then_some(others)
    });
    match (property, rest) {
        (Some(property), Some(rest)) => has(root, property, rest),
        (found, None) => found.is_some(),
        (None, _) => false,
    }
}

const SUPERVISORD: &str = r#"
[inet_http_server] ; inet (TCP) server
port=127.0.0.1:9010 ; (ip_address:port specifier)

[supervisord]
pidfile=./tmp/pids/supervisord.pid

[program:sms_in]
command=twistd -n
    --pidfile=./tmp/pids/%(program_name)s.pid
    vumi_worker
    --hostname=rabbit --vhost=/za --password='se cret'
    --worker-class=vumi.transports.api.HttpApiTransport
    --config=%(here)s/config/%(program_name)s.yaml
    --set-option=web_port:8123
    --sentry=http://sentry
stdout_logfile=./logs/%(program_name)s_%(process_num)s.log
autorestart=true
numprocs=2
environment=PYTHONPATH="."

[program:hangman]
directory=config
command=python bin/twistd -n vumi_worker --worker-class vumi.demos.hangman.HangmanWorker --config hangman.yaml

[program:transport]
command=twistd -n vumi_worker --worker-class=vumi.transports.smpp.SmppTransport --config=none.yaml

[program:smsc]
command=java
    -jar smppsim.jar
"#;

const HTTP: &str = "
transport_name: sms_api
worker_name: sms_in
amqp_prefetch_count: 100
publish_status: true
web_path: api/v1
web_port: 8000
web_username: partner
web_password: 0123
web_auth_domain: Partners
request_timeout: '30'
request_cleanup_interval: 5
request_timeout_status_code: 408
request_timeout_body: too late
response_time_down: 10.0
reply_expected: 'yes'
allowed_fields: [content, to_addr, from_addr]
field_defaults: !include defaults.yaml
middleware:
  - audit: vumi.middleware.logging.LoggingMiddleware
  - numbers: {class: vumi.middleware.address_translator.AddressTranslationMiddleware, consume_priority: 2}
  - tags: vumi.middleware.tagger.TaggingMiddleware
audit: {log_level: warning, failure_log_level: error, colour: blue}
numbers: {outbound_map: {'555': '27820000555'}}
tags: {incoming: {}}
web_prot: 1
";

#[test]
fn a_supervisord_file_with_several_programs() {
    let folder = Folder::of(&[
        ("etc/supervisord.conf", SUPERVISORD),
        ("etc/config/sms_in.yaml", HTTP),
        ("etc/config/defaults.yaml", "provider: acme\n"),
        (
            "etc/config/hangman.yaml",
            "transport_name: telnet\nworker_name: hang_man\nrandom_word_url: http://words\nredis_manager: {host: redis, db: 3, key_prefix: demo}\n",
        ),
    ]);
    let smpp = folder.path("none.yaml");
    std::fs::write(&smpp, "transport_name: x\n").unwrap();
    let conf = SUPERVISORD.replace("none.yaml", smpp.to_str().unwrap());
    std::fs::write(folder.path("etc/supervisord.conf"), conf).unwrap();
    let found = folder.read("etc/supervisord.conf");
    let (made, lost) = made(&found, false);
    let http = yaml(
        "httpApi: {replyExpected: true, allowedFields: [content, to_addr, from_addr], fieldDefaults: {provider: acme}}
transportName: sms_api
http:
  path: /api/v1
  port: 8123
  requestTimeout: 30s
  timeoutStatus: 408
  timeoutBody: too late
  downAfter: 10s
  auth: {username: partner, password: {secretKeyRef: {name: sms-in, key: web_password}}}
middleware:
  - {name: audit, logging: {level: warn}}
  - {name: numbers, consumePriority: 2, addressTranslation: {outboundMap: {'555': '27820000555'}}}
broker: {vhost: /za, secretRef: {name: vumi-broker}}",
    );
    assert_eq!(made["sms-in"], http);
    let hangman = yaml(
        "hangman: {workerName: hang_man}
transportName: telnet
state: {redis: {secretRef: {name: hangman-redis}, keyPrefix: demo}}",
    );
    assert_eq!(made["hangman"], hangman);
    let broker = yaml("{host: rabbit, password: se cret, port: '5672', username: vumi}");
    assert_eq!(made["secret vumi-broker"], broker);
    let redis = yaml("{host: redis, db: '3'}");
    assert_eq!(made["secret hangman-redis"], redis);
    assert_eq!(made["secret sms-in"], yaml("{web_password: '0123'}"));
    assert_eq!(made.len(), 5);
    let expected = [
        "program:sms_in: environment is not converted: nothing has its meaning",
        "program:sms_in: numprocs 2 is not converted: run as many replicas",
        "program:sms_in: middleware tags is not converted: vumi.middleware.tagger.TaggingMiddleware has no counterpart in this version",
        "program:sms_in: audit.colour is not converted: logging has no setting for it",
        "program:sms_in: web_prot is not converted: httpApi has no setting for it",
        "program:sms_in: --sentry is not converted: errors are logged and counted",
        "program:transport: vumi.transports.smpp.SmppTransport has no counterpart in this version",
        "program:smsc: it runs no Vumi worker; leave it to supervisord",
        "program:hangman: random_word_url is not converted: words come from hangman.words",
    ];
    for part in expected {
        assert!(
            lost.iter().any(|lost| lost.contains(part)),
            "{part} is not in {lost:#?}"
        );
    }
    let ours = lost.iter().filter(|lost| lost.contains("program:"));
    assert_eq!(ours.count(), expected.len(), "{lost:#?}");
    assert!(
        !lost
            .iter()
            .any(|lost| lost.contains("0123") || lost.contains("se cret"))
    );
    // What is not needed is in the manifest, with the reason.
    let (files, _) = convert(&found, false);
    let text = &files
        .iter()
        .find(|(name, _)| name == "sms-in.yaml")
        .unwrap()
        .1;
    for part in [
        "# From ",
        "# Not needed: amqp_prefetch_count: the window is chosen by the runtime",
        "# Not needed: web_auth_domain: ",
        "# Not needed: stdout_logfile: ",
        "# Not needed: audit.failure_log_level: ",
        "# web_prot is not converted",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    for part in [
        "response_time_down",
        "publish_status",
        "autorestart",
        "0123",
    ] {
        assert!(!text.contains(part), "{part} is in\n{text}");
    }
}

/// What stands beside the programs is converted or named as well.
#[test]
fn a_supervisord_file_that_includes_groups_and_counts() {
    let worker = "command=twistd -n vumi_worker --worker-class=vumi.demos.words.EchoWorker";
    let main = format!(
        "stray\n[supervisord]\nenvironment=A=b\n[unix_http_server]\nfile=/tmp/s\n[include]\nfiles = conf.d/*.conf none/*.conf\n[group:survey]\nprograms=a,b\npriority=5\n[program:a]\n{worker} --set-option=transport_name:sms_%(process_num)02d\nnumprocs=2\nnumprocs_start=3\n[eventlistener:x]\ncommand=y\n"
    );
    let inner = format!(
        "[include]\nfiles=more.conf\n[program:b]\n{worker} --set-option=transport_name:sms\n"
    );
    let folder = Folder::of(&[("super.conf", &main), ("conf.d/b.conf", &inner)]);
    let found = folder.read("super.conf");
    let (made, lost) = made(&found, false);
    let names: Vec<&str> = made.keys().map(String::as_str).collect();
    assert_eq!(names, ["a-3", "a-4", "b"], "{lost:#?}");
    assert_eq!(made["a-4"], yaml("{echo: {}, transportName: sms_04}"));
    assert_eq!(made["b"], yaml("{echo: {}, transportName: sms}"));
    for part in [
        "super.conf: line 1 is not converted",
        "super.conf: environment of [supervisord] is not converted",
        "super.conf: [include] none/*.conf is not converted: there is no such file",
        "super.conf: group:survey is not converted: a,b start and stop together there",
        "super.conf: [eventlistener:x] is not converted",
        "b.conf: its [include] is not converted",
    ] {
        let named = lost.iter().any(|lost| lost.contains(part));
        assert!(named, "{part} is not in {lost:#?}");
    }
    let aside = found.iter().find(|found| !found.is_worker).unwrap();
    assert_eq!(
        aside.dropped,
        ["[unix_http_server]: it is supervisord's own"]
    );
}

/// What cannot be read or known costs its program alone.
#[test]
fn a_supervisord_file_with_what_only_supervisord_knows() {
    let worker = "command=twistd -n vumi_worker --worker-class=vumi.demos.words.EchoWorker";
    let main = format!(
        "[include]\nfiles=%(ENV_HOME)s/*.conf more.conf\n[program:a]\n{worker} --set-option=transport_name:%(ENV_NET)s\n[program:b]\n{worker} --config=gone.yaml\n[program:c]\n{worker} --set-option=transport_name:first\n[program:d]\n{worker} --config=list.yaml\n[program:c]\n{worker} --set-option=transport_name:sms\n[program:java]\ncommand=java %(ENV_JAR)s\n"
    );
    let more = format!(
        "[program:c]\nautorestart=true\n[program:e]\n{worker} --set-option=transport_name:%%e\n"
    );
    let folder = Folder::of(&[
        ("super.conf", &main),
        ("more.conf", &more),
        ("list.yaml", "- 1\n"),
    ]);
    // A folder of its own is where supervisord starts them.
    let main = main.replace(
        "--config=",
        &format!("--config={}/", folder.path("").display()),
    );
    std::fs::write(folder.path("super.conf"), main).unwrap();
    let found = folder.read("super.conf");
    let unreadable = found.iter().filter(|found| found.is_unreadable);
    let unreadable: Vec<&str> = unreadable.map(|found| found.name.as_str()).collect();
    assert_eq!(unreadable, ["b"]);
    let c = found.iter().find(|found| found.name == "c").unwrap();
    for part in [
        "the first command: it stands twice",
        "the second [program:c]: its settings are added",
    ] {
        let named = c.dropped.iter().any(|dropped| dropped.contains(part));
        assert!(named, "{part} is not in {:#?}", c.dropped);
    }
    let (files, lost) = convert(&found, false);
    let files: Vec<&str> = files.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(files, ["a.yaml", "c.yaml", "e.yaml"]);
    for part in [
        "super.conf: [include] %(ENV_HOME)s/*.conf is not converted: only supervisord knows %(ENV_HOME)s",
        "program:a: %(ENV_NET)s in its command is not converted",
        "program:b: it is not converted: cannot read",
        "program:d: it is not converted: ",
        "program:java: it runs no Vumi worker",
    ] {
        let named = lost.iter().any(|lost| lost.contains(part));
        assert!(named, "{part} is not in {lost:#?}");
    }
    assert!(!lost.iter().any(|lost| lost.contains("ENV_JAR")));
    let e = found.iter().find(|found| found.name == "e").unwrap();
    assert_eq!(e.config["transport_name"], "%e");
}

#[test]
fn the_tutorial_s_command_lines() {
    let telnet = "vumi.transports.telnet.TelnetServerTransport";
    let options = ["transport_name:telnet", "telnet_port:9010"];
    let (transport, lost) = made(&read(&[], Some(telnet), &options), false);
    let spec = yaml("{telnet: {port: 9010}, transportName: telnet}");
    assert_eq!(transport["telnetservertransport"], spec);
    assert!(
        lost.iter().all(|lost| lost.contains("no_consumer")),
        "{lost:?}"
    );
    let echo = "vumi.demos.words.EchoWorker";
    let (echo, _) = made(&read(&[], Some(echo), &["transport_name:telnet"]), true);
    let spec = yaml("{echo: {}, transportName: telnet, ordering: {mode: none}}");
    assert_eq!(echo["echoworker"], spec);
}

#[test]
fn every_type_of_the_table_passes_lint() {
    let classes = [
        (
            "vumi.transports.telnet.TelnetServerTransport",
            "transport_name: t\ntwisted_endpoint: 'tcp:port=9010:interface=127.0.0.1'\nto_addr: '*120#'\n",
        ),
        (
            "vumi.transports.devnull.DevNullTransport",
            "transport_name: d\nack_rate: 0.9\nfailure_rate: 0.05\nreply_rate: 1\nreply_copy: hi\n",
        ),
        (
            "vumi.transports.mediafonemc.MediafoneTransport",
            "transport_name: m\nweb_path: mediafone\nweb_port: 8001\nusername: me\npassword: secret\noutbound_url: 'http://provider.example/send'\n",
        ),
        (
            "vumi.transports.airtel.AirtelUSSDTransport",
            "transport_name: airtel\nweb_path: airtel\nweb_port: 8002\nvalidation_mode: permissive\nredis_manager: {}\n",
        ),
        (
            "vumi.transports.apposit.AppositTransport",
            "transport_name: apposit\nweb_path: apposit\nweb_port: 8003\noutbound_url: 'http://provider.example/send'\ncredentials: {'8123': {username: me, password: secret, service_id: 77}}\n",
        ),
        ("vumi.demos.words.ReverseWorker", "transport_name: a\n"),
        ("vumi.demos.words.WordCountWorker", "transport_name: b\n"),
        ("vumi.demos.calculator.CalculatorApp", "transport_name: c\n"),
        (
            "vumi.demos.rps.RockPaperScissorsWorker",
            "transport_name: e\n",
        ),
        (
            "vumi.demos.tictactoe.TicTacToeWorker",
            "transport_name: f\n",
        ),
        (
            "vumi.demos.ircbot.MemoWorker",
            "transport_name: g\nworker_name: w\nredis_manager: {}\n",
        ),
        (
            "vumi.demos.static_reply.StaticReplyApplication",
            "transport_name: h\nreply_text: We are closed.\n",
        ),
        (
            "vumi.dispatchers.BaseDispatchWorker",
            "dispatcher_name: d\ntransport_names: [t, d]\nexposed_names: [a, b]\nrouter_class: vumi.dispatchers.SimpleDispatchRouter\nroute_mappings: {t: [a, b], d: [a]}\ntransport_mappings: {x: t}\n",
        ),
        (
            "vumi.dispatchers.RoutingTableDispatcher",
            "receive_inbound_connectors: [smpp_a]\nreceive_outbound_connectors: [survey]\nrouting_table:\n  smpp_a: {default: [survey, sms]}\n  survey: {sms: [smpp_a, default]}\n",
        ),
    ];
    let mut all = Vec::new();
    for (class, text) in classes {
        let folder = Folder::of(&[("worker.yaml", text)]);
        all.extend(read(&[folder.path("worker.yaml")], Some(class), &[]));
    }
    let (files, notes) = convert(&all, false);
    let read = vumi_api::manifest::load(&files, Target::Cluster);
    assert!(!read.has_errors(), "{:#?}", read.findings);
    assert_eq!(read.resources.len(), classes.len());
    let lost: Vec<_> = notes
        .iter()
        .filter(|note| note.contains("not converted"))
        .collect();
    // Of all of them, one keeps something that its successor does not find.
    assert_eq!(lost.len(), 1, "{lost:#?}");
    assert!(
        lost[0].contains("worker_name is not converted: memos that wait under it are lost"),
        "{lost:#?}"
    );
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"worker.yaml") && names.contains(&"worker-2.yaml"));
}

/// Files of one class and configuration, and what is lost.
fn one(class: &str, text: &str) -> (BTreeMap<String, Value>, Vec<String>) {
    let folder = Folder::of(&[("worker.yaml", text)]);
    made(
        &read(&[folder.path("worker.yaml")], Some(class), &[]),
        false,
    )
}

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
fn a_junebug_channel_alone_in_a_list_and_in_an_answer() {
    let channel = r#"{"id": "0b8f1a2c-0000-4000-8000-000000000001", "type": "telnet", "label": "My channel!",
        "config": {"twisted_endpoint": "tcp:9001", "transport_name": "other"}, "mo_url": "http://app.example/mo",
        "rate_limit_count": 5, "character_limit": null, "status": {"status": null}}"#;
    let other = r#"{"id": "x", "type": "carrier_pigeon", "config": {}}"#;
    let answer = format!(
        r#"{{"status": 200, "code": "OK", "description": "channel found", "result": {channel}}}"#
    );
    let list = format!("\n[\n  {channel},\n  {other}\n]");
    for (text, channels) in [(channel.to_owned(), 1), (answer, 1), (list, 2)] {
        let folder = Folder::of(&[("channel.json", &text)]);
        let found = folder.read("channel.json");
        assert_eq!(found.len(), channels);
        let (made, lost) = made(&found, false);
        let spec =
            yaml("{telnet: {port: 9001}, transportName: 0b8f1a2c-0000-4000-8000-000000000001}");
        assert_eq!(made["my-channel"], spec);
        assert!(
            lost.iter()
                .any(|l| l.contains("mo_url is not converted: it belongs to Junebug"))
        );
        let pigeon = lost
            .iter()
            .any(|l| l.contains("channels of type carrier_pigeon have no counterpart"));
        assert_eq!(pigeon, channels == 2, "{lost:#?}");
    }
}

#[test]
fn a_multi_worker_gives_its_workers() {
    let text = "
workers: {in: vumi.transports.telnet.TelnetServerTransport, app: vumi.demos.words.EchoWorker}
defaults: {transport_name: telnet}
in: {telnet_port: 9010}
app: {}
stray: 1
";
    let folder = Folder::of(&[("multi.yaml", text)]);
    let class = Some("vumi.multiworker.MultiWorker");
    let (made, lost) = made(&read(&[folder.path("multi.yaml")], class, &[]), false);
    assert_eq!(
        made["in"],
        yaml("{telnet: {port: 9010}, transportName: telnet}")
    );
    assert_eq!(made["app"], yaml("{echo: {}, transportName: telnet}"));
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].contains("stray is not converted"));
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

#[test]
fn what_is_no_input_is_said() {
    let folder = Folder::of(&[
        ("worker.yaml", "transport_name: x\n"),
        ("broken.json", "{\"type\": "),
        ("other.json", "{\"a\": 1}"),
        ("list.yaml", "- 1\n"),
        ("loop.yaml", "a: !include loop.yaml\n"),
        ("empty.conf", "[supervisord]\npidfile=x\n"),
    ]);
    let failed = |file: &str, class: Option<&str>| {
        let arguments = arguments(&[folder.path(file)], class, &[]);
        inputs::read(&arguments).unwrap_err()
    };
    let class = Some("vumi.demos.words.EchoWorker");
    for (file, class, code, says) in [
        ("worker.yaml", None, 2, "say which with --worker-class"),
        ("broken.json", None, 2, "is no JSON"),
        ("other.json", None, 2, "it has no type"),
        ("list.yaml", class, 2, "holds no mapping"),
        ("loop.yaml", class, 2, "includes itself"),
        ("empty.conf", None, 2, "has no [program:…]"),
        ("missing.yaml", class, 3, "cannot read"),
    ] {
        let error = failed(file, class);
        assert_eq!(error.code, code, "{file}: {error}");
        assert!(error.text.contains(says), "{file}: {error}");
    }
    assert!(!Path::new("missing").exists());
}
