//! One module per transport type: its config struct, its topology and its pure validation.

mod custom;
mod dev_null;
pub mod generic_http;
mod http_api;
mod http_rpc;
mod mediafone;
mod telnet;

pub use custom::Custom;
pub use dev_null::DevNull;
pub use generic_http::GenericHttp;
pub use http_api::HttpApi;
pub use http_rpc::{HttpRpc, RpcFields, ValidationMode};
pub use mediafone::Mediafone;
pub use telnet::Telnet;
