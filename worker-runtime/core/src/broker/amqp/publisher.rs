//! Publishing: one task, one channel with confirms, many messages in flight, never one wait per message.
//! What the connection takes with it is reported lost, sent or not.

mod flight;
mod room;
mod routes;

use super::channels;
use super::link::{Gate, Line};
use super::profile::Profile;
use super::spare::Spare;
use crate::broker::{Confirmation, Publication, PublicationClass, Receipt, Wanted};
use flight::Flight;
use lapin::Connection;
use lapin::options::ConfirmSelectOptions;
use routes::Routes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Unconfirmed bytes at most (one message may pass it).
const UNCONFIRMED_BYTES: usize = 32 << 20;
/// Messages sent before confirmations are looked at.
const BATCH: usize = 64;
/// Messages handed over and not yet sent.
const QUEUED: usize = 256;
/// Words handed over and not yet sent.
const WORDS: usize = 64;
/// Pause before a new channel when one was closed and the connection was not.
const CHANNEL_PAUSE: Duration = Duration::from_millis(100);

/// A message on its way and the handle of its receipt. Dropping it resolves the receipt as lost.
struct Job {
    /// Lives of the channel before it was handed over.
    life: u64,
    publication: Publication,
    /// Asked when it is to be sent.
    wanted: Option<Wanted>,
    resolve: oneshot::Sender<Confirmation>,
}

/// The publishing side of the broker.
pub(super) struct Publisher {
    jobs: mpsc::Sender<Job>,
    /// What is said in passing, by which others know that we live: it does not wait behind messages.
    words: mpsc::Sender<Job>,
    life: Arc<AtomicU64>,
    gate: watch::Receiver<Gate>,
    close_gate: watch::Sender<Gate>,
    drain: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Publisher {
    pub(super) fn start(
        (line, spare): (Line, Arc<Spare>),
        profile: Profile,
        gate: watch::Sender<Gate>,
    ) -> Self {
        let (sender, jobs) = mpsc::channel(QUEUED);
        let (word_sender, words) = mpsc::channel(WORDS);
        let (drain, life) = (CancellationToken::new(), Arc::<AtomicU64>::default());
        let run = Run {
            jobs,
            words,
            life: Arc::clone(&life),
            line,
            spare,
            profile,
            gate: gate.subscribe(),
            drain: drain.clone(),
        };
        Self {
            jobs: sender,
            words: word_sender,
            life,
            gate: gate.subscribe(),
            close_gate: gate,
            drain,
            task: Mutex::new(Some(tokio::spawn(run.run()))),
        }
    }

    pub(super) async fn publish(
        &self,
        publication: Publication,
        wanted: Option<Wanted>,
    ) -> Receipt {
        let (resolve, receipt) = Receipt::new();
        let gate = *self.gate.borrow();
        let open = match gate {
            Gate::Open => true,
            Gate::Closed => false,
            Gate::Shut => {
                let mut gate = self.gate.clone();
                let opened = gate.wait_for(|gate| *gate != Gate::Shut).await;
                opened.is_ok_and(|gate| *gate == Gate::Open)
            }
        };
        if open {
            let life = self.life.load(Ordering::Acquire);
            let way = match publication.class {
                PublicationClass::Telemetry => &self.words,
                PublicationClass::Data | PublicationClass::Direct => &self.jobs,
            };
            // Refused only when closing: the job is dropped and its receipt says lost.
            let _ = way
                .send(Job {
                    life,
                    publication,
                    wanted,
                    resolve,
                })
                .await;
        }
        receipt
    }

    /// For what is said in passing.
    pub(super) fn announcer(&self) -> Announcer {
        Announcer {
            words: self.words.clone(),
            life: Arc::clone(&self.life),
            gate: self.gate.clone(),
        }
    }

    /// Sends and confirms what was handed over, until the deadline; the rest is lost.
    pub(super) async fn close(&self, deadline: tokio::time::Instant) {
        self.close_gate.send_replace(Gate::Closed);
        self.drain.cancel();
        if let Some(mut task) = self.task.lock().await.take()
            && tokio::time::timeout_at(deadline, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

/// Publishes without waiting and without a receipt.
#[derive(Clone)]
pub(super) struct Announcer {
    words: mpsc::Sender<Job>,
    life: Arc<AtomicU64>,
    gate: watch::Receiver<Gate>,
}

impl Announcer {
    /// Dropped where the connection is away or blocked.
    pub(super) fn announce(&self, publication: Publication) {
        if *self.gate.borrow() == Gate::Open {
            let (resolve, _) = oneshot::channel();
            let _ = self.words.try_send(Job {
                life: self.life.load(Ordering::Acquire),
                publication,
                wanted: None,
                resolve,
            });
        }
    }
}

struct Run {
    jobs: mpsc::Receiver<Job>,
    words: mpsc::Receiver<Job>,
    /// Lives of the channel that have ended.
    life: Arc<AtomicU64>,
    line: Line,
    spare: Arc<Spare>,
    profile: Profile,
    gate: watch::Receiver<Gate>,
    drain: CancellationToken,
}

/// Why a channel's life ended.
enum End {
    Drained,
    Lost,
}

impl Run {
    async fn run(mut self) {
        loop {
            let connection = tokio::select! {
                connection = self.line.connection() => connection,
                () = self.drain.cancelled(), if !self.jobs.is_closed() => {
                    self.take_no_more();
                    continue;
                }
                () = std::future::ready(()), if self.is_done() => return,
            };
            let Ok(connection) = connection else { return };
            let ended = self.life(&connection).await;
            // What waits was handed over when the broker was there. Whoever did so must know that it went away: perhaps
            // the message comes from elsewhere now.
            self.life.fetch_add(1, Ordering::AcqRel);
            match ended {
                Ok(End::Drained) => return,
                Ok(End::Lost) => {}
                Err(error) => {
                    tracing::debug!(%error, "the publishing channel ended")
                }
            }
            if connection.status().connected() {
                tokio::time::sleep(CHANNEL_PAUSE).await;
            }
        }
    }

    fn take_no_more(&mut self) {
        self.jobs.close();
        self.words.close();
    }

    /// Closing, and nothing is left to send.
    fn is_done(&self) -> bool {
        self.jobs.is_closed() && self.jobs.is_empty() && self.words.is_empty()
    }

    /// One channel, until it or its connection ends.
    async fn life(&mut self, connection: &Arc<Connection>) -> lapin::Result<End> {
        let channel = channels::open(connection).await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let mut routes = Routes::new(connection, &self.spare, self.profile);
        let mut flight = Flight::new(&channel);
        // A draining publisher goes on although the gate is closed; a blocked one would wait for ever, and is bounded
        // by the deadline of close.
        loop {
            if self.is_done() && flight.is_empty() {
                return Ok(End::Drained);
            }
            let open = *self.gate.borrow_and_update() != Gate::Shut;
            tokio::select! {
                biased;
                settled = flight.settle(), if !flight.is_empty() => {
                    for route in settled? {
                        routes.forget(&route);
                    }
                }
                // Few and small: they need no room.
                Some(word) = self.words.recv(), if open => {
                    self.hand_on(word, &mut routes, &mut flight).await?;
                }
                job = self.jobs.recv(), if open && has_room(&flight) => match job {
                    Some(job) => self.send(job, &mut routes, &mut flight).await?,
                    // Closing: only confirms are left, and an empty queue would answer at once for ever.
                    None => {
                        while !flight.is_empty() {
                            flight.settle().await?;
                        }
                        return Ok(End::Drained);
                    }
                },
                _ = self.gate.changed() => {}
                () = self.line.lost(connection) => return Ok(End::Lost),
                () = self.drain.cancelled(), if !self.jobs.is_closed() => self.take_no_more(),
            }
        }
    }

    /// Sends a message, and with it those that wait already and have room.
    async fn send(
        &mut self,
        first: Job,
        routes: &mut Routes,
        flight: &mut Flight<'_>,
    ) -> lapin::Result<()> {
        let mut job = first;
        for sent in 1.. {
            self.hand_on(job, routes, flight).await?;
            if sent == BATCH || !has_room(flight) {
                break;
            }
            match self.jobs.try_recv() {
                Ok(next) => job = next,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Sends one message, or says at once why not.
    async fn hand_on(
        &self,
        job: Job,
        routes: &mut Routes,
        flight: &mut Flight<'_>,
    ) -> lapin::Result<()> {
        let wanted = job.wanted.as_ref().is_none_or(|wanted| wanted());
        if wanted && job.life == self.life.load(Ordering::Acquire) {
            match routes.prepare(&job.publication).await? {
                None => flight.start(job),
                Some(refusal) => {
                    let _ = job.resolve.send(refusal);
                }
            }
        }
        Ok(())
    }
}

/// Whether one more message may be in flight.
fn has_room(flight: &Flight<'_>) -> bool {
    flight.len() < flight.limit() && flight.bytes() < UNCONFIRMED_BYTES
}
