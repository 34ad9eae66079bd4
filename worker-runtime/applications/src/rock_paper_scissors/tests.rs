//! Rules and texts of rock, paper, scissors.

use super::Def;
use crate::testing::Bench;
use serde_json::json;

async fn begun() -> Bench {
    let bench = Bench::open::<Def>(json!({"rockPaperScissors": {}})).await;
    assert!(bench.opens("a").await.is_empty());
    let board = board("", 0, 0);
    assert_eq!(
        bench.opens("b").await,
        [board.clone(), format!("a: {board}")]
    );
    bench
}

fn board(last: &str, own: u32, other: u32) -> String {
    format!("{last}You: {own}, opponent: {other}\n1. rock\n2. paper\n3. scissors")
}

#[tokio::test]
async fn every_pair_of_hands() {
    const ROCK: &str = "1";
    const PAPER: &str = "2";
    const SCISSORS: &str = "3";
    let table = [
        (ROCK, ROCK, 0),
        (PAPER, PAPER, 0),
        (SCISSORS, SCISSORS, 0),
        (PAPER, ROCK, 1),
        (SCISSORS, PAPER, 1),
        (ROCK, SCISSORS, 1),
        (ROCK, PAPER, -1),
        (PAPER, SCISSORS, -1),
        (SCISSORS, ROCK, -1),
    ];
    for (a, b, result) in table {
        let bench = begun().await;
        assert!(bench.says("a", a).await.is_empty(), "the other is to move");
        let (of_a, of_b) = match result {
            0 => (board("Draw.\n", 0, 0), board("Draw.\n", 0, 0)),
            1 => (board("You won!\n", 1, 0), board("You lost!\n", 0, 1)),
            _ => (board("You lost!\n", 0, 1), board("You won!\n", 1, 0)),
        };
        assert_eq!(bench.says("b", b).await, [of_b, format!("a: {of_a}")]);
    }
}

#[tokio::test]
async fn five_decided_rounds_decide() {
    let bench = begun().await;
    // a wins, draw, b wins, a wins, b wins, then a.
    for (a, b) in [("2", "1"), ("1", "1"), ("1", "2"), ("2", "1"), ("1", "2")] {
        // Either may be first, and what stands behind the first character is nobody's business.
        assert!(bench.says("b", &format!(" {b} please")).await.is_empty());
        assert_eq!(bench.says("a", a).await.len(), 2);
    }
    assert!(bench.says("a", "3").await.is_empty());
    let end = ["You lost. :-( (end)", "a: You won! :-) (end)"];
    assert_eq!(bench.says("b", "2").await, end);
    assert!(bench.opens("b").await.is_empty(), "another game");
}

#[tokio::test]
async fn the_first_hand_stands_and_who_comes_back_sees_the_last_round() {
    let bench = begun().await;
    assert!(bench.says("a", "1").await.is_empty());
    assert!(bench.says("a", "2").await.is_empty());
    let said = bench.says("b", "3").await;
    let of_a = board("You won!\n", 1, 0);
    assert_eq!(said, [board("You lost!\n", 0, 1), format!("a: {of_a}")]);
    assert_eq!(bench.opens("a").await, std::slice::from_ref(&of_a));
    assert!(bench.says("a", "1").await.is_empty());
    assert!(bench.opens("a").await.is_empty(), "a has moved");
}

#[tokio::test]
async fn what_is_no_hand_ends_the_game() {
    for text in ["", "0", "4", "x", "-1", "①", "１", "((1))"] {
        let bench = begun().await;
        // A request of a waits for an answer.
        assert!(bench.says("a", "1").await.is_empty());
        let end = [
            "You disconnected. (end)",
            "a: Your opponent disconnected. (end)",
        ];
        assert_eq!(bench.says("b", text).await, end, "{text}");
        // Now none does.
        let bench = begun().await;
        assert_eq!(bench.says("b", text).await, ["You disconnected. (end)"]);
        let told = ["Your opponent disconnected. (end)"];
        assert_eq!(bench.says("a", "1").await, told);
    }
}

#[tokio::test]
async fn the_end_of_a_session_ends_the_game() {
    let bench = begun().await;
    assert!(bench.says("a", "1").await.is_empty());
    let left = ["a: Game terminated due to remote player disconnect. (end)"];
    assert_eq!(bench.closes("b").await, left);
}
