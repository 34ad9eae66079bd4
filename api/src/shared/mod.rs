//! Settings that stand beside the union, shared by many worker types: one home per setting.

pub mod autoscaling;
pub mod broker;
pub mod classes;
pub mod client;
pub mod deployment;
pub mod failure;
pub mod http;
pub mod middleware;
pub mod network_policy;
pub mod ordering;
pub mod overrides;
pub mod quantity;
pub mod retry;
pub mod secret;
pub mod sending;
pub mod service;
pub mod shapes;
pub mod state;
pub mod tls;

pub use autoscaling::Autoscaling;
pub use broker::{BrokerManagement, BrokerProfile, BrokerRef};
pub use classes::{Class, Classes, Weights};
pub use client::HttpClient;
pub use deployment::{
    Deployment, ReadinessSettings, ResourceAmounts, ResourceSettings, UpdatePolicy,
};
pub use failure::{Actor, FailureClass, ProviderCode};
pub use http::{BasicAuth, HttpListener, RequestMethod};
pub use middleware::{
    AddressTranslation, LogLevel, Logging, MiddlewareItem, SessionLength, SessionNamespace,
};
pub use network_policy::{EgressRule, NetworkPolicySettings};
pub use ordering::{Ordering, OrderingMode};
pub use overrides::{Overrides, OverridesMetadata};
pub use quantity::{Duration, Size};
pub use retry::{Backoff, Retry};
pub use secret::{SecretKeyRef, SecretRef, SecretValue};
pub use sending::{Dedupe, OnUnknown, RateLimit, RatePer, RateUnit, UnknownPolicy, UnknownThen};
pub use service::{
    Expose, HttpRouteSettings, IngressSettings, Scheme, ServiceSettings, ServiceType,
};
pub use shapes::{ConnectorName, is_connector};
pub use state::{KeptContent, RedisRef, Retention, StateNeed, StateRef, StateVolume};
pub use tls::{CallTls, ClientTls};
