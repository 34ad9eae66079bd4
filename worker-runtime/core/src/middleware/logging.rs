//! Logging: one line per message with its ids and hashed addresses, never its content (which may be health or payment
//! data).

use super::Middleware;
use crate::error::WorkError;
use crate::logging::hashed_address;
use crate::message::Message;
use async_trait::async_trait;
use vumi_api::Port;
use vumi_api::shared::{LogLevel, Logging};

pub(super) struct Logger {
    level: LogLevel,
    worker: String,
    name: String,
}

/// `tracing` wants its level at compile time.
macro_rules! line {
    ($level:expr, $($arg:tt)*) => {
        match $level {
            LogLevel::Debug => tracing::debug!($($arg)*),
            LogLevel::Info => tracing::info!($($arg)*),
            LogLevel::Warn => tracing::warn!($($arg)*),
        }
    };
}

impl Logger {
    pub(super) fn new(config: &Logging, worker: &str, name: &str) -> Self {
        Self {
            level: config.level.unwrap_or(LogLevel::Info),
            worker: worker.to_owned(),
            name: name.to_owned(),
        }
    }

    fn log(&self, step: &'static str, port: &Port, message: &Message) {
        if !self.enabled() {
            return;
        }
        let (worker, middleware) = (self.worker.as_str(), self.name.as_str());
        match message {
            Message::User(user) => {
                let hash = |address: Option<&str>| address.map(hashed_address).unwrap_or_default();
                line!(
                    self.level,
                    worker,
                    middleware,
                    port = %port,
                    message_id = user.message_id(),
                    in_reply_to = user.in_reply_to().unwrap_or_default(),
                    to_addr = hash(user.to_addr()),
                    from_addr = hash(user.from_addr()),
                    session_event = user.session_event().map_or("", |event| event.as_str()),
                    "{step} user message"
                );
            }
            Message::Event(event) => line!(
                self.level,
                worker,
                middleware,
                port = %port,
                event_id = event.event_id(),
                user_message_id = event.user_message_id(),
                event_type = event.event_type().as_str(),
                "{step} event"
            ),
        }
    }

    /// Spares the hashing when nobody reads the line.
    fn enabled(&self) -> bool {
        match self.level {
            LogLevel::Debug => tracing::enabled!(tracing::Level::DEBUG),
            LogLevel::Info => tracing::enabled!(tracing::Level::INFO),
            LogLevel::Warn => tracing::enabled!(tracing::Level::WARN),
        }
    }
}

#[async_trait]
impl Middleware for Logger {
    async fn consume(&self, port: &Port, message: Message) -> Result<Message, WorkError> {
        self.log("consumed", port, &message);
        Ok(message)
    }

    async fn publish(&self, port: &Port, message: Message) -> Result<Message, WorkError> {
        self.log("publishing", port, &message);
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Event, UserMessage};
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use vumi_api::Flow;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: Option<LogLevel>, messages: &[Message], port: &Port) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let logger = Logger::new(&Logging { level }, "transport/t", "log");
        tracing::subscriber::with_default(subscriber, || {
            for message in messages {
                logger.log("consumed", port, message);
            }
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn one_line_with_ids_and_hashed_addresses_and_no_content() {
        let mut user = UserMessage::new("sms", Some("27831234567"), Some("27837654321"));
        user.set_message_id("m-17");
        user.set_content(Some("my secret"));
        let port = Port::new("t", Flow::Inbound);
        let text = logged(None, &[user.into()], &port);
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in ["INFO", "transport/t", "m-17", "t.inbound", "567", "321"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        for part in ["secret", "27831234", "27837654"] {
            assert!(!text.contains(part), "{part} is in {text}");
        }
    }

    #[test]
    fn an_event_is_logged_by_its_ids_and_type() {
        let event = Event::ack("m-17", "remote-1");
        let id = event.event_id().to_owned();
        let port = Port::new("t", Flow::Event);
        let text = logged(Some(LogLevel::Warn), &[event.into()], &port);
        for part in ["WARN", "m-17", &id, "ack"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn a_line_below_the_level_of_the_process_is_not_written() {
        let message = Message::from(Event::ack("m-17", "remote-1"));
        let port = Port::new("t", Flow::Event);
        assert_eq!(logged(Some(LogLevel::Debug), &[message], &port), "");
    }
}
