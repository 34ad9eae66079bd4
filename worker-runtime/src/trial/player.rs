//! Plays one test: its steps in turn, and after the last one nothing may be left that nobody expected.

use super::cast::{Cast, listed};
use super::clock;
use super::file::{Action, Expect, Test, TestFile};
use super::given;
use super::matching::{self, EventCame, compare, in_order};
use super::peers::{self, LineUser, Response, Shared, with};
use super::report::Ended;
use super::stage::Stage;
use super::transcript::Passed;
use crate::error::CliError;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vumi_api::Flow;
use vumi_core::parking::Summary;

/// Time that an expectation leaves the campaign if it does not say another.
const WITHIN: Duration = Duration::from_secs(5);
/// What a campaign did that is shown with a failure.
const SHOWN: usize = 20;
/// Threads that are still at work when a test ends are given up after this.
const LEAVE: Duration = Duration::from_secs(2);

/// Plays a test on a campaign of its own.
pub fn play(file: &TestFile, test: &Test) -> Ended {
    let began = Instant::now();
    let outcome = played(file, test);
    Ended::new(file, test, began.elapsed(), outcome)
}

fn played(file: &TestFile, test: &Test) -> Result<(), CliError> {
    let cast = Cast::of(file, test)?;
    let (runtime, clock) = clock::runtime()
        .map_err(|error| CliError::environment(format!("the runtime does not start: {error}")))?;
    let outcome = runtime.block_on(async {
        let stage = Stage::set(file, cast, clock).await?;
        let mut player = Player {
            stage,
            responses: Shared::default(),
            users: BTreeMap::new(),
            parked: Vec::new(),
        };
        let outcome = player.all(test).await;
        let context = outcome.as_ref().err().map(|_| player.context());
        for user in player.users.values_mut() {
            user.hang_up().await;
        }
        player.stage.clear().await;
        outcome.map_err(|why| CliError::runtime(why + &context.unwrap_or_default()))
    });
    runtime.shutdown_timeout(LEAVE);
    outcome
}

struct Player {
    stage: Stage,
    responses: Shared<Response>,
    users: BTreeMap<String, LineUser>,
    /// Messages that were set aside and expected.
    parked: Vec<String>,
}

impl Player {
    async fn all(&mut self, test: &Test) -> Result<(), String> {
        for (at, step) in test.steps.iter().enumerate() {
            let Some((name, action)) = step.action() else {
                continue;
            };
            let done = self.step(action).await;
            let done = self.stage.complaint().map_or(done, Err);
            done.map_err(|why| format!("step {}, {name}:\n{}", at + 1, indented(&why)))?;
        }
        self.stage.clock.settle().await;
        let left = match self.stage.complaint() {
            Some(complaint) => complaint,
            None => self.left().await?,
        };
        match left.is_empty() {
            true => Ok(()),
            false => Err(format!("after the last step:\n{}", indented(&left))),
        }
    }

    async fn step(&mut self, action: Action<'_>) -> Result<(), String> {
        let stage = &self.stage;
        match action {
            Action::Inbound(given) => {
                let (port, body) =
                    given::message(given, Flow::Inbound, &stage.cast, &stage.transcript)?;
                stage.publish(&port, body).await
            }
            Action::Outbound(given) => {
                let (port, body) =
                    given::message(given, Flow::Outbound, &stage.cast, &stage.transcript)?;
                stage.publish(&port, body).await
            }
            Action::Event(given) => {
                let (port, body) = given::event(given, &stage.cast, &stage.transcript)?;
                stage.publish(&port, body).await
            }
            Action::Request(request) => {
                let port = self.port(&request.to)?;
                peers::send(request, port, Arc::clone(&self.responses))?;
                self.stage.clock.settle().await;
                Ok(())
            }
            Action::Line(line) => {
                let port = self.port(&line.to)?;
                self.line(&line.user, port, line.text.as_deref()).await
            }
            Action::HangUp(name) => {
                let Some(user) = self.users.get_mut(name) else {
                    return Err(format!("{name} is not connected"));
                };
                user.hang_up().await;
                self.stage.clock.settle().await;
                Ok(())
            }
            Action::Servers(changed) => {
                stage.set_servers(changed);
                Ok(())
            }
            Action::Transports(changed) => stage.set_transports(changed),
            Action::Advance(span) => {
                stage.clock.advance(span.0).await;
                Ok(())
            }
            Action::Expect(expect) => self.expect(expect).await,
        }
    }

    fn port(&self, transport: &str) -> Result<u16, String> {
        let port = self.stage.ports.get(transport).copied();
        port.ok_or_else(|| {
            format!(
                "no transport {transport:?} listens; there are: {}",
                listed(self.stage.ports.keys())
            )
        })
    }

    async fn line(&mut self, name: &str, port: u16, text: Option<&str>) -> Result<(), String> {
        let refused = |error: std::io::Error| format!("{name} is not connected: {error}");
        if !self.users.contains_key(name) {
            let connecting = self.stage.clock.drive(LineUser::connect(port), WITHIN);
            let user = connecting
                .await
                .ok_or_else(|| format!("{name} cannot connect"))?
                .map_err(refused)?;
            self.users.insert(name.to_owned(), user);
            self.stage.clock.settle().await;
        }
        if let (Some(text), Some(user)) = (text, self.users.get_mut(name)) {
            user.say(text).await.map_err(refused)?;
        }
        self.stage.clock.settle().await;
        Ok(())
    }

    /// Waits until everything that is expected is there, and nothing else.
    async fn expect(&mut self, expect: &Expect) -> Result<(), String> {
        let within = expect.within.map_or(WITHIN, |within| within.0);
        let mut passed = Duration::ZERO;
        loop {
            self.stage.clock.settle().await;
            match self.look(expect).await {
                Ok(()) => return Ok(()),
                Err(why) if passed >= within => return Err(why),
                Err(_) => passed += self.stage.clock.tick().await,
            }
        }
    }

    /// Compares everything, and takes it only if all of it is so.
    async fn look(&mut self, expect: &Expect) -> Result<(), String> {
        let mut differences = String::new();
        let mut note = |difference: Result<(), String>| {
            if let Err(text) = difference {
                differences += &text;
            }
        };
        let mut taken: Vec<usize> = Vec::new();
        for (flow, messages) in [
            (Flow::Outbound, &expect.outbound),
            (Flow::Inbound, &expect.inbound),
        ] {
            let Some(messages) = messages else {
                continue;
            };
            let named = messages.iter().filter_map(|m| m.connector.clone());
            let open = self.stage.transcript.open(flow, &self.meant(flow, named));
            let (at, came): (Vec<usize>, Vec<Passed>) = open.into_iter().unzip();
            note(
                compare(flow.as_str(), messages, &came, matching::message).and_then(|pairs| {
                    taken.extend(pairs.iter().map(|pair| at[*pair]));
                    in_order(&came, &pairs)
                }),
            );
        }
        if let Some(events) = &expect.events {
            let named = events.iter().filter_map(|event| event.connector.clone());
            let connectors = self.meant(Flow::Event, named);
            let open = self.stage.transcript.open(Flow::Event, &connectors);
            let (at, came): (Vec<usize>, Vec<EventCame>) = open
                .into_iter()
                .map(|(at, passed)| (at, self.event(passed)))
                .unzip();
            note(
                compare("event", events, &came, matching::event)
                    .map(|pairs| taken.extend(pairs.iter().map(|pair| at[*pair]))),
            );
        }
        let mut called = false;
        if let Some(calls) = &expect.calls {
            let came = with(&self.stage.calls, |calls| calls.clone());
            note(compare("call", calls, &came, matching::call).map(|_| called = true));
        }
        let mut responded = Vec::new();
        if let Some(responses) = &expect.responses {
            let came = with(&self.responses, |came| came.clone());
            let names = responses.iter().map(|response| &response.of);
            // Only those that are asked for: another request may still be held.
            let all = responses.iter().any(|response| response.of.is_none());
            let (at, came): (Vec<usize>, Vec<Response>) = came
                .into_iter()
                .enumerate()
                .filter(|(_, came)| {
                    all || names.clone().any(|name| name.as_ref() == Some(&came.of))
                })
                .unzip();
            note(
                compare("response", responses, &came, matching::response)
                    .map(|pairs| responded.extend(pairs.iter().map(|pair| at[*pair]))),
            );
        }
        for (name, wanted) in expect.lines.iter().flatten() {
            let heard = self
                .users
                .get(name)
                .map(LineUser::lines)
                .unwrap_or_default();
            let fits = heard.len() == wanted.len()
                && wanted
                    .iter()
                    .zip(&heard)
                    .all(|(text, line)| text.fits(Some(line)));
            if !fits {
                let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
                note(Err(format!(
                    "- expected that {name} hears: [{}]\n+ heard: {heard:?}\n",
                    wanted.join(", ")
                )));
            }
        }
        for name in expect.closed.iter().flatten() {
            if !self.users.get(name).is_some_and(LineUser::is_closed) {
                note(Err(format!(
                    "- expected that the connection of {name} is closed\n"
                )));
            }
        }
        let mut set_aside = Vec::new();
        if let Some(parked) = &expect.parked {
            let came = self.parked().await?;
            note(
                compare("set aside", parked, &came, matching::parked)
                    .map(|_| set_aside.extend(came.iter().map(|summary| summary.id.clone()))),
            );
        }
        if !differences.is_empty() {
            return Err(differences);
        }
        self.stage.transcript.take(&taken);
        if called {
            with(&self.stage.calls, Vec::clear);
        }
        with(&self.responses, |came| {
            let mut at = 0;
            came.retain(|_| {
                at += 1;
                !responded.contains(&(at - 1))
            });
        });
        for (name, wanted) in expect.lines.iter().flatten() {
            if let Some(user) = self.users.get(name) {
                user.forget(wanted.len());
            }
        }
        self.parked.extend(set_aside);
        Ok(())
    }

    /// Connectors that an expectation speaks of: those that it names, and where the campaign meets the outside.
    fn meant(&self, flow: Flow, named: impl Iterator<Item = String>) -> Vec<String> {
        let cast = &self.stage.cast;
        let real = || cast.real.values().cloned();
        let mut meant: Vec<String> = match flow {
            Flow::Outbound if !cast.stand_ins.is_empty() => cast.stand_ins.clone(),
            _ => real().collect(),
        };
        meant.extend(named);
        meant
    }

    /// An event with the content of its message.
    fn event(&self, passed: Passed) -> EventCame {
        let about = passed.text("user_message_id");
        let all = self.stage.transcript.all();
        let of = all
            .iter()
            .find(|other| other.port.flow == Flow::Outbound && Some(other.id()) == about)
            .and_then(|message| message.text("content"))
            .map(str::to_owned);
        EventCame { passed, of }
    }

    /// What was set aside and not expected before.
    async fn parked(&self) -> Result<Vec<Summary>, String> {
        let mut parked = self.stage.parked().await?;
        parked.retain(|summary| !self.parked.contains(&summary.id));
        Ok(parked)
    }

    /// What came to those outside, or failed, and nobody expected: a campaign that says more than it should has failed.
    async fn left(&self) -> Result<String, String> {
        let mut text = String::new();
        let mut note = |what: &str, shown: String| {
            let _ = writeln!(text, "+ not expected {what}: {shown}");
        };
        let (cast, transcript) = (&self.stage.cast, &self.stage.transcript);
        for (_, passed) in transcript.open(Flow::Outbound, &cast.stand_ins) {
            note("outbound", matching::message(&passed));
        }
        for call in with(&self.stage.calls, |calls| calls.clone()) {
            note("call", matching::call(&call));
        }
        let real = self.meant(Flow::Event, std::iter::empty());
        for (_, passed) in transcript.open(Flow::Event, &real) {
            let failed = passed.text("event_type") == Some("nack")
                || passed.text("delivery_status") == Some("failed");
            if failed {
                note("event", matching::event(&self.event(passed)));
            }
        }
        for response in with(&self.responses, |came| came.clone()) {
            if !matches!(response.outcome, Ok((..400, ..))) {
                note("response", matching::response(&response));
            }
        }
        for (name, user) in &self.users {
            for line in user.lines() {
                note("line", format!("{name} heard {line:?}"));
            }
        }
        for summary in self.parked().await? {
            note("set aside", matching::parked(&summary));
        }
        Ok(text)
    }

    /// What the campaign did, for whoever looks for the reason.
    fn context(&self) -> String {
        let all = self.stage.transcript.all();
        let mut text = "everything that passed:\n".to_owned();
        if all.len() > SHOWN {
            let _ = writeln!(text, "  … {} messages before", all.len() - SHOWN);
        }
        for passed in &all[all.len().saturating_sub(SHOWN)..] {
            let by = if passed.ours { "  (by the test)" } else { "" };
            let _ = writeln!(text, "  {}{by}", matching::message(passed));
        }
        if all.is_empty() {
            text += "  nothing\n";
        }
        text
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
