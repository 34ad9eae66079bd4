//! A telnet user: says lines, hears lines.

use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// What an echo says to who connects.
const PROMPT: &str = "Enter text to echo:";

/// An open connection.
pub struct Telnet {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Telnet {
    /// Connects to `port` of this machine.
    pub async fn connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: BufReader::new(reader),
            writer,
        })
    }

    /// Says a line.
    pub async fn say(&mut self, line: &str) -> std::io::Result<()> {
        self.writer
            .write_all(format!("{line}\r\n").as_bytes())
            .await
    }

    /// The next line that is neither empty nor the prompt of an echo; none at the end or after `limit`.
    pub async fn hear(&mut self, limit: Duration) -> Option<String> {
        tokio::time::timeout(limit, async {
            loop {
                let mut line = String::new();
                if self.reader.read_line(&mut line).await.ok()? == 0 {
                    return None;
                }
                let line = line.trim();
                if !line.is_empty() && line != PROMPT {
                    return Some(line.to_owned());
                }
            }
        })
        .await
        .ok()
        .flatten()
    }

    /// Says a line and hears the answer.
    pub async fn ask(&mut self, line: &str, limit: Duration) -> Option<String> {
        self.say(line).await.ok()?;
        self.hear(limit).await
    }
}

/// A connection on which `hello` was answered with `hello`: the whole way is up.
pub async fn greeted(port: u16, limit: Duration) -> Telnet {
    super::wait_for("telnet answers", limit, || async {
        let mut user = Telnet::connect(port).await.map_err(|e| e.to_string())?;
        match user.ask("hello", Duration::from_secs(5)).await.as_deref() {
            Some("hello") => Ok(user),
            other => Err(format!("heard {other:?}")),
        }
    })
    .await
}
