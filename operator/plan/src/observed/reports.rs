//! What workers say of themselves: the status messages of the wire protocol, as the operator's own queue gets them.

use super::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use vumi_api::{Kind, Resource};

/// A worker says everything again each minute; after this nobody can tell (K6).
pub const FRESH: SignedDuration = SignedDuration::from_mins(3);

/// How a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// It works.
    Ok,
    /// It works with trouble.
    Degraded,
    /// It does not work.
    Down,
}

/// The last that one replica said of one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The part of the routing key before `.status.status`.
    pub connector: String,
    /// Kind and name of the resource and the replica, as our own workers add them; none of Vumi's, which also say nothing
    /// again while nothing changes.
    pub identity: Option<Identity>,
    /// Part concerned: `provider`, `queue sms.outbound`.
    pub component: String,
    /// How it is.
    pub level: Level,
    /// Why, for machines.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When it came.
    pub received: Timestamp,
}

/// Who said it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// `kind` of the resource, as written.
    pub kind: String,
    /// Its `metadata.name`.
    pub name: String,
    /// Host and process; in a pod, the host is the pod's name.
    pub instance: String,
}

impl Report {
    /// A message that came with the routing key `<connector>.status.status`. None if it is no status message.
    pub fn parse(connector: &str, body: &[u8], received: Timestamp) -> Option<Self> {
        let message: Value = serde_json::from_slice(body).ok()?;
        if message["message_type"] != "status_event" {
            return None;
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let details = &message["details"];
        let identity = || {
            Some(Identity {
                kind: text(&details["kind"])?,
                name: text(&details["name"])?,
                instance: text(&details["instance"])?,
            })
        };
        Some(Self {
            connector: connector.to_owned(),
            identity: identity(),
            component: text(&message["component"])?,
            level: match message["status"].as_str()? {
                "ok" => Level::Ok,
                "degraded" => Level::Degraded,
                "down" => Level::Down,
                _ => return None,
            },
            reason: text(&message["type"]).unwrap_or_default(),
            message: text(&message["message"]).unwrap_or_default(),
            received,
        })
    }

    /// What it replaces: a report of the same replica about the same component.
    pub fn key(&self) -> (&str, Option<&Identity>, &str) {
        (&self.connector, self.identity.as_ref(), &self.component)
    }

    /// Whether a worker of this resource said it. One connector may have workers of several resources.
    pub fn is_of(&self, resource: &Resource) -> bool {
        match &self.identity {
            Some(identity) => {
                identity.kind == resource.kind().as_str() && identity.name == resource.name
            }
            None => {
                let own = match resource.kind() {
                    Kind::Transport => resource.transport_name(),
                    _ => &resource.name,
                };
                resource.in_container() && self.connector == own
            }
        }
    }

    /// Whether the replica that said it is one of these pods. Kubernetes cuts the host names of long pods' names.
    pub fn is_from(&self, pods: &[Pod]) -> bool {
        let Some(identity) = &self.identity else {
            return true;
        };
        let host = identity
            .instance
            .rsplit_once('-')
            .map_or("", |(host, _)| host);
        let said_by =
            |pod: &Pod| pod.name == host || host.len() >= 60 && pod.name.starts_with(host);
        pods.iter().any(said_by)
    }

    /// When it is too old to count; never for one who does not repeat.
    pub fn expires(&self) -> Option<Timestamp> {
        let at = self.received.checked_add(FRESH).ok();
        at.filter(|_| self.identity.is_some())
    }

    /// The first word of the component: `queue` of `queue sms.outbound`.
    pub fn part(&self) -> &str {
        self.component.split(' ').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(details: Value) -> Vec<u8> {
        json!({
            "message_version": "20110921", "message_type": "status_event", "timestamp": "2026-11-26 16:00:00.000000",
            "component": "queue sms.outbound", "status": "down", "type": "refused", "message": "it says no",
            "reasons": [], "details": details, "helper_metadata": {}, "routing_metadata": {},
        })
        .to_string()
        .into_bytes()
    }

    fn pod(name: &str) -> Pod {
        Pod {
            name: name.into(),
            ..Pod::default()
        }
    }

    #[test]
    fn a_message_of_ours_says_who_and_one_of_vumi_does_not() {
        let now = Timestamp::UNIX_EPOCH;
        let details = json!({"kind": "Transport", "name": "sms", "type": "httpApi", "instance": "transport-sms-7d-x1-17", "since": 1.5});
        let ours = Report::parse("sms", &message(details), now).unwrap();
        assert_eq!(
            (ours.part(), ours.level, &*ours.reason),
            ("queue", Level::Down, "refused")
        );
        assert!(ours.is_from(&[pod("transport-sms-7d-x1")]));
        assert!(!ours.is_from(&[pod("transport-sms-7d-x2")]));
        assert_eq!(ours.expires(), Some(now + FRESH));
        let theirs = Report::parse("sms", &message(json!({})), now).unwrap();
        assert_eq!(theirs.identity, None);
        assert!(theirs.is_from(&[]));
        assert_eq!(theirs.expires(), None);
    }

    #[test]
    fn a_host_name_that_was_cut_is_still_its_pod() {
        let name = format!("transport-{}-6d4f9c7b5d-abcde", "x".repeat(40));
        let details =
            json!({"kind": "Transport", "name": "x", "instance": format!("{}-1", &name[..63])});
        let report = Report::parse("x", &message(details), Timestamp::UNIX_EPOCH).unwrap();
        assert!(report.is_from(&[pod(&name)]));
    }

    #[test]
    fn what_is_no_status_is_none() {
        for body in [
            "",
            "{}",
            "[1]",
            "\"a\"",
            r#"{"message_type": "status_event"}"#,
            "{\"message_type\": \"event\"}",
        ] {
            assert_eq!(
                Report::parse("a", body.as_bytes(), Timestamp::UNIX_EPOCH),
                None,
                "{body}"
            );
        }
    }
}
