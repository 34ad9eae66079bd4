//! The examples of this family's types are valid, build, and the full ones set every field.

#[tokio::test]
async fn examples_build_and_full_ones_are_full() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../examples");
    let wrong = vumi_core::conformance::examples::check(crate::WORKERS, folder.as_ref()).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}
