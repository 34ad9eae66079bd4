//! What a worker touches: the queues it consumes and publishes, and the addresses it listens on. Pure facts drawn from
//! a manifest; `lint` and the operator judge whole campaigns by them.

use crate::resource::Resource;

/// The three data flows of a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flow {
    /// User messages from a transport to an application.
    Inbound,
    /// User messages from an application to a transport.
    Outbound,
    /// Events about outbound messages, from a transport to an application.
    Event,
}

impl Flow {
    /// The queue suffix: `inbound`, `outbound` or `event`.
    pub fn as_str(self) -> &'static str {
        match self {
            Flow::Inbound => "inbound",
            Flow::Outbound => "outbound",
            Flow::Event => "event",
        }
    }
}

/// One flow of one connector. Queue and routing key are `<connector>.<flow>` on the direct exchange `vumi`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// Connector name, normally a transport name.
    pub connector: String,
    /// Which of its flows.
    pub flow: Flow,
}

impl Port {
    /// A port of `connector`.
    pub fn new(connector: impl Into<String>, flow: Flow) -> Self {
        Self {
            connector: connector.into(),
            flow,
        }
    }

    /// Queue name and routing key: `<connector>.<flow>`.
    pub fn queue(&self) -> String {
        format!("{}.{}", self.connector, self.flow.as_str())
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.connector, self.flow.as_str())
    }
}

/// What a replica of a transport holds in its process and no other can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Requests of the peer, each open until its one reply comes. Replies have no order among each other.
    Requests,
    /// Sessions: connections that last, whose messages have the order of the transport.
    Sessions,
}

/// What one worker touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Consumed queues that take in new work: closed first on a stop (R8).
    pub intake: Vec<Port>,
    /// Consumed queues that carry answers to work already accepted: they go on until held requests are answered.
    pub replies: Vec<Port>,
    /// Queues the worker publishes to; declared by it when it starts.
    pub publishes: Vec<Port>,
    /// `(address, port)` pairs it listens on.
    pub listens: Vec<(String, u16)>,
    /// What each replica of a transport holds in its process, so that replies must find that replica (R19).
    pub holds: Option<Holds>,
    /// True for transports that answer requests and can send nothing of their own.
    pub only_answers: bool,
}

impl Topology {
    /// A transport: takes work from its peer, sends what arrives on `<name>.outbound`.
    pub fn transport(name: &str) -> Self {
        Self {
            replies: vec![Port::new(name, Flow::Outbound)],
            publishes: vec![Port::new(name, Flow::Inbound), Port::new(name, Flow::Event)],
            ..Self::default()
        }
    }

    /// A transport that listens for requests, if it has a port for them.
    pub fn listening(resource: &Resource) -> Self {
        let mut topology = Self::transport(resource.transport_name());
        if let Some(http) = resource.transport().and_then(|t| t.http.as_ref()) {
            topology.listens.push((http.host().to_owned(), http.port));
        }
        topology
    }

    /// An application on the connector `name`.
    pub fn application(name: &str) -> Self {
        Self {
            intake: vec![Port::new(name, Flow::Inbound)],
            replies: vec![Port::new(name, Flow::Event)],
            publishes: vec![Port::new(name, Flow::Outbound)],
            ..Self::default()
        }
    }

    /// A dispatcher between transports and exposed names.
    pub fn dispatcher<'a>(
        transports: impl IntoIterator<Item = &'a String>,
        exposed: impl IntoIterator<Item = &'a String>,
    ) -> Self {
        let mut t = Self::default();
        for name in transports {
            t.intake.push(Port::new(name, Flow::Inbound));
            t.replies.push(Port::new(name, Flow::Event));
            t.publishes.push(Port::new(name, Flow::Outbound));
        }
        for name in exposed {
            t.replies.push(Port::new(name, Flow::Outbound));
            t.publishes.push(Port::new(name, Flow::Inbound));
            t.publishes.push(Port::new(name, Flow::Event));
        }
        t
    }
}
