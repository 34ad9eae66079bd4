//! More messages set aside than are looked at one by one.

use super::*;

#[tokio::test]
async fn beyond_the_limit_an_audit_counts_and_an_erasure_says_what_it_did_not_look_at() {
    let world = World::new();
    let all = parking::KEPT_LIMIT + 1;
    for number in 1..=all {
        world.park(&format!("m{number}")).await;
    }
    world
        .row(&format!("m{all}"), &[RowState::Parked], &[])
        .await;
    let balances: Vec<Balance> = world.ask(Ask::LedgerAudit).await;
    assert_eq!(balances.len(), 1);
    assert_eq!(balances[0].imbalance(), 0, "{balances:?}");
    let parked = balances[0].found.parked.expect("looked at");
    assert_eq!(parked.expected, all);
    for (removed, said) in [(all - 1, true), (1, false)] {
        let report: erase::Report = world
            .ask(Ask::Erase {
                address: USER.into(),
                dry_run: false,
            })
            .await;
        let queue = parking::parked_queue(QUEUE);
        let found = report.removed.iter().find(|one| one.place == queue);
        assert_eq!(found.map(|one| one.count), Some(removed));
        let beyond = report.not_reached.iter().any(|t| t.starts_with(&queue));
        assert_eq!(beyond, said, "{report:?}");
    }
}
