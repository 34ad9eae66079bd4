//! Where `vumi inject` sends messages: to a RabbitMQ, or through a running process to the broker that it uses.

use super::waiting::Link;
use super::{Arguments, LAST};
use crate::brokers::{self, Url};
use crate::error::CliError;
use bytes::Bytes;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use vumi_api::Port;
use vumi_core::broker::Broker;
use vumi_core::error::WorkError;
use vumi_core::inject::Injector;
use vumi_core::supervisor::control::{Conversation, Request};

/// Messages of one request to a process.
const BATCH: usize = 200;
/// Bytes of one request to a process, with room for one more message.
const BATCH_BYTES: usize = 512 * 1024;

/// Where messages go.
pub enum Sink {
    /// A RabbitMQ.
    Broker(Injector, Arc<dyn Broker>),
    /// A running process.
    Process(Box<Batches>),
}

/// Messages for a process, some at a time.
pub struct Batches {
    conversation: Conversation,
    socket: PathBuf,
    port: Port,
    waiting: Vec<Value>,
    bytes: usize,
    most: usize,
    confirmed: u64,
}

impl Batches {
    /// Waits until everything is confirmed.
    pub async fn flush(&mut self) -> Result<(), WorkError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let request = Request::Publish {
            connector: self.port.connector.clone(),
            kind: self.port.flow.as_str().to_owned(),
            messages: std::mem::take(&mut self.waiting),
        };
        self.bytes = 0;
        let answer = self.conversation.ask(&request).await?;
        self.confirmed += answer["confirmed"].as_u64().unwrap_or(0);
        Ok(())
    }
}

impl Sink {
    /// Connects, and looks whether there is a queue that takes them.
    pub async fn open(arguments: &Arguments, port: &Port) -> Result<Self, CliError> {
        let Some(url) = &arguments.broker else {
            let socket = arguments.which.socket()?;
            return Ok(Sink::Process(Box::new(Batches {
                conversation: Conversation::open(&socket).await?,
                socket,
                port: port.clone(),
                waiting: Vec::new(),
                bytes: 0,
                // A slow rate is even over the second.
                most: arguments
                    .rate
                    .map_or(BATCH, |rate| ((rate / 10.0) as usize).clamp(1, BATCH)),
                confirmed: 0,
            })));
        };
        let url = Url {
            url: url.clone(),
            authority: arguments.broker_ca.clone(),
        };
        let broker = url.open()?;
        brokers::connected(&broker).await?;
        let queue = port.queue();
        if !arguments.create && broker.depth(&queue).await?.is_none() {
            broker.close(LAST).await;
            return Err(CliError::validation(format!(
                "there is no queue {queue}: start what reads it, check --connector and --kind, or give --create"
            )));
        }
        let injector = Injector::new(Arc::clone(&broker), queue, arguments.create);
        Ok(Sink::Broker(injector, broker))
    }

    /// Who knows why nothing is confirmed.
    pub fn link(&self, port: &Port) -> Link {
        match self {
            Sink::Broker(_, broker) => Link::Broker(Arc::clone(broker)),
            Sink::Process(batches) => Link::Process(batches.socket.clone(), port.queue()),
        }
    }

    /// Hands a message over; waits while too many are unconfirmed.
    pub async fn send(&mut self, body: Bytes) -> Result<(), WorkError> {
        match self {
            Sink::Broker(injector, _) => injector.send(body).await,
            Sink::Process(batches) => {
                batches.bytes += body.len();
                let message = serde_json::from_slice(&body).unwrap_or_default();
                batches.waiting.push(message);
                match batches.waiting.len() >= batches.most || batches.bytes >= BATCH_BYTES {
                    true => batches.flush().await,
                    false => Ok(()),
                }
            }
        }
    }

    /// Waits until everything is confirmed.
    pub async fn flush(&mut self) -> Result<(), WorkError> {
        match self {
            Sink::Broker(injector, _) => injector.flush().await,
            Sink::Process(batches) => batches.flush().await,
        }
    }

    /// The first so many are confirmed.
    pub fn confirmed(&self) -> u64 {
        match self {
            Sink::Broker(injector, _) => injector.confirmed(),
            Sink::Process(batches) => batches.confirmed,
        }
    }

    /// Publications that had to be repeated.
    pub fn repeated(&self) -> u64 {
        match self {
            Sink::Broker(injector, _) => injector.repeated(),
            Sink::Process(_) => 0,
        }
    }

    /// Ends the connection.
    pub async fn close(&self) {
        if let Sink::Broker(_, broker) = self {
            broker.close(LAST).await;
        }
    }
}
