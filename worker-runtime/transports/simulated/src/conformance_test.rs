//! Every worker type of this family against the conformance suite.

#[test]
fn every_worker_type_conforms() {
    vumi_core::conformance::check(crate::WORKERS);
}
