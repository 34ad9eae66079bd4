//! A transport's rows in the ledger: read and moved by compare-and-set, however long the store is away.

use super::Names;
use crate::codes::Code;
use crate::engine::insist::insist;
use crate::engine::labels::Labels;
use crate::engine::outlet::Unpublished;
use crate::error::{ErrorClass, WorkError};
use crate::message::{Fate, Timestamp, UserMessage, random_id};
use crate::outcome::Receipt;
use crate::state::ledger::{Change, Content, Put, Row, RowState, Step};
use crate::state::{Person, StateStore};
use bytes::Bytes;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use vumi_api::shared::{Class, KeptContent};

/// Tells whether to give up waiting: the worker stops, or the delivery is no longer ours.
pub(in crate::engine) type Interrupted<'a> = &'a (dyn Fn() -> bool + Sync);

/// Asks the store until it answers.
pub(super) async fn stubborn<T, F: Future<Output = Result<T, WorkError>>>(
    interrupted: Interrupted<'_>,
    ask: impl FnMut() -> F,
) -> Result<T, Unpublished> {
    let hopeless = |error: &WorkError| error.class != ErrorClass::Connect;
    insist(ask, hopeless, interrupted, std::future::pending()).await
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let now = Timestamp::now().epoch() * 1000.0;
    // Positive, and far below the precision of f64.
    now as u64
}

/// What a step says.
#[derive(Clone, Debug, Default)]
pub(super) struct News {
    pub(super) code: String,
    pub(super) class: String,
    pub(super) text: String,
    pub(super) who: String,
}

impl News {
    pub(super) fn said(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    pub(super) fn coded(code: Code, text: impl Into<String>) -> Self {
        Self {
            code: code.name.to_owned(),
            text: text.into(),
            ..Self::default()
        }
    }
}

impl From<&WorkError> for News {
    fn from(error: &WorkError) -> Self {
        let code = error.provider_code.as_deref().unwrap_or(error.code.name);
        Self {
            code: code.to_owned(),
            class: error.failure_class().as_str().to_owned(),
            text: error.text.clone(),
            who: error.who_acts().as_str().to_owned(),
        }
    }
}

impl From<&Fate> for News {
    fn from(fate: &Fate) -> Self {
        Self {
            code: fate.code.clone(),
            class: fate.class.clone(),
            text: fate.text.clone(),
            who: fate.who.clone(),
        }
    }
}

/// The rows of one transport.
pub(in crate::engine) struct Book {
    pub(super) store: Arc<dyn StateStore>,
    names: Names,
    /// By this one its signs of life are known, and those of no other process ever.
    life: String,
    /// Class of messages that name none, where there are classes.
    default_class: Option<Class>,
    /// Whether rows say which request their message answers.
    of_requests: bool,
}

impl Book {
    pub(super) fn new(
        store: Arc<dyn StateStore>,
        names: Names,
        default_class: Option<Class>,
        of_requests: bool,
    ) -> Self {
        Self {
            store,
            life: format!("{}#{:.8}", names.by, random_id()),
            names,
            default_class,
            of_requests,
        }
    }

    /// Whose rows they are.
    pub(super) fn account(&self) -> &str {
        &self.names.connector
    }

    /// Who sends them, as rows and signs of life have it.
    pub(super) fn life(&self) -> &str {
        &self.life
    }

    /// For how long rows are kept from their end.
    pub(super) fn keep(&self) -> Duration {
        self.names.keep
    }

    /// The reply queue of this replica, if it holds anything.
    pub(super) fn reply_queue(&self) -> Option<&str> {
        self.names.reply_queue.as_deref()
    }

    /// A row for a message that has none, not stored yet.
    pub(super) fn opened(&self, message: &UserMessage) -> Row {
        let mut row = Row::new(message.message_id(), self.account(), now());
        row.person = message.to_addr().map(|to| Person::new(to).key());
        let labels = Labels::of(&message.clone().into());
        if let Some(default) = self.default_class {
            row.class = labels.class_or(default).as_str().to_owned();
        }
        if self.of_requests {
            let request = message.in_reply_to().filter(|id| !id.is_empty());
            row.request = request.map(str::to_owned);
        }
        row.batch = labels.batch;
        row.tenant = labels.tenant;
        row
    }

    /// The row of a message that another transport did not begin with, taken over from it with its history.
    pub(super) fn taken(&self, row: Row, message: &UserMessage) -> Row {
        if row.account == self.account() {
            return row;
        }
        let ours = self.opened(message);
        Row {
            account: ours.account,
            person: ours.person,
            class: ours.class,
            batch: ours.batch,
            tenant: ours.tenant,
            holder: None,
            remote_id: None,
            ..row
        }
    }

    /// The row after one more step; none if it is final.
    pub(super) fn moved(
        &self,
        row: &Row,
        state: RowState,
        patience: Duration,
        news: News,
    ) -> Option<Row> {
        // Nothing brings back what a holder alone has, so that one is looked for soon.
        let patience = match row.holder {
            Some(_) if state.is_open() => patience.min(super::patience::FORWARDED),
            _ => patience,
        };
        let attempt = match state {
            RowState::Sending if row.state != state => row.attempt + 1,
            _ => row.attempt,
        };
        let step = Step {
            at: now(),
            worker: self.names.by.clone(),
            state: Some(state),
            attempt,
            code: news.code,
            class: news.class,
            text: news.text,
            who: news.who,
            caused: Vec::new(),
            holder: None,
        };
        let mut next = row.after(Change {
            step,
            state,
            patience,
            remote_id: None,
            told: Vec::new(),
        })?;
        next.sender = (state == RowState::Sending).then(|| self.life.clone());
        // What waits has its message elsewhere. One of which nobody knows may be sent again from here.
        if !self.keeps(&next) && state != RowState::Unknown {
            next.body = None;
        }
        Some(next)
    }

    /// Whether the content of a message is kept as its row stands, so that a person can have it sent again.
    fn keeps(&self, row: &Row) -> bool {
        match self.names.content {
            KeptContent::None => false,
            // It may never come back.
            _ if row.is_external() => true,
            // Nor if its only copy dies with whoever is sending it.
            KeptContent::Failed if row.state == RowState::Sending => row.holder.is_some(),
            KeptContent::Failed => matches!(row.state, RowState::Unknown | RowState::Failed),
            KeptContent::All => !matches!(
                row.state,
                RowState::Accepted | RowState::Queued | RowState::Held | RowState::Parked
            ),
        }
    }

    /// A row with the content of its message, if that is kept.
    pub(super) fn with_content(&self, mut row: Row, body: Option<&Bytes>) -> Row {
        if row.body.is_none() && self.keeps(&row) {
            row.body = body.map(|body| Content::of(body));
        }
        row
    }

    /// The row of a message, if it has one.
    pub(super) async fn load(
        &self,
        id: &str,
        interrupted: Interrupted<'_>,
    ) -> Result<Option<Row>, Unpublished> {
        stubborn(interrupted, || self.store.row(id)).await
    }

    /// The row of the message that a receipt is about, if it has one.
    pub(super) async fn reported(
        &self,
        receipt: &Receipt,
        interrupted: Interrupted<'_>,
    ) -> Result<Option<Row>, Unpublished> {
        match (&receipt.message_id, &receipt.remote_id) {
            (Some(id), _) => self.load(id, interrupted).await,
            (None, Some(remote_id)) => {
                let account = self.account();
                stubborn(interrupted, || self.store.by_remote_id(account, remote_id)).await
            }
            (None, None) => Ok(None),
        }
    }

    /// Stores `next` in place of `before`. A conflict shows what is there instead.
    pub(super) async fn put(
        &self,
        before: &Row,
        next: &Row,
        interrupted: Interrupted<'_>,
    ) -> Result<Put, Unpublished> {
        let expected = (before.version > 0).then_some(before.version);
        let put = stubborn(interrupted, || {
            self.store.put(next, expected, self.names.keep)
        })
        .await?;
        Ok(match put {
            // An earlier try was carried out although its answer was lost.
            Put::Conflict(there) if *there == *next => Put::Stored,
            put => put,
        })
    }

    /// Moves a row by `change`; computes it again when somebody else moved the row first. The row now, and whether it
    /// was moved by us.
    pub(super) async fn advance(
        &self,
        mut row: Row,
        interrupted: Interrupted<'_>,
        change: impl Fn(&Row) -> Option<Row>,
    ) -> Result<(Row, bool), Unpublished> {
        loop {
            let Some(next) = change(&row) else {
                return Ok((row, false));
            };
            match self.put(&row, &next, interrupted).await? {
                Put::Stored => return Ok((next, true)),
                Put::Conflict(there) => row = *there,
            }
        }
    }
}
