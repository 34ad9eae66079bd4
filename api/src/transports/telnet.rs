//! What it is: a TCP server for line-based conversations with telnet or netcat, one session per connection.
//!
//! Provider's specification: RFC 854 (Telnet protocol), of which option negotiation is refused politely.
//!
//! Statuses: `listener` ok while the port is open; degraded while connections cannot be taken.
//!
//! Limits: for trying out and for tests; nothing authenticates the caller. A client that does not take what is written to it
//! for 10 s is disconnected, and a line waits for the broker at most 10 s.
//!
//! Codes: `listen.failed`, `message.invalid`, `message.too_large`, `reply.missing_fields`, `reply.no_client`,
//! `reply.session_closed`, `backlog.full`, `broker.unreachable`.
//!
//! ## Conversation
//!
//! | What happens | Message |
//! |---|---|
//! | a client connects | `session_event: new`, no content; `from_addr` is the client's `address:port` |
//! | it sends a line | `session_event: resume`; the line, without its end, is the content; an empty line is a message too |
//! | it types `/quit`, in any case, or closes | `session_event: close`, no content |
//! | an outbound message arrives | written to the client whose address is its `to_addr`; ends the connection if its `session_event` is `close` |
//!
//! `/quit` is the only command. A line ends with CR LF, LF, CR or CR NUL and must be UTF-8. Text goes out with CR LF for
//! every line break and one at its end. The lines of one client are published one after the other. A client that closes only
//! its sending side, as `nc -N` does, still gets the answers that arrive within a second.
//!
//! ## Notices
//!
//! | The transport says | When |
//! |---|---|
//! | `Busy, please try again.` | the line was not taken: the broker is away or too many messages wait; or `maxClients` are connected, and the connection is closed |
//! | `This message was not accepted.` | the line made a message that is refused; the log says why |
//! | `This line is too long and was dropped.` | it is longer than `maxLine`, or makes too large a message (1 MiB) |
//! | `This line is not UTF-8 text and was dropped.` | as it says |
//! | `Closed because nothing was typed. Goodbye.` | no input for `idleTimeout` |
//! | `The service is closing this connection. Goodbye.` | the worker stops or is replaced |
//!
//! ## Stopping
//!
//! When the worker stops, lines are no longer read and no client is taken. Lines taken before still get their answers for as
//! long as a stop waits (`vumi run --drain`), no longer: then every client hears goodbye and its session is closed.
//!
//! With several replicas each caller is answered by the one that they reached, whichever consumes the replies.
//!
//! ## Negotiation
//!
//! DO is answered with WONT and WILL with DONT; WONT, DONT, subnegotiation and other commands are read over. Only Erase Line is
//! obeyed: it drops what was typed of the line.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::shapes::{LineSize, ListenPort};
use crate::shared::{Duration, OrderingMode, Size};
use crate::topology::{Holds, Topology};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A line-based TCP server: each connection is one user's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Telnet {
    /// Address to listen on. `::` for IPv6. Default `0.0.0.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Port to listen on; 1024 or higher, and not 9464, where the worker serves health checks and metrics.
    #[schemars(with = "ListenPort")]
    pub port: u16,
    /// Address that callers reach, set as `to_addr` of inbound messages. Default: `host:port` of the listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub to_addr: Option<String>,
    /// `transport_type` of messages. Default `telnet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub transport_type: Option<String>,
    /// Connections without input for so long are closed. Default `30m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// Longest accepted line; a longer one is answered with a sentence and dropped. Default `4Ki`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<LineSize>")]
    pub max_line: Option<Size>,
    /// Most clients at one time; further ones are told "busy". Default `1000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub max_clients: Option<u32>,
}

impl WorkerConfig for Telnet {
    const KIND: Kind = Kind::Transport;
    const TYPE: &'static str = "telnet";
    const ORDERING: OrderingMode = OrderingMode::PerUser;
    const HONOURS: &'static [&'static str] = &["service"];

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.transport().and_then(|t| t.telnet.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        let mut t = Topology::transport(resource.transport_name());
        let host = self.host.clone().unwrap_or_else(|| "0.0.0.0".into());
        t.listens.push((host, self.port));
        t.holds = Some(Holds::Sessions);
        t
    }

    fn validate(&self, resource: &Resource) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        if resource.partitions().is_some() {
            let sentence = "each connection is held by one replica, and partitions would give its replies to others";
            findings.push(("ordering.partitions".into(), sentence.into()));
        }
        if self.idle_timeout.is_some_and(|d| d.0.is_zero()) {
            let sentence = "every connection would be closed at once";
            findings.push(("telnet.idleTimeout".into(), sentence.into()));
        }
        if self.max_line.is_some_and(|size| size.0 == 0) {
            let sentence = "every line would be too long";
            findings.push(("telnet.maxLine".into(), sentence.into()));
        }
        findings
    }
}
