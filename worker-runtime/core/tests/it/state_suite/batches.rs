//! Batches: counts that move with their rows, and one order each.

use super::ledger::{change, fresh, moved, put};
use super::{LONG, SOON, Source, sweep_all, unique, until};
use std::collections::BTreeMap;
use std::sync::Arc;
use vumi_core::state::StateStore;
use vumi_core::state::batches::Order;
use vumi_core::state::ledger::{Put, RowState};

async fn counts(store: &Arc<dyn StateStore>, account: &str, batch: &str) -> Vec<(RowState, u64)> {
    let batches = store.batches().await.expect("batches");
    let states = batches.get(&(account.to_owned(), batch.to_owned()));
    states
        .into_iter()
        .flatten()
        .map(|(state, count)| (*state, *count))
        .collect()
}

pub async fn batches_count_rows_by_state(source: &dyn Source) {
    let store = source.client().await;
    let (account, other) = (unique("a"), unique("b"));
    // A colon and a space are names like others.
    let batch = unique("spring: sale");
    let mut rows = Vec::new();
    for n in 0..3 {
        let mut row = fresh(&unique("m"), &account, 1_000 + n);
        row.batch = Some(batch.clone());
        put(&store, &row, None).await;
        rows.push(row);
    }
    let mut loner = fresh(&unique("m"), &account, 1_000);
    loner.batch = None;
    put(&store, &loner, None).await;
    assert_eq!(
        counts(&store, &account, &batch).await,
        [(RowState::Accepted, 3)]
    );
    // A put that is refused counts nothing.
    let next = rows[0]
        .after(change(RowState::Sent, 2_000, LONG))
        .expect("not final");
    let refused = store
        .put(&next, Some(77), LONG)
        .await
        .expect("the store answers");
    assert!(matches!(refused, Put::Conflict(_)));
    moved(&store, &rows[0], change(RowState::Sent, 2_000, LONG)).await;
    assert_eq!(
        counts(&store, &account, &batch).await,
        [(RowState::Accepted, 2), (RowState::Sent, 1)]
    );
    // To another transport, which takes it over.
    let mut over = rows[1]
        .after(change(RowState::Queued, 3_000, LONG))
        .expect("the store answers");
    over.account = other.clone();
    put(&store, &over, Some(rows[1].version)).await;
    assert_eq!(
        counts(&store, &account, &batch).await,
        [(RowState::Accepted, 1), (RowState::Sent, 1)]
    );
    assert_eq!(
        counts(&store, &other, &batch).await,
        [(RowState::Queued, 1)]
    );
    // A batch goes with its last row.
    let last = over
        .after(change(RowState::Failed, 4_000, LONG))
        .expect("not final");
    let stored = store
        .put(&last, Some(over.version), SOON)
        .await
        .expect("the store answers");
    assert_eq!(stored, Put::Stored);
    until("the batch is forgotten", || async {
        sweep_all(&store).await;
        let gone = counts(&store, &other, &batch).await.is_empty();
        gone.then_some(())
    })
    .await;
}

pub async fn batches_have_one_order_each(source: &dyn Source) {
    let store = source.client().await;
    let (account, other) = (unique("a"), unique("b"));
    let batch = unique("spring: sale");
    assert!(
        store
            .orders(&account)
            .await
            .expect("the store answers")
            .is_empty()
    );
    let set = async |order: Option<&Order>| {
        store
            .set_order(&account, &batch, order)
            .await
            .expect("the store answers");
    };
    set(Some(&Order::Pause)).await;
    set(Some(&Order::Reroute(other.clone()))).await;
    let client = source.client().await;
    assert_eq!(
        client.orders(&account).await.expect("the store answers"),
        BTreeMap::from([(batch.clone(), Order::Reroute(other.clone()))])
    );
    let all = async || client.all_orders().await.expect("the store answers");
    let key = (account.clone(), batch.clone());
    assert_eq!(all().await.get(&key), Some(&Order::Reroute(other.clone())));
    assert!(
        store
            .orders(&other)
            .await
            .expect("the store answers")
            .is_empty()
    );
    set(None).await;
    set(None).await;
    assert_eq!(all().await.get(&key), None);
    assert!(
        client
            .orders(&account)
            .await
            .expect("the store answers")
            .is_empty()
    );
}
