//! The address of the broker: as it is, and as the worker under test is told it.

use amq_protocol::uri::{AMQPScheme, AMQPUri};

/// A broker that is reached without encryption, so that frames can be read.
#[derive(Clone)]
pub(super) struct Address(AMQPUri);

/// Reads `amqp://user:password@host:port/vhost`, where no vhost is `/`; what is wrong, without the password.
pub(super) fn uri(url: &str) -> Result<AMQPUri, String> {
    // What follows is for our own client.
    let url = url.split('?').next().unwrap_or_default();
    let mut uri: AMQPUri = url
        .parse()
        .map_err(|_| "the broker's URL is not of the form amqp://user:password@host:port/vhost")?;
    if uri.vhost.is_empty() {
        uri.vhost = "/".into();
    }
    Ok(uri)
}

impl Address {
    /// As [`uri`]; an error also where the connection would be encrypted.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let uri = uri(url)?;
        if uri.scheme == AMQPScheme::AMQPS {
            return Err("the checks stand between worker and broker and cannot read an encrypted connection: give an amqp:// URL".into());
        }
        Ok(Self(uri))
    }

    /// `host:port`.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.0.authority.host, self.0.authority.port)
    }

    /// What a worker is told that connects through `port` of this machine: the whole address, and its parts, as a worker of
    /// type `custom` gets them.
    pub(super) fn environment(&self, port: u16, name: &str) -> Vec<(&'static str, String)> {
        let user = &self.0.authority.userinfo;
        let url = format!(
            "amqp://{}:{}@127.0.0.1:{port}/{}",
            encoded(&user.username),
            encoded(&user.password),
            encoded(&self.0.vhost)
        );
        vec![
            ("VUMI_BROKER_URL", url),
            ("VUMI_BROKER_HOST", "127.0.0.1".into()),
            ("VUMI_BROKER_PORT", port.to_string()),
            ("VUMI_BROKER_USERNAME", user.username.clone()),
            ("VUMI_BROKER_PASSWORD", user.password.clone()),
            ("VUMI_BROKER_VHOST", self.0.vhost.clone()),
            ("VUMI_TRANSPORT_NAME", name.to_owned()),
        ]
    }
}

/// Percent-encoded but for what RFC 3986 calls unreserved.
fn encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| match keep(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_told_the_same_broker_at_another_port() {
        let address = Address::parse("amqp://me:p%40ss@rabbit:5673/a%2fb?profile=quorum").unwrap();
        assert_eq!(address.place(), "rabbit:5673");
        let told = address.environment(7000, "sms");
        assert_eq!(told[0].1, "amqp://me:p%40ss@127.0.0.1:7000/a%2Fb");
        assert_eq!(told[5].1, "a/b");
        let plain = Address::parse("amqp://localhost").unwrap();
        assert_eq!(
            plain.environment(1, "n")[0].1,
            "amqp://guest:guest@127.0.0.1:1/%2F"
        );
        let rooted = Address::parse("amqp://localhost/").unwrap();
        assert_eq!(rooted.environment(1, "n")[5].1, "/");
        let Err(refused) = Address::parse("amqps://me:hidden@rabbit") else {
            panic!("accepted");
        };
        assert!(!refused.contains("hidden"), "{refused}");
    }
}
