//! Sessions of users: a few named texts each, with an end (core of Vumi's session manager, in its Redis layout).

use crate::error::WorkError;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::time::Duration;

/// Named texts of one session. `created_at` (Unix seconds as text) is set when it is created.
pub type Session = BTreeMap<String, String>;

/// One session of several that change together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// A worker's name.
    pub scope: String,
    /// Whose session it is.
    pub user: String,
    /// What it held when it was read; none if there was none.
    pub before: Option<Session>,
    /// What it is to hold; none, or nothing where it held something, ends it. One that begins gets its `created_at`.
    pub after: Option<Session>,
    /// How long it lasts from now on; none for ever.
    pub keep: Option<Duration>,
}

/// Operations on sessions. `scope` is a worker's name, `user` an address as the worker spells it.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// Begins a session in place of any earlier one; it ends after `keep`, or never. What is stored.
    async fn create(
        &self,
        scope: &str,
        user: &str,
        fields: Session,
        keep: Option<Duration>,
    ) -> Result<Session, WorkError>;

    /// The session, if there is one.
    async fn load(&self, scope: &str, user: &str) -> Result<Option<Session>, WorkError>;

    /// Sets fields of a session that exists, and leaves its end as it is. False if it does not exist (any more).
    async fn save(&self, scope: &str, user: &str, fields: Session) -> Result<bool, WorkError>;

    /// Moves its end to `keep` from now. False if there is none.
    async fn extend(&self, scope: &str, user: &str, keep: Duration) -> Result<bool, WorkError>;

    /// Ends it; what it held.
    async fn clear(&self, scope: &str, user: &str) -> Result<Option<Session>, WorkError>;

    /// Changes several sessions, of any scopes, all or none: false, and nothing changed, if one of them does not hold
    /// what it held when it was read. A session must not be named twice. Repeated after a lost answer it says false, so
    /// whoever calls it must be able to find out by reading whether the change was made.
    async fn change(&self, changes: &[Change]) -> Result<bool, WorkError>;

    /// Users with a session, at most `limit`.
    async fn active(&self, scope: &str, limit: usize) -> Result<Vec<String>, WorkError>;

    /// Remembers for `keep` that a session of a user began now, in place of any earlier one: the moment, in seconds since
    /// 1970. `namespace` is a transport's name or a tag.
    async fn begin(&self, namespace: &str, user: &str, keep: Duration) -> Result<f64, WorkError>;

    /// When the user's session began, if that is remembered.
    async fn begun(&self, namespace: &str, user: &str) -> Result<Option<f64>, WorkError>;

    /// The same, and it is remembered no more.
    async fn end(&self, namespace: &str, user: &str) -> Result<Option<f64>, WorkError>;
}
