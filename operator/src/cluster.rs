//! What the cluster knows: whether the definitions of our kinds are as new as this operator (K2), and whether it has kinds that
//! not every cluster has.

use crate::client::{Api, ApiError};
use crate::engine::kinds::{KINDS, ObjectKind};
use crate::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::Instant;
use vumi_api::crds::{GROUP, VERSION, lacking};
use vumi_plan::Platform;

/// How often the definitions are compared, beside whenever a watch of ours breaks.
const LOOK: Duration = Duration::from_secs(20);
/// A comparison that is no older is good enough to write by. The API server tells of other definitions a second late itself.
const FRESH: Duration = Duration::from_secs(2);
/// How often other kinds are looked for.
const DISCOVER: Duration = Duration::from_secs(3600);

/// What is known of the definitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Definitions {
    /// Nothing yet.
    Unknown,
    /// They lack something that this operator knows, whose path that is: a write would destroy it.
    Older(String),
    /// They have all that this operator knows.
    Current,
}

/// What came of comparing.
#[derive(Default)]
struct Compared {
    /// Where the schema was: this changes with what it says. None while there was none.
    place: Option<String>,
    last: Option<Comparison>,
}

struct Comparison {
    began: Instant,
    outcome: Result<(), ApiError>,
}

/// What the cluster knows.
pub struct Cluster {
    api: Api,
    metrics: Metrics,
    definitions: watch::Sender<Definitions>,
    platform: watch::Sender<Platform>,
    compared: Mutex<Compared>,
    again: Notify,
}

impl Cluster {
    /// Nothing is known yet, and nothing may be written.
    pub fn new(api: Api, metrics: Metrics) -> Arc<Self> {
        api.gate()
            .read_only(Some("the definitions are not known yet"));
        metrics.definitions_current(false);
        Arc::new(Self {
            api,
            metrics,
            definitions: watch::Sender::new(Definitions::Unknown),
            platform: watch::Sender::new(Platform::default()),
            compared: Mutex::default(),
            again: Notify::new(),
        })
    }

    /// What is known of the definitions, now and whenever it changes.
    pub fn definitions(&self) -> watch::Receiver<Definitions> {
        self.definitions.subscribe()
    }

    /// Which other kinds there are.
    pub fn platform(&self) -> Platform {
        *self.platform.borrow()
    }

    /// The same, whenever it changes.
    pub fn platforms(&self) -> watch::Receiver<Platform> {
        self.platform.subscribe()
    }

    /// Whether the cluster has a kind.
    pub fn has(&self, kind: &ObjectKind) -> bool {
        self.platform().has(kind.kind)
    }

    /// Something says that the definitions may be other ones.
    pub fn look_again(&self) {
        self.again.notify_one();
    }

    /// Looks again and again, for as long as it is polled.
    pub async fn run(&self) {
        let mut discovered: Option<Instant> = None;
        loop {
            if let Err(error) = self.compare().await {
                tracing::warn!(%error, "the definitions cannot be read");
            }
            if discovered.is_none_or(|at| at.elapsed() >= DISCOVER) {
                match self.discover().await {
                    Ok(()) => discovered = Some(Instant::now()),
                    Err(error) => tracing::warn!(%error, "the kinds of the cluster cannot be read"),
                }
            }
            let pause = match *self.definitions.borrow() {
                Definitions::Current => LOOK,
                _ => LOOK / 4,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.again.notified() => {}
            }
        }
    }

    /// Compares the definitions with what this operator knows, if they have changed.
    ///
    /// # Errors
    /// They cannot be read; what was known before holds.
    pub async fn compare(&self) -> Result<(), ApiError> {
        self.compare_unless(Duration::ZERO).await
    }

    /// The same, unless it was done just now.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn compare_before_write(&self) -> Result<(), ApiError> {
        let compared = self.compare_unless(FRESH).await;
        compared.map_err(|error| ApiError::Uncompared(error.to_string()))
    }

    /// One comparison at a time: whoever waits meanwhile has the answer of the next one.
    async fn compare_unless(&self, younger: Duration) -> Result<(), ApiError> {
        let came = Instant::now();
        let mut compared = self.compared.lock().await;
        if let Some(last) = &compared.last {
            let will_do = match last.outcome {
                Ok(()) => last.began + younger > came,
                Err(_) => last.began > came,
            };
            if will_do {
                return last.outcome.clone();
            }
        }
        let began = Instant::now();
        let outcome = self.ask(&mut compared.place).await;
        compared.last = Some(Comparison {
            began,
            outcome: outcome.clone(),
        });
        outcome
    }

    async fn ask(&self, known: &mut Option<String>) -> Result<(), ApiError> {
        let index = self.api.get("/openapi/v3").await?;
        let place = &index["paths"][format!("apis/{GROUP}/{VERSION}")]["serverRelativeURL"];
        let place = place.as_str();
        if place.is_none() || known.as_deref() != place {
            let found = match place {
                None => Definitions::Older("all kinds: they are not installed".into()),
                Some(place) => match lacking(&self.api.get(place).await?) {
                    Some(what) => Definitions::Older(what),
                    None => Definitions::Current,
                },
            };
            self.settle(found);
        }
        *known = place.map(str::to_owned);
        Ok(())
    }

    /// Opens or closes the gate by what was found.
    fn settle(&self, found: Definitions) {
        let current = found == Definitions::Current;
        let why = (!current).then_some("the definitions (CRDs) are older than this operator");
        self.api.gate().read_only(why);
        self.metrics.definitions_current(current);
        self.definitions.send_if_modified(|known| {
            if *known == found {
                return false;
            }
            match &found {
                Definitions::Older(what) => tracing::error!(
                    missing = what,
                    "the definitions (CRDs) are older than this operator: nothing is written until they are upgraded"
                ),
                _ => tracing::info!("the definitions (CRDs) are as new as this operator"),
            }
            *known = found;
            true
        });
    }

    /// Looks for the kinds that not every cluster has.
    async fn discover(&self) -> Result<(), ApiError> {
        let mut found = Platform::default();
        for kind in KINDS.iter().filter(|kind| kind.optional) {
            let path = format!("/apis/{}/{}", kind.group, kind.version);
            let there = match self.api.get(&path).await {
                Ok(list) => {
                    let mut names = list["resources"].as_array().into_iter().flatten();
                    names.any(|resource| resource["name"] == kind.plural)
                }
                Err(error) if error.is_not_found() => false,
                Err(error) => return Err(error),
            };
            found.set(kind.kind, there);
        }
        self.platform.send_if_modified(|known| {
            let before = std::mem::replace(known, found);
            before != found
        });
        Ok(())
    }
}
