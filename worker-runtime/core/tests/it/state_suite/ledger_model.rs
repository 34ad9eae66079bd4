//! The ledger under random schedules, against a simple model of it: the same answers, step by step.

use super::ledger::{change, step};
use super::{Dice, LONG, Source, unique};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use vumi_core::state::ledger::{Counts, LeftTo, Note, Put, Query, Row, RowState, Step};

/// Schedules of one run of the suite.
const RUNS: u64 = 100;
const STEPS: usize = 30;

pub async fn ledger_follows_its_model(source: &impl Source) {
    let clients = [source.client().await, source.client().await];
    for seed in 1..=RUNS {
        let mut dice = Dice::new(seed);
        let accounts = [unique("sms"), unique("sms")];
        let people = [unique("person"), unique("person")];
        let ids: Vec<String> = (0..5).map(|_| unique("m")).collect();
        let mut rows: BTreeMap<String, Row> = BTreeMap::new();
        let mut trails: BTreeMap<String, (Option<String>, Vec<Step>)> = BTreeMap::new();
        for at in 0..STEPS as u64 {
            let store = &clients[dice.roll(2) as usize];
            let id = &ids[dice.roll(5) as usize];
            match dice.roll(4) {
                0 => {
                    let note = Note {
                        message_id: id.clone(),
                        person: Some(people[dice.roll(2) as usize].clone()),
                        step: step(at, "passed"),
                    };
                    let trail = trails.entry(id.clone()).or_default();
                    trail.0 = trail.0.take().or(note.person.clone());
                    trail.1.push(note.step.clone());
                    store.note(&[note], LONG).await.expect("note");
                    assert_eq!(
                        store.trail(id).await.expect("trail"),
                        trail.1,
                        "seed {seed}"
                    );
                }
                _ => {
                    let current = rows.get(id).cloned();
                    let mut base = current.clone().unwrap_or_else(|| {
                        let mut row = Row::new(id, &accounts[dice.roll(2) as usize], at);
                        row.person = Some(people[dice.roll(2) as usize].clone());
                        row
                    });
                    if current.is_some() && dice.roll(4) == 0 {
                        // As if read before another step.
                        base.version = base.version.wrapping_sub(1);
                    }
                    let state = RowState::ALL[dice.roll(12) as usize];
                    // Overdue at once, or not at all.
                    let patience = Duration::from_secs(dice.roll(2) * 10_000_000_000);
                    let mut change = change(state, at, patience);
                    change.remote_id = (dice.roll(3) == 0).then(|| format!("r{}", dice.roll(3)));
                    let Some(next) = base.after(change) else {
                        continue;
                    };
                    let expected = current.as_ref().map(|_| base.version);
                    let fits = current.as_ref().map(|row| row.version) == expected;
                    let put = store.put(&next, expected, LONG).await.expect("put");
                    match (put, fits) {
                        (Put::Stored, true) => {
                            rows.insert(id.clone(), next);
                        }
                        (Put::Conflict(row), false) => assert_eq!(Some(*row), current),
                        (put, _) => panic!("seed {seed}: {put:?}"),
                    }
                }
            }
            assert_eq!(
                store.row(id).await.expect("row").as_ref(),
                rows.get(id),
                "seed {seed}"
            );
        }
        let store = &clients[0];
        let mut expected = Counts::new();
        for row in rows.values() {
            *expected
                .entry((row.account.clone(), row.state))
                .or_default() += 1;
        }
        let mut counts = store.counts().await.expect("counts");
        counts.retain(|(account, _), count| accounts.contains(account) && *count > 0);
        assert_eq!(counts, expected, "seed {seed}");
        for account in &accounts {
            let of_account = || rows.values().filter(|row| row.account == *account);
            for state in RowState::ALL {
                let found = store.in_state(account, state, 100).await.expect("in state");
                let found: BTreeSet<String> = found.into_iter().collect();
                let expected = of_account().filter(|row| row.state == state);
                let expected = expected.map(|row| row.message_id.clone()).collect();
                assert_eq!(found, expected, "seed {seed}: {state:?}");
            }
            for left_to in [LeftTo::Rules, LeftTo::Person] {
                let mut late: Vec<&Row> = of_account().collect();
                late.retain(|row| row.deadline.is_some_and(|at| at < 1_000_000));
                late.retain(|row| row.left_to() == left_to);
                let overdue = store.overdue(account, left_to, 0, 100).await;
                let (count, found) = overdue.expect("overdue");
                assert_eq!(
                    (count, found.len()),
                    (late.len() as u64, late.len()),
                    "seed {seed}: {left_to:?}"
                );
                assert!(
                    late.iter().all(|row| found.contains(&row.message_id)),
                    "seed {seed}: {left_to:?}"
                );
            }
            for remote in ["r0", "r1", "r2"] {
                let mut with = of_account().filter(|row| row.remote_id.as_deref() == Some(remote));
                let expected = with.next().filter(|_| with.next().is_none());
                let found = store
                    .by_remote_id(account, remote)
                    .await
                    .expect("by remote id");
                assert_eq!(found.as_ref(), expected, "seed {seed}");
            }
        }
        for person in &people {
            let found = store
                .find(&Query::Person(person.clone()), 100)
                .await
                .expect("find");
            let of_rows = rows
                .values()
                .filter(|row| row.person.as_ref() == Some(person));
            let of_trails = trails
                .iter()
                .filter(|(_, trail)| trail.0.as_ref() == Some(person));
            let expected: BTreeSet<&String> = of_rows
                .map(|row| &row.message_id)
                .chain(of_trails.map(|(id, _)| id))
                .collect();
            assert_eq!(
                found.iter().collect::<BTreeSet<_>>(),
                expected,
                "seed {seed}"
            );
            assert_eq!(found.len(), expected.len(), "seed {seed}: each once");
        }
    }
}
