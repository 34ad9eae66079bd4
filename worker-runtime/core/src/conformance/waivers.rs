//! Cases that a worker type need not pass, each with the reason. A waiver that is no longer needed fails the suite.

/// One exception.
pub(super) struct Waiver {
    /// Key of the worker type in its union.
    pub(super) worker_type: &'static str,
    /// Name of the case.
    pub(super) case: &'static str,
    /// Why it cannot pass, in one sentence.
    pub(super) reason: &'static str,
}

/// All exceptions.
pub(super) const WAIVERS: &[Waiver] = &[Waiver {
    worker_type: "memoBot",
    case: "opening",
    reason: "a bot in a channel says nothing unless it is spoken to by name",
}];

#[cfg(test)]
mod tests {
    use super::WAIVERS;
    use crate::conformance::cases::CASES;

    #[test]
    fn waivers_name_types_and_cases_that_exist_and_say_why() {
        for waiver in WAIVERS {
            let known = vumi_api::resource::WorkerType::find(waiver.worker_type).is_some();
            assert!(known, "no worker type {}", waiver.worker_type);
            assert!(
                CASES.iter().any(|c| c.name == waiver.case),
                "no case {}",
                waiver.case
            );
            assert!(waiver.reason.len() > 20, "say why: {:?}", waiver.reason);
        }
        let mut names: Vec<_> = CASES.iter().map(|c| c.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len(), "two cases of one name");
    }
}
