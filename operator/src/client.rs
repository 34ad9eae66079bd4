//! Calls to the API server. Outside of every one stands a deadline ([`Bounded`]), and nothing is repeated behind
//! anyone's back. Writes pass a [`Gate`]: without the lease, or under definitions that are too old, there are none.

use crate::bounded::{Bounded, Deadlines, TimedOut};
use crate::gate::Gate;
use crate::metrics::Metrics;
use http::{Method, Request};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use vumi_core::error::chain;

/// Field manager of everything that the operator applies.
pub const MANAGER: &str = "vumi-operator";

/// Why a call did not do what it should.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApiError {
    /// The API server said no.
    #[error("{message} ({code})")]
    Refused {
        /// HTTP status.
        code: u16,
        /// The reason in the server's word, such as `AlreadyExists`.
        reason: String,
        /// Its sentence.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// There was no answer in time.
    #[error("the API server did not answer within {0:?}")]
    Deadline(Duration),
    /// There was no connection, or it broke.
    #[error("the API server cannot be reached: {0}")]
    Connection(String),
    /// The answer was no JSON.
    #[error("the API server's answer cannot be read: {0}")]
    Unreadable(String),
    /// Whether the definitions of our kinds are still those of before, which is asked before a write, cannot be told.
    #[error("not written, since the definitions (CRDs) cannot be compared: {0}")]
    Uncompared(String),
    /// This operator may not write now.
    #[error("not written: {0}")]
    Closed(&'static str),
}

impl ApiError {
    /// HTTP status, if there was an answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether somebody else was there before.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// Whether the same object would be refused again: somebody has to do something. For a field that it does not know,
    /// server-side apply says 500.
    pub fn is_about_the_object(&self) -> bool {
        match self {
            Self::Refused {
                code: 500, message, ..
            } => message.starts_with("failed to create typed patch object"),
            Self::Refused { code, .. } => matches!(code, 400 | 403 | 413 | 415 | 422),
            _ => false,
        }
    }

    /// Whether the namespace is being deleted: nothing can be made in it, and nothing has to.
    pub fn is_about_a_namespace_that_goes(&self) -> bool {
        matches!(self, Self::Refused { code: 403, message, .. } if message.contains("because it is being terminated"))
    }

    /// When the server wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
                Self::Refused {
                    code: status.code,
                    reason: status.reason.clone(),
                    message: status.message.clone(),
                    retry_after: (seconds > 0).then(|| Duration::from_secs(seconds.into())),
                }
            }
            kube::Error::Service(error) => match error.downcast::<TimedOut>() {
                Ok(late) => Self::Deadline(late.0),
                Err(error) => Self::Connection(chain(error.as_ref())),
            },
            error => Self::Connection(chain(&error)),
        }
    }
}

/// A client of the API server that a kubeconfig, or the pod's account, names.
///
/// # Errors
/// There is neither, or it cannot be used.
pub async fn connect(deadlines: Deadlines, metrics: Metrics) -> Result<kube::Client, String> {
    let mut config = kube::Config::infer().await.map_err(|error| {
        format!(
            "no cluster is known: {error}; set KUBECONFIG, or run in a pod with a service account"
        )
    })?;
    // What fails is tried again by whoever asked, with its own back-off (and by nobody else).
    config.default_retry = false;
    config.connect_timeout = Some(deadlines.call);
    let service = kube::client::ClientBuilder::try_from(config).map_err(|error| {
        format!(
            "the cluster's configuration cannot be used: {}",
            chain(&error)
        )
    })?;
    let service = service.with_layer(&tower::layer::layer_fn(|inner| {
        Bounded::new(inner, deadlines, metrics.clone())
    }));
    Ok(service.build())
}

/// How something is applied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Apply {
    /// Fields that others hold are taken from them.
    pub force: bool,
    /// Nothing is stored.
    pub dry_run: bool,
}

/// The calls that the operator makes, beside its watches.
#[derive(Clone)]
pub struct Api {
    client: kube::Client,
    gate: Arc<Gate>,
}

impl Api {
    /// Through a client, behind a gate.
    pub fn new(client: kube::Client, gate: Arc<Gate>) -> Self {
        Self { client, gate }
    }

    /// The gate.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Reads an object, or anything else that is JSON. The answer stands in no log: it may be a Secret.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.send(Method::GET, path, None).await
    }

    /// Applies an object server-side, strictly. Returns it as it is now.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn apply(&self, path: &str, object: &Value, how: Apply) -> Result<Value, ApiError> {
        self.gate.check()?;
        let mut query = format!("fieldManager={MANAGER}&fieldValidation=Strict");
        for (switch, text) in [(how.force, "&force=true"), (how.dry_run, "&dryRun=All")] {
            if switch {
                query.push_str(text);
            }
        }
        let body = Some(("application/apply-patch+yaml", object));
        self.send(Method::PATCH, &format!("{path}?{query}"), body)
            .await
    }

    /// Changes parts of an object. Returns it as it is now.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn merge(&self, path: &str, change: &Value) -> Result<Value, ApiError> {
        self.gate.check()?;
        self.merge_unguarded(path, change).await
    }

    /// The same without the gate: for the lease, which opens it.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn merge_unguarded(&self, path: &str, change: &Value) -> Result<Value, ApiError> {
        let path = format!("{path}?fieldManager={MANAGER}");
        let body = Some(("application/merge-patch+json", change));
        self.send(Method::PATCH, &path, body).await
    }

    /// Makes a new object.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        self.gate.check()?;
        self.create_unguarded(path, object).await
    }

    /// The same without the gate: for the lease, which opens it.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create_unguarded(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        let path = format!("{path}?fieldManager={MANAGER}");
        self.send(Method::POST, &path, Some(("application/json", object)))
            .await
    }

    /// Deletes the object with this uid, no namesake of it; what it owns goes after it.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn delete(&self, path: &str, uid: &str) -> Result<(), ApiError> {
        self.gate.check()?;
        let options = serde_json::json!({
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        });
        let body = Some(("application/json", &options));
        self.send(Method::DELETE, path, body).await.map(|_| ())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, ApiError> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("accept", "application/json");
        let request = match body {
            Some((media_type, value)) => {
                let request = request.header("content-type", media_type);
                request.body(value.to_string().into_bytes())
            }
            None => request.body(Vec::new()),
        };
        let request = request.map_err(|error| ApiError::Unreadable(error.to_string()))?;
        let text = self.client.request_text(request).await?;
        serde_json::from_str(&text).map_err(|error| ApiError::Unreadable(error.to_string()))
    }
}
