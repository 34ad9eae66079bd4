//! `ticTacToe`: two users and nine cells.

use crate::conversation::Talk;
use crate::pairs::{Pairs, Rules, Turn};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::worker::{Worker, WorkerContext, WorkerType};

/// Cells of which one player must have all.
const LINES: [[usize; 3]; 8] = [
    [0, 1, 2],
    [3, 4, 5],
    [6, 7, 8],
    [0, 3, 6],
    [1, 4, 7],
    [2, 5, 8],
    [0, 4, 8],
    [2, 4, 6],
];

pub(crate) struct Def;

#[async_trait]
impl WorkerType for Def {
    type Config = vumi_api::applications::TicTacToe;

    async fn build(
        config: Self::Config,
        cx: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError> {
        let scope = crate::scope("tic_tac_toe", &cx);
        Ok(Talk::new(
            Pairs::<Cells>::new(scope, config.waiting_text),
            cx,
        )?)
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: cells}\nspec:\n  ticTacToe: {waitingText: \"Please wait.\"}\n  transportName: telnet\n",
            peer: None,
        }
    }
}

struct Cells;

/// The seats that took cells, row by row. Seat 0 is X and begins.
#[derive(Default, Serialize, Deserialize)]
struct Board([Option<usize>; 9]);

impl Board {
    fn next(&self) -> usize {
        self.0.iter().flatten().count() % 2
    }

    fn is_won_by(&self, seat: usize) -> bool {
        let all = |line: &[usize; 3]| line.iter().all(|cell| self.0[*cell] == Some(seat));
        LINES.iter().any(all)
    }
}

impl Rules for Cells {
    type Board = Board;
    const LEFT: &'static str = "Other side timed out.";

    fn view(board: &Board, _: usize) -> String {
        const EDGE: &str = "+---+---+---+";
        let mark = |cell: &Option<usize>| match cell {
            Some(0) => " X ",
            Some(_) => " O ",
            None => "   ",
        };
        let rows = board.0.chunks(3).map(|row| {
            let row: Vec<&str> = row.iter().map(mark).collect();
            format!("|{}|\n{EDGE}", row.join("|"))
        });
        let rows: Vec<String> = rows.collect();
        format!("{EDGE}\n{}", rows.join("\n"))
    }

    fn is_turn_of(board: &Board, seat: usize) -> bool {
        board.next() == seat
    }

    fn play(board: &mut Board, seat: usize, text: &str) -> Turn {
        let first = text.trim_start().chars().next();
        let cell = first.and_then(|c| c.to_digit(10)).filter(|n| *n > 0);
        let Some(cell) = cell.map(|n| n as usize - 1) else {
            return Turn::over(seat, "Cheerio.", "Cheerio.");
        };
        let mut sees = [false; 2];
        if board.next() != seat {
            return Turn::On(sees);
        }
        if board.0[cell].is_some() {
            sees[seat] = true;
            return Turn::On(sees);
        }
        board.0[cell] = Some(seat);
        if board.is_won_by(seat) {
            return Turn::over(seat, "You won!", "You lost!");
        }
        if board.0.iter().all(Option::is_some) {
            return Turn::over(seat, "Draw. :-(", "Draw. :-(");
        }
        sees[1 - seat] = true;
        Turn::On(sees)
    }
}

#[cfg(test)]
mod tests;
