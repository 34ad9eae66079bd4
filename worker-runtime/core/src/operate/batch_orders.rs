//! Which orders for batches are given at all: what could never be obeyed is refused with a sentence, before anything is
//! held because of it.

use super::Reach;
use super::names::there;
use crate::codes;
use crate::engine::LONGEST_LABEL;
use crate::error::{ErrorClass, WorkError};
use crate::state::batches::Order;
use vumi_api::shared::{Class, is_connector};
use vumi_api::{Flow, Port};

fn refused(text: String) -> WorkError {
    WorkError::new(ErrorClass::BadInput, codes::BATCH_ORDER, text)
}

fn outbound(transport: &str) -> String {
    Port::new(transport, Flow::Outbound).queue()
}

impl Reach {
    /// Whether the transport `account` could obey this order.
    ///
    /// # Errors
    /// [`codes::BATCH_ORDER`] if it could not, else what stores and brokers say.
    pub(super) async fn may_order(
        &self,
        account: &str,
        batch: &str,
        order: &Order,
    ) -> Result<(), WorkError> {
        let length = batch.chars().count();
        if length == 0 || length > LONGEST_LABEL {
            return Err(refused(format!(
                "a batch is a label of 1 to {LONGEST_LABEL} characters, this one has {length}"
            )));
        }
        self.is_transport(account).await?;
        match order {
            Order::Pause | Order::Cancel => Ok(()),
            Order::Reclass(to) => self.may_reclass(account, *to).await,
            Order::Reroute(to) if to == account => {
                Err(refused(format!("batch {batch} is with {to} already")))
            }
            Order::Reroute(to) => {
                self.is_transport(to).await?;
                let queue = self.queues.get(&outbound(to));
                if queue.is_some_and(|at| at.only_answers) {
                    return Err(refused(format!(
                        "transport {to} answers requests and can send nothing of its own; name one that sends"
                    )));
                }
                self.comes_back(account, batch, to).await
            }
        }
    }

    /// Whether there may be such a transport. Where there is no broker to ask, one that nobody knows is believed in.
    async fn is_transport(&self, name: &str) -> Result<(), WorkError> {
        if !is_connector(name) {
            let shown: String = name.chars().take(40).collect();
            return Err(refused(format!("{shown:?} is no name of a transport")));
        }
        let queue = outbound(name);
        if self
            .queues
            .get(&queue)
            .is_some_and(|at| at.classes.is_some())
        {
            return Ok(());
        }
        for store in &self.stores {
            if store.counts().await?.keys().any(|(known, _)| known == name) {
                return Ok(());
            }
        }
        match self.is_queue(&[queue]).await? {
            Some(false) => Err(refused(format!(
                "no transport {name} has ever run here: there is no queue {}; {}",
                outbound(name),
                there(name, &self.accounts().await?)
            ))),
            _ => Ok(()),
        }
    }

    /// Whether any broker within reach has one of these queues; none if there is none to ask.
    async fn is_queue(&self, names: &[String]) -> Result<Option<bool>, WorkError> {
        let mut asked: Vec<String> = Vec::new();
        for broker in self.queues.values().filter_map(|at| at.broker.as_ref()) {
            if asked.contains(&broker.describe()) {
                continue;
            }
            asked.push(broker.describe());
            for name in names {
                if broker.depth(name).await?.is_some() {
                    return Ok(Some(true));
                }
            }
        }
        Ok((!asked.is_empty()).then_some(false))
    }

    async fn may_reclass(&self, account: &str, to: Class) -> Result<(), WorkError> {
        let queue = outbound(account);
        let known = self.queues.get(&queue).and_then(|at| at.classes);
        let has_classes = match known {
            Some(has_classes) => Some(has_classes),
            None => {
                let class = format!("{queue}.{}", to.as_str());
                self.is_queue(&[format!("{class}.p0"), class]).await?
            }
        };
        match has_classes {
            Some(false) => Err(refused(format!(
                "transport {account} has no classes: set spec.classes, or give the batch to another transport"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether the orders of the transports that it is given to lead a batch back.
    async fn comes_back(&self, account: &str, batch: &str, to: &str) -> Result<(), WorkError> {
        let mut way = vec![account.to_owned(), to.to_owned()];
        while let Some(last) = way.last() {
            let mut next = None;
            for store in self.stores_of(last) {
                if let Some(Order::Reroute(to)) = store.orders(last).await?.remove(batch) {
                    next = Some(to);
                }
            }
            match next {
                Some(next) if next == account => {
                    return Err(refused(format!(
                        "transport {last} gives the same batch back: `vumi batch resume {batch} --transport {last}` first"
                    )));
                }
                Some(next) if !way.contains(&next) => way.push(next),
                _ => break,
            }
        }
        Ok(())
    }
}
