//! Attempts at one message, until one of them is the last.

use super::ends::happened;
use super::retry::{Made, Stay, reason_of};
use super::*;

/// Between two looks at whether a batch is still paused.
const LOOK: Duration = Duration::from_millis(250);

/// What an attempt came to.
enum Tried {
    /// Everything it caused is confirmed.
    Done,
    /// Nothing: its batch is paused.
    Held(Labels),
}

/// How long ago it was delivered first.
fn age(past: &About) -> Duration {
    Duration::from_millis(millis(crate::clock::now()).saturating_sub(past.since))
}

impl Desk {
    /// Attempts, until one of them is the last.
    pub(super) async fn attempts(
        &self,
        raw: &RawDelivery,
        message: Message,
        (lane, term): (Lane, Option<u64>),
        past: About,
        suspect: &mut Option<Suspect>,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Verdict {
        let (mut case, replayed) = (None, term.is_some());
        if let Some(sending) = &self.sending {
            let again = raw.redelivered || replayed;
            let begun = sending.case((message.id(), &raw.body), again, self.lasting, &self.halt);
            let begun = match suspect {
                Some(suspect) => AtWork::aside(suspect.at_work(), begun).await,
                None => begun.await,
            };
            let Some(mut begun) = begun else {
                return Verdict::Returned;
            };
            begun.been_here = age(&past);
            begun.at_work = suspect.as_mut().and_then(|s| s.at_work().take());
            case = Some(begun);
        }
        let wanted = self.wanted(raw.generation, term);
        let mut decoded = Some(message);
        let started = Instant::now();
        // From here on by a clock that nobody steps.
        let aged = age(&past);
        // Those before a message came back from Vumi's failure worker are in the message alone.
        let returned = match &decoded {
            Some(Message::User(message)) if self.policy.external => message.retries(),
            _ => 0,
        };
        let mut attempt = past.attempts.max(returned);
        let mut made = Made {
            counted: past.counted.max(returned),
            bugs: 0,
        };
        loop {
            attempt = attempt.saturating_add(1);
            let message = match decoded.take() {
                Some(message) => message,
                None => match Message::decode(self.port.flow, &raw.body) {
                    Ok(message) => message,
                    Err(error) => {
                        return self
                            .park(raw, &error.into(), attempt, case, interrupted)
                            .await;
                    }
                },
            };
            let cause = Cause {
                interrupted,
                wanted: wanted.as_ref(),
            };
            let tried = self.attempt(message, attempt, &mut case, cause).await;
            if let Some(case) = &mut case {
                case.at_work = None;
            }
            // The process lives: whatever becomes of the message, it was not this attempt that killed.
            if let (Some(trial), Some(suspect)) = (&self.trial, suspect.take()) {
                trial.acquit(suspect).await;
            }
            let error = match tried {
                Ok(Tried::Done) => return Verdict::Done,
                Ok(Tried::Held(labels)) => {
                    if let Some(group) = self.group_to_hold_in(&labels) {
                        let about = About {
                            reason: Reason::Held,
                            ..past.clone()
                        };
                        return Verdict::Held(Box::new((about, group)));
                    }
                    attempt -= 1;
                    if !self.while_paused(&labels, interrupted).await {
                        return Verdict::Returned;
                    }
                    continue;
                }
                Err(Unpublished::Interrupted) => return Verdict::Returned,
                Err(Unpublished::Failed(error)) => error,
            };
            self.worker_metrics.error(&error);
            let waited = case.as_ref().map_or(Duration::ZERO, |case| case.waited);
            let stay = Stay {
                held: started.elapsed().saturating_sub(waited),
                age: aged + started.elapsed(),
                replayed,
                lane,
            };
            made.note(&error);
            let wait_in_journal = |reason, wait| {
                let about = About {
                    reason,
                    attempts: attempt,
                    counted: made.counted,
                    code: error.code.name.to_owned(),
                    text: error.text.clone(),
                    ..past.clone()
                };
                Verdict::Waits(Box::new((about, Due::After(wait))))
            };
            let mut next = self.next(&error, attempt, made, &stay);
            if let (Some(sending), Some(case)) = (&self.sending, &case) {
                next = sending.next(case, &error, next);
            }
            if let Next::Again(_) | Next::Later(..) | Next::External(_) = &next {
                let put_back = self.put_back(raw, &mut case, &error, &next, interrupted);
                if let Err(verdict) = put_back.await {
                    return verdict;
                }
            }
            if let Next::External(own) = next {
                let given = self.give_away(raw, &mut case, &error, made, *own, cause);
                match given.await {
                    Ok(Some(own)) => next = own,
                    Ok(None) => return Verdict::Done,
                    Err(verdict) => return verdict,
                }
            }
            if let Next::Again(wait) | Next::Later(_, wait) = &next {
                self.note_retry(raw, &error, attempt, *wait);
            }
            match next {
                Next::Later(reason, wait) => return wait_in_journal(reason, wait),
                Next::Again(wait) => {
                    let until = Instant::now() + wait;
                    let leaves = tokio::select! {
                        leaves = self.sleep(lane, wait) => leaves,
                        () = self.halt.cancelled() => return Verdict::Returned,
                    };
                    if leaves && !interrupted() {
                        let left = until.saturating_duration_since(Instant::now());
                        return wait_in_journal(reason_of(&error), left);
                    }
                    if interrupted() {
                        return Verdict::Returned;
                    }
                }
                Next::Park(error) => {
                    return self.park(raw, &error, attempt, case, interrupted).await;
                }
                Next::GiveUp(error) => {
                    return self.give_up(raw, error, attempt, case, interrupted).await;
                }
                Next::Wait(error) => {
                    return self.wait(raw, error, attempt, case, interrupted).await;
                }
                // What is left of it is one of the others.
                Next::External(_) => {}
            }
        }
    }

    /// One attempt: consume chain, handler, publish chain, confirmations. A panic in any of them is an error like others
    /// (R15).
    async fn attempt(
        &self,
        message: Message,
        attempt: u32,
        case: &mut Option<Case>,
        cause: Cause<'_>,
    ) -> Result<Tried, Unpublished> {
        let interrupted = cause.interrupted;
        let handle = async {
            let hop = self
                .trail
                .as_ref()
                .and_then(|_| Trail::hop(self.port.flow, &message));
            let message = if self.chain.is_empty() {
                message
            } else {
                self.chain.consume(&self.port, message).await?
            };
            let mut input = Input {
                port: self.port.clone(),
                message,
                attempt,
            };
            let sending = self.sending.as_ref().zip(case.as_mut());
            let Some((sending, case)) = sending else {
                let outputs = self.worker.handle(input).await?;
                outputs.iter().for_each(|output| self.note_nack(output));
                let noted = self.hop_to_note(hop).await;
                let happened = noted.is_some().then(|| happened(&outputs));
                self.outlet.publish_all(outputs, cause).await?;
                if let Some(((trail, place, hop), happened)) = noted.zip(happened) {
                    trail.note(place, hop, happened);
                }
                return Ok(Tried::Done);
            };
            let worker = self.worker.as_ref();
            match sending
                .before(case, worker, &mut input, &self.halt, interrupted)
                .await?
            {
                Before::Nothing | Before::Again => Ok(Tried::Done),
                Before::Hold => Ok(Tried::Held(Labels::of(&input.message))),
                Before::Send => {
                    let failed = self.legacy_failures.then(|| input.message.clone());
                    let outputs = worker.handle(input).await?;
                    outputs.iter().for_each(|output| self.note_nack(output));
                    let said = failed.map(|failed| (failed, outputs.clone()));
                    sending.after(case, outputs, interrupted).await?;
                    if let Some((failed, said)) = said {
                        for output in &said {
                            self.legacy_failure(&failed, &output.message, Some(&*case))
                                .await;
                        }
                    }
                    Ok(Tried::Done)
                }
            }
        };
        AssertUnwindSafe(handle)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                Err(Unpublished::Failed(WorkError::new(
                    ErrorClass::Bug,
                    codes::BUG_PANIC,
                    "handling it panicked; the process's output shows where",
                )))
            })
    }

    /// Where messages with these labels are held; none if the journal cannot have them.
    fn group_to_hold_in(&self, labels: &Labels) -> Option<String> {
        let exit = self.exit.as_ref()?;
        (exit.takes() != Takes::Never).then(|| labels.group())?
    }

    /// Waits here until a batch is not paused any more; false when told to stop.
    async fn while_paused(&self, labels: &Labels, interrupted: &(dyn Fn() -> bool + Sync)) -> bool {
        let Some(sending) = &self.sending else {
            return true;
        };
        while sending.is_paused(labels).await {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.halt.cancelled() => return false,
            }
            if interrupted() {
                return false;
            }
        }
        !interrupted()
    }
}
