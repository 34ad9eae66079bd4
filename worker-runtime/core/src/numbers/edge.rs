//! Numbers at the edge of the system: what comes in gets its one spelling, what goes out the provider's, and one that has no
//! spelling, or two, never passes in silence.

use super::{Unclear, normalised, region_of, written};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::message::{Actor, FailureClass, UserMessage};
use crate::outcome::Refusal;
use crate::reasons::{self, Reason};
use crate::status::{StatusLevel, StatusReport};
use crate::telemetry::HttpSeen;
use crate::worker::{Traffic, WorkerContext};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use vumi_api::transports::generic_http::{NumberForm, UnclearNumbers};

/// An unclear number is taken back when none was unclear for so long.
const FORGIVEN: Duration = Duration::from_secs(60);
/// The component that numbers are reported as.
const COMPONENT: &str = "numbers";

/// When a number was unclear, until that is taken back.
type Last = Arc<Mutex<Option<Instant>>>;

/// How one transport reads and writes numbers.
pub struct Numbers {
    region: String,
    unclear: UnclearNumbers,
    cx: Arc<WorkerContext>,
    last: Last,
}

/// The number of a user who wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Came {
    /// In its one spelling; as it came if it has none.
    pub number: String,
    /// As it came, where that is another spelling.
    came_as: Option<String>,
    unclear: bool,
}

impl Came {
    /// A user's address where no numbers are read.
    pub fn unread(address: String) -> Self {
        Self {
            number: address,
            came_as: None,
            unclear: false,
        }
    }

    /// Writes it into the message that came from it.
    pub fn mark(self, message: &mut UserMessage) {
        message.set_from_addr(Some(&self.number));
        if let Some(number) = self.came_as {
            let metadata = message.transport_metadata_mut();
            metadata.insert("from_addr".into(), number.into());
        }
        if self.unclear {
            let metadata = message.helper_metadata_mut();
            metadata.insert("number".into(), "unclear".into());
        }
    }
}

impl Numbers {
    /// By the plan of `region` (ISO 3166), where a manifest names one; none where it does not.
    ///
    /// # Errors
    /// There is no country of this code.
    pub fn new(
        region: Option<&str>,
        unclear: Option<UnclearNumbers>,
        cx: &Arc<WorkerContext>,
    ) -> Result<Option<Self>, WorkError> {
        let Some(region) = region else {
            return Ok(None);
        };
        region_of(region).map_err(|error| {
            let text = format!("numbersOf: {region:?}: {error}; write an ISO 3166 code such as ZA");
            WorkError::new(ErrorClass::Config, codes::CONFIG_INVALID, text)
        })?;
        Ok(Some(Self {
            region: region.to_owned(),
            unclear: unclear.unwrap_or_default(),
            cx: Arc::clone(cx),
            last: Last::default(),
        }))
    }

    /// The number of a user who wrote. A short code, and a name without digits, stay as they are.
    ///
    /// # Errors
    /// It is unclear, and the manifest refuses such. It has been told.
    pub fn came(&self, number: String) -> Result<Came, Unclear> {
        match normalised(&number, &self.region) {
            Ok(normal) => Ok(Came {
                came_as: (number != normal).then_some(number),
                number: normal,
                unclear: false,
            }),
            Err(unclear) => {
                self.told(unclear, Traffic::Inbound)?;
                Ok(Came {
                    unclear: true,
                    ..Came::unread(number)
                })
            }
        }
    }

    /// The recipient of a message as the provider wants it; without a `form` as it is, if that is clear.
    ///
    /// # Errors
    /// It cannot be written so, or it is unclear and the manifest refuses such. It has been told.
    pub fn goes(&self, number: &str, form: Option<NumberForm>) -> Result<String, Refusal> {
        let out = match form {
            Some(form) => written(number, &self.region, form),
            None => normalised(number, &self.region).map(|_| number.to_owned()),
        };
        let refused = |unclear: Unclear| {
            let text = format!("The recipient cannot be written to: {unclear}.");
            let (class, code) = (FailureClass::Recipient, codes::NUMBER_UNCLEAR);
            Refusal::new(class, code, text, Actor::Campaign)
        };
        match out {
            Ok(number) => Ok(number),
            Err(unclear) => {
                self.told(unclear, Traffic::Outbound).map_err(refused)?;
                Ok(number.to_owned())
            }
        }
    }

    /// A log line, a status and a count of a number that is unclear.
    ///
    /// # Errors
    /// It is not to go on.
    fn told(&self, unclear: Unclear, direction: Traffic) -> Result<(), Unclear> {
        // One of another country is clear, and has no form that the provider takes.
        let passes = self.unclear == UnclearNumbers::Pass && unclear != Unclear::Abroad;
        let does = match passes {
            true => "goes on with it as it is",
            false => "is refused",
        };
        let text = format!("{unclear}; the {} message {does}", direction.as_str());
        tracing::warn!(
            worker = self.cx.worker_name(),
            reason = text,
            "a number is unclear"
        );
        self.cx.http(HttpSeen::UnclearNumber(direction));
        {
            let mut last = lock(&self.last);
            report(
                &self.cx,
                StatusLevel::Degraded,
                reasons::NUMBER_UNCLEAR,
                text,
            );
            if last.replace(Instant::now()).is_none() {
                let taken_back = take_back(Arc::clone(&self.last), Arc::clone(&self.cx));
                tokio::spawn(taken_back);
            }
        }
        match passes {
            true => Ok(()),
            false => Err(unclear),
        }
    }
}

fn lock(last: &Mutex<Option<Instant>>) -> MutexGuard<'_, Option<Instant>> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report(cx: &WorkerContext, level: StatusLevel, reason: Reason, text: impl Into<String>) {
    cx.report(StatusReport::new(COMPONENT, level, reason, text));
}

/// Says that numbers are clear again once none was unclear for a while, whether any comes or not.
async fn take_back(last: Last, cx: Arc<WorkerContext>) {
    loop {
        let at = *lock(&last);
        let Some(at) = at else { return };
        tokio::select! {
            () = tokio::time::sleep_until(at + FORGIVEN) => {}
            () = cx.closing().cancelled() => return,
        }
        let mut last = lock(&last);
        if last.is_none_or(|last| last.elapsed() >= FORGIVEN) {
            *last = None;
            let text = "No number was unclear for a minute.";
            report(&cx, StatusLevel::Ok, reasons::NUMBERS_CLEAR, text);
            return;
        }
    }
}

#[cfg(all(test, feature = "conformance"))]
mod tests {
    use super::*;
    use crate::conformance::stand_in::{StandIn, resource};
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    /// East London without the zero that is dialled there, or Vienna without a plus.
    const BOTH: &str = "431234567";

    fn numbers(engine: &Arc<StandIn>, unclear: Option<UnclearNumbers>) -> Numbers {
        let manifest = json!({
            "kind": "Transport", "metadata": {"name": "api"},
            "spec": {"httpApi": {}, "http": {"port": 8080}},
        });
        let resource = resource(&manifest).expect("valid");
        let cx = engine.context(resource, "one", CancellationToken::new());
        Numbers::new(Some("ZA"), unclear, &cx)
            .expect("known")
            .expect("given")
    }

    fn last(engine: &StandIn) -> Option<String> {
        let reports = engine.reports();
        reports.last().map(|report| report.reason.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn an_unclear_number_is_refused_both_ways_and_told() {
        let engine = StandIn::new();
        let numbers = numbers(&engine, None);
        assert_eq!(numbers.came(BOTH.into()), Err(Unclear::Ambiguous));
        for form in [None, Some(NumberForm::Digits)] {
            let refused = numbers.goes(BOTH, form).unwrap_err();
            assert_eq!(refused.code, codes::NUMBER_UNCLEAR);
        }
        assert_eq!(
            engine.counted(),
            [
                HttpSeen::UnclearNumber(Traffic::Inbound),
                HttpSeen::UnclearNumber(Traffic::Outbound),
                HttpSeen::UnclearNumber(Traffic::Outbound),
            ]
        );
        assert_eq!(last(&engine).as_deref(), Some("number_unclear"));
        let clear = numbers.came("0821234567".into()).unwrap();
        assert_eq!(clear.number, "+27821234567");
        assert_eq!(last(&engine).as_deref(), Some("number_unclear"));
        assert_eq!(
            numbers.goes("0821234567", None).as_deref(),
            Ok("0821234567")
        );
        // Another one half a minute later begins it anew; and then nobody writes.
        tokio::time::sleep(FORGIVEN / 2).await;
        assert!(numbers.came(BOTH.into()).is_err());
        tokio::time::sleep(FORGIVEN - Duration::from_secs(1)).await;
        assert_eq!(last(&engine).as_deref(), Some("number_unclear"));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(last(&engine).as_deref(), Some("numbers_clear"));
        assert!(numbers.came(BOTH.into()).is_err());
        assert_eq!(last(&engine).as_deref(), Some("number_unclear"));
        tokio::time::sleep(FORGIVEN * 2).await;
        assert_eq!(last(&engine).as_deref(), Some("numbers_clear"));
    }

    #[tokio::test]
    async fn where_they_pass_they_are_marked_and_told_all_the_same() {
        let engine = StandIn::new();
        let numbers = numbers(&engine, Some(UnclearNumbers::Pass));
        let mut message = UserMessage::new("sms", None, None);
        numbers.came(BOTH.into()).unwrap().mark(&mut message);
        assert_eq!(message.from_addr(), Some(BOTH));
        assert_eq!(message.helper_metadata().unwrap()["number"], "unclear");
        assert_eq!(
            numbers.goes(BOTH, Some(NumberForm::Digits)).as_deref(),
            Ok(BOTH)
        );
        assert_eq!(engine.counted().len(), 2);
        assert_eq!(last(&engine).as_deref(), Some("number_unclear"));
        let abroad = numbers.goes("+254722000000", Some(NumberForm::National));
        assert!(abroad.is_err(), "it is clear, and has no such form");
    }

    #[tokio::test]
    async fn a_country_that_is_none_does_not_start() {
        let engine = StandIn::new();
        let cx = Arc::clone(&numbers(&engine, None).cx);
        let error = Numbers::new(Some("XX"), None, &cx).err().unwrap();
        assert_eq!(error.class, ErrorClass::Config);
        assert!(error.text.contains("XX"), "{}", error.text);
        assert!(Numbers::new(None, None, &cx).unwrap().is_none());
    }
}
