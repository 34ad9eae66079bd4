//! HTTP that several families share: a server on a lent socket with limits and a graceful end, request parameters as Vumi
//! reads them, HTTP Basic, signatures, and a client. The server is built on hyper itself, because a transport must know when
//! its answer was really written and when the caller went away.

mod answer;
mod auth;
mod body;
mod callee;
mod client;
mod connection;
mod params;
mod server;
mod signature;
mod watched;
pub mod webhook;

pub use answer::{Answer, Reply, Written, status_class};
pub use auth::{credentials_match, equal, unauthorized};
pub use callee::{Callee, ENDPOINT, PROVIDER};
pub use client::{Call, CallError, Caller, Client, class_of, retry_after};
pub use http::{HeaderMap, Method, StatusCode};
pub use params::{FORM, MAX_PARAMETERS, MULTIPART, ParamError, Params, is_form, json, unescape};
pub use server::{BodyRoom, Ended, Head, Limits, Request, Server, Service, Trouble};
pub use signature::{Encoding, SignatureError, Signed};
