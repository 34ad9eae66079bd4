//! What those outside a campaign answer: scripts of fake servers and stand-ins.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use vumi_api::shared::Duration;

/// One answer of a fake HTTP server.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Header fields.
    pub headers: BTreeMap<String, String>,
    /// Body as it is.
    pub body: Option<String>,
    /// Body as JSON.
    pub json: Option<Value>,
    /// How long it takes.
    pub delay: Option<Duration>,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            status: 200,
            headers: BTreeMap::new(),
            body: None,
            json: None,
            delay: None,
        }
    }
}

/// What a stand-in tells of an outbound message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub enum StandInAnswer {
    /// The network took it.
    #[default]
    Ack,
    /// The network refused it, for this reason.
    Nack(String),
    /// Nothing.
    Nothing,
}

impl TryFrom<Value> for StandInAnswer {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let wrong =
            || format!("{value} is no answer of a stand-in; write ack, none or {{nack: REASON}}");
        match &value {
            Value::String(word) if word == "ack" => Ok(StandInAnswer::Ack),
            Value::String(word) if word == "none" => Ok(StandInAnswer::Nothing),
            Value::Object(map) if map.len() == 1 => match map.get("nack") {
                Some(Value::String(reason)) => Ok(StandInAnswer::Nack(reason.clone())),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

/// Answers in turn; the last one again and again, the default without any.
#[derive(Clone, Debug)]
pub struct Script<T>(Arc<Mutex<(Vec<T>, usize)>>);

impl<T: Clone + Default> Script<T> {
    /// These.
    pub fn new(answers: &[T]) -> Self {
        Self(Arc::new(Mutex::new((answers.to_vec(), 0))))
    }

    /// These from now on.
    pub fn replace(&self, answers: &[T]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (answers.to_vec(), 0);
    }

    /// The next one.
    pub fn next(&self) -> T {
        let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (answers, at) = &mut *script;
        let answer = answers.get(*at).or(answers.last()).cloned();
        *at += 1;
        answer.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_stays() {
        let script = Script::new(&[1, 2]);
        assert_eq!([script.next(), script.next(), script.next()], [1, 2, 2]);
        script.replace(&[]);
        assert_eq!(script.next(), 0);
    }
}
