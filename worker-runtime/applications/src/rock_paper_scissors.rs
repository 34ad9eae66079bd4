//! `rockPaperScissors`: two users, five decided rounds.

use crate::conversation::Talk;
use crate::pairs::{Pairs, Rules, Turn};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::worker::{Worker, WorkerContext, WorkerType};

/// A game is over when so many rounds were won.
const ROUNDS: u32 = 5;

pub(crate) struct Def;

#[async_trait]
impl WorkerType for Def {
    type Config = vumi_api::applications::RockPaperScissors;

    async fn build(
        config: Self::Config,
        cx: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError> {
        let scope = crate::scope("rock_paper_scissors", &cx);
        Ok(Talk::new(
            Pairs::<Hands>::new(scope, config.waiting_text),
            cx,
        )?)
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: hands}\nspec:\n  rockPaperScissors: {waitingText: \"Please wait.\"}\n  transportName: telnet\n",
            peer: None,
        }
    }
}

struct Hands;

#[derive(Default, Serialize, Deserialize)]
struct Board {
    scores: [u32; 2],
    /// Of the round that is played: 1 rock, 2 paper, 3 scissors.
    moves: [Option<u8>; 2],
    /// Who won the last round; none before it, and after a draw.
    last: Last,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
enum Last {
    #[default]
    None,
    Draw,
    Won(usize),
}

impl Rules for Hands {
    type Board = Board;
    const LEFT: &'static str = "Game terminated due to remote player disconnect.";

    fn view(board: &Board, seat: usize) -> String {
        let last = match board.last {
            Last::None => "",
            Last::Draw => "Draw.\n",
            Last::Won(winner) if winner == seat => "You won!\n",
            Last::Won(_) => "You lost!\n",
        };
        let (own, other) = (board.scores[seat], board.scores[1 - seat]);
        format!("{last}You: {own}, opponent: {other}\n1. rock\n2. paper\n3. scissors")
    }

    fn is_turn_of(board: &Board, seat: usize) -> bool {
        board.moves[seat].is_none()
    }

    fn play(board: &mut Board, seat: usize, text: &str) -> Turn {
        let hand = match text.trim_start().chars().next() {
            Some('1') => 1,
            Some('2') => 2,
            Some('3') => 3,
            _ => return Turn::over(seat, "You disconnected.", "Your opponent disconnected."),
        };
        // The first word counts.
        board.moves[seat].get_or_insert(hand);
        let [Some(first), Some(second)] = board.moves else {
            return Turn::On([false; 2]);
        };
        board.moves = [None; 2];
        board.last = match (3 + first - second) % 3 {
            0 => Last::Draw,
            // What comes next in the list beats what is before it, and the first beats the last.
            1 => Last::Won(0),
            _ => Last::Won(1),
        };
        if let Last::Won(winner) = board.last {
            board.scores[winner] += 1;
        }
        if board.scores.iter().sum::<u32>() < ROUNDS {
            return Turn::On([true; 2]);
        }
        let winner = usize::from(board.scores[1] > board.scores[0]);
        Turn::over(winner, "You won! :-)", "You lost. :-(")
    }
}

#[cfg(test)]
mod tests;
