//! Reads the parts of a queue that is not divided any more, for as long as its layout asks for it. A loop of its own, so
//! that what runs is finished when the worker stops.

use super::super::backlog::Backlog;
use super::super::consumer::{Parts, Phase};
use super::super::delivery::Desk;
use super::crew::Crew;
use super::layout::Layout;
use super::plan::Plan;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;
use vumi_api::{Kind, OrderingMode};

pub(super) struct Leftover {
    /// What a consumer of the whole queue would be made of.
    readers: Parts,
    layout: Arc<Layout>,
}

impl Leftover {
    pub(super) fn new(readers: Parts, layout: Arc<Layout>) -> Self {
        Self { readers, layout }
    }

    /// Runs until it is told to drain and every part is let go of.
    pub(super) async fn run(self) {
        let mut former = self.layout.former();
        let mut phase = self.readers.phase.clone();
        loop {
            let asked = async { former.wait_for(Option::is_some).await.ok()?.clone() };
            let parts = tokio::select! {
                biased;
                () = draining(&mut phase) => return,
                parts = asked => parts,
            };
            let Some(parts) = parts else { return };
            let crew = watch::Sender::new(Phase::Run);
            let halt = self.readers.desk.halt.child_token();
            let reading = async {
                self.crew(&parts, &crew, &halt).run().await;
            };
            let told = async {
                tokio::select! {
                    () = draining(&mut phase) => {}
                    _ = former.wait_for(|former| former.as_ref() != Some(&parts)) => {}
                }
                crew.send_replace(Phase::Drain);
                halt.cancel();
            };
            tokio::join!(reading, told);
        }
    }

    fn crew(
        &self,
        parts: &BTreeSet<String>,
        phase: &watch::Sender<Phase>,
        halt: &tokio_util::sync::CancellationToken,
    ) -> Crew {
        let plan = Plan::former(self.layout.queue(), parts);
        let desk = Desk {
            counters: self.layout.leftover(),
            halt: halt.clone(),
            ..(*self.readers.desk).clone()
        };
        let limit = self.readers.backlog.limit();
        let readers = Parts {
            desk: Arc::new(desk),
            phase: phase.subscribe(),
            mode: match self.readers.mode {
                // Nobody waits for a fence where no order is kept.
                OrderingMode::None => OrderingMode::None,
                _ => OrderingMode::PerUser,
            },
            ..self.readers.clone()
        };
        let backlog = Arc::new(Backlog::new(Kind::Dispatcher, limit));
        Crew::new(readers, plan, Arc::clone(&self.layout), backlog).0
    }
}

async fn draining(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase == Phase::Drain).await;
}
