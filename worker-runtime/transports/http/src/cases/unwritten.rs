//! What every provider must stand and nobody writes down. Each case runs for every file whose worker takes requests, with each
//! request that a case takes, after the steps before it; one that waits for its reply gets one, whatever became of the
//! request. A check that had nothing to look at fails.

use super::file::{Case, CaseFile, Sent, Step};
use super::mangle;
use super::scene::{Came, Scene};
use vumi_core::status::StatusLevel;
use vumi_http::{Answer, Method};

/// Where a worker whose own path has nothing beside it is put, for the paths that are not there.
const ELSEWHERE: &str = "/unwritten";

/// A request that is taken, and its place in its case.
struct Good<'f> {
    file: &'f CaseFile,
    case: &'f Case,
    at: usize,
}

impl<'f> Good<'f> {
    fn step(&self) -> &'f Step {
        &self.case.steps[self.at]
    }

    fn sent(&self) -> Result<&'f Sent, String> {
        self.step().request.as_ref().ok_or("no request".into())
    }

    /// A worker that has seen what comes before it.
    async fn scene(&self) -> Result<Scene, String> {
        let mut scene = Scene::start(self.file).await?;
        for step in &self.case.steps[..self.at] {
            let done = scene.step(step).await;
            done.map_err(|what| self.wrong(&format!("before it: {what}")))?;
        }
        Ok(scene)
    }

    fn wrong(&self, what: &str) -> String {
        format!("{}, step {}: {what}", self.case.name, self.at + 1)
    }

    /// Asks, and looks at what it makes: one message or receipt, and an answer that says so.
    async fn take(&self, scene: &mut Scene) -> Result<(Answer, Came), String> {
        let answer = scene.converse(scene.call(self.sent()?)).await;
        let answer = answer.map_err(|what| self.wrong(&what))?;
        let came = scene.came();
        match came.messages.len() + came.receipts == 1 && answer.status.is_success() {
            true => Ok((answer, came)),
            false => Err(self.wrong(&format!("it is not taken: {}, {came:?}", answer.status))),
        }
    }
}

/// Requests of the cases that are taken; none only where the worker has no port.
fn good(file: &CaseFile) -> Result<Vec<Good<'_>>, String> {
    let mut good = Vec::new();
    for case in &file.cases {
        for (at, step) in case.steps.iter().enumerate() {
            let taken = step.message.is_some() || step.receipt.is_some();
            if step.request.is_some() && taken {
                good.push(Good { file, case, at });
            }
        }
    }
    match good.is_empty() && file.has_door() {
        true => Err("no case has a request that is taken".into()),
        false => Ok(good),
    }
}

/// Paths that are not there are 404, and make no message.
pub(super) async fn unknown_path(file: &CaseFile) -> Result<(), String> {
    if !file.has_door() {
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
    for good in good(file)? {
        let scene = Scene::start(file).await?;
        let mut call = scene.call(good.sent()?);
        let has_bodies = call.method != Method::GET;
        if !has_bodies {
            call.method = Method::POST;
        }
        call.body = vec![b'x'; (1 << 20) + 1].into();
        let answer = scene.ask(call).await?;
        let expected = match answer.status.as_u16() {
            405 => !has_bodies,
            status => status == 413,
        };
        if !expected {
            return Err(good.wrong(&format!("it is answered with {}", answer.status)));
        }
        let reports = scene.engine.reports();
        let mut bad = reports.iter().filter(|r| r.component == "request");
        if answer.status.as_u16() == 413 && !bad.any(|r| r.level == StatusLevel::Degraded) {
            return Err(good.wrong("no status says so"));
        }
        scene.stop().await?;
    }
    Ok(())
}

/// A request of which something is missing, doubled, of another type, no text or cut off is answered, never with a 5xx, and
/// makes nothing if it is refused. The worker takes good ones after it.
pub(super) async fn mangled(file: &CaseFile) -> Result<(), String> {
    let all = good(file)?;
    let mut tried = 0;
    for good in &all {
        let mut scene = good.scene().await?;
        for (how, call) in mangle::all(&scene, good.sent()?)? {
            tried += 1;
            let wrong = |what: &str| good.wrong(&format!("{how}: {what}"));
            let answer = scene.converse(scene.here(call)).await;
            let answer = answer.map_err(|what| wrong(&what))?;
            let came = scene.came();
            let makes = came.messages.len() + came.receipts;
            if answer.status.is_server_error() {
                return Err(wrong(answer.status.as_str()));
            }
            if makes > 1 || (makes > 0 && !answer.status.is_success()) {
                return Err(wrong(&format!("{}, and {came:?}", answer.status)));
            }
            // One that is taken all the same changes the session, or is what the next one repeats.
            if makes > 0 {
                scene.stop().await.map_err(|what| wrong(&what))?;
                scene = good.scene().await?;
            }
        }
        good.take(&mut scene).await?;
        scene.stop().await.map_err(|what| good.wrong(&what))?;
    }
    match tried == 0 && !all.is_empty() {
        true => Err("no request has anything that could be wrong".into()),
        false => Ok(()),
    }
}

/// A request with the provider's id that comes again gets the first answer, and makes no second message. One without an
/// id is a message of its own each time, and a receipt is told each time.
pub(super) async fn repeat(file: &CaseFile) -> Result<(), String> {
    let mut recognised = 0;
    let all = good(file)?;
    for good in &all {
        let mut scene = good.scene().await?;
        let (first, came) = good.take(&mut scene).await?;
        let second = scene.converse(scene.call(good.sent()?)).await;
        let second = second.map_err(|what| good.wrong(&what))?;
        let again = scene.came();
        match (&came.messages[..], &again.messages[..]) {
            ([], []) if again.receipts == 1 && !differ(&first, &second) => {}
            ([one], [other]) if one != other && !file.has_ids(good.sent()?) => {}
            ([_], []) if file.has_ids(good.sent()?) => {
                recognised += 1;
                if differ(&first, &second) {
                    return Err(good.wrong("its answers differ"));
                }
            }
            // The session that it ended is not known any more.
            ([_], []) if good.step().ends() => {}
            _ => {
                let what = format!("{}: first {came:?}, then {again:?}", second.status);
                return Err(good.wrong(&what));
            }
        }
        scene.stop().await.map_err(|what| good.wrong(&what))?;
    }
    match recognised == 0 && file.ids().is_some() {
        true => Err("the provider has ids, and no case has a request with one".into()),
        false => Ok(()),
    }
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
