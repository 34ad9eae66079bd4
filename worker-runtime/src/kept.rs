//! How commands about what is kept reach it: through the control socket of a running process, or in a Redis (and on a
//! broker) of the command line's own.

use crate::brokers::{self, Url};
use crate::commands::status::Which;
use crate::error::CliError;
use crate::patience;
use crate::stores::RedisUrl;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vumi_api::shared::Retention;
use vumi_api::{Flow, Port};
use vumi_core::broker::Broker;
use vumi_core::codes;
use vumi_core::engine::parts_on;
use vumi_core::error::WorkError;
use vumi_core::operate::{Ask, Consumed, MAX_LISTED, Reach, answer};
use vumi_core::state::{Person, StateStore, StoreHealth};
use vumi_core::supervisor::control::{Request, ask};

/// A store that does not answer is said after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Unfinished work at the end of a command.
const CLOSE: Duration = Duration::from_secs(5);

/// Where it is kept.
#[derive(clap::Args, Debug)]
pub struct Place {
    /// Look in this Redis, without any process: redis://user:password@host:6379/db, or rediss://…
    #[arg(long, value_name = "URL", conflicts_with_all = ["socket", "state", "name"])]
    pub redis: Option<String>,
    /// PEM file of the private certificate authority of that Redis
    #[arg(long, value_name = "FILE", requires = "redis")]
    pub redis_ca: Option<PathBuf>,
    /// What all keys in that Redis begin with [default: vumi]
    #[arg(long, value_name = "PREFIX", requires = "redis")]
    pub redis_prefix: Option<String>,
    /// What stands between that prefix and the rest of a key, as Vumi's key_separator [default: :]
    #[arg(long, value_name = "TEXT", requires = "redis")]
    pub redis_separator: Option<String>,
    /// The RabbitMQ of the same workers, for what a store alone cannot do
    #[arg(long, value_name = "URL", requires = "redis")]
    pub broker: Option<String>,
    /// PEM file of the private certificate authority of that RabbitMQ
    #[arg(long, value_name = "FILE", requires = "broker")]
    pub broker_ca: Option<PathBuf>,
    /// The process that is asked.
    #[command(flatten)]
    pub which: Which,
}

impl Place {
    /// Asks, and reads the answer. `queues` are consumed queues that the question is about, for `--redis`.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        question: Ask,
        queues: &[String],
    ) -> Result<T, CliError> {
        let value = match &self.redis {
            None => self.in_process(question).await?,
            Some(url) => self.in_redis(url, question, queues).await?,
        };
        read(value)
    }

    async fn in_process(&self, question: Ask) -> Result<Value, CliError> {
        let socket = self.which.socket().map_err(without_process)?;
        let says = so_far(&question, "the process");
        let request = Request::Kept(question);
        let answer = patience::told(says, ask(&socket, &request)).await;
        answer.map_err(|error| match error.code == codes::CONTROL_SOCKET {
            true => without_process(error.into()),
            false => error.into(),
        })
    }

    async fn in_redis(
        &self,
        url: &str,
        question: Ask,
        queues: &[String],
    ) -> Result<Value, CliError> {
        let redis = RedisUrl {
            url: url.to_owned(),
            authority: self.redis_ca.clone(),
            prefix: self.redis_prefix.clone(),
            separator: self.redis_separator.clone(),
        };
        let store = redis.open()?;
        let answered = async {
            up(&*store).await?;
            let says = so_far(&question, &store.describe());
            patience::told(says, self.with_store(&store, question, queues)).await
        };
        let answered = answered.await;
        store.close(CLOSE).await;
        answered
    }

    async fn with_store(
        &self,
        store: &Arc<dyn StateStore>,
        question: Ask,
        queues: &[String],
    ) -> Result<Value, CliError> {
        let broker = match &self.broker {
            None => None,
            Some(url) => {
                let url = Url {
                    url: url.clone(),
                    authority: self.broker_ca.clone(),
                };
                let broker = url.open()?;
                brokers::connected(&broker).await?;
                Some(broker)
            }
        };
        let answered = async {
            let reach = reach(store, broker.as_ref(), queues).await?;
            answer(&reach, question).await
        };
        let answered = answered.await;
        if let Some(broker) = broker {
            broker.close(CLOSE).await;
        }
        Ok(answered?)
    }
}

/// A store and a broker, with the queues that the store knows of beside those that are asked for.
async fn reach(
    store: &Arc<dyn StateStore>,
    broker: Option<&Arc<dyn Broker>>,
    queues: &[String],
) -> Result<Reach, WorkError> {
    let mut names: BTreeSet<String> = queues.iter().cloned().collect();
    names.extend(store.queues().await?);
    let accounts = store.counts().await?.into_keys();
    names.extend(accounts.map(|(account, _)| Port::new(account, Flow::Outbound).queue()));
    if let Some(broker) = broker {
        // Without a manifest only the broker says whether a queue has partitions or classes.
        for queue in names.clone() {
            names.extend(parts_on(&**broker, &queue).await?);
        }
    }
    let consumed = Consumed {
        broker: broker.cloned(),
        store: Some(0),
        keep: Retention::LEDGER,
        worker: String::new(),
        journal: None,
        classes: None,
        only_answers: false,
    };
    Ok(Reach {
        stores: vec![Arc::clone(store)],
        queues: names
            .into_iter()
            .map(|name| (name, consumed.clone()))
            .collect(),
        in_flight: None,
    })
}

/// A store that cannot be reached is said after a few seconds, not waited for.
async fn up(store: &dyn StateStore) -> Result<(), CliError> {
    let mut health = store.health();
    let says = |_: Duration| {
        let most = PATIENCE.as_secs();
        format!("waiting for {} ({most} s at most)", store.describe())
    };
    let up = tokio::time::timeout(PATIENCE, health.wait_for(|h| *h == StoreHealth::Up));
    let waited = patience::told(says, up).await;
    if matches!(waited, Ok(Ok(_))) {
        return Ok(());
    }
    let why = match &*store.health().borrow() {
        StoreHealth::Away(why) => why.clone(),
        StoreHealth::Up => return Ok(()),
    };
    Err(CliError::environment(format!(
        "{} does not answer within {} s: {why}",
        store.describe(),
        PATIENCE.as_secs()
    )))
}

/// What is said while a question waits for its answer.
fn so_far(question: &Ask, whom: &str) -> impl Fn(Duration) -> String + use<> {
    let doing = match question {
        Ask::Erase { dry_run: true, .. } => "looking for everything of the person",
        Ask::Erase { .. } => "removing everything of the person",
        Ask::LedgerResend { .. } => "sending again",
        Ask::LedgerClose { .. } => "closing",
        Ask::JournalDrop { .. } => "dropping",
        _ => "waiting for an answer",
    };
    let line = format!("{doing} ({whom})");
    move |so_far| format!("{line}: {} s so far", so_far.as_secs())
}

/// Where no process answers: how the store is asked without one.
fn without_process(mut error: CliError) -> CliError {
    error.text += "; what is kept in a Redis can be asked without a process, with --redis URL";
    error
}

/// A text that is the address of somebody, for clap.
pub fn address(text: &str) -> Result<String, String> {
    match Person::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What to try where nothing is found under a number that seems to lack the code of its country.
pub fn with_country(address: &str) -> Option<String> {
    let person = Person::new(address);
    let number = person.address();
    let is_national = number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit());
    is_national.then(|| {
        format!(
            "most transports keep numbers with the code of their country: write {address} so as well, for example +27820000001"
        )
    })
}

/// How many entries an answer may have, for clap.
pub fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if (1..=MAX_LISTED).contains(&limit) => Ok(limit),
        _ => Err(format!("write a number from 1 to {MAX_LISTED}")),
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, CliError> {
    serde_json::from_value(value)
        .map_err(|e| CliError::runtime(format!("the process runs another version: {e}")))
}

/// Asks whoever is at the terminal, unless `yes`. Without a terminal `--yes` must say it.
pub fn confirm(question: &str, yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(CliError::validation(format!(
            "{question} Nothing was done: without a terminal to ask at, --yes must say it"
        )));
    }
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(CliError::validation("nothing was done")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_takes_long_says_what_is_done_and_where() {
        let erase = Ask::Erase {
            address: "1".into(),
            dry_run: false,
        };
        let says = so_far(&erase, "redis h:6379/0");
        assert_eq!(
            says(Duration::from_secs(12)),
            "removing everything of the person (redis h:6379/0): 12 s so far"
        );
    }

    #[test]
    fn without_a_process_the_store_can_be_asked() {
        let error = without_process(CliError::environment("no process answers"));
        assert!(error.text.ends_with("with --redis URL"), "{error}");
        assert_eq!(error.code, CliError::ENVIRONMENT);
    }

    #[test]
    fn a_number_without_its_country_is_known_by_its_zero() {
        assert!(with_country("082 000 0001").is_some_and(|hint| hint.contains("+27")));
        for other in ["+27820000001", "27820000001", "0x@example.org", "thandi"] {
            assert_eq!(with_country(other), None, "{other}");
        }
    }
}
