//! The far end of a telnet transport for the conformance suite: one plain TCP connection per user.

use async_trait::async_trait;
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use vumi_core::conformance::Peer;

pub(crate) struct TelnetPeer {
    port: u16,
    users: HashMap<usize, BufReader<TcpStream>>,
}

impl TelnetPeer {
    pub(crate) fn new(port: u16) -> Self {
        Self {
            port,
            users: HashMap::new(),
        }
    }

    async fn user(&mut self, user: usize) -> Result<&mut BufReader<TcpStream>, String> {
        let connection = match self.users.remove(&user) {
            Some(connection) => connection,
            None => BufReader::new(self.connect().await?),
        };
        Ok(self.users.entry(user).or_insert(connection))
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        TcpStream::connect(("127.0.0.1", self.port))
            .await
            .map_err(|e| format!("cannot connect: {e}"))
    }
}

#[async_trait]
impl Peer for TelnetPeer {
    async fn send(&mut self, user: usize, text: &str) -> Result<(), String> {
        let line = format!("{text}\r\n");
        let connection = self.user(user).await?;
        if let Err(error) = connection.write_all(line.as_bytes()).await {
            self.users.remove(&user);
            return Err(format!("cannot write: {error}"));
        }
        Ok(())
    }

    async fn receive(&mut self, user: usize, within: Duration) -> Result<String, String> {
        let connection = self.user(user).await?;
        let mut line = String::new();
        let read = tokio::time::timeout(within, connection.read_line(&mut line)).await;
        match read {
            Ok(Ok(0)) => {
                self.users.remove(&user);
                Err("the connection was closed".into())
            }
            Ok(Ok(_)) => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
            Ok(Err(error)) => Err(format!("cannot read: {error}")),
            Err(_) => Err(format!("nothing within {within:?}")),
        }
    }

    async fn garbage(&mut self) -> Result<(), String> {
        let mut connection = self.connect().await?;
        let mut bytes = vec![0xff, 0xfd, 0x01, 0xff, 0xfa, 0x18, 0x00, 0xff, 0xf0];
        bytes.extend_from_slice(b"\xc3\x28 not text\r\n");
        bytes.extend(std::iter::repeat_n(b'x', 100_000));
        connection
            .write_all(&bytes)
            .await
            .map_err(|e| format!("cannot write: {e}"))
    }
}
