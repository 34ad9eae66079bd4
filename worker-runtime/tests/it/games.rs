//! `examples/games` as its README says: applications that remember, also over the end of their process.

use crate::harness::campaign::Campaign;
use crate::harness::http::{self, Failed};
use crate::harness::telnet::Telnet;
use crate::harness::{PATIENCE, vhost, wait_for};
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(60);
const BOARD: &str = "+---+---+---+\n|   |   |   |\n+---+---+---+\n|   |   |   |\n+---+---+---+\n|   |   |   |\n+---+---+---+";

fn path(player: &str, text: &str) -> String {
    format!("/messages?content={text}&from_addr={player}&to_addr=12345")
}

/// A player's request; its answer comes when they are to move.
fn asks(port: u16, player: &str, text: &str) -> tokio::task::JoinHandle<Result<String, Failed>> {
    let path = path(player, text);
    tokio::spawn(async move {
        let (status, body) = http::get(port, &path, ANSWER).await?;
        assert_eq!(status, 200, "{body}");
        Ok(body)
    })
}

async fn answer(request: tokio::task::JoinHandle<Result<String, Failed>>) -> String {
    request.await.unwrap().unwrap()
}

async fn is_up(port: u16) {
    wait_for("it listens", PATIENCE, || async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        stream.map(drop).map_err(|e| e.to_string())
    })
    .await;
}

/// Two applications answer one line.
async fn guesses(port: u16) {
    let mut user = Telnet::connect(port).await.unwrap();
    let mut heard = Vec::new();
    let mut until = async |user: &mut Telnet, last: [&str; 2]| {
        heard.clear();
        while !last
            .iter()
            .all(|wanted| heard.iter().any(|line: &String| line.starts_with(wanted)))
        {
            let line = user.hear(ANSWER).await;
            heard.push(line.unwrap_or_else(|| panic!("nothing after {heard:?}")));
        }
        heard.clone()
    };
    let greeting = ["Enter next guess", "Enter text to return word"];
    until(&mut user, greeting).await;
    user.say("e").await.unwrap();
    let heard = until(&mut user, ["Enter next guess", "1 word, 1 char"]).await;
    let guessed = heard
        .iter()
        .any(|line| line.starts_with("Letters guessed so far: e"));
    assert!(guessed, "{heard:?}");
    user.say("0").await.unwrap();
    while let Some(line) = user.hear(ANSWER).await {
        if line == "Adieu!" {
            return;
        }
    }
    panic!("no goodbye");
}

/// The first player's number and the second's.
async fn meet(
    port: u16,
) -> (
    &'static str,
    &'static str,
    tokio::task::JoinHandle<Result<String, Failed>>,
) {
    let mut first = asks(port, "27820000001", "hello");
    let mut second = asks(port, "27820000002", "hello");
    // Either may be first; whose request is answered is to move.
    tokio::select! {
        board = &mut first => {
            assert_eq!(board.unwrap().unwrap(), BOARD);
            ("27820000001", "27820000002", second)
        }
        board = &mut second => {
            assert_eq!(board.unwrap().unwrap(), BOARD);
            ("27820000002", "27820000001", first)
        }
    }
}

async fn games(arguments: &[&str]) {
    let campaign = Campaign::example("games", &[9013, 9014]);
    let mut run = campaign.run(arguments);
    let (telnet, http) = (campaign.port(9013), campaign.port(9014));
    is_up(telnet).await;
    is_up(http).await;
    guesses(telnet).await;
    let (x, o, held) = meet(http).await;
    let of_x = asks(http, x, "5");
    assert!(answer(held).await.contains("|   | X |   |"));
    let of_o = asks(http, o, "1");
    let shown = answer(of_x).await;
    assert!(
        shown.contains("| O |   |   |") && shown.contains("|   | X |   |"),
        "{shown}"
    );
    assert_eq!(answer(asks(http, x, "enough")).await, "Cheerio.");
    assert_eq!(answer(of_o).await, "Cheerio.");
    run.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn games_on_the_embedded_broker() {
    games(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn games_over_rabbitmq() {
    let Some(url) = vhost("games").await else {
        return;
    };
    games(&["--broker", &url]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_game_goes_on_after_the_process_was_killed() {
    let campaign = Campaign::example("games", &[9013, 9014]);
    let state = campaign.path().join("state");
    let arguments = ["--state", state.to_str().unwrap(), "--admin", "none"];
    let http = campaign.port(9014);
    let mut run = campaign.run(&arguments);
    is_up(http).await;
    let (x, o, held) = meet(http).await;
    run.kill();
    assert!(
        held.await.unwrap().is_err(),
        "the request ends with the process"
    );
    let mut run = campaign.run(&arguments);
    is_up(http).await;
    let of_x = asks(http, x, "5");
    // The move of O counts once X has moved, as X sees by the answer.
    let mut of_o = Vec::new();
    let shown = {
        let mut of_x = of_x;
        loop {
            tokio::select! {
                shown = &mut of_x => break shown.unwrap().unwrap(),
                () = tokio::time::sleep(Duration::from_millis(500)) => of_o.push(asks(http, o, "1")),
            }
        }
    };
    assert!(
        shown.contains("| O |   |   |") && shown.contains("|   | X |   |"),
        "{shown}"
    );
    run.stop(PATIENCE).await;
}
