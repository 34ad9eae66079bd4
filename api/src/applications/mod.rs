//! One module per application type: its config struct, its topology and its pure validation.

mod echo;
mod static_reply;

pub use echo::Echo;
pub use static_reply::StaticReply;
