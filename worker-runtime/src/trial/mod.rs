//! Campaign tests (`vumi test`): whole campaigns on the embedded broker inside this process, with stand-ins for
//! transports, fake peers for those that run, and a clock that moves only when a test lets it. The format of the files is
//! described in `docs/testing-campaigns.md`.

mod adapt;
mod answers;
mod cast;
mod check;
mod clock;
mod file;
mod given;
mod matching;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod outage_test;
mod peers;
mod player;
#[cfg(test)]
mod relay_outage_test;
mod report;
mod services;
mod stage;
mod text;
mod transcript;
mod way;

pub use check::find;
pub use file::{Test, TestFile};
pub use player::play;
pub use report::{Ended, junit, summary};
pub(crate) use way::origin;
