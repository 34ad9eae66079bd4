//! Logs of the process: one line per event on stderr, as text or JSON. Message contents never appear in them, user
//! addresses only as [`hashed_address`], and what the clients of brokers and of Kubernetes log not at all.

use crate::broker::amqp;
use crate::numbers::by_form;
use sha2::{Digest, Sha256};
use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing::Dispatch;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Environment variable with the filter, such as `info` or `vumi_core=debug,vumi_http=warn`.
pub const FILTER_VARIABLE: &str = "VUMI_LOG";

/// Environment variable with the key of [`hashed_address`], for logs whose addresses can be compared across processes.
pub const KEY_VARIABLE: &str = "VUMI_LOG_KEY";

/// Beginning of the log targets of the client of the Kubernetes API, which is never logged: whole answers that it cannot read, which
/// may be Secrets, and every failure as an error, whatever comes of it. What concerns anybody the operator says itself.
const KUBERNETES: &str = "kube_client";

/// Digits of an address that stay readable.
const DIGITS_SHOWN: usize = 3;

/// An address with fewer digits than this shows none of them: three of a short one would be most of it.
const DIGITS_NEEDED: usize = 7;

/// Shape of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(format!("{other:?} is no log format: use text or json")),
        }
    }
}

/// Sends the process's logs to stderr. `filter` wins over `VUMI_LOG`, and both over `info`. A second call, as in tests
/// that share a process, changes nothing. An unreadable filter is an error that says which part is wrong.
pub fn start(format: LogFormat, filter: Option<&str>) -> Result<(), String> {
    let from_environment = std::env::var(FILTER_VARIABLE).ok();
    let chosen = filter.map(str::to_owned).or(from_environment);
    let filter = read_filter(chosen.as_deref().unwrap_or_default())?;
    let ansi = std::io::stderr().is_terminal();
    // The only failure is that a subscriber is there already, which then goes on.
    let _ = tracing::dispatcher::set_global_default(outlet(format, filter, ansi, std::io::stderr));
    Ok(())
}

fn outlet<W>(format: LogFormat, filter: EnvFilter, ansi: bool, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer()
        .with_writer(writer)
        .with_ansi(ansi)
        // A reader that closes standard error is no reason to end.
        .log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .boxed(),
    };
    // Not a directive of the filter: a more exact one, such as `lapin::channel=warn`, would win over it.
    let silent = filter_fn(|about| {
        let mut starts = amqp::SILENT.iter().chain([&KUBERNETES]);
        !starts.any(|start| about.target().starts_with(start))
    });
    let registry = tracing_subscriber::registry().with(filter).with(silent);
    registry.with(lines).into()
}

fn read_filter(text: &str) -> Result<EnvFilter, String> {
    // A word alone is read as the name of a module, so that a mistyped level would switch everything else off.
    for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        let module = word.contains(['=', '[']) || word.starts_with("vumi");
        if !module && word.parse::<LevelFilter>().is_err() {
            return Err(format!(
                "log filter {text:?}: {word:?} is no level; write error, warn, info, debug, trace or for example vumi_core=debug"
            ));
        }
    }
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(text)
        .map_err(|e| format!("log filter {text:?}: {e}; write for example info or vumi_core=debug"))
}

/// A user's address as it may stand in a log: a keyed hash, and the last three digits of a long number. Equal addresses
/// give equal texts within a process, and across processes that share `VUMI_LOG_KEY`.
pub fn hashed_address(address: &str) -> String {
    static KEY: OnceLock<[u8; 32]> = OnceLock::new();
    let key = KEY.get_or_init(|| match std::env::var(KEY_VARIABLE) {
        Ok(given) if !given.is_empty() => Sha256::digest(given.as_bytes()).into(),
        _ => rand::random(),
    });
    hash_with(key, &by_form(address))
}

/// Two rounds, as in HMAC, so that nothing can be appended to a known hash.
fn hash_with(key: &[u8; 32], address: &str) -> String {
    let inner = Sha256::new()
        .chain_update(key)
        .chain_update(address.as_bytes())
        .finalize();
    let outer = Sha256::new()
        .chain_update(key)
        .chain_update(inner)
        .finalize();
    let mut text = String::with_capacity(20);
    for byte in &outer[..6] {
        text.push_str(&format!("{byte:02x}"));
    }
    let digits: Vec<char> = address.chars().filter(char::is_ascii_digit).collect();
    if digits.len() >= DIGITS_NEEDED {
        text.push('~');
        text.extend(&digits[digits.len() - DIGITS_SHOWN..]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn an_address_is_recognisable_but_not_readable() {
        let number = "+27831234567";
        let hashed = hashed_address(number);
        assert_eq!(hashed, hashed_address(number));
        assert_ne!(hashed, hashed_address("+27831234568"));
        assert!(hashed.ends_with("~567"), "{hashed}");
        assert!(!hashed.contains("2783123"), "{hashed}");
        assert_eq!(hashed, hashed_address("0027 83 123 4567"), "one person");
    }

    #[test]
    fn a_short_address_shows_no_digit() {
        assert!(!hashed_address("80110").contains('~'));
        assert_eq!(hashed_address("").len(), 12);
        assert_eq!(hashed_address("tamsin@example.net").len(), 12);
    }

    #[test]
    fn another_key_gives_another_hash() {
        assert_ne!(hash_with(&[1; 32], "+278"), hash_with(&[2; 32], "+278"));
    }

    #[test]
    fn filters_are_read_or_refused() {
        assert!(read_filter("").is_ok());
        assert!(read_filter("vumi_core=debug,vumi_http=warn").is_ok());
        let error = read_filter("loud").expect_err("a level with a slip");
        assert!(error.contains("loud"), "{error}");
        let error = read_filter("vumi_core=loudly").expect_err("no such level");
        assert!(error.contains("vumi_core=loudly"), "{error}");
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_client_is_silent_whatever_the_filter_says() {
        for (format, filter) in [
            (LogFormat::Text, ""),
            (LogFormat::Text, "trace"),
            (LogFormat::Json, "trace,lapin=warn,amq_protocol_tcp=trace"),
            (LogFormat::Text, "lapin::channel=trace,[a_span]=trace"),
        ] {
            let lines = Lines::default();
            let writer = {
                let lines = lines.clone();
                move || lines.clone()
            };
            let filter = read_filter(filter).expect("readable");
            tracing::dispatcher::with_default(&outlet(format, filter, false, writer), || {
                let _inside = tracing::error_span!("a_span").entered();
                tracing::error!(target: "lapin", "a whole message");
                tracing::warn!(target: "lapin::channel", "a whole message");
                tracing::error!(target: "amq_protocol_tcp", "a whole message");
                tracing::error!(target: "kube_client::client", "a whole message");
                tracing::warn!("something of ours");
            });
            let text = lines.0.lock().expect("not poisoned").clone();
            let text = String::from_utf8(text).expect("text");
            assert!(text.contains("something of ours"), "{text}");
            assert!(!text.contains("a whole message"), "{text}");
        }
    }
}
