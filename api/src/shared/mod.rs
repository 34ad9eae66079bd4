//! Settings that stand beside the union, shared by many worker types: one home per setting.

pub mod broker;
pub mod http;
pub mod middleware;
pub mod ordering;
pub mod quantity;
pub mod retry;
pub mod secret;
pub mod shapes;

pub use broker::{BrokerProfile, BrokerRef, BrokerTls, SecretRef};
pub use http::{BasicAuth, HttpListener};
pub use middleware::{AddressTranslation, LogLevel, Logging, MiddlewareItem};
pub use ordering::{Ordering, OrderingMode};
pub use quantity::{Duration, Size};
pub use retry::{Backoff, Retry};
pub use secret::{SecretKeyRef, SecretValue};
pub use shapes::ConnectorName;
