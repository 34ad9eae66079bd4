//! Every worker type this binary can run: the tables of the family crates, one after the other.

use vumi_core::worker::Registration;

/// All registrations, family by family.
pub fn all() -> impl Iterator<Item = &'static Registration> {
    [
        vumi_transports_chat::WORKERS,
        vumi_transports_http::WORKERS,
        vumi_transports_simulated::WORKERS,
        vumi_applications::WORKERS,
        vumi_dispatchers::WORKERS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use vumi_api::WorkerType;
    use vumi_core::worker::Dedupe;

    #[test]
    fn schema_and_tables_have_the_same_types() {
        let tables: BTreeSet<_> = all()
            .map(|r| (r.kind, r.type_name, format!("{:?}", r.ordering)))
            .collect();
        // A program in a container of its own is nobody's table.
        let schema: BTreeSet<_> = WorkerType::all()
            .filter(|w| !w.container)
            .map(|w| (w.kind, w.key, format!("{:?}", w.ordering)))
            .collect();
        assert_eq!(tables, schema);
        assert_eq!(all().count(), tables.len(), "a type is registered twice");
    }

    #[test]
    fn types_whose_provider_gives_an_id_take_dedupe_and_no_others() {
        for registration in all() {
            let gives_id = matches!(registration.dedupe, Dedupe::ProviderId(_));
            let worker = WorkerType::find(registration.type_name).unwrap();
            assert_eq!(
                worker.honours.contains(&"dedupe"),
                gives_id,
                "{}",
                worker.key
            );
        }
    }
}
