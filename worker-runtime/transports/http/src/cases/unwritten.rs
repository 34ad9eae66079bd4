//! What every provider must stand and nobody writes down.

use super::bench::Bench;
use super::file::{CaseFile, Sent, Step};
use vumi_core::status::StatusLevel;

/// Requests of the cases that are taken, with their steps.
fn good(file: &CaseFile) -> impl Iterator<Item = (&Step, &Sent)> {
    let steps = file.cases.iter().flat_map(|case| &case.steps);
    steps.filter_map(|step| {
        let taken = step.message.is_some() || step.receipt.is_some();
        step.request
            .as_ref()
            .filter(|_| taken)
            .map(|sent| (step, sent))
    })
}

/// Paths that are not there are 404, and make no message.
pub(super) async fn unknown_path(file: &CaseFile) -> Result<(), String> {
    let http = file.resource.transport().and_then(|t| t.http.as_ref());
    let Some(root) = http.map(|http| http.path.as_deref().unwrap_or("/")) else {
        return Ok(());
    };
    if root == "/" {
        // Every path is below it.
        return Ok(());
    }
    let bench = Bench::start(file).await?;
    for path in ["/", "/no/such/path", &format!("{root}x")] {
        let sent = Sent {
            path: Some(path.to_owned()),
            ..Sent::default()
        };
        let answer = bench.ask(bench.call(&sent)).await?;
        if answer.status.as_u16() != 404 {
            return Err(format!("{path} is answered with {}", answer.status));
        }
    }
    bench.stop().await
}

/// A body above the limit is 413, says so in a status, and makes no message.
pub(super) async fn oversize(file: &CaseFile) -> Result<(), String> {
    let Some((_, sent)) = good(file).next() else {
        return Ok(());
    };
    let bench = Bench::start(file).await?;
    let mut call = bench.call(sent);
    call.method = vumi_http::Method::POST;
    call.body = vec![b'x'; (1 << 20) + 1].into();
    let answer = bench.ask(call).await?;
    if !matches!(answer.status.as_u16(), 405 | 413) {
        return Err(format!("it is answered with {}", answer.status));
    }
    let reports = bench.engine.reports();
    let mut bad = reports.iter().filter(|r| r.component == "request");
    if answer.status.as_u16() == 413 && !bad.any(|r| r.level == StatusLevel::Degraded) {
        return Err("no status says so".into());
    }
    bench.stop().await
}

/// A request of which a parameter is missing, doubled or no text is answered, never with a 5xx.
pub(super) async fn mangled(file: &CaseFile) -> Result<(), String> {
    for (step, sent) in good(file) {
        if step.reply.is_some() {
            // It would wait for a reply that nobody gives.
            continue;
        }
        for form in [false, true] {
            let pairs = match form {
                true => sent.form.clone().unwrap_or_default(),
                false => sent.query.clone(),
            };
            for name in pairs.keys() {
                let mut without = sent.clone();
                match form {
                    true => without.form.as_mut().and_then(|form| form.remove(name)),
                    false => without.query.remove(name),
                };
                let bench = Bench::start(file).await?;
                let answer = bench.ask(bench.call(&without)).await?;
                if answer.status.is_server_error() {
                    return Err(format!("without {name}: {}", answer.status));
                }
                let mut no_text = bench.call(&without);
                let bad = format!("&{name}=%ff%fe&{name}=x&{name}=y");
                match form {
                    true => no_text.body = [&no_text.body, bad.as_bytes()].concat().into(),
                    false => {
                        let url = no_text.url.to_string();
                        let url = match url.contains('?') {
                            true => format!("{url}{bad}"),
                            false => format!("{url}?{}", &bad[1..]),
                        };
                        no_text.url = url.parse().map_err(|_| "no URL")?;
                    }
                }
                let answer = bench.ask(no_text).await?;
                if answer.status.is_server_error() {
                    return Err(format!("{name} is no text: {}", answer.status));
                }
            }
        }
    }
    Ok(())
}

/// A request with the provider's id that comes again gets the first answer, and makes no second message.
pub(super) async fn repeat(file: &CaseFile) -> Result<(), String> {
    for (step, sent) in good(file) {
        if step.reply.is_some() || step.message.is_none() {
            continue;
        }
        let bench = Bench::start(file).await?;
        let first = bench.ask(bench.call(sent)).await?;
        let second = bench.ask(bench.call(sent)).await?;
        let outputs = bench.engine.outputs();
        let mut ids: Vec<&str> = outputs.iter().map(|output| output.message.id()).collect();
        // A request without an id is a message of its own each time.
        let is_repeat = outputs.len() == 1;
        if is_repeat && (first.body != second.body || first.status != second.status) {
            return Err("its answers differ".into());
        }
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != outputs.len() {
            return Err("it makes a message with the same id each time".into());
        }
    }
    Ok(())
}
