//! The examples of this family's types are valid, build, and the full ones set every field.

#[tokio::test]
async fn examples_build_and_full_ones_are_full() {
<<<<<<< HEAD
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../examples");
    let wrong = vumi_core::conformance::examples::check(crate::WORKERS, folder.as_ref()).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
=======
    let schema = schemars::schema_for!(vumi_api::TransportSpec).to_value();
    for type_name in ["telnet"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../../examples/transports")
            .join(type_name);
        for file in ["minimal.yaml", "full.yaml"] {
            let manifest = documents(&folder.join(file)).remove(0);
            let built = match type_name {
                "telnet" => build_example::<crate::telnet::Def>(&manifest).await,
                other => panic!("no worker type {other}"),
            };
            assert_eq!(built, Ok(()), "{type_name}/{file}");
            if file == "full.yaml" {
                let unset: Vec<String> = unset_fields(&schema, &manifest["spec"])
                    .into_iter()
                    .filter(|path| !may_be_unset(path, type_name))
                    .collect();
                assert!(
                    unset.is_empty(),
                    "{type_name}/{file} does not set {unset:?}"
                );
            }
        }
    }
}

/// The other types of the union, and the HTTP settings, which this family does not use.
fn may_be_unset(path: &str, own: &str) -> bool {
    let other_type = vumi_api::kinds::TRANSPORT_TYPES
        .iter()
        .any(|t| t.key == path)
        && path != own;
    other_type || path == "http"
>>>>>>> messages
}
