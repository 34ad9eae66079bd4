//! The bodies of the deliveries in hand, from the oldest one that is not finished: for the age of what waits.

use crate::message::{Message, Timestamp};
use bytes::Bytes;
use std::collections::VecDeque;
use vumi_api::Flow;

#[derive(Default)]
pub(super) struct Window(VecDeque<(u64, Bytes)>);

impl Window {
    pub(super) fn open(&mut self, tag: u64, body: &Bytes) {
        self.0.push_back((tag, body.clone()));
    }

    /// Everything before `tag` is finished.
    pub(super) fn close_before(&mut self, tag: u64) {
        while self.0.front().is_some_and(|(first, _)| *first < tag) {
            self.0.pop_front();
        }
    }

    /// The bodies in hand whose delivery is not finished, as `is_open` says of their tags.
    pub(super) fn unfinished(&self, is_open: impl Fn(u64) -> bool) -> impl Iterator<Item = &Bytes> {
        let open = self.0.iter().filter(move |(tag, _)| is_open(*tag));
        open.map(|(_, body)| body)
    }

    /// Age of the oldest one by its own timestamp, in seconds; none without a readable one.
    pub(super) fn age(&self, flow: Flow) -> Option<f64> {
        let (_, body) = self.0.front()?;
        let message = Message::decode(flow, body).ok()?;
        let written = match &message {
            Message::User(m) => m.field("timestamp"),
            Message::Event(e) => e.field("timestamp"),
        };
        let written: Timestamp = written?.as_str()?.parse().ok()?;
        Some((Timestamp::now().epoch() - written.epoch()).max(0.0))
    }
}
