//! HTTP server helpers that several families share: a server on a lent socket with limits and a graceful end, request
//! parameters as Vumi reads them, HTTP Basic. Built on hyper itself, because a transport must know when its answer
//! was really written and when the caller went away.

mod answer;
mod auth;
mod connection;
mod params;
mod server;

pub use answer::{Answer, Reply, Written};
pub use auth::{credentials_match, unauthorized};
pub use http::{HeaderMap, Method, StatusCode};
pub use params::{ParamError, Params};
pub use server::{Head, Limits, Request, Server, Service};
