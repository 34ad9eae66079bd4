//! Resources as people name them: `transport/sms`, `vapp/echo`.

use crate::cluster::{Cluster, resources};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;
use vumi_api::crds::crds;
use vumi_api::names::nearest;
use vumi_api::{Kind, Resource, Spec};
use vumi_cli::error::CliError;

/// Kind and name of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str().to_lowercase(), self.name)
    }
}

/// All words for the kinds, as `kubectl` takes them.
fn words() -> Vec<(String, Kind)> {
    let mut all = Vec::new();
    for (kind, definition) in Kind::ALL.into_iter().zip(crds()) {
        let names = &definition["spec"]["names"];
        let short = names["shortNames"].as_array().into_iter().flatten();
        let texts = [&names["singular"], &names["plural"]].into_iter();
        let texts = texts.chain(short).filter_map(Value::as_str);
        all.extend(texts.map(|text| (text.to_owned(), kind)));
    }
    all
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((kind, name)) = text.split_once('/') else {
            return Err(format!(
                "{text:?} names no resource; write KIND/NAME, for example transport/{text}"
            ));
        };
        // As `kubectl get -o name` prints it.
        let kind = kind.to_lowercase();
        let kind = kind.strip_suffix(".vumi.dev").unwrap_or(&kind);
        let words = words();
        let Some((_, known)) = words.iter().find(|(word, _)| word == kind) else {
            let near = nearest(kind, words.iter().map(|(word, _)| word.as_str()));
            let near = near.unwrap_or("transport, application, dispatcher, metricaggregator");
            return Err(format!("there is no kind {kind:?}; did you mean {near}?"));
        };
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        match name.is_empty() || !name.chars().all(letter) {
            true => Err(format!(
                "{name:?} is no name: lower case letters, digits and -"
            )),
            false => Ok(Self {
                kind: *known,
                name: name.to_owned(),
            }),
        }
    }
}

impl Named {
    /// Where it is in the namespace that is meant.
    pub fn path(&self, namespace: &str) -> String {
        format!("{}/{}", resources(self.kind, Some(namespace)), self.name)
    }

    /// The resource as the cluster has it.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub async fn get(&self, cluster: &Cluster) -> Result<Value, CliError> {
        let found = cluster.get(&self.path(&cluster.namespace)).await?;
        found.ok_or_else(|| self.missing(&cluster.namespace))
    }

    fn missing(&self, namespace: &str) -> CliError {
        CliError::environment(format!(
            "there is no {self} in namespace {namespace}; `kubectl vumi status -A` lists what there is"
        ))
    }

    /// The labels that all its objects have, as a query.
    pub fn selector(&self) -> String {
        let (kind, name) = (self.kind.as_str(), &self.name);
        format!("&labelSelector=vumi.dev/kind%3D{kind},vumi.dev/name%3D{name}")
    }
}

/// Kind and name of an object of ours.
pub fn of(kind: Kind, object: &Value) -> Named {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Named {
        kind,
        name: name.to_owned(),
    }
}

/// The resource that an object of the cluster is.
///
/// # Errors
/// This program does not know something of it.
pub fn read(kind: Kind, object: &Value) -> Result<Resource, CliError> {
    let spec = Spec::from_json(kind, object["spec"].clone());
    let spec = spec.map_err(|error| {
        CliError::validation(format!(
            "{}: spec: {error}; this kubectl-vumi ({}) is older than the CRDs: upgrade it",
            of(kind, object),
            env!("CARGO_PKG_VERSION")
        ))
    })?;
    let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
    Ok(Resource {
        name: text("name").unwrap_or_default(),
        namespace: text("namespace"),
        spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_named_as_kubectl_names_them() {
        for text in [
            "transport/sms",
            "transports/sms",
            "vtr/sms",
            "Transport/sms",
            "transport.vumi.dev/sms",
        ] {
            let named: Named = text.parse().unwrap();
            assert_eq!(named.to_string(), "transport/sms");
        }
        assert_eq!(
            "dispatcher/d".parse::<Named>().unwrap().kind,
            Kind::Dispatcher
        );
    }

    #[test]
    fn a_mistake_is_answered_with_what_to_write() {
        let wrong = |text: &str| text.parse::<Named>().unwrap_err();
        assert!(wrong("sms").contains("transport/sms"), "{}", wrong("sms"));
        assert!(
            wrong("transprot/sms").contains("did you mean transport?"),
            "{}",
            wrong("transprot/sms")
        );
        for text in ["transport/", "transport/a b", "transport/../x"] {
            assert!(wrong(text).contains("is no name"), "{text}");
        }
    }
}
