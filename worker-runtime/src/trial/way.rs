//! The way out of a campaign that is tested: a call goes to a fake server of the test or nowhere, whatever its address was
//! made of, be it a Secret or a template.

use super::peers::{Shared, with};
use http::Uri;
use vumi_core::outside::Outside;

/// Where a fake server is in the manifests.
#[derive(Clone, Debug)]
pub(super) struct Place {
    uri: Uri,
    /// Path that everything there begins with, without a `/` at its end.
    path: String,
}

impl Place {
    /// Reads what a test file says.
    pub(super) fn parse(at: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("at: {at:?} {why}");
        let uri: Uri = at.parse().map_err(|_| wrong("is no URL"))?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            _ => {
                return Err(wrong(
                    "is no http:// or https:// URL, e.g. https://crm.example.org",
                ));
            }
        }
        if uri.query().is_some() {
            return Err(wrong("has a query; a place is a host, and perhaps a path"));
        }
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { uri, path })
    }

    /// What of the address of a call follows after this place; none if it is elsewhere.
    fn rest<'a>(&self, call: &'a Uri) -> Option<&'a str> {
        if origin(call) != origin(&self.uri) {
            return None;
        }
        let whole = call.path_and_query().map_or("/", |whole| whole.as_str());
        let rest = whole.strip_prefix(&self.path)?;
        // `/api` is not the beginning of `/apis`.
        (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest)
    }
}

/// Scheme, host and port of a URL: what may be shown, since the rest may hold credentials.
pub(crate) fn origin(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or("http");
    let host = url.host().unwrap_or("").to_ascii_lowercase();
    let usual = if scheme == "https" { 443 } else { 80 };
    match url.port_u16() {
        Some(port) if port != usual => format!("{scheme}://{host}:{port}"),
        _ => format!("{scheme}://{host}"),
    }
}

/// The way out: to the fake servers, by the origins at which they listen; `strangers` are the others that were called.
pub(super) fn out(servers: Vec<(Place, String)>, strangers: Shared<String>) -> Outside {
    Outside::through(move |address| {
        let call: Uri = address.parse().map_err(|_| "the address is no URL")?;
        for (place, instead) in &servers {
            if let Some(rest) = place.rest(&call) {
                return Ok(format!("{instead}{rest}"));
            }
        }
        let origin = origin(&call);
        with(&strangers, |strangers| {
            if !strangers.contains(&origin) {
                strangers.push(origin.clone());
            }
        });
        Err(format!(
            "a test calls nobody outside of it, {origin} neither"
        ))
    })
}

/// What to do about strangers that the campaign called; none if there are none.
pub(super) fn complaint(strangers: &Shared<String>) -> Option<String> {
    let origins = with(strangers, |strangers| strangers.clone());
    let first = origins.first()?;
    Some(format!(
        "the campaign called {}, and a test calls nobody outside of it: write a fake server, such as\n  servers: {{provider: {{at: {first:?}}}}}\n",
        origins.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_goes_to_a_fake_server_or_nowhere() {
        let servers = [
            ("https://a.org", "http://127.0.0.1:1"),
            ("http://b.org/api/", "http://127.0.0.1:2"),
        ];
        let servers = servers.map(|(at, origin)| (Place::parse(at).unwrap(), origin.to_owned()));
        let strangers = Shared::default();
        let outside = out(servers.to_vec(), strangers.clone());
        for (address, sent_to) in [
            ("https://a.org", Some("http://127.0.0.1:1/")),
            ("https://a.org/x?y=1", Some("http://127.0.0.1:1/x?y=1")),
            ("HTTPS://me:word@A.org:443/x", Some("http://127.0.0.1:1/x")),
            ("https://a.org:444/x", None),
            ("http://a.org/x", None),
            ("https://a.org.evil/x", None),
            ("https://a.org@evil.org/x", None),
            ("http://b.org/api/x", Some("http://127.0.0.1:2/x")),
            ("http://b.org/api?x", Some("http://127.0.0.1:2?x")),
            ("http://b.org/apis", None),
            ("http://b.org/other", None),
        ] {
            assert_eq!(
                outside.way(&address).ok().flatten().as_deref(),
                sent_to,
                "{address}"
            );
        }
        let refused = outside.way(&"https://u:p@c.org/secret?key=1").unwrap_err();
        assert_eq!(
            refused,
            "a test calls nobody outside of it, https://c.org neither"
        );
        let complaint = complaint(&strangers).unwrap();
        assert!(complaint.contains("https://evil.org") && complaint.contains("https://c.org"));
        assert!(!complaint.contains("secret"), "{complaint}");
    }

    #[test]
    fn a_place_is_a_host_and_perhaps_a_path() {
        for wrong in ["crm.example.org", "ftp://a.org", "https://a.org/?x=1", "/x"] {
            let why = Place::parse(wrong).unwrap_err();
            assert!(why.contains(wrong), "{why}");
        }
    }
}
