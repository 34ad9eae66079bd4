//! `vumi top`: rates between two looks, and what waits.

use super::*;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn top_looks_twice_and_shows_rates() {
    let campaign = Campaign::example("telnet-echo", &[9010]);
    let _run = campaign.run(&[]);
    let _user = greeted(campaign.port(9010), PATIENCE).await;
    let once = run(campaign.path(), &["top", "--once", "--interval", "100ms"]);
    assert_eq!(once.status.code(), Some(0), "{}", said(&once));
    let text = said(&once);
    assert!(text.starts_with("2 workers: "), "{text}");
    assert!(
        text.contains("application/echo") && text.contains("OLDEST"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "not a terminal: {text}");
    let json = run(
        campaign.path(),
        &["top", "--once", "--interval", "100ms", "--format", "json"],
    );
    let rows = json_of(&json);
    assert_eq!(rows.as_array().unwrap().len(), 2);
    assert_eq!(rows[0]["worker"], "application/echo");
    assert_eq!(rows[0]["parked"], 0);
    // Lines in which something happens show it.
    wait_for("a rate above zero", PATIENCE, || async {
        let injecting = fed(
            campaign.path(),
            &[
                "inject",
                "--connector",
                "telnet",
                "--from",
                "1",
                "--content",
                "x",
                "--count",
                "200",
            ],
            "",
        );
        assert_eq!(injecting.status.code(), Some(0), "{}", said(&injecting));
        let mut looking = Process::start(
            campaign.path(),
            "top",
            &["top", "--once", "--interval", "2s", "--format", "json"],
        );
        let more = fed(
            campaign.path(),
            &[
                "inject",
                "--connector",
                "telnet",
                "--from",
                "1",
                "--content",
                "x",
                "--count",
                "200",
            ],
            "",
        );
        assert_eq!(more.status.code(), Some(0), "{}", said(&more));
        assert_eq!(looking.ends(PATIENCE).await.code(), Some(0));
        let log = looking.log();
        let last = log.lines().last().unwrap_or_default().to_owned();
        let rows: Value =
            serde_json::from_str(&last).map_err(|error| format!("{error}: {last}"))?;
        match rows[0]["receivedPerSecond"].as_f64() {
            Some(rate) if rate > 0.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let none = run(Path::new("/"), &["top", "--once", "--name", "nobody"]);
    assert_eq!(none.status.code(), Some(3), "{}", said(&none));
}

/// Neither here nor in `vumi doctor` do the others wait for one that is stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_stopped_holds_up_no_look_at_the_others() {
    let (campaign, _run) = echo(&[]).await;
    let other = campaign.run(&["--name", "other"]);
    let which = ["--name", "other"];
    campaign.until_ready(&which, "application/echo").await;
    other.signal("STOP");
    let began = Instant::now();
    let look = ["top", "--once", "--interval", "100ms"];
    let once = run(campaign.path(), &look);
    assert_eq!(once.status.code(), Some(0), "{}", said(&once));
    assert!(said(&once).starts_with("1 worker: "), "{}", said(&once));
    assert!(
        said(&once).contains("other does not answer"),
        "{}",
        said(&once)
    );
    let alone = run(campaign.path(), &[&look[..], &which[..]].concat());
    assert_eq!(alone.status.code(), Some(3), "{}", said(&alone));
    assert!(
        said(&alone).contains("no process answers: other"),
        "{}",
        said(&alone)
    );
    let doctor = run(campaign.path(), &["doctor"]);
    assert_eq!(doctor.status.code(), Some(0), "{}", said(&doctor));
    for part in [
        "ok    process echo: its worker is ready",
        "WARN  process other: it does not answer",
    ] {
        assert!(said(&doctor).contains(part), "{}", said(&doctor));
    }
    // It was a minute for each look.
    assert!(began.elapsed() < Duration::from_secs(45));
    other.signal("CONT");
}

/// What is set aside is shown as long as it is.
#[tokio::test(flavor = "multi_thread")]
async fn top_shows_what_is_set_aside_now() {
    let Some(url) = vhost("top").await else {
        return;
    };
    let (campaign, _run) = echo(&["--broker", &url]).await;
    let shows = |wanted: u64| {
        let look = ["top", "--once", "--interval", "100ms", "--format", "json"];
        let rows = json_of(&run(campaign.path(), &look));
        let row = &rows[0];
        match row["parked"] == wanted && row["parkedSinceStart"] == 1 {
            true => Ok(()),
            false => Err(row.to_string()),
        }
    };
    let amqp = Amqp::connect(&url).await;
    amqp.publish("t.inbound", b"no message").await;
    wait_for("one is set aside", PATIENCE, || async { shows(1) }).await;
    let drop = ["parked", "drop", "t.inbound", "--all", "--yes"];
    let dropped = run(campaign.path(), &drop);
    assert_eq!(dropped.status.code(), Some(0), "{}", said(&dropped));
    wait_for("none is any more", PATIENCE, || async { shows(0) }).await;
}

/// What nobody has taken yet is no zero.
#[tokio::test(flavor = "multi_thread")]
async fn top_shows_what_waits_on_the_broker() {
    const ALL: u64 = 3000;
    let campaign = Campaign::empty();
    campaign.write(
        "slow.yaml",
        "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: slow}\nspec: {devNull: {latency: 1h}}\n",
    );
    let _run = campaign.run(&[]);
    wait_for("all are sent", PATIENCE, || async {
        let count = ALL.to_string();
        let slow = ["inject", "--connector", "slow", "--kind", "outbound"];
        let what = ["--to", "1", "--content", "x", "--count", &count];
        let sent = run(campaign.path(), &[&slow[..], &what].concat());
        match sent.status.code() {
            Some(0) => Ok(()),
            _ => Err(said(&sent)),
        }
    })
    .await;
    wait_for("the rest waits on the broker", PATIENCE, || async {
        let look = ["top", "--once", "--interval", "100ms", "--format", "json"];
        let rows = json_of(&run(campaign.path(), &look));
        let (held, queued) = (rows[0]["inFlight"].as_u64(), rows[0]["queued"].as_u64());
        match held.zip(queued) {
            Some((held, queued)) if queued > 0 && held + queued == ALL => Ok(()),
            _ => Err(rows.to_string()),
        }
    })
    .await;
}
