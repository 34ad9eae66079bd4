//! Every type of the table: it is of this version, and what becomes of it passes lint.

use super::super::table::{Rule, TABLE};
use super::*;
use vumi_api::{Target, WorkerType};

#[test]
fn the_table_fits_the_types() {
    for row in &TABLE.workers {
        let known = WorkerType::find(&row.key).unwrap_or_else(|| panic!("no type {}", row.key));
        assert_eq!(known.kind.as_str(), row.kind);
        let schema = vumi_api::crds::spec_schema(known.kind);
        let sets = |rule: &&Rule| rule.drop.is_none() && rule.lost.is_none();
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
