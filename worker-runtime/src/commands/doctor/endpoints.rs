//! Where workers call: whether name, network and TLS lead there. Nothing is asked of whoever is there.

use crate::trial::origin;
use futures::future::join_all;
use http::Uri;
use std::collections::BTreeSet;
use vumi_api::Resource;
use vumi_api::shared::HttpClient;
use vumi_core::checkup::{Finding, Level};
use vumi_core::outside::Outside;
use vumi_core::secrets::Secrets;
use vumi_http::Client;

const FIX: &str = "Check the URL, DNS, TLS (client.tls) and the network; messages wait for it and are tried again (retry).";

/// Each place that a worker calls, once, all beside each other.
pub(super) async fn look(resources: &[Resource], secrets: &Secrets) -> Vec<Finding> {
    let looks = resources.iter().map(|one| of_worker(one, secrets));
    join_all(looks).await.into_iter().flatten().collect()
}

async fn of_worker(resource: &Resource, secrets: &Secrets) -> Vec<Finding> {
    let (settings, urls) = called(resource);
    if urls.is_empty() {
        return Vec::new();
    }
    let key = resource.key();
    let client = match Client::new(&settings, secrets, Outside::default()) {
        Ok(client) => client,
        Err(error) => {
            let fix = error.code.fix;
            return vec![Finding::new(Level::Problem, &key, error.text, fix)];
        }
    };
    let mut known = BTreeSet::new();
    let mut looks = Vec::new();
    for url in urls {
        // One that is none is told by the manifests' own checks.
        let Some(url) = url.parse::<Uri>().ok().filter(is_whole) else {
            continue;
        };
        let place = origin(&url);
        if known.insert(place.clone()) {
            looks.push(reached(&client, &key, url, place));
        }
    }
    join_all(looks).await
}

async fn reached(client: &Client, key: &str, url: Uri, place: String) -> Finding {
    let about = format!("endpoint {place}");
    match client.reach(&url).await {
        Ok(()) => Finding::good(
            &about,
            format!("{key} gets a connection; nothing was asked over it"),
        ),
        Err(error) => Finding::new(Level::Warning, &about, format!("{key}: {error}"), FIX),
    }
}

fn is_whole(url: &Uri) -> bool {
    url.scheme().is_some() && url.host().is_some()
}

/// The addresses that a worker calls and that its manifest says as they are, and how it calls.
fn called(resource: &Resource) -> (HttpClient, Vec<&str>) {
    let mut urls = Vec::new();
    let mut settings = None;
    if let Some(application) = resource.application() {
        settings = application.client.clone();
        if let Some(relay) = &application.http_relay {
            urls.push(relay.url.as_str());
            urls.extend(relay.event_url.as_deref());
        }
    }
    if let Some(transport) = resource.transport() {
        settings = transport.client.clone();
        urls.extend(transport.mediafone.as_ref().map(|own| own.url.as_str()));
        let described = transport.generic_http.as_ref();
        let send = described.and_then(|described| described.send.as_ref());
        // What a template makes of a message or a Secret is not known here.
        let constant = send.filter(|send| !send.url.contains("{{") && !send.url.contains("{%"));
        urls.extend(constant.map(|send| send.url.as_str()));
    }
    (settings.unwrap_or_default(), urls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use vumi_api::Target;

    #[tokio::test]
    async fn a_place_that_a_worker_calls_is_reached_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap().port();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let away = closed.local_addr().unwrap().port();
        drop(closed);
        let text = format!(
            "apiVersion: vumi.dev/v1alpha1
kind: Application
metadata: {{name: relay}}
spec:
  httpRelay:
    url: http://127.0.0.1:{there}/messages?key=hidden
    eventUrl: https://127.0.0.1:{there}/events
  transportName: acme
  client: {{connectTimeout: 1s}}
---
apiVersion: vumi.dev/v1alpha1
kind: Transport
metadata: {{name: acme}}
spec:
  genericHttp:
    send: {{url: \"http://127.0.0.1:{away}/send\"}}
---
apiVersion: vumi.dev/v1alpha1
kind: Transport
metadata: {{name: other}}
spec:
  genericHttp:
    settings: {{host: acme.example}}
    send: {{url: \"https://{{{{ config.host }}}}/send\"}}
---
apiVersion: vumi.dev/v1alpha1
kind: Transport
metadata: {{name: sms}}
spec:
  mediafone: {{url: \"http://localhost:{there}/send\", username: me, password: {{value: secret}}}}
  http: {{port: 8080}}
"
        );
        let read = vumi_api::manifest::load(&[("all.yaml", text)], Target::Local);
        assert_eq!(read.resources.len(), 4, "{:?}", read.findings);
        let resources = read.resources.iter().map(|loaded| loaded.resource.clone());
        let resources: Vec<Resource> = resources.collect();
        let found = look(&resources, &Secrets::default()).await;
        let level = |about: String| {
            let one = found.iter().find(|finding| finding.about == about);
            one.unwrap_or_else(|| panic!("{about}: {found:?}")).level
        };
        assert_eq!(
            level(format!("endpoint http://127.0.0.1:{there}")),
            Level::Good
        );
        // It speaks no TLS.
        assert_eq!(
            level(format!("endpoint https://127.0.0.1:{there}")),
            Level::Warning
        );
        assert_eq!(
            level(format!("endpoint http://127.0.0.1:{away}")),
            Level::Warning
        );
        assert_eq!(
            level(format!("endpoint http://localhost:{there}")),
            Level::Good
        );
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(!format!("{found:?}").contains("hidden"));
        // Of the connection that was made, not a byte came.
        let (mut stream, _) = listener.accept().unwrap();
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut rest).unwrap();
        assert!(rest.is_empty());
    }
}
