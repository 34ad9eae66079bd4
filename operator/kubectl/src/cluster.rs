//! The way to the cluster: which one, and a deadline around every call.

use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use vumi_api::Kind;
use vumi_api::crds::{GROUP, VERSION};
use vumi_cli::error::CliError;
use vumi_core::error::chain;

/// Field manager of what people change with this program.
const MANAGER: &str = "kubectl-vumi";
/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Objects in a page of a list.
const PAGE: usize = 500;

/// Which cluster and which namespace are meant.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct Connection {
    /// File that names the cluster [default: KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of that file [default: its current one]
    #[arg(long, value_name = "NAME", global = true)]
    pub context: Option<String>,
    /// Namespace [default: that of the context]
    #[arg(short, long, value_name = "NAME", global = true)]
    pub namespace: Option<String>,
}

/// Why a call did not do what it should.
#[derive(Debug, Clone)]
pub struct Failed {
    /// HTTP status, if there was an answer.
    pub code: Option<u16>,
    /// A sentence.
    pub text: String,
}

impl Failed {
    /// Whether one may not do that.
    pub fn is_forbidden(&self) -> bool {
        self.code == Some(403)
    }

    /// Whether somebody else was there before.
    pub fn is_conflict(&self) -> bool {
        self.code == Some(409)
    }
}

impl From<kube::Error> for Failed {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self {
                code: Some(status.code),
                text: status.message.clone(),
            },
            error => Self {
                code: None,
                text: format!("the API server cannot be reached: {}", chain(&error)),
            },
        }
    }
}

impl From<Failed> for CliError {
    fn from(failed: Failed) -> Self {
        CliError::environment(failed.text)
    }
}

/// A cluster.
#[derive(Clone)]
pub struct Cluster {
    /// For what is more than a call: logs, exec, port-forward.
    pub client: kube::Client,
    /// The namespace that is meant.
    pub namespace: String,
}

impl Cluster {
    /// The cluster that is meant. Nothing is called yet.
    ///
    /// # Errors
    /// None is known, in a sentence.
    pub async fn open(connection: &Connection) -> Result<Self, CliError> {
        let unknown = |error: &dyn std::fmt::Display| {
            CliError::environment(format!(
                "no cluster is known: {error}; set KUBECONFIG, or name a file with --kubeconfig"
            ))
        };
        let file = match &connection.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let file = file.map_err(|error| unknown(&chain(&error)))?;
        let options = KubeConfigOptions {
            context: connection.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = kube::Config::from_custom_kubeconfig(file, &options).await;
        let mut config = config.map_err(|error| unknown(&chain(&error)))?;
        config.default_retry = false;
        config.connect_timeout = Some(DEADLINE);
        let namespace = connection.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = kube::Client::try_from(config);
        let client = client.map_err(|error| unknown(&chain(&error)))?;
        Ok(Self { client, namespace })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, Failed> {
        let failed = |text: String| Failed { code: None, text };
        let request = Request::builder().method(method).uri(path);
        let request = request.header("accept", "application/json");
        let request = match body {
            Some((media_type, value)) => request
                .header("content-type", media_type)
                .body(value.to_string().into_bytes()),
            None => request.body(Vec::new()),
        };
        let request = request.map_err(|error| failed(error.to_string()))?;
        let answer = self.answer(request, DEADLINE).await?;
        serde_json::from_str(&answer)
            .map_err(|error| failed(format!("the API server's answer cannot be read: {error}")))
    }

    async fn answer(
        &self,
        request: Request<Vec<u8>>,
        deadline: Duration,
    ) -> Result<String, Failed> {
        let sent = tokio::time::timeout(deadline, self.client.request_text(request));
        let answer = sent.await.map_err(|_| Failed {
            code: None,
            text: format!(
                "the API server did not answer within {} s",
                deadline.as_secs()
            ),
        })?;
        Ok(answer?)
    }

    /// What somebody behind the API server answers, who has a time of their own.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn text(&self, path: &str, deadline: Duration) -> Result<String, Failed> {
        let request = Request::get(path).body(Vec::new());
        let request = request.map_err(|error| Failed {
            code: None,
            text: error.to_string(),
        })?;
        self.answer(request, deadline).await
    }

    /// An object, or anything else that is JSON. None if it is not there.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn get(&self, path: &str) -> Result<Option<Value>, Failed> {
        match self.send(Method::GET, path, None).await {
            Ok(object) => Ok(Some(object)),
            Err(failed) if failed.code == Some(404) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// All objects of a path, page by page; `query` is a selector or nothing.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn list(&self, path: &str, query: &str) -> Result<Vec<Value>, Failed> {
        let mut all = Vec::new();
        let mut next = String::new();
        loop {
            let page = format!("{path}?limit={PAGE}{query}{next}");
            let mut answer = self.send(Method::GET, &page, None).await?;
            if let Value::Array(items) = answer["items"].take() {
                all.extend(items);
            }
            match answer["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => next = format!("&continue={token}"),
                _ => return Ok(all),
            }
        }
    }

    /// What an object would be if this were applied by `manager`, which takes fields from others if `force`. Nothing is stored.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn try_apply(
        &self,
        path: &str,
        object: &Value,
        manager: &str,
        force: bool,
    ) -> Result<Value, Failed> {
        let path = format!(
            "{path}?fieldManager={manager}&fieldValidation=Strict&force={force}&dryRun=All"
        );
        let body = Some(("application/apply-patch+yaml", object));
        self.send(Method::PATCH, &path, body).await
    }

    /// Changes parts of an object. Returns it as it is now.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn merge(&self, path: &str, change: &Value) -> Result<Value, Failed> {
        let path = format!("{path}?fieldManager={MANAGER}");
        let body = Some(("application/merge-patch+json", change));
        self.send(Method::PATCH, &path, body).await
    }

    /// The OpenAPI document of our group, as the API server has it. None if our definitions are not installed.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn definitions(&self) -> Result<Option<Value>, Failed> {
        let index = self.get("/openapi/v3").await?.unwrap_or_default();
        let place = &index["paths"][format!("apis/{GROUP}/{VERSION}")]["serverRelativeURL"];
        match place.as_str() {
            Some(place) => Ok(Some(self.get(place).await?.unwrap_or_default())),
            None => Ok(None),
        }
    }

    /// Asks the API server something that is an object itself, such as an access review.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, Failed> {
        self.send(Method::POST, path, Some(("application/json", object)))
            .await
    }
}

/// Where our resources of a kind are: of one namespace, or of all.
pub fn resources(kind: Kind, namespace: Option<&str>) -> String {
    let plural = kind.plural();
    match namespace {
        Some(namespace) => format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{plural}"),
        None => format!("/apis/{GROUP}/{VERSION}/{plural}"),
    }
}

/// Where objects of another kind are.
pub fn objects(api_version: &str, kind: &str, namespace: &str) -> String {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    <DynamicObject as kube::Resource>::url_path(&kind, Some(namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_where_the_api_server_has_them() {
        for (api_version, kind, path) in [
            ("v1", "ConfigMap", "/api/v1/namespaces/n/configmaps"),
            (
                "networking.k8s.io/v1",
                "NetworkPolicy",
                "/apis/networking.k8s.io/v1/namespaces/n/networkpolicies",
            ),
            (
                "networking.k8s.io/v1",
                "Ingress",
                "/apis/networking.k8s.io/v1/namespaces/n/ingresses",
            ),
            (
                "gateway.networking.k8s.io/v1",
                "HTTPRoute",
                "/apis/gateway.networking.k8s.io/v1/namespaces/n/httproutes",
            ),
        ] {
            assert_eq!(objects(api_version, kind, "n"), path);
        }
        assert_eq!(
            resources(Kind::Transport, None),
            "/apis/vumi.dev/v1alpha1/transports"
        );
    }
}
