//! One attempt to connect: TCP, TLS with the system's authorities or a private one (rustls, ring), AMQP.
//! Also asks the broker who it is, which lapin reads from the handshake but does not pass on.

use super::config::Endpoint;
use super::errors;
use crate::broker::Durability;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::speech::{self, Heard, Protocol};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use lapin::tcp::{
    AMQPUriTcpExt, AsyncTcpStream, RustlsConnector, RustlsConnectorConfig, TLSConfig,
};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io;
use std::time::Duration;

/// AMQP 0-9-1: a header, answered with `connection.start` in a frame of type 1, or with the header that would do.
const AMQP: Protocol = Protocol {
    hello: b"AMQP\x00\x00\x09\x01",
    answers: &[b"\x01\x00\x00", b"AMQP"],
};

/// A broker that accepts the connection and then says nothing is given up after this.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no connection.
pub(super) struct Failure {
    /// For people; without secrets.
    pub(super) text: String,
    /// The broker answered, and trying again will not help: it refused user, password, vhost, or speaks otherwise.
    pub(super) refused: bool,
}

impl From<WorkError> for Failure {
    fn from(error: WorkError) -> Self {
        Self {
            text: error.text,
            refused: false,
        }
    }
}

/// Connects once.
pub(super) async fn connect(endpoint: Endpoint, name: String) -> Result<Connection, Failure> {
    let tls = connector(&endpoint)?;
    let door = endpoint.door();
    let properties = ConnectionProperties::default()
        .with_connection_name(name.into())
        .with_client_property("product".into(), "vumi".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let way = plain(&door);
    let connecting = async {
        let runtime = lapin::runtime::default_runtime()?;
        Connection::connector(
            endpoint.uri,
            runtime,
            async move |uri, runtime| {
                let stream = way
                    .connect_with_config_async(TLSConfig::default(), &runtime)
                    .await?;
                Ok(encrypt(stream, tls.as_ref(), &uri.authority.host).await?)
            },
            properties,
        )
        .await
    };
    let connecting = async {
        connecting.await.map_err(|error: lapin::Error| Failure {
            refused: errors::is_refusal(&error),
            text: error.to_string(),
        })
    };
    let connecting = speech::connected(connecting, other_speech(&door));
    let connected = tokio::time::timeout(PATIENCE, connecting).await;
    connected.unwrap_or_else(|_| {
        Err(Failure {
            text: format!("no answer within {} s", PATIENCE.as_secs()),
            refused: false,
        })
    })
}

/// Why there will be no connection, if the port speaks TLS and we do not, or the other way round.
async fn other_speech(uri: &AMQPUri) -> Option<Failure> {
    let (host, port) = (&uri.authority.host, uri.authority.port);
    let encrypted = uri.scheme == AMQPScheme::AMQPS;
    let text = match (speech::heard(host, port, &AMQP).await?, encrypted) {
        (Heard::Tls, false) => format!(
            "port {port} speaks TLS: write amqps://…, or set broker.tls, or name the port without TLS (usually 5672)"
        ),
        (Heard::Plain, true) => format!(
            "port {port} does not speak TLS: name the TLS port (usually 5671), or write amqp://… and leave out broker.tls and --broker-ca"
        ),
        _ => return None,
    };
    Some(Failure {
        text,
        refused: true,
    })
}

/// Who the broker says that it is.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Product and version, e.g. `RabbitMQ 4.0.5`.
    pub(super) version: String,
    /// Name of its cluster.
    pub(super) cluster: Option<String>,
}

/// Who the broker is; none if it does not say so quickly.
pub(super) async fn server(endpoint: Endpoint) -> Option<Server> {
    let tls = connector(&endpoint).ok()?;
    let asking = async {
        let runtime = lapin::runtime::default_runtime().ok()?;
        let stream = plain(&endpoint.door())
            .connect_with_config_async(TLSConfig::default(), &runtime)
            .await
            .ok()?;
        let stream = encrypt(stream, tls.as_ref(), &endpoint.uri.authority.host)
            .await
            .ok()?;
        greeting(stream).await.ok()
    };
    let start = tokio::time::timeout(Duration::from_secs(3), asking)
        .await
        .ok()??;
    let (product, version) = (property(&start, "product")?, property(&start, "version")?);
    Some(Server {
        version: format!("{product} {version}"),
        cluster: property(&start, "cluster_name"),
    })
}

/// How much a confirmation of this server means for a classic queue (R16: counted fsync calls). Unknown servers get
/// the weaker word.
pub(super) fn durability(server: &str) -> Durability {
    if server.starts_with("RabbitMQ 3.10.") {
        Durability::Host
    } else {
        Durability::Process
    }
}

fn plain(uri: &AMQPUri) -> AMQPUri {
    AMQPUri {
        scheme: AMQPScheme::AMQP,
        ..uri.clone()
    }
}

fn connector(endpoint: &Endpoint) -> Result<Option<RustlsConnector>, WorkError> {
    if endpoint.uri.scheme == AMQPScheme::AMQP {
        return Ok(None);
    }
    let untrusted = |text: String| WorkError::new(ErrorClass::Config, codes::CONFIG_ADDRESS, text);
    let config = match &endpoint.authority {
        None => RustlsConnectorConfig::new_with_native_certs()
            .map_err(|e| untrusted(format!("this system trusts no certificate authority: {e}")))?,
        Some(pem) => {
            let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|e| untrusted(format!("the certificate authority is not PEM: {e}")))?;
            if certificates.is_empty() {
                return Err(untrusted(
                    "the certificate authority holds no certificate".into(),
                ));
            }
            RustlsConnectorConfig::default().with_parsable_certificates(certificates)
        }
    };
    let connector = config
        .connector_with_no_client_auth()
        .map_err(|e| untrusted(format!("TLS cannot be set up: {e}")))?;
    Ok(Some(connector))
}

async fn encrypt<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: AsyncTcpStream<S>,
    tls: Option<&RustlsConnector>,
    host: &str,
) -> io::Result<AsyncTcpStream<S>> {
    match tls {
        Some(connector) => stream.into_rustls(connector, host).await,
        None => Ok(stream),
    }
}

/// The broker's first frame, `connection.start` (AMQP 0-9-1, §1.4.2.1).
async fn greeting(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Vec<u8>> {
    stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]).min(64 * 1024);
    let mut body = vec![0; size as usize];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// A text among the server properties: length-prefixed name, `S`, length, text (AMQP 0-9-1, §4.2.5.5).
fn property(start: &[u8], name: &str) -> Option<String> {
    let mut pattern = vec![u8::try_from(name.len()).ok()?];
    pattern.extend_from_slice(name.as_bytes());
    pattern.push(b'S');
    let at = start.windows(pattern.len()).position(|w| w == pattern)? + pattern.len();
    let length = u32::from_be_bytes(start.get(at..at + 4)?.try_into().ok()?) as usize;
    let text = start.get(at + 4..)?.get(..length)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_and_durability() {
        let start = b"\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x2c\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x064.0.5x";
        assert_eq!(property(start, "product").as_deref(), Some("RabbitMQ"));
        assert_eq!(property(start, "platform"), None);
        assert_eq!(durability("RabbitMQ 3.10.8"), Durability::Host);
        for other in ["RabbitMQ 3.13.7", "RabbitMQ 4.0.5", "RabbitMQ", "Other 3.1"] {
            assert_eq!(durability(other), Durability::Process, "{other}");
        }
    }
}
