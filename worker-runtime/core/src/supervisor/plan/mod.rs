//! What a new set of manifests changes in a running set of workers: pure, printed by `vumi diff`, carried out by the
//! supervisor. It knows which worker has to wait for which, so that ports and queues pass from one to another.

mod changes;
mod render;

pub use render::shown_address;

use changes::changes;
use std::collections::{BTreeMap, BTreeSet};
use vumi_api::{Kind, Resource, Topology};

/// One worker of a set.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its resource.
    pub resource: &'a Resource,
    /// Which broker it really uses, where that is known: an address behind a Secret may change although the resource
    /// does not. No credentials.
    pub broker: Option<&'a str>,
    /// As [`Self::broker`], of its state store.
    pub state: Option<&'a str>,
}

impl<'a> From<&'a Resource> for Entry<'a> {
    fn from(resource: &'a Resource) -> Self {
        Self {
            resource,
            broker: None,
            state: None,
        }
    }
}

/// The steps from one set of workers to another, in the order of the new set, stopped ones last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// One step per worker of either set.
    pub steps: Vec<Step>,
}

/// What happens to one worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Kind and name.
    pub key: String,
    /// Worker type; the new one, where it changes.
    pub type_name: &'static str,
    /// What is done.
    pub action: Action,
    /// What must have happened before the new worker starts.
    pub after: Vec<Wait>,
    /// Transports that must have stopped before the old worker stops, because it answers their held requests.
    pub outlives: Vec<String>,
    /// What happens to listening sockets, in words.
    pub ports: Vec<String>,
}

/// What is done with one worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Nothing differs.
    Keep,
    /// It is new.
    Start,
    /// It is gone from the manifests.
    Stop,
    /// It is built anew; the old one runs until then.
    Replace(Vec<Change>),
}

/// One field that differs. A field that is absent, or whose value may be a secret, has no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Path such as `spec.telnet.port`.
    pub path: String,
    /// Value before.
    pub old: Shown,
    /// Value after.
    pub new: Shown,
}

/// A value in a [`Change`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Not set.
    Absent,
    /// Set, and never shown: it may be a secret.
    Hidden,
    /// As JSON.
    Text(String),
}

/// Something that must have happened first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The worker that leaves.
    pub key: String,
    /// How far it must have got.
    pub until: Until,
}

/// How far a leaving worker must have got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// It takes in nothing new; requests it holds still get their replies.
    IntakeClosed,
    /// It is gone.
    Stopped,
}

/// The plan from `old` to `new`.
pub fn plan<'a>(
    old: impl IntoIterator<Item = impl Into<Entry<'a>>>,
    new: impl IntoIterator<Item = impl Into<Entry<'a>>>,
) -> Plan {
    let old: Vec<Side> = old.into_iter().map(|e| Side::new(e.into())).collect();
    let new: Vec<Side> = new.into_iter().map(|e| Side::new(e.into())).collect();
    let before: BTreeMap<&str, &Side> = old.iter().map(|side| (side.key.as_str(), side)).collect();
    let after: BTreeSet<&str> = new.iter().map(|side| side.key.as_str()).collect();

    let mut actions: Vec<(&Side, Action)> = new
        .iter()
        .map(|side| match before.get(side.key.as_str()) {
            None => (side, Action::Start),
            Some(was) => match changes(was, side) {
                changes if changes.is_empty() => (side, Action::Keep),
                changes => (side, Action::Replace(changes)),
            },
        })
        .collect();
    let gone = old.iter().filter(|side| !after.contains(side.key.as_str()));
    actions.extend(gone.map(|side| (side, Action::Stop)));

    // Workers that leave: what they hold passes to others only when they let go of it.
    let leaving: Vec<(&Side, bool)> = actions
        .iter()
        .filter_map(|(side, action)| {
            let was = *before.get(side.key.as_str())?;
            match action {
                Action::Stop => Some((was, true)),
                Action::Replace(_) => Some((was, leaves_broker(was, side))),
                Action::Keep | Action::Start => None,
            }
        })
        .collect();

    let steps = actions
        .iter()
        .map(|(side, action)| {
            let was = before.get(side.key.as_str()).copied();
            let starts = matches!(action, Action::Start | Action::Replace(_));
            let goes_for_good = leaving
                .iter()
                .any(|(leaver, for_good)| leaver.key == side.key && *for_good);
            Step {
                key: side.key.clone(),
                type_name: side.type_name(),
                after: match starts {
                    true => leaving
                        .iter()
                        .filter_map(|(leaver, _)| wait_for(leaver, side))
                        .collect(),
                    false => Vec::new(),
                },
                outlives: match goes_for_good && side.kind() != Kind::Transport {
                    true => leaving
                        .iter()
                        .filter(|(leaver, for_good)| {
                            *for_good && leaver.kind() == Kind::Transport && leaver.key != side.key
                        })
                        .map(|(leaver, _)| leaver.key.clone())
                        .collect(),
                    false => Vec::new(),
                },
                ports: ports(was, side, action, &leaving),
                action: action.clone(),
            }
        })
        .collect();
    Plan { steps }
}

impl Plan {
    /// Whether anything is done at all.
    pub fn is_empty(&self) -> bool {
        self.steps.iter().all(|step| step.action == Action::Keep)
    }

    /// The step of a worker.
    pub fn step(&self, key: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.key == key)
    }

    /// Steps that cannot be taken when the workers in `stuck` (whose new version does not build) keep what they have:
    /// who waits for them waits on, and so do those who wait for these in turn. With the worker waited for.
    pub fn held_by(&self, stuck: &BTreeSet<String>) -> BTreeMap<String, String> {
        let mut held: BTreeMap<String, String> = BTreeMap::new();
        loop {
            let next = self.steps.iter().find_map(|step| {
                if stuck.contains(&step.key) || held.contains_key(&step.key) {
                    return None;
                }
                let blocker = step.after.iter().find(|wait| {
                    wait.key != step.key
                        && (stuck.contains(&wait.key) || held.contains_key(&wait.key))
                })?;
                Some((step.key.clone(), blocker.key.clone()))
            });
            match next {
                Some((key, blocker)) => held.insert(key, blocker),
                None => return held,
            };
        }
    }
}

/// One worker with what the plan asks about it.
struct Side<'a> {
    entry: Entry<'a>,
    key: String,
    topology: Topology,
}

impl<'a> Side<'a> {
    fn new(entry: Entry<'a>) -> Self {
        Self {
            key: entry.resource.key(),
            topology: entry.resource.topology(),
            entry,
        }
    }

    fn kind(&self) -> Kind {
        self.entry.resource.kind()
    }

    fn type_name(&self) -> &'static str {
        self.entry.resource.worker_type().map_or("", |w| w.key)
    }

    fn consumes(&self) -> impl Iterator<Item = &vumi_api::Port> {
        self.topology.intake.iter().chain(&self.topology.replies)
    }
}

/// Whether the old worker's broker is not the new one's.
fn leaves_broker(old: &Side<'_>, new: &Side<'_>) -> bool {
    match (old.entry.broker, new.entry.broker) {
        (Some(old), Some(new)) => old != new,
        _ => old.entry.resource.settings().broker != new.entry.resource.settings().broker,
    }
}

/// What `new` has to wait for before it starts, if the leaving worker `old` has something that it needs.
fn wait_for(old: &Side<'_>, new: &Side<'_>) -> Option<Wait> {
    let same_port =
        |a: &(String, u16)| new.topology.listens.iter().find(|b| b.1 == a.1 && a.1 != 0);
    let mut until = None;
    for address in &old.topology.listens {
        match same_port(address) {
            // The very same socket is lent to the new worker.
            Some(other) if other == address => until = until.max(Some(Until::IntakeClosed)),
            // Two sockets on one port: the old one must be closed first.
            Some(_) => until = until.max(Some(Until::Stopped)),
            None => {}
        }
    }
    // On another broker there is no queue that both would consume.
    let shared_queue = old.consumes().any(|a| new.consumes().any(|b| a == b));
    if (shared_queue || old.key == new.key) && !leaves_broker(old, new) {
        // Workers that hold requests or sessions may run beside each other: replies find their way between them (R19).
        let replicas = old.topology.holds.is_some() && new.topology.holds.is_some();
        until = until.max(Some(match replicas {
            true => Until::IntakeClosed,
            false => Until::Stopped,
        }));
    }
    until.map(|until| Wait {
        key: old.key.clone(),
        until,
    })
}

impl PartialOrd for Until {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Until {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (*self as u8).cmp(&(*other as u8))
    }
}

/// What happens to listening sockets, in words.
fn ports(
    old: Option<&Side<'_>>,
    new: &Side<'_>,
    action: &Action,
    leaving: &[(&Side<'_>, bool)],
) -> Vec<String> {
    let was: &[(String, u16)] = old.map_or(&[], |side| &side.topology.listens);
    let will: &[(String, u16)] = match action {
        Action::Stop => &[],
        _ => &new.topology.listens,
    };
    let mut lines = Vec::new();
    if *action == Action::Keep {
        return lines;
    }
    for address in will {
        let from = leaving
            .iter()
            .find(|(side, _)| side.key != new.key && side.topology.listens.contains(address));
        lines.push(match (was.contains(address), from) {
            (true, _) => format!("keeps {} open", shown_address(address)),
            (false, Some((side, _))) => {
                format!("takes {} over from {}", shown_address(address), side.key)
            }
            (false, None) => format!("opens {}", shown_address(address)),
        });
    }
    for address in was.iter().filter(|address| !will.contains(address)) {
        lines.push(format!("leaves {}", shown_address(address)));
    }
    lines
}

#[cfg(test)]
mod tests;
