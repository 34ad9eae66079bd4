//! What a port speaks, for connections that do not come about: a server that expects TLS and a client that does not offer it,
//! or the other way round, wait for each other or end with an error that says neither.

use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that takes longer than this is looked into.
const SUSPICIOUS: Duration = Duration::from_secs(2);
/// A port that says nothing for so long says nothing.
const PATIENCE: Duration = Duration::from_secs(3);
/// First byte of a TLS alert (RFC 8446, §5.1).
const ALERT: u8 = 21;

/// A protocol, as far as it is needed to recognise it.
pub(crate) struct Protocol {
    /// What a client says first.
    pub(crate) hello: &'static [u8],
    /// What answers of a server without TLS begin with.
    pub(crate) answers: &'static [&'static [u8]],
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The protocol itself.
    Plain,
    /// TLS.
    Tls,
}

/// An empty ClientHello: whoever speaks TLS answers it with an alert, also those that only hang up on anything else.
const EMPTY_HELLO: &[u8] = &[22, 3, 1, 0, 4, 1, 0, 0, 0];

/// Greets a port in the clear, then in TLS if it hangs up, and listens; none if it is not there, or says something else.
pub(crate) async fn heard(host: &str, port: u16, protocol: &Protocol) -> Option<Heard> {
    let said = ask(host, port, protocol.hello).await;
    let said = match said {
        Some(said) if !said.is_empty() => said,
        _ => ask(host, port, EMPTY_HELLO).await?,
    };
    match said[..] {
        [ALERT, 3, ..] => Some(Heard::Tls),
        _ => {
            let is_plain = protocol.answers.iter().any(|begin| said.starts_with(begin));
            is_plain.then_some(Heard::Plain)
        }
    }
}

/// The first bytes of an answer; none if there is none.
async fn ask(host: &str, port: u16, words: &[u8]) -> Option<Vec<u8>> {
    let asking = async {
        let mut stream = TcpStream::connect((host, port)).await.ok()?;
        stream.write_all(words).await.ok()?;
        let mut said = vec![0; 16];
        let length = stream.read(&mut said).await.ok()?;
        said.truncate(length);
        Some(said)
    };
    tokio::time::timeout(PATIENCE, asking).await.ok()?
}

/// Connects; if that fails or takes long, `wrong` may know a better reason.
pub(crate) async fn connected<T, E>(
    connecting: impl Future<Output = Result<T, E>>,
    wrong: impl Future<Output = Option<E>>,
) -> Result<T, E> {
    let mut connecting = std::pin::pin!(connecting);
    match tokio::time::timeout(SUSPICIOUS, &mut connecting).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(wrong.await.unwrap_or(error)),
        Err(_) => match wrong.await {
            Some(error) => Err(error),
            None => connecting.await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const PROTOCOL: Protocol = Protocol {
        hello: b"PING\r\n",
        answers: &[b"+", b"-"],
    };

    async fn server(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut hello = [0; 6];
            stream.read_exact(&mut hello).await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        port
    }

    #[tokio::test]
    async fn a_port_is_known_by_its_answer() {
        for (answer, expected) in [
            (&b"\x15\x03\x03\x00\x02\x02\x0a"[..], Some(Heard::Tls)),
            (b"+PONG\r\n", Some(Heard::Plain)),
            (b"-NOAUTH Authentication required.\r\n", Some(Heard::Plain)),
            (b"HTTP/1.1 400 Bad Request\r\n", None),
            (b"", None),
        ] {
            let port = server(answer).await;
            assert_eq!(heard("127.0.0.1", port, &PROTOCOL).await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_better_reason_takes_the_place_of_waiting_and_of_an_error() {
        let never = std::future::pending::<Result<(), &str>>();
        assert_eq!(connected(never, async { Some("TLS") }).await, Err("TLS"));
        let failed = async { Err::<(), _>("end of file") };
        assert_eq!(connected(failed, async { None }).await, Err("end of file"));
        let slow = async {
            tokio::time::sleep(SUSPICIOUS * 2).await;
            Ok::<_, &str>(())
        };
        assert_eq!(connected(slow, async { None }).await, Ok(()));
    }
}
