//! One module per transport type: its config struct, its topology and its pure validation.

mod dev_null;
mod http_api;
mod telnet;

pub use dev_null::DevNull;
pub use http_api::HttpApi;
pub use telnet::Telnet;
