//! What every provider must stand and nobody writes down. Each case runs for every file whose worker takes requests; one
//! that waits for its reply gets one, whatever became of the request.

use super::file::{CaseFile, Sent};
use super::mangle;
use super::scene::Scene;
use vumi_core::status::StatusLevel;
use vumi_http::Answer;

/// Where a worker whose own path has nothing beside it is put, for the paths that are not there.
const ELSEWHERE: &str = "/unwritten";

/// Requests of the cases that are taken.
fn good(file: &CaseFile) -> impl Iterator<Item = &Sent> {
    let steps = file.cases.iter().flat_map(|case| &case.steps);
    steps.filter_map(|step| {
        let taken = step.message.is_some() || step.receipt.is_some();
        step.request.as_ref().filter(|_| taken)
    })
}

/// Paths that are not there are 404, and make no message.
pub(super) async fn unknown_path(file: &CaseFile) -> Result<(), String> {
    if good(file).next().is_none() {
        return Ok(());
    }
    let mut paths = vec!["/".to_owned(), "/no/such/path".to_owned()];
    // Every path is below `/`, so a worker there is moved.
    let file = match file.path() {
        "/" => &file.at(ELSEWHERE),
        _ => file,
    };
    paths.push(format!("{}x", file.path()));
    if file.names_its_paths() {
        paths.push(format!("{}/no/such/path", file.path()));
    }
    let scene = Scene::start(file).await?;
    for path in paths {
        let sent = Sent {
            path: Some(path.clone()),
            ..Sent::default()
        };
        let answer = scene.ask(scene.call(&sent)).await?;
        if answer.status.as_u16() != 404 {
            return Err(format!("{path} is answered with {}", answer.status));
        }
    }
    scene.stop().await
}

/// A body above the limit is 413, says so in a status, and makes no message; 405 where there are no bodies.
pub(super) async fn oversize(file: &CaseFile) -> Result<(), String> {
    for sent in good(file) {
        let scene = Scene::start(file).await?;
        let mut call = scene.call(sent);
        call.method = vumi_http::Method::POST;
        call.body = vec![b'x'; (1 << 20) + 1].into();
        let answer = scene.ask(call).await?;
        if !matches!(answer.status.as_u16(), 405 | 413) {
            return Err(format!("it is answered with {}", answer.status));
        }
        let reports = scene.engine.reports();
        let mut bad = reports.iter().filter(|r| r.component == "request");
        if answer.status.as_u16() == 413 && !bad.any(|r| r.level == StatusLevel::Degraded) {
            return Err("no status says so".into());
        }
        scene.stop().await?;
    }
    Ok(())
}

/// A request of which something is missing, doubled, of another type, no text or cut off is answered, never with a 5xx.
pub(super) async fn mangled(file: &CaseFile) -> Result<(), String> {
    for sent in good(file) {
        let scene = Scene::start(file).await?;
        for (how, call) in mangle::all(&scene, sent)? {
            let answer = scene.converse(call).await;
            let answer = answer.map_err(|what| format!("{how}: {what}"))?;
            if answer.status.is_server_error() {
                return Err(format!("{how}: {}", answer.status));
            }
        }
    }
    Ok(())
}

/// A request with the provider's id that comes again gets the first answer, and makes no second message. One without an
/// id is a message of its own each time.
pub(super) async fn repeat(file: &CaseFile) -> Result<(), String> {
    for sent in good(file) {
        let scene = Scene::start(file).await?;
        let first = scene.converse(scene.call(sent)).await?;
        let second = scene.converse(scene.call(sent)).await?;
        let outputs = scene.engine.outputs();
        let mut ids: Vec<&str> = outputs.iter().map(|output| output.message.id()).collect();
        let is_repeat = outputs.len() == 1;
        if is_repeat && differ(&first, &second) {
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

/// Whether two answers are not the same, but for what the server says of each.
fn differ(one: &Answer, other: &Answer) -> bool {
    let said = |answer: &Answer| {
        let mut said = answer.clone();
        said.headers.remove(http::header::DATE);
        said
    };
    said(one) != said(other)
}
