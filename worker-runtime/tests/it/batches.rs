//! Batches by command, over RabbitMQ and Redis: given to another class and to another transport, and what is said of
//! messages that wait while nobody runs.

use crate::harness::amqp::{Amqp, user_message};
use crate::harness::campaign::Campaign;
use crate::harness::operator::Operator;
use crate::harness::{PATIENCE, vhost, wait_for};
use serde_json::{Value, json};
use vumi_testkit::redis::{Append, Options, Redis};

/// Two simulated networks: `sms`, which has classes, and `backup`, which has none.
fn networks(latency: &str) -> Campaign {
    let campaign = Campaign::empty();
    for (name, more) in [("sms", ", classes: {}"), ("backup", "")] {
        let manifest = format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: {name}}}\n\
             spec: {{devNull: {{latency: {latency}}}{more}}}\n"
        );
        campaign.write(&format!("{name}.yaml"), &manifest);
    }
    campaign
}

async fn redis() -> Option<Redis> {
    let options = Options {
        append: Append::EverySec,
        ..Options::default()
    };
    Redis::start_or_skip(options).await
}

async fn publish(amqp: &Amqp, transport: &str, batch: &str, n: u64) {
    let mut message = user_message(&format!("{batch}-{n}"), transport, "hello");
    message["to_addr"] = format!("2782000{n:04}").into();
    message["helper_metadata"] = json!({"batch": batch, "class": "bulk"});
    let queue = format!("{transport}.outbound");
    amqp.publish(&queue, message.to_string().as_bytes()).await;
}

/// Messages of a batch by transport and state.
fn counts(operator: &Operator<'_>, batch: &str) -> Result<Value, String> {
    let listed = operator.json(&["batch", "list", batch, "--format", "json"])?;
    let of = |one: &Value| Some((one["account"].as_str()?.to_owned(), one["rows"].clone()));
    let counts = listed.as_array().into_iter().flatten().filter_map(of);
    Ok(counts.collect::<serde_json::Map<_, _>>().into())
}

async fn wait_for_counts(operator: &Operator<'_>, batch: &str, expected: Value) {
    wait_for(&format!("{batch} is {expected}"), PATIENCE, || async {
        match counts(operator, batch)? {
            counts if counts == expected => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_given_to_another_class_or_transport_by_command() {
    let (Some(url), Some(redis)) = (vhost("batches-given").await, redis().await) else {
        return;
    };
    let store = redis.url(0);
    let campaign = networks("0s");
    let alone = Operator::new(&campaign, &["--redis", &store]);
    // In force before the first message is there.
    for batch in ["spring", "autumn"] {
        let pause = ["batch", "pause", batch, "--transport", "sms"];
        let (code, text) = alone.run(&pause);
        assert_eq!(code, 2, "not without --yes: {text}");
        alone.done(&[&pause[..], &["--yes"]].concat()).unwrap();
    }
    let mut process = campaign.run(&["--broker", &url, "--redis", &store, "--admin", "none"]);
    let operator = Operator::new(&campaign, &[]);
    let amqp = Amqp::connect(&url).await;
    wait_for("both consume", PATIENCE, || async {
        let status = campaign.status()?;
        for worker in ["transport/sms", "transport/backup"] {
            let worker = status.worker(worker)?;
            if worker["ready"] != true {
                return Err(worker.to_string());
            }
        }
        Ok(())
    })
    .await;
    for n in 0..3 {
        publish(&amqp, "sms", "spring", n).await;
        publish(&amqp, "sms", "autumn", n).await;
    }
    for batch in ["spring", "autumn"] {
        wait_for_counts(&operator, batch, json!({"sms": {"held": 3}})).await;
    }

    let reclass = ["batch", "reclass", "spring", "--to", "interactive"];
    let (code, text) = operator.run(&reclass);
    assert_eq!(code, 2, "not without --yes: {text}");
    let asked = "Give to class interactive what is not sent yet of batch spring (sms): \
                 3 messages that `vumi batch list` counts; 0 are with the network and 0 have ended?";
    assert!(text.contains(asked), "{text}");
    wait_for_counts(&operator, "spring", json!({"sms": {"held": 3}})).await;
    let (code, text) = operator.run(&["batch", "reclass", "spring", "--to", "urgent", "--yes"]);
    assert_eq!(code, 2, "no such class: {text}");
    let said = operator.done(&[&reclass[..], &["--yes"]].concat()).unwrap();
    assert!(
        said.starts_with("batch spring is moved to class interactive (sms)"),
        "{said}"
    );
    wait_for_counts(&operator, "spring", json!({"sms": {"delivered": 3}})).await;
    let why = operator.done(&["why", "spring-0"]).unwrap();
    assert!(why.contains("is moved to class interactive"), "{why}");

    for (to, why) in [
        ("sms", "batch autumn is with sms already"),
        ("nobody", "no transport nobody has ever run here"),
    ] {
        let reroute = ["batch", "reroute", "autumn", "--to", to, "--yes"];
        let (code, text) = operator.run(&reroute);
        assert!(code == 2 && text.contains(why), "{code}: {text}");
    }
    let reroute = ["batch", "reroute", "autumn", "--to", "backup"];
    let (code, text) = operator.run(&reroute);
    assert_eq!(code, 2, "not without --yes: {text}");
    assert!(text.contains("Give to transport backup what is"), "{text}");
    let said = operator.done(&[&reroute[..], &["--yes"]].concat()).unwrap();
    assert!(
        said.starts_with("batch autumn is rerouted to backup (sms)"),
        "{said}"
    );
    wait_for("the other transport has sent them", PATIENCE, || async {
        match counts(&operator, "autumn")? {
            counts if counts["backup"] == json!({"delivered": 3}) => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    let left = counts(&operator, "autumn").unwrap();
    assert_eq!(left["sms"], json!({}), "one row, of who has it: {left}");
    wait_for("the ledger is balanced", PATIENCE, || async {
        operator.done(&["ledger", "audit"]).map(drop)
    })
    .await;
    assert_eq!(process.stop(PATIENCE).await, Some(143));
}

/// Rows are opened where messages are passed on to their class: they have not been begun, and wait in its queue.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_class_is_found_and_what_no_list_counts_is_said_while_nobody_runs() {
    // Fewer than overflow into a journal, which would name the queue.
    const BULK: u64 = 20;
    let (Some(url), Some(redis)) = (vhost("batches-waiting").await, redis().await) else {
        return;
    };
    let store = redis.url(0);
    let campaign = networks("60s");
    let mut process = campaign.run(&["--broker", &url, "--redis", &store, "--admin", "none"]);
    let alone = Operator::new(&campaign, &["--redis", &store]);
    let operator = alone.and(&["--broker", &url]);
    let amqp = Amqp::connect(&url).await;
    wait_for("the queues are there", PATIENCE, || async {
        for queue in ["sms.outbound.bulk", "backup.outbound"] {
            if !amqp.exists(queue).await {
                return Err(queue.to_owned());
            }
        }
        Ok(())
    })
    .await;
    for n in 0..BULK {
        publish(&amqp, "sms", "spring", n).await;
    }
    wait_for("all are in their class", PATIENCE, || async {
        let rows = counts(&alone, "spring")?["sms"].clone();
        let count = |state: &str| rows[state].as_u64().unwrap_or(0);
        let all = count("queued") + count("sending");
        match (all, amqp.ready("sms.outbound").await) {
            (BULK, Some(0)) => Ok(()),
            other => Err(format!("{other:?}: {rows}")),
        }
    })
    .await;
    process.kill();
    for n in 0..3 {
        publish(&amqp, "backup", "autumn", n).await;
    }

    let audit = wait_for("every row has its message", PATIENCE, || async {
        operator.json(&["ledger", "audit", "--format", "json"])
    })
    .await;
    let of = |account: &str| {
        let balances = audit.as_array().unwrap();
        let one = balances.iter().find(|one| one["account"] == account);
        one.cloned().unwrap_or_default()
    };
    let found = &of("sms")["found"];
    assert!(found["ready"].as_u64().unwrap() >= BULK, "{audit}");
    assert_eq!(found["journal"]["expected"], 0, "{audit}");
    let (code, text) = alone.run(&["ledger", "audit"]);
    assert_eq!(code, 1, "nobody looked into the queues: {text}");
    assert!(text.contains("(--broker URL)"), "{text}");

    let cancel = ["batch", "cancel", "autumn", "--transport", "backup"];
    let (code, text) = operator.run(&cancel);
    assert_eq!(code, 2, "not without --yes: {text}");
    let asked = "0 messages that `vumi batch list` counts, \
                 and those of it among the 3 in queue and journal that it does not count yet;";
    assert!(text.contains(asked), "{text}");
    let (_, text) = alone.run(&cancel);
    assert!(text.contains("nobody here knows how many;"), "{text}");
    let (_, text) = operator.run(&["batch", "cancel", "spring"]);
    // What the intake had in hand when it was killed may be back in its queue.
    let asked = "messages that `vumi batch list` counts";
    assert!(
        text.contains(asked),
        "what is in a class is counted: {text}"
    );
}
