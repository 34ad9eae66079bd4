//! Closing rows whose message is nowhere any more, over all stores and brokers within reach.

use super::Reach;
use crate::audit::account_of;
use crate::close::{self, Close, Closed, NO_BROKER};
use crate::error::WorkError;
use crate::resend::{Chosen, Summary};
use crate::state::StateStore;
use crate::state::ledger::Row;
use crate::withdraw::Withdrawal;
use std::collections::BTreeMap;
use std::sync::Arc;
use vumi_api::{Flow, Port};

impl Reach {
    /// The rows that may be closed, or are named, each with the reason if it is not to be.
    pub(super) async fn closable(
        &self,
        chosen: &Chosen,
        force: bool,
    ) -> Result<Vec<Summary>, WorkError> {
        let chosen = close::meant(chosen);
        let mut listed = Vec::new();
        for store in &self.stores {
            for (account, rows) in by_account(&**store, &chosen).await? {
                match self.closing(store, &account, force) {
                    Some(close) => listed.extend(close.list(&rows).await?),
                    None => {
                        let refused = |row: &Row| Summary::of(row, Some(NO_BROKER.to_owned()));
                        listed.extend(rows.iter().map(refused));
                    }
                }
            }
        }
        if listed.is_empty() {
            self.knows_chosen(&chosen, force).await?;
        }
        Ok(listed)
    }

    /// Closes them.
    pub(super) async fn close(&self, chosen: &Chosen, force: bool) -> Result<Closed, WorkError> {
        let chosen = close::meant(chosen);
        let mut done = Closed::default();
        for store in &self.stores {
            for (account, rows) in by_account(&**store, &chosen).await? {
                let Some(close) = self.closing(store, &account, force) else {
                    *done.refused.entry(NO_BROKER.to_owned()).or_default() += rows.len() as u64;
                    continue;
                };
                if let Err(error) = close.all(&rows, &mut done).await {
                    done.stopped = Some(error.to_string());
                    return Ok(done);
                }
            }
        }
        Ok(done)
    }

    /// What it takes to close rows of a transport; none if its broker is out of reach.
    fn closing<'a>(
        &'a self,
        store: &'a Arc<dyn StateStore>,
        account: &'a str,
        force: bool,
    ) -> Option<Close<'a>> {
        let whole = Port::new(account, Flow::Outbound).queue();
        let names = self.queues.keys();
        let own = names.filter(|queue| account_of(queue) == Some(account));
        Some(Close {
            store: &**store,
            broker: self.queues.get(&whole)?.broker.as_deref()?,
            withdrawal: Withdrawal {
                store: Some(&**store),
                ..self.withdrawal(&whole)
            },
            account,
            queues: own.cloned().collect(),
            in_hand: self
                .in_flight
                .as_ref()
                .map(|hands| hands.get(account).copied().unwrap_or_default()),
            force,
        })
    }
}

/// The rows of one store that are meant, by transport.
async fn by_account(
    store: &dyn StateStore,
    chosen: &Chosen,
) -> Result<BTreeMap<String, Vec<Row>>, WorkError> {
    let mut rows: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in chosen.rows(store).await? {
        rows.entry(row.account.clone()).or_default().push(row);
    }
    Ok(rows)
}
