//! The journal under random schedules, against a simple model of it: the same answers, step by step.

use super::journal::{NOW, append, lane, remove, text};
use super::{Dice, LONG, Source, unique};
use std::collections::{BTreeMap, VecDeque};
use vumi_core::state::journal::{Due, Filter, Journal, Lane, Next, Step};

/// Schedules of one run of the suite.
const RUNS: u64 = 100;
const STEPS: usize = 40;

/// When a lane may be worked on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Time {
    Due,
    Later,
    Released,
}

#[derive(Debug, Default)]
struct Model {
    lanes: BTreeMap<Lane, ModelLane>,
    next: u64,
}

#[derive(Debug)]
struct ModelLane {
    bodies: VecDeque<String>,
    time: Time,
    claimed: bool,
}

impl Model {
    fn append(&mut self, lane: &Lane, time: Time) -> String {
        self.next += 1;
        let body = self.next.to_string();
        let new = || ModelLane {
            bodies: VecDeque::new(),
            time,
            claimed: false,
        };
        let entry = self.lanes.entry(lane.clone()).or_insert_with(new);
        entry.bodies.push_back(body.clone());
        body
    }

    fn claimable(&self, group: &str) -> Vec<Lane> {
        let free = |l: &ModelLane| !l.claimed && l.time == Time::Due;
        let lanes = self.lanes.iter();
        let lanes = lanes.filter(|(lane, state)| lane.group == group && free(state));
        lanes.map(|(lane, _)| lane.clone()).collect()
    }

    fn pop(&mut self, lane: &Lane, body: &str) -> String {
        let state = self.lanes.get_mut(lane).expect("the lane is there");
        let at = state
            .bodies
            .iter()
            .position(|b| b == body)
            .expect("the body is there");
        let body = state.bodies.remove(at).expect("at its place");
        if state.bodies.is_empty() {
            self.lanes.remove(lane);
        }
        body
    }

    fn messages(&self) -> usize {
        self.lanes.values().map(|lane| lane.bodies.len()).sum()
    }
}

fn due(time: Time) -> Due {
    match time {
        Time::Due => NOW,
        Time::Later => Due::After(LONG),
        Time::Released => Due::Released,
    }
}

pub async fn journal_follows_its_model(source: &impl Source) {
    let clients = [source.client().await, source.client().await];
    for seed in 1..=RUNS {
        let mut dice = Dice::new(seed);
        let (queue, mut model) = (unique("q"), Model::default());
        let mut claims = BTreeMap::new();
        for _ in 0..STEPS {
            let store = &clients[dice.roll(2) as usize];
            let group = ["", "g"][dice.roll(2) as usize];
            let times = [Time::Due, Time::Due, Time::Later, Time::Released];
            let time = times[dice.roll(4) as usize];
            let one = lane(group, dice.roll(3));
            match dice.roll(10) {
                0..=2 => {
                    let mut messages = Vec::new();
                    for _ in 0..=dice.roll(3) {
                        let body = model.append(&one, time);
                        messages.push(append(&one, due(time), &body));
                    }
                    store.append(&queue, messages).await.expect("append");
                }
                3..=4 => {
                    let limit = dice.roll(3) as usize;
                    let free = model.claimable(group);
                    let heads = store
                        .claim(&queue, group, limit, LONG)
                        .await
                        .expect("claim");
                    assert_eq!(heads.len(), free.len().min(limit), "seed {seed}: {model:?}");
                    for head in heads {
                        assert!(free.contains(&head.lane), "seed {seed}");
                        let state = model.lanes.get_mut(&head.lane).expect("known");
                        assert!(!state.claimed, "seed {seed}: claimed twice");
                        assert_eq!(text(&head), state.bodies[0], "seed {seed}: the head");
                        state.claimed = true;
                        claims.insert(head.lane.clone(), head);
                    }
                }
                5..=7 => {
                    let Some((at, head)) = claims.pop_first() else {
                        continue;
                    };
                    let moved = model
                        .lanes
                        .get(&at)
                        .is_none_or(|l| l.bodies[0] != text(&head));
                    let again = dice.roll(3) == 0;
                    let step = if again {
                        Step::Again(head.entry.about.clone(), due(time))
                    } else {
                        Step::Done
                    };
                    let next = store
                        .step(&queue, &at, head.id, step, LONG)
                        .await
                        .expect("step");
                    if moved {
                        assert_eq!(next, Next::Moved, "seed {seed}");
                        continue;
                    }
                    if again {
                        assert_eq!(next, Next::Waits, "seed {seed}");
                        let state = model.lanes.get_mut(&at).expect("known");
                        (state.claimed, state.time) = (false, time);
                        continue;
                    }
                    model.pop(&at, &text(&head));
                    match (next, model.lanes.get_mut(&at)) {
                        (Next::Head(next), Some(state)) => {
                            assert_eq!(text(&next), state.bodies[0], "seed {seed}");
                            assert!(next.id > head.id, "seed {seed}: ids rise");
                            (state.claimed, state.time) = (true, Time::Due);
                            claims.insert(at, next);
                        }
                        (Next::Empty, None) => {}
                        (next, state) => panic!("seed {seed}: {next:?} for {state:?}"),
                    }
                }
                8 => match dice.roll(2) {
                    0 => {
                        store.reclaim(&queue).await.expect("reclaim");
                        model
                            .lanes
                            .values_mut()
                            .for_each(|lane| lane.claimed = false);
                        claims.clear();
                    }
                    _ => {
                        let filter = Filter {
                            lane: Some(one.number),
                            ..Filter::default()
                        };
                        let mut released = 0;
                        for (lane, state) in &mut model.lanes {
                            if lane.number == one.number {
                                (state.time, released) = (Time::Due, released + 1);
                            }
                        }
                        let count = Journal::release(&**store, &queue, &filter)
                            .await
                            .expect("release");
                        assert_eq!(count, released, "seed {seed}");
                    }
                },
                _ => {
                    let all = store
                        .list(&queue, &Filter::default(), 100)
                        .await
                        .expect("list");
                    let Some(victim) = all.get(dice.roll(4) as usize) else {
                        continue;
                    };
                    let filter = Filter {
                        ids: Some(vec![victim.id]),
                        ..Filter::default()
                    };
                    let removed = remove(store, &queue, &filter, 10).await;
                    let in_hand = victim.place == 0 && model.lanes[&victim.lane].claimed;
                    assert_eq!(removed.len(), usize::from(!in_hand), "seed {seed}");
                    if in_hand {
                        continue;
                    }
                    let body = String::from_utf8_lossy(&victim.entry.body).into_owned();
                    model.pop(&victim.lane, &body);
                }
            }
            let depth = store.depth(&queue).await.expect("depth");
            let expected = (model.messages() as u64, model.lanes.len() as u64);
            assert_eq!((depth.messages, depth.lanes), expected, "seed {seed}");
        }
        let listed = clients[0]
            .list(&queue, &Filter::default(), 1000)
            .await
            .expect("list");
        let mut there: BTreeMap<Lane, VecDeque<String>> = BTreeMap::new();
        for one in listed {
            let bodies = there.entry(one.lane).or_default();
            assert_eq!(one.place, bodies.len() as u64, "seed {seed}");
            bodies.push_back(String::from_utf8_lossy(&one.entry.body).into_owned());
        }
        let expected = model
            .lanes
            .iter()
            .map(|(lane, l)| (lane.clone(), l.bodies.clone()));
        assert_eq!(there, expected.collect(), "seed {seed}");
        clients[1].reclaim(&queue).await.expect("reclaim");
        let removed = remove(&clients[1], &queue, &Filter::default(), 1000).await;
        assert_eq!(removed.len(), model.messages(), "seed {seed}");
    }
}
