//! A stand-in for the engine in tests of single workers: keeps what a worker publishes and reports, lends real sockets
//! on free ports, and fails on demand.

use super::failing_store::FailingStore;
use crate::error::WorkError;
use crate::outcome::Receipt;
use crate::secrets::Secrets;
use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::state::{Person, StateStore};
use crate::status::StatusReport;
use crate::telemetry::HttpSeen;
use crate::worker::{Listener, Output, Services, Taken, Traffic, WorkerContext};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use vumi_api::{Resource, Spec};

/// How long [`StandIn::output`] waits.
pub const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Seen {
    outputs: Vec<Output>,
    reports: Vec<StatusReport>,
    receipts: Vec<Receipt>,
    /// First answers by id, if they are kept.
    answers: Option<HashMap<String, Bytes>>,
    refusal: Option<WorkError>,
    receipts_refused: Option<WorkError>,
    hangs: bool,
    http: Vec<HttpSeen>,
    sockets: HashMap<(String, u16), Listener>,
    bound: Option<SocketAddr>,
}

/// Keeps what the workers of one test do.
#[derive(Default)]
pub struct StandIn {
    seen: Mutex<Seen>,
    changed: Notify,
    /// In memory, opened when it is first asked for.
    store: OnceLock<Option<Arc<FailingStore>>>,
}

impl StandIn {
    /// A stand-in that accepts everything.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A context for a worker; several may share one stand-in.
    pub fn context(
        self: &Arc<Self>,
        resource: Resource,
        instance: &str,
        closing: CancellationToken,
    ) -> Arc<WorkerContext> {
        self.context_with(
            resource,
            instance,
            closing,
            Secrets::new(BTreeMap::new(), None),
        )
    }

    /// As [`Self::context`], with secrets.
    pub fn context_with(
        self: &Arc<Self>,
        resource: Resource,
        instance: &str,
        closing: CancellationToken,
        secrets: Secrets,
    ) -> Arc<WorkerContext> {
        let services: Arc<dyn Services> = Arc::clone(self) as Arc<dyn Services>;
        Arc::new(WorkerContext::new(
            Arc::new(resource),
            instance.to_owned(),
            Arc::new(secrets),
            closing,
            services,
        ))
    }

    /// From now on refuses every message with this error; `None` accepts again.
    pub fn refuse(&self, error: Option<WorkError>) {
        self.lock().refusal = error;
    }

    /// From now on refuses every receipt with this error; `None` takes them again.
    pub fn refuse_receipts(&self, error: Option<WorkError>) {
        self.lock().receipts_refused = error;
    }

    /// From now on (not) leaves every message without an answer, as a broker that blocks.
    pub fn hang(&self, hangs: bool) {
        self.lock().hangs = hangs;
        self.changed.notify_waiters();
    }

    /// The next `times` operations of this name, such as `sessions.create`, fail in the state store.
    pub fn fail_state(&self, operation: &'static str, times: u32) {
        if let Some(store) = self.store() {
            store.fail(operation, times);
        }
    }

    fn store(&self) -> Option<Arc<FailingStore>> {
        let open = || {
            let inner = EmbeddedStore::open(EmbeddedStoreOptions::default()).ok()?;
            Some(FailingStore::new(inner))
        };
        self.store.get_or_init(open).clone()
    }

    /// Everything counted so far.
    pub fn counted(&self) -> Vec<HttpSeen> {
        self.lock().http.clone()
    }

    /// Everything published so far.
    pub fn outputs(&self) -> Vec<Output> {
        self.lock().outputs.clone()
    }

    /// Everything reported so far.
    pub fn reports(&self) -> Vec<StatusReport> {
        self.lock().reports.clone()
    }

    /// From now on recognises repeats, as a worker with a state store.
    pub fn remember(&self) {
        self.lock().answers.get_or_insert_default();
    }

    /// Forgets what it knows of the message with this id, as a store that is short of room.
    pub fn forget(&self, id: &str) {
        if let Some(known) = &mut self.lock().answers {
            known.remove(id);
        }
    }

    /// How many repeats were counted so far.
    pub fn repeats(&self) -> usize {
        let seen = self.lock();
        let repeats = seen.http.iter().filter(|seen| **seen == HttpSeen::Repeat);
        repeats.count()
    }

    /// Every receipt handed over so far.
    pub fn receipts(&self) -> Vec<Receipt> {
        self.lock().receipts.clone()
    }

    /// The `index`-th published message (from 0); waits for it up to [`PATIENCE`].
    pub async fn output(&self, index: usize) -> Result<Output, String> {
        self.until(|seen| seen.outputs.get(index).cloned())
            .await
            .ok_or_else(|| {
                format!(
                    "no output {index} within {PATIENCE:?}; there are {}",
                    self.outputs().len()
                )
            })
    }

    /// The address of the last socket opened; waits for it.
    pub async fn address(&self) -> Result<SocketAddr, String> {
        self.until(|seen| seen.bound)
            .await
            .ok_or_else(|| "the worker opened no socket".to_owned())
    }

    async fn until<T>(&self, look: impl Fn(&Seen) -> Option<T>) -> Option<T> {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = look(&self.lock()) {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Services for StandIn {
    async fn accept(&self, output: Output) -> Result<(), WorkError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.lock().hangs {
                break;
            }
            changed.await;
        }
        {
            let mut seen = self.lock();
            if let Some(error) = &seen.refusal {
                return Err(error.clone());
            }
            seen.outputs.push(output);
        }
        self.changed.notify_waiters();
        Ok(())
    }

    async fn accept_once(
        &self,
        output: Output,
        id: &str,
        answer: Bytes,
    ) -> Result<Taken, WorkError> {
        let first = self
            .lock()
            .answers
            .as_ref()
            .and_then(|known| known.get(id).cloned());
        if let Some(first) = first {
            self.http(HttpSeen::Repeat);
            return Ok(Taken::Before(first));
        }
        self.accept(output).await?;
        self.answered(id, answer, None).await;
        Ok(Taken::Now)
    }

    async fn seen(&self, id: &str) -> Result<Taken, WorkError> {
        let seen = self.lock();
        let first = seen.answers.as_ref().and_then(|known| known.get(id));
        Ok(first.map_or(Taken::Now, |first| Taken::Before(first.clone())))
    }

    async fn answered(&self, id: &str, answer: Bytes, _: Option<Person>) {
        if let Some(known) = &mut self.lock().answers {
            let first = known.entry(id.to_owned()).or_default();
            if first.is_empty() {
                *first = answer;
            }
        }
    }

    async fn receipt(&self, receipt: Receipt) -> Result<(), WorkError> {
        {
            let mut seen = self.lock();
            if let Some(error) = &seen.receipts_refused {
                return Err(error.clone());
            }
            seen.receipts.push(receipt);
        }
        self.changed.notify_waiters();
        Ok(())
    }

    fn report(&self, report: StatusReport) {
        self.lock().reports.push(report);
        self.changed.notify_waiters();
    }

    async fn listen(&self, host: &str, port: u16) -> Result<Listener, WorkError> {
        let key = (host.to_owned(), port);
        if let Some(open) = self.lock().sockets.get(&key) {
            return Ok(open.clone());
        }
        let failed = |e: std::io::Error| {
            WorkError::new(
                crate::error::ErrorClass::Connect,
                crate::codes::LISTEN_FAILED,
                format!("cannot listen on {host}: {e}"),
            )
        };
        let socket = tokio::net::TcpListener::bind((host, 0))
            .await
            .map_err(failed)?;
        let bound = socket.local_addr().map_err(failed)?;
        let listener = Listener::new(Arc::new(socket));
        {
            let mut seen = self.lock();
            seen.bound = Some(bound);
            seen.sockets.insert(key, listener.clone());
        }
        self.changed.notify_waiters();
        Ok(listener)
    }

    fn traffic(&self, _: Traffic) {}

    fn http(&self, seen: HttpSeen) {
        self.lock().http.push(seen);
        self.changed.notify_waiters();
    }

    fn state(&self) -> Option<Arc<dyn StateStore>> {
        let store: Arc<dyn StateStore> = self.store()?;
        Some(store)
    }
}

/// A resource from a manifest that was parsed as plain data, without the positions and findings of the real reader.
pub fn resource(manifest: &serde_json::Value) -> Result<Resource, String> {
    let spec = manifest.get("spec").cloned().unwrap_or_default();
    let name = manifest.pointer("/metadata/name").and_then(|n| n.as_str());
    let bad = |e: serde_json::Error| e.to_string();
    let spec = match manifest.get("kind").and_then(|k| k.as_str()) {
        Some("Transport") => Spec::Transport(serde_json::from_value(spec).map_err(bad)?),
        Some("Application") => Spec::Application(serde_json::from_value(spec).map_err(bad)?),
        Some("Dispatcher") => Spec::Dispatcher(serde_json::from_value(spec).map_err(bad)?),
        other => return Err(format!("no worker has kind {other:?}")),
    };
    Ok(Resource {
        name: name.ok_or("metadata.name is missing")?.to_owned(),
        namespace: None,
        spec,
    })
}
