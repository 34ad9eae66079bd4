//! What a resource's surroundings decide: whether it is built, and what cannot be had.

use crate::{built, context, resource};
use vumi_api::Resource;
use vumi_plan::{Outcome, Platform, Reason, Refusal, Settings, validate};

const HTTP: &str = "httpApi: {}, http: {port: 8080, path: /sms}";

fn refused(resource: &Resource, change: impl FnOnce(&mut vumi_plan::Context)) -> Refusal {
    let mut context = context(resource);
    change(&mut context);
    validate(resource, &context, &Settings::default()).unwrap_err()
}

#[test]
fn a_secret_that_is_not_there_is_waited_for() {
    let auth = "auth: {username: u, password: {secretKeyRef: {name: partner, key: password}}}";
    let transport = resource(
        "Transport",
        &format!("httpApi: {{}}, http: {{port: 8080, {auth}}}"),
    );
    for missing in ["partner", "vumi-broker"] {
        let refusal = refused(&transport, |context| {
            context.secrets.remove(missing);
        });
        assert_eq!(refusal.outcome, Outcome::Waiting);
        assert_eq!(refusal.reason, Reason::SecretMissing);
        assert!(refusal.message.contains(missing), "{}", refusal.message);
    }
    for (name, key) in [("partner", "password"), ("vumi-broker", "host")] {
        let refusal = refused(&transport, |context| {
            let facts = context.secrets.get_mut(name).unwrap();
            facts.keys.remove(key);
            facts.keys.remove("connection_string");
        });
        assert_eq!(refusal.reason, Reason::SecretKeyMissing);
        assert!(refusal.message.contains(key), "{}", refusal.message);
    }
}

#[test]
fn the_secret_of_a_cluster_operator_will_do_as_it_is() {
    let echo = resource("Application", "echo: {}, transportName: t");
    let mut context = context(&echo);
    let keys = [
        "connection_string",
        "default_user.conf",
        "host",
        "password",
        "port",
        "provider",
        "type",
        "username",
    ];
    context.secrets.get_mut("vumi-broker").unwrap().keys = keys.map(str::to_owned).into();
    context.secrets.remove("vumi-redis");
    assert!(validate(&echo, &context, &Settings::default()).is_ok());
}

#[test]
fn a_type_that_needs_a_store_is_not_started_without_one() {
    let game = resource("Application", "hangman: {}, transportName: t");
    let refusal = refused(&game, |context| {
        context.secrets.remove("vumi-redis");
    });
    assert_eq!(refusal.reason, Reason::NoStateStore);
    assert_eq!(refusal.outcome, Outcome::Stalled);
    let volume = resource(
        "Application",
        "hangman: {}, transportName: t, state: {volume: {}}",
    );
    let desired = built(&volume, &context(&volume));
    assert_eq!(desired.workload().unwrap().kind, "StatefulSet");
}

#[test]
fn what_an_operator_does_not_allow_is_refused() {
    let changed = resource(
        "Application",
        "echo: {}, transportName: t, overrides: {spec: {}}",
    );
    let settings = Settings {
        allow_overrides: false,
        ..Settings::default()
    };
    let refusal = validate(&changed, &context(&changed), &settings).unwrap_err();
    assert_eq!(refusal.reason, Reason::OverridesNotAllowed);
}

#[test]
fn a_program_of_somebody_else_gets_the_broker_as_its_secret_has_it() {
    let program = resource("Application", "custom: {image: a}, transportName: t");
    let elsewhere = "custom: {image: a}, transportName: t, broker: {secretRef: {name: vumi-broker}, vhost: campaign}";
    let elsewhere = resource("Application", elsewhere);
    let given_to = |program: &Resource, keys: &[&str]| {
        let mut context = context(program);
        let broker = context.secrets.get_mut("vumi-broker").unwrap();
        broker.keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let validated = validate(program, &context, &Settings::default())?;
        let desired = vumi_plan::build(&validated, &context, &Settings::default());
        let workload = &desired.workload().unwrap().object;
        let env = &workload["spec"]["template"]["spec"]["containers"][0]["env"];
        let names = env.as_array().unwrap().iter();
        let names = names.map(|variable| variable["name"].as_str().unwrap().to_owned());
        Ok::<_, Refusal>(names.collect::<Vec<_>>())
    };
    let given = |keys: &[&str]| given_to(&program, keys);
    let parts = [
        "VUMI_BROKER_HOST",
        "VUMI_BROKER_PORT",
        "VUMI_BROKER_USERNAME",
        "VUMI_BROKER_PASSWORD",
        "VUMI_BROKER_VHOST",
        "VUMI_TRANSPORT_NAME",
    ];
    assert_eq!(given(&["host", "username", "password"]).unwrap(), parts);
    assert_eq!(
        given(&["connection_string"]).unwrap(),
        ["VUMI_BROKER_URL", "VUMI_TRANSPORT_NAME"]
    );
    let refusal = given(&["host"]).unwrap_err();
    assert_eq!(refusal.reason, Reason::BrokerKeys);
    assert_eq!(refusal.outcome, Outcome::Stalled);
    // A URL leads to the virtual host of the Secret, and not to that of the resource.
    let both = ["connection_string", "host", "username", "password"];
    let names = given(&both).unwrap();
    assert!(names.contains(&"VUMI_BROKER_URL".to_owned()), "{names:?}");
    assert_eq!(given_to(&elsewhere, &both).unwrap(), parts);
    let refusal = given_to(&elsewhere, &["connection_string"]).unwrap_err();
    assert_eq!(refusal.reason, Reason::BrokerKeys);
    assert_eq!(refusal.outcome, Outcome::Stalled);
    assert!(
        refusal.message.contains("spec.broker.vhost"),
        "{}",
        refusal.message
    );
    let settings = Settings {
        allow_custom: false,
        ..Settings::default()
    };
    let refusal = validate(&program, &context(&program), &settings).unwrap_err();
    assert_eq!(refusal.reason, Reason::CustomNotAllowed);
}

#[test]
fn a_listener_that_nobody_could_reach_is_refused() {
    let local = resource("Transport", "telnet: {port: 9010, host: 127.0.0.1}");
    let refusal = refused(&local, |_| ());
    assert_eq!(refusal.reason, Reason::Invalid);
    assert!(
        refusal.message.contains("127.0.0.1:9010"),
        "{}",
        refusal.message
    );
}

#[test]
fn the_address_for_the_provider_has_the_path_under_which_a_program_is_exposed() {
    let program = |path: &str| {
        let expose = format!("expose: {{host: a.example.net, ingress: {{}}{path}}}");
        let custom = "custom: {image: registry.example/bot:1, ports: [{name: http, port: 8080}]}";
        let program = resource("Transport", &format!("{custom}, service: {{{expose}}}"));
        built(&program, &context(&program)).url
    };
    let (whole, part) = (program(""), program(", path: /bot"));
    assert_eq!(whole.as_deref(), Some("https://a.example.net/"));
    assert_eq!(part.as_deref(), Some("https://a.example.net/bot"));
}

#[test]
fn a_cluster_without_gateways_is_told_and_has_no_dead_object() {
    let spec =
        format!("{HTTP}, service: {{expose: {{host: a.example.net, httpRoute: {{gateway: g}}}}}}");
    let transport = resource("Transport", &spec);
    let mut context = context(&transport);
    let desired = built(&transport, &context);
    assert_eq!(desired.url.as_deref(), Some("https://a.example.net/sms"));
    assert!(desired.children.iter().any(|c| c.kind == "HTTPRoute"));
    context.platform = Platform::default();
    let desired = built(&transport, &context);
    assert_eq!(desired.url, None);
    assert_eq!(desired.notes[0].reason, "GatewayMissing");
    assert!(desired.children.iter().all(|c| c.kind != "HTTPRoute"));
}
