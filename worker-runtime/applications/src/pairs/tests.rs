//! Who plays with whom, and how games end, shown by tic-tac-toe: X is who came first.

use crate::testing::{Bench, handle, texts};
use crate::tic_tac_toe::Def;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use vumi_core::message::SessionEvent;
use vumi_core::state::Person;

const EMPTY: &str = "+---+---+---+\n|   |   |   |\n+---+---+---+\n|   |   |   |\n+---+---+---+\n|   |   |   |\n+---+---+---+";

async fn silent() -> Bench {
    Bench::open::<Def>(json!({"ticTacToe": {}})).await
}

async fn chatty() -> Bench {
    Bench::open::<Def>(json!({"ticTacToe": {"waitingText": "Please wait."}})).await
}

fn to(other: &str, text: &str) -> String {
    format!("{other}: {text}")
}

#[tokio::test]
async fn players_are_matched_in_the_order_in_which_they_come() {
    let bench = silent().await;
    for (x, o) in [("a", "b"), ("c", "d"), ("e", "f")] {
        assert!(bench.opens(x).await.is_empty());
        assert_eq!(bench.opens(o).await, [to(x, EMPTY)]);
    }
    // Nobody meets themselves, whatever they do meanwhile; who has no session opens a game by saying anything.
    assert!(bench.says("27821", "hello").await.is_empty());
    assert!(bench.opens("27821").await.is_empty());
    assert!(bench.says("+27821", "1").await.is_empty());
    assert!(bench.nothing("27821").await.is_empty());
    assert_eq!(bench.says("h", "").await, [to("27821", EMPTY)]);
    assert_eq!(
        bench.says("a", "0").await,
        ["Cheerio. (end)", "b: Cheerio. (end)"]
    );
}

#[tokio::test]
async fn who_waits_and_leaves_is_not_met() {
    let bench = silent().await;
    assert!(bench.opens("a").await.is_empty());
    assert!(bench.closes("a").await.is_empty());
    assert!(
        bench.closes("a").await.is_empty(),
        "who does not play leaves nothing"
    );
    assert!(bench.opens("b").await.is_empty());
    assert_eq!(bench.opens("c").await, [to("b", EMPTY)]);
}

#[tokio::test]
async fn the_end_of_a_session_ends_the_game_for_the_other() {
    let bench = silent().await;
    bench.opens("a").await;
    bench.opens("b").await;
    // A request of b waits for an answer.
    assert_eq!(bench.closes("a").await, ["b: Other side timed out. (end)"]);
    bench.opens("a").await;
    assert_eq!(bench.opens("b").await, [to("a", EMPTY)]);
    // None of a does: it is said when a says something.
    assert!(bench.closes("b").await.is_empty());
    assert_eq!(bench.says("a", "1").await, ["Other side timed out. (end)"]);
    assert!(
        bench.says("a", "1").await.is_empty(),
        "and a new game begins"
    );
    assert_eq!(bench.opens("b").await, [to("a", EMPTY)]);
    assert!(bench.closes("b").await.is_empty());
    assert!(
        bench.opens("a").await.is_empty(),
        "a new session needs no old news"
    );
    assert_eq!(bench.opens("b").await, [to("a", EMPTY)]);
}

#[tokio::test]
async fn who_comes_back_sees_the_game() {
    let bench = silent().await;
    bench.opens("a").await;
    bench.opens("b").await;
    assert_eq!(bench.opens("a").await, [EMPTY]);
    assert_eq!(bench.nothing("a").await, [EMPTY]);
    assert!(bench.opens("b").await.is_empty(), "it is not b's turn");
    assert_eq!(
        bench.says("a", "1").await.len(),
        1,
        "b's last request is answered"
    );
    assert!(bench.opens("a").await.is_empty());
}

#[tokio::test]
async fn with_a_text_for_who_waits_players_are_written_to() {
    let bench = chatty().await;
    assert_eq!(bench.opens("a").await, ["Please wait."]);
    assert_eq!(bench.says("a", "hello?").await, ["Please wait."]);
    assert_eq!(
        bench.opens("b").await,
        ["Please wait.".into(), format!("a! {EMPTY}")]
    );
    let said = bench.says("a", "1").await;
    assert_eq!(said.len(), 2);
    assert_eq!(said[0], "Please wait.");
    assert!(said[1].starts_with("b! +---"), "{said:?}");
    assert_eq!(bench.says("a", "2").await, ["Please wait."], "not a's turn");
    assert_eq!(bench.closes("a").await, ["b! Other side timed out. (end)"]);
    assert_eq!(bench.opens("b").await, ["Please wait."]);
}

#[tokio::test]
async fn an_erased_player_is_gone_from_the_game() {
    let bench = silent().await;
    bench.opens("+27821").await;
    bench.store().erase(&Person::new("27821")).await.unwrap();
    assert!(bench.opens("b").await.is_empty(), "nobody waits");
    bench.opens("27822").await;
    bench.store().erase(&Person::new("27822")).await.unwrap();
    let end = ["Other side timed out. (end)"];
    assert_eq!(bench.says("b", "1").await, end, "who waits in vain is told");
    assert!(bench.says("b", "1").await.is_empty(), "and begins anew");
    assert_eq!(bench.opens("c").await, [to("b", EMPTY)]);
    bench.store().erase(&Person::new("c")).await.unwrap();
    assert!(
        bench.opens("b").await.is_empty(),
        "a new session needs no old news"
    );
    assert_eq!(bench.opens("d").await, [to("b", EMPTY)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_who_comes_at_once_finds_one_opponent() {
    const PLAYERS: usize = 40;
    let bench = silent().await;
    let workers = [bench.replica::<Def>().await, bench.replica::<Def>().await];
    let tasks = (0..PLAYERS).map(|n| {
        let message = bench.message(&format!("p{n}"), None, Some(SessionEvent::New));
        let worker = Arc::clone(&workers[n % 2]);
        tokio::spawn(async move {
            loop {
                match handle(&worker, &message).await {
                    Ok(said) => return said,
                    Err(error) => assert_eq!(error.code, vumi_core::codes::STATE_CONTENDED),
                }
            }
        })
    });
    let mut boards = BTreeMap::new();
    for task in tasks.collect::<Vec<_>>() {
        for said in task.await.unwrap() {
            assert_eq!(said.content(), Some(EMPTY));
            *boards
                .entry(said.to_addr().unwrap().to_owned())
                .or_insert(0) += 1;
        }
    }
    assert_eq!(boards.len(), PLAYERS / 2, "each game has one X");
    assert!(boards.values().all(|count| *count == 1), "{boards:?}");
    assert!(bench.opens("late").await.is_empty(), "nobody is left over");
}

#[tokio::test]
async fn a_move_that_comes_again_after_the_answer_is_not_made_again() {
    let bench = silent().await;
    bench.opens("a").await;
    bench.opens("b").await;
    let event = Some(SessionEvent::Resume);
    let (first, second) = (
        bench.message("a", Some("1"), event),
        bench.message("b", Some("2"), event),
    );
    let told = bench.hears(&first).await;
    assert_eq!(told.len(), 1);
    let answer = bench.hears(&second).await;
    // On another replica, after all of it.
    let other = bench.replica::<Def>().await;
    for (message, said) in [(&first, &told), (&second, &answer)] {
        let again = handle(&other, message).await.unwrap();
        assert_eq!(&texts(message, &again), said);
    }
    let third = bench.says("a", "3").await;
    assert!(third[0].contains("| X | O | X |"), "{third:?}");
}
