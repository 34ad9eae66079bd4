//! `vumi inject`: files, streams, what cannot be sent, and going on after an interrupt.

use super::*;

/// Messages injected through a running process are answered on its embedded broker, and a tap sees both ways without
/// taking anything.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_injected_into_a_process_is_answered_and_seen_by_a_tap() {
    let (campaign, _run) = echo(&[]).await;
    let mut seen = tap(
        &campaign,
        &[
            "t",
            "--kind",
            "inbound",
            "--kind",
            "outbound",
            "--format",
            "json",
            "--show",
            "--address",
            "27820000001",
            "--count",
            "4",
        ],
    );
    // Before the tap follows, what is injected may pass it by.
    says(&seen, FOLLOWING).await;
    let rows = "from,to,content\n27820000001,12345,one\n27820000002,12345,not seen\n27820000001,12345,two\n";
    let ended = fed(
        campaign.path(),
        &[
            "inject",
            "--connector",
            "t",
            "--as",
            "csv",
            "--format",
            "json",
            "-",
        ],
        rows,
    );
    assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
    assert_eq!(json_of(&ended)["confirmed"], 3);
    assert_eq!(seen.ends(PATIENCE).await.code(), Some(0));
    let lines: Vec<Value> = seen
        .log()
        .lines()
        .filter(|line| *line != FOLLOWING)
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    for line in &lines {
        let whole = &line["message"];
        assert!(
            ["one", "two"].contains(&whole["content"].as_str().unwrap()),
            "{line}"
        );
        let person = if line["kind"] == "inbound" {
            "from"
        } else {
            "to"
        };
        assert_eq!(line[person], "27820000001", "{line}");
    }
    wait_for("all that was injected is done", PATIENCE, || async {
        let status = campaign.status()?;
        let worker = status.worker("application/echo")?;
        let (received, done) = (worker["received"].as_u64(), worker["done"].as_u64());
        // The tap took nothing.
        match done == received && done == Some(3) {
            true => Ok(()),
            false => Err(worker.to_string()),
        }
    })
    .await;
    // A tap of a connector that is not there says which are.
    let wrong = run(campaign.path(), &["tap", "telnet"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    assert!(said(&wrong).contains("there are: t"), "{}", said(&wrong));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_injected_is_said_and_nothing_is_sent() {
    let (campaign, _run) = echo(&[]).await;
    let inject = |arguments: &[&str], input: &str| {
        let mut all = vec!["inject", "--connector", "t"];
        all.extend(arguments);
        fed(campaign.path(), &all, input)
    };
    let file = campaign.path().join("rows.csv");
    std::fs::write(
        &file,
        "from,to,content,session_event\n1,2,fine,\n1,2,bad,maybe\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let ended = inject(&[file], "");
    assert_eq!(ended.status.code(), Some(2), "{}", said(&ended));
    assert!(
        said(&ended).contains("rows.csv:3: field session_event"),
        "{}",
        said(&ended)
    );
    assert!(
        said(&ended).contains("nothing was sent"),
        "{}",
        said(&ended)
    );
    let ended = inject(&[file, "--skip-invalid", "--dry-run"], "");
    assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
    assert!(
        said(&ended).contains("1 messages would be sent to t.inbound"),
        "{}",
        said(&ended)
    );
    let ended = inject(&["--kind", "event", "--content", "x"], "");
    assert_eq!(ended.status.code(), Some(2), "{}", said(&ended));
    assert!(said(&ended).contains("user_message_id"), "{}", said(&ended));
    let status = campaign.status().unwrap();
    assert_eq!(status.worker("application/echo").unwrap()["received"], 0);
    let ended = inject(&[file, "--skip-invalid", "--format", "json"], "");
    assert_eq!(json_of(&ended)["invalid"], 1, "{}", said(&ended));
    assert_eq!(json_of(&ended)["confirmed"], 1);
    let nowhere = run(
        campaign.path(),
        &[
            "inject",
            "--connector",
            "x",
            "--from",
            "1",
            "--content",
            "x",
        ],
    );
    assert_eq!(nowhere.status.code(), Some(2), "{}", said(&nowhere));
    assert!(
        said(&nowhere).contains("no worker here reads x.inbound; read are: t.event, t.inbound"),
        "{}",
        said(&nowhere)
    );
}

/// What is read as it comes is sent as it comes, and an interrupt is heard while nothing does.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_sent_as_it_comes_and_interrupted_while_it_is_silent() {
    let (campaign, _run) = echo(&[]).await;
    let mut injecting = command(campaign.path())
        .args([
            "inject",
            "--connector",
            "t",
            "--from",
            "1",
            "--to",
            "2",
            "-",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = injecting.stdin.take().unwrap();
    for (count, line) in ["one", "two"].into_iter().enumerate() {
        writeln!(input, "{line}").unwrap();
        wait_for("it is handled", PATIENCE, || async {
            let status = campaign.status()?;
            let worker = status.worker("application/echo")?;
            match worker["done"] == count + 1 {
                true => Ok(()),
                false => Err(worker.to_string()),
            }
        })
        .await;
    }
    let id = injecting.id().to_string();
    let told = Command::new("kill").args(["-INT", &id]).status();
    assert!(told.unwrap().success());
    let ended = wait_for("it ends", PATIENCE, || {
        let ended = injecting.try_wait().unwrap();
        async move { ended.ok_or_else(|| "it runs".to_owned()) }
    })
    .await;
    assert_eq!(ended.code(), Some(130));
    drop(input);
}

/// Interrupted in the middle and started again, everything has come, and what came twice has the same id.
#[tokio::test(flavor = "multi_thread")]
async fn injecting_into_rabbitmq_goes_on_where_it_was_interrupted() {
    let Some(url) = vhost("inject").await else {
        return;
    };
    let campaign = Campaign::empty();
    let amqp = Amqp::connect(&url).await;
    let numbers: String = (0..400).map(|n| format!("{n}\n")).collect();
    std::fs::write(campaign.path().join("numbers.txt"), numbers).unwrap();
    let arguments = [
        "inject",
        "--connector",
        "sms",
        "--kind",
        "outbound",
        "--to",
        "2782{i}",
        "--class",
        "bulk",
        "--batch",
        "spring",
        "numbers.txt",
        "--resume",
        "progress",
        "--broker",
        &url,
    ];
    let refused = run(campaign.path(), &arguments);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(
        said(&refused).contains("there is no queue sms.outbound"),
        "{}",
        said(&refused)
    );
    let mut slowly = arguments.to_vec();
    slowly.extend(["--create", "--rate", "50"]);
    let mut first = Process::start(campaign.path(), "inject", &slowly);
    wait_for("some are there", PATIENCE, || async {
        match amqp.ready("sms.outbound").await {
            Some(ready) if ready > 20 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    first.signal("INT");
    assert_eq!(
        first.ends(PATIENCE).await.code(),
        Some(130),
        "{}",
        first.log()
    );
    assert!(
        first
            .log()
            .contains("the same command goes on after message"),
        "{}",
        first.log()
    );
    let again = run(
        campaign.path(),
        &[&arguments[..], &["--format", "json"]].concat(),
    );
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    let counts = json_of(&again);
    let (before, now) = (
        counts["before"].as_u64().unwrap(),
        counts["confirmed"].as_u64().unwrap(),
    );
    assert!(before > 0 && before + now == 400, "{counts}");
    let mut contents = std::collections::BTreeMap::new();
    while let Some(message) = amqp.take("sms.outbound").await {
        let labels = json!({"class": "bulk", "batch": "spring"});
        assert_eq!(message["helper_metadata"], labels);
        let number: usize = message["content"].as_str().unwrap().parse().unwrap();
        assert_eq!(message["to_addr"], format!("2782{}", number + 1));
        let id = message["message_id"].clone();
        assert_eq!(contents.entry(number).or_insert_with(|| id.clone()), &id);
    }
    assert_eq!(contents.len(), 400);
    let nothing = run(
        campaign.path(),
        &[&arguments[..], &["--format", "json"]].concat(),
    );
    assert_eq!(json_of(&nothing)["confirmed"], 0);
    // Somebody corrects a number that was sent, and adds one.
    let numbers: String = (1..402).map(|n| format!("{n}\n")).collect();
    std::fs::write(campaign.path().join("numbers.txt"), numbers).unwrap();
    let changed = run(campaign.path(), &arguments);
    assert_eq!(changed.status.code(), Some(2), "{}", said(&changed));
    assert!(
        said(&changed).contains(
            "an earlier run sent 400 messages, and the records that it sent have changed since"
        ),
        "{}",
        said(&changed)
    );
    assert_eq!(amqp.ready("sms.outbound").await, Some(0));
    let forced = [&arguments[..], &["--format", "json", "--force"]].concat();
    let forced = run(campaign.path(), &forced);
    assert_eq!(json_of(&forced)["confirmed"], 1, "{}", said(&forced));
    let other = run(
        campaign.path(),
        &[
            "inject",
            "--connector",
            "other",
            "--to",
            "1",
            "--content",
            "x",
            "--kind",
            "outbound",
            "--resume",
            "progress",
            "--broker",
            &url,
        ],
    );
    assert_eq!(other.status.code(), Some(2), "{}", said(&other));
    assert!(
        said(&other).contains("is the progress of numbers.txt into sms.outbound"),
        "{}",
        said(&other)
    );
}
