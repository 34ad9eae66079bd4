//! One module per router: its config struct, its topology and its pure validation.

mod routing_table;
mod simple;

pub use routing_table::{Route, RoutingTable};
pub use simple::Simple;
