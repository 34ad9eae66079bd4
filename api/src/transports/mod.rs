//! One module per transport type: its config struct, its topology and its pure validation.

mod http_api;
mod telnet;

pub use http_api::HttpApi;
pub use telnet::Telnet;
