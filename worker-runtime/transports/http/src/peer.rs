//! The far end of an HTTP transport for the conformance suite: plain TCP, one open request per user. A held request
//! gets no word before its reply, so `send` returns once the request is written.

use async_trait::async_trait;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vumi_core::conformance::Peer;

pub(crate) struct HttpPeer {
    port: u16,
    /// Requests without an answer yet, oldest first.
    open: HashMap<usize, VecDeque<TcpStream>>,
}

impl HttpPeer {
    pub(crate) fn new(port: u16) -> Self {
        Self {
            port,
            open: HashMap::new(),
        }
    }

    async fn write(&self, bytes: &[u8]) -> Result<TcpStream, String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))
            .await
            .map_err(|e| format!("cannot connect: {e}"))?;
        stream
            .write_all(bytes)
            .await
            .map_err(|e| format!("cannot write: {e}"))?;
        Ok(stream)
    }
}

/// Everything but letters and digits as `%XX`.
fn escape(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// Reads one answer of a connection that closes after it; the body if its status is 200.
async fn read_answer(stream: &mut TcpStream) -> Result<String, String> {
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .await
        .map_err(|e| format!("cannot read: {e}"))?;
    let text = String::from_utf8(bytes).map_err(|e| format!("the answer is not UTF-8: {e}"))?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err("the connection was closed without an answer".into());
    };
    let status = head.lines().next().unwrap_or_default();
    if status.contains(" 200 ") {
        Ok(body.to_owned())
    } else {
        Err(format!("answered {status}: {body}"))
    }
}

#[async_trait]
impl Peer for HttpPeer {
    async fn send(&mut self, user: usize, text: &str) -> Result<(), String> {
        let form = format!(
            "content={}&from_addr=%2B2782{user:07}&to_addr=555",
            escape(text)
        );
        let request = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        );
        let stream = self.write(request.as_bytes()).await?;
        self.open.entry(user).or_default().push_back(stream);
        Ok(())
    }

    async fn receive(&mut self, user: usize, within: Duration) -> Result<String, String> {
        let open = self.open.entry(user).or_default();
        let Some(stream) = open.front_mut() else {
            return Err("this user has no open request".into());
        };
        match tokio::time::timeout(within, read_answer(stream)).await {
            Ok(answer) => {
                open.pop_front();
                answer
            }
            Err(_) => Err(format!("nothing within {within:?}")),
        }
    }

    async fn garbage(&mut self) -> Result<(), String> {
        self.write(b"\x00\xff not HTTP at all\r\n\r\n").await?;
        let wrong = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n{\"\xff\"}";
        let mut stream = self.write(wrong).await?;
        match read_answer(&mut stream).await {
            Err(answer) if answer.contains(" 400 ") => Ok(()),
            other => Err(format!("garbage was not answered with 400, but {other:?}")),
        }
    }
}
