//! Files of supervisord, with what they include and name.

use super::*;

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
