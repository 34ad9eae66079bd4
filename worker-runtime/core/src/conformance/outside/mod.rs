//! A worker of others under test: any program, in any language, on a real broker. It runs in a process of its own behind a
//! [`proxy`], so that the cases can break what is between it and the broker; or it runs already, and the cases that break
//! something are left out.

mod address;
mod book;
mod channels;
mod frames;
mod program;
mod proxy;
mod queues;
#[cfg(test)]
mod tests;
mod verdicts;

pub use verdicts::{Demand, Level, Outcome, Verdict, clean, demands, examine, missing, prepare};

use super::Peer;
use super::far_end::FarEnd;
use super::rig::{Rig, UnderTest, eventually};
use crate::broker::Broker;
use crate::broker::amqp::{AmqpBroker, AmqpConfig};
use crate::engine::{Counts, StopLimits};
use crate::message::{UserMessage, random_id};
use address::Address;
use book::Book;
use futures::future::BoxFuture;
use program::{Diary, Program, Recipe};
use proxy::Proxy;
use std::sync::Arc;
use std::time::Duration;
use vumi_api::{Kind, OrderingMode, Port, Topology};

/// Time that a worker has to end after SIGTERM: what Kubernetes gives.
const GRACE: Duration = Duration::from_secs(30);

/// A worker that is to be examined.
#[derive(Clone)]
pub struct Candidate {
    /// [`Kind::Application`] or [`Kind::Transport`].
    pub kind: Kind,
    /// Its connector: the queues are `<name>.inbound` and so on.
    pub name: String,
    /// `amqp://…` of the broker. Has the password in it: never printed.
    pub url: String,
    /// How it is started; none if it runs already.
    pub command: Option<Vec<String>>,
    /// What a user says to an application; `{}` stands for the suite's own text.
    pub saying: String,
    /// Content of a message on which its handling fails each time; none if nobody knows one.
    pub failing: Option<String>,
    /// How long a case waits for anything before it calls it missing.
    pub patience: Duration,
}

impl Candidate {
    fn topology(&self) -> Topology {
        match self.kind {
            Kind::Transport => Topology::transport(&self.name),
            _ => Topology::application(&self.name),
        }
    }
}

/// The worker, and what is around it.
pub(super) struct Outside {
    consumed: Vec<Port>,
    broker: Arc<dyn Broker>,
    book: Arc<Book>,
    diary: Diary,
    /// None if somebody else started it.
    recipe: Option<Recipe>,
    program: Option<Program>,
    failing: Option<String>,
    _proxy: Option<Proxy>,
}

impl Rig<Outside> {
    /// A bench with the worker consuming, and at first without any queue but those that it declares itself.
    pub(super) async fn open(candidate: &Candidate) -> Result<Self, String> {
        let topology = candidate.topology();
        let config = AmqpConfig::from_url(&candidate.url).map_err(|e| e.to_string())?;
        let ports = topology.intake.iter().chain(&topology.replies);
        let consumed: Vec<Port> = ports.cloned().collect();
        let published = topology.publishes.iter().map(Port::queue);
        let parked = consumed
            .iter()
            .map(|port| crate::parking::parked_queue(&port.queue()));
        let book = Arc::new(Book::new(published.chain(parked).collect()));
        let (mut recipe, mut proxy) = (None, None);
        if let Some(command) = &candidate.command {
            queues::remove(candidate).await?;
            let address = Address::parse(&candidate.url)?;
            let opened = Proxy::open(address.place(), Arc::clone(&book)).await;
            let opened = opened.map_err(|error| format!("no port to listen on: {error}"))?;
            recipe = Some(Recipe {
                command: command.clone(),
                environment: address.environment(opened.port, &candidate.name),
            });
            proxy = Some(opened);
        }
        let broker: Arc<dyn Broker> = AmqpBroker::connect(config.with_name("vumi conformance"));
        let mut under = Outside {
            consumed,
            broker: Arc::clone(&broker),
            book: Arc::clone(&book),
            diary: Diary::default(),
            recipe,
            program: None,
            failing: candidate.failing.clone(),
            _proxy: proxy,
        };
        // Its own declarations come first: ours would hide that it has none.
        let started = under.run().await;
        started.map_err(|what| under.with_output(what))?;
        let far_end = FarEnd::open(&broker, &topology.publishes).await;
        far_end.consumes().await?;
        Ok(Self {
            kind: candidate.kind,
            name: candidate.name.clone(),
            ordering: OrderingMode::PerUser,
            saying: candidate.saying.clone(),
            topology,
            broker,
            faults: book,
            far_end,
            run_name: format!("conformance-{}", &random_id()[..12]),
            under,
        })
    }

    /// Ends the bench.
    pub(super) async fn close(mut self) {
        if let Some(program) = self.under.program.take() {
            program.kill().await;
        }
        self.broker.close(Duration::from_secs(2)).await;
    }
}

impl Outside {
    /// What went wrong, with what the worker wrote last.
    pub(super) fn with_output(&self, what: String) -> String {
        let mut text = what;
        match self.diary.deaths() {
            0 => {}
            1 => text += "\nit ended by itself and was started again",
            n => text += &format!("\nit ended by itself {n} times and was started again"),
        }
        for (n, line) in self.diary.tail(12).iter().enumerate() {
            let heading = if n == 0 { "\nit wrote:" } else { "" };
            text += &format!("{heading}\n  {line}");
        }
        text
    }

    fn start(&mut self) -> Result<(), String> {
        if let Some(recipe) = &self.recipe {
            self.program = Some(Program::start(recipe, &self.diary)?);
        }
        Ok(())
    }
}

impl UnderTest for Outside {
    type Faults = Book;

    async fn run(&mut self) -> Result<(), String> {
        self.start()?;
        self.until_consuming().await
    }

    async fn until_consuming(&self) -> Result<(), String> {
        eventually("it consumes its queues", async || {
            for port in &self.consumed {
                match self.broker.depth(&port.queue()).await {
                    Ok(Some(depth)) if depth.consumers > 0 => {}
                    Ok(Some(_)) => return Err(format!("{port} has no consumer")),
                    Ok(None) => return Err(format!("there is no queue {port}")),
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(())
        })
        .await
    }

    async fn crash_and_restart(&mut self) -> Result<(), String> {
        if let Some(program) = self.program.take() {
            program.kill().await;
        }
        eventually("the broker notices that it is gone", async || {
            for port in &self.consumed {
                match self.broker.depth(&port.queue()).await {
                    Ok(Some(depth)) if depth.consumers > 0 => {
                        return Err(format!("{port} has a consumer"));
                    }
                    Ok(_) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(())
        })
        .await?;
        self.run().await
    }

    fn stopping(
        &mut self,
        limits: StopLimits,
    ) -> Result<BoxFuture<'static, Result<(), String>>, String> {
        let program = self.program.take().ok_or("it does not run")?;
        // Programs of others know one signal and no limits of ours.
        let grace = GRACE.max(limits.drain);
        Ok(Box::pin(program.stop(grace)))
    }

    fn counts(&self) -> Result<Counts, String> {
        match self.recipe {
            Some(_) => Ok(self.book.counts()),
            None => Err("what a worker does that was not started here is not seen".into()),
        }
    }

    fn poison(&self, message: &mut UserMessage) {
        message.set_content(self.failing.as_deref());
    }

    fn attempts(&self, id: &str) -> u32 {
        self.book.page().attempts.get(id).copied().unwrap_or(0)
    }

    async fn settle(&self) -> Result<Counts, String> {
        eventually("every message is acknowledged", async || {
            for port in &self.consumed {
                let depth = self.broker.depth(&port.queue()).await;
                let depth = depth.map_err(|error| error.to_string())?;
                if let Some(ready) = depth.map(|depth| depth.ready).filter(|ready| *ready > 0) {
                    return Err(format!("{ready} messages wait in {port}"));
                }
            }
            match self.book.counts() {
                counts if self.book.is_at_rest() => Ok(counts),
                counts => Err(format!(
                    "{} are in hand, {} were returned",
                    counts.in_flight, counts.returned
                )),
            }
        })
        .await
    }

    async fn finished(&self, done: u64, parked: u64) -> Result<(), String> {
        if self.recipe.is_none() {
            return self.settle().await.map(drop);
        }
        let what = format!("{done} messages are acknowledged and {parked} set aside");
        eventually(&what, async || match self.book.counts() {
            c if c.done == done && c.parked == parked && self.book.is_at_rest() => Ok(()),
            c => Err(format!(
                "{} acknowledged, {} set aside, {} neither",
                c.done, c.parked, c.in_flight
            )),
        })
        .await
    }

    async fn notices_outage(&self) -> Result<(), String> {
        // Whether it is ready is not asked of programs of others.
        Ok(())
    }

    fn writes_ahead(&self) -> bool {
        false
    }

    fn has_our_codes(&self) -> bool {
        false
    }

    fn peer(&self) -> Result<Box<dyn Peer>, String> {
        Err("nobody plays its peer".into())
    }
}
