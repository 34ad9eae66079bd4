//! One module per application type: its config struct, its topology and its pure validation.

mod calculator;
mod custom;
mod echo;
mod hangman;
mod http_relay;
mod memo_bot;
mod reverse;
mod rock_paper_scissors;
mod static_reply;
mod tic_tac_toe;
mod word_count;

pub use calculator::Calculator;
pub use custom::{Custom, CustomPort, EnvVar, Probe, Probes, Reload};
pub use echo::Echo;
pub use hangman::Hangman;
pub use http_relay::{HttpRelay, RelayedEvent, Signing};
pub use memo_bot::MemoBot;
pub use reverse::Reverse;
pub use rock_paper_scissors::RockPaperScissors;
pub use static_reply::StaticReply;
pub use tic_tac_toe::TicTacToe;
pub use word_count::WordCount;
