//! Address translation: towards the transport `to_addr` is replaced by the table, towards the application `from_addr`
//! is replaced back. Events and addresses that the table lacks pass unchanged.

use super::Middleware;
use crate::error::WorkError;
use crate::message::Message;
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};
use vumi_api::shared::AddressTranslation;
use vumi_api::{Flow, Port};

pub(super) struct Translator {
    outbound: BTreeMap<String, String>,
    inbound: HashMap<String, String>,
}

impl Translator {
    /// The targets are distinct in a valid manifest, so that the way back is clear.
    pub(super) fn new(config: &AddressTranslation) -> Self {
        let outbound = config.outbound_map.clone();
        let inbound = outbound
            .iter()
            .map(|(known, network)| (network.clone(), known.clone()));
        Self {
            inbound: inbound.collect(),
            outbound,
        }
    }

    /// The same whether a message is consumed or published: only its direction counts.
    fn translate(&self, flow: Flow, mut message: Message) -> Message {
        if let Message::User(user) = &mut message {
            match flow {
                Flow::Outbound => {
                    if let Some(target) = user.to_addr().and_then(|a| self.outbound.get(a)) {
                        user.set_to_addr(Some(target));
                    }
                }
                Flow::Inbound => {
                    if let Some(known) = user.from_addr().and_then(|a| self.inbound.get(a)) {
                        user.set_from_addr(Some(known));
                    }
                }
                Flow::Event => {}
            }
        }
        message
    }
}

#[async_trait]
impl Middleware for Translator {
    async fn consume(&self, port: &Port, message: Message) -> Result<Message, WorkError> {
        Ok(self.translate(port.flow, message))
    }

    async fn publish(&self, port: &Port, message: Message) -> Result<Message, WorkError> {
        Ok(self.translate(port.flow, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Event, UserMessage};

    fn translator() -> Translator {
        Translator::new(&AddressTranslation {
            outbound_map: [
                ("help".to_owned(), "27831234567".to_owned()),
                ("info".to_owned(), "27837654321".to_owned()),
            ]
            .into(),
        })
    }

    fn user(to: Option<&str>, from: Option<&str>) -> Message {
        UserMessage::new("sms", to, from).into()
    }

    fn addresses(message: &Message) -> (Option<&str>, Option<&str>) {
        match message {
            Message::User(m) => (m.to_addr(), m.from_addr()),
            Message::Event(_) => (None, None),
        }
    }

    #[tokio::test]
    async fn outbound_to_addr_and_inbound_from_addr_whichever_side_the_worker_is_on() {
        let t = translator();
        let out = Port::new("t", Flow::Outbound);
        let inb = Port::new("t", Flow::Inbound);
        let message = || user(Some("help"), Some("27831234567"));
        for done in [
            t.consume(&out, message()).await,
            t.publish(&out, message()).await,
        ] {
            let done = done.unwrap();
            assert_eq!(
                addresses(&done),
                (Some("27831234567"), Some("27831234567")),
                "from_addr stays"
            );
        }
        for done in [
            t.consume(&inb, message()).await,
            t.publish(&inb, message()).await,
        ] {
            let done = done.unwrap();
            assert_eq!(
                addresses(&done),
                (Some("help"), Some("help")),
                "to_addr stays"
            );
        }
    }

    #[test]
    fn a_reply_finds_the_way_back() {
        let t = translator();
        let inbound = t.translate(Flow::Inbound, user(Some("151"), Some("27837654321")));
        assert_eq!(addresses(&inbound).1, Some("info"));
        let Message::User(inbound) = inbound else {
            panic!("a user message")
        };
        let reply = inbound.reply("application/a", 0, Some("hi"), false);
        let reply = t.translate(Flow::Outbound, reply.into());
        assert_eq!(addresses(&reply), (Some("27837654321"), Some("151")));
    }

    #[test]
    fn unknown_and_missing_addresses_and_events_pass_unchanged() {
        let t = translator();
        let messages = [
            user(Some("27840000000"), Some("27840000001")),
            user(None, None),
            Event::ack("m1", "help").into(),
        ];
        for message in messages {
            for flow in [Flow::Inbound, Flow::Outbound, Flow::Event] {
                assert_eq!(t.translate(flow, message.clone()), message);
            }
        }
    }
}
