//! Rules and texts of tic-tac-toe.

use super::{Def, LINES};
use crate::testing::Bench;
use serde_json::json;

async fn begun() -> Bench {
    let bench = Bench::open::<Def>(json!({"ticTacToe": {}})).await;
    assert!(bench.opens("x").await.is_empty());
    assert_eq!(
        bench.opens("o").await,
        [format!("x: {}", board("         "))]
    );
    bench
}

/// The board with these nine cells.
fn board(cells: &str) -> String {
    let edge = "+---+---+---+";
    let cells: Vec<char> = cells.chars().collect();
    let rows: Vec<String> = cells
        .chunks(3)
        .map(|row| format!("| {} | {} | {} |", row[0], row[1], row[2]))
        .collect();
    format!(
        "{edge}\n{}\n{edge}\n{}\n{edge}\n{}\n{edge}",
        rows[0], rows[1], rows[2]
    )
}

/// Plays these cells in turn, X first; what the last one causes.
async fn play(bench: &Bench, cells: &str) -> Vec<String> {
    let mut said = Vec::new();
    for (n, cell) in cells.chars().enumerate() {
        let player = if n % 2 == 0 { "x" } else { "o" };
        said = bench.says(player, &cell.to_string()).await;
        assert_eq!(said.len(), if said[0].contains("(end)") { 2 } else { 1 });
    }
    said
}

#[tokio::test]
async fn a_move_shows_the_board_to_the_other() {
    let bench = begun().await;
    assert_eq!(
        play(&bench, "1").await,
        [format!("o: {}", board("X        "))]
    );
    let shown = bench.says("o", " 5!").await;
    assert_eq!(shown, [format!("x: {}", board("X   O    "))]);
    let shown = bench.says("x", "9 I say").await;
    assert_eq!(shown, [format!("o: {}", board("X   O   X"))]);
}

#[tokio::test]
async fn every_line_wins() {
    let is_line = |cells: &[usize]| LINES.iter().any(|line| line == cells);
    for line in LINES {
        let others: Vec<usize> = (0..9).filter(|cell| !line.contains(cell)).collect();
        // Cells of the loser, who must not have a line.
        let loser = [others[0], others[1], others[3]];
        assert!(!is_line(&loser));
        for (winner, end) in [("x", ["x", "o"]), ("o", ["o", "x"])] {
            let bench = begun().await;
            let (x, o) = if winner == "x" {
                (line, loser)
            } else {
                (loser, line)
            };
            let turns = [x[0], o[0], x[1], o[1], x[2], o[2]];
            let turns = &turns[..if winner == "x" { 5 } else { 6 }];
            let cells: String = turns.iter().map(|cell| (cell + 1).to_string()).collect();
            let lost = format!("{}: You lost! (end)", end[1]);
            assert_eq!(
                play(&bench, &cells).await,
                ["You won! (end)".to_owned(), lost]
            );
        }
    }
}

#[tokio::test]
async fn a_full_board_is_a_draw() {
    let bench = begun().await;
    let end = play(&bench, "123546879").await;
    assert_eq!(end, ["Draw. :-( (end)", "o: Draw. :-( (end)"]);
    assert!(bench.says("x", "1").await.is_empty(), "another game");
}

#[tokio::test]
async fn a_cell_that_is_taken_is_asked_for_again() {
    let bench = begun().await;
    play(&bench, "1").await;
    assert_eq!(bench.says("o", "1").await, [board("X        ")]);
    assert_eq!(bench.says("o", "2").await.len(), 1);
}

#[tokio::test]
async fn a_move_out_of_turn_does_not_count() {
    let bench = begun().await;
    assert!(bench.says("o", "5").await.is_empty());
    play(&bench, "1").await;
    assert!(bench.says("x", "2").await.is_empty());
    let shown = bench.says("o", "9").await;
    assert_eq!(shown, [format!("x: {}", board("X       O"))]);
}

#[tokio::test]
async fn what_is_no_cell_ends_the_game() {
    for text in ["", "0", "x", "-1", "①", "٣", "((5))"] {
        let bench = begun().await;
        let end = ["Cheerio. (end)", "o: Cheerio. (end)"];
        assert_eq!(bench.says("x", text).await, end, "{text}");
    }
    let bench = begun().await;
    assert_eq!(
        bench.says("o", "?").await,
        ["Cheerio. (end)"],
        "out of turn as well"
    );
    assert_eq!(bench.says("x", "1").await, ["Cheerio. (end)"]);
}
