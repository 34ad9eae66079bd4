//! Networks with a limit.

use super::*;

/// A network with a limit of parts a second, and a time in which its queue is full.
struct Limited {
    began: Instant,
    limit: u32,
    full: std::ops::Range<u64>,
    state: Mutex<Traffic>,
}

#[derive(Default)]
struct Traffic {
    second: u64,
    in_second: u32,
    /// Parts taken, and requests refused, by second.
    took: std::collections::BTreeMap<u64, (u32, u32)>,
    /// Numbers taken, by user.
    order: std::collections::HashMap<String, Vec<usize>>,
}

#[async_trait]
impl Worker for Limited {
    fn parts(&self, message: &UserMessage) -> u32 {
        if number(message).is_multiple_of(11) {
            3
        } else {
            1
        }
    }

    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let message = input.to_deliver()?;
        let parts = self.parts(message);
        let now = self.began.elapsed().as_secs();
        let mut state = self.state.lock().unwrap();
        if state.second != now {
            (state.second, state.in_second) = (now, 0);
        }
        let fits = state.in_second + parts <= self.limit && !self.full.contains(&now);
        let count = state.took.entry(now).or_default();
        if !fits {
            count.1 += 1;
            return Err(WorkError::new(
                ErrorClass::Throttled(None),
                codes::PEER_THROTTLED,
                "too fast",
            ));
        }
        count.0 += parts;
        state.in_second += parts;
        let user = message.to_addr().unwrap_or_default().to_owned();
        state.order.entry(user).or_default().push(number(message));
        let mut ack = Event::ack(message.message_id(), "r");
        ack.set_transport_name("t");
        Ok(vec![Output::new(Port::new("t", Flow::Event), ack)])
    }
}

/// Acceptance test 8 of the guarantees, in simulated time: a network that takes 50 parts a second and has a full queue for
/// 20 seconds; 5 000 single and 500 triple messages of 100 users.
#[tokio::test(start_paused = true)]
async fn a_network_with_a_limit_is_used_to_it_and_not_beyond() {
    const LIMIT: u32 = 50;
    let store = store();
    let limit = json!({"rateLimit": {"rate": LIMIT, "burst": 5, "unit": "parts"}});
    let bench = Bench::new(&store, limit, false);
    let network = Arc::new(Limited {
        began: Instant::now(),
        limit: LIMIT + 5,
        full: 60..80,
        state: Mutex::default(),
    });
    let worker: Arc<dyn Worker> = Arc::clone(&network) as _;
    let (_, desk) = bench.desk(&Life::until(0), None, worker);
    let desk = Arc::new(desk);
    let users = (0..100).map(|user| {
        let desk = Arc::clone(&desk);
        async move {
            for number in 0..55 {
                let mut message =
                    UserMessage::new("sms", Some(&format!("user{user}")), Some("555"));
                message.set_content(Some(&number.to_string()));
                let finished = Arc::clone(&desk).work(delivery(&message, false)).await;
                assert_eq!(finished.verdict, Verdict::Done);
            }
        }
    });
    futures::future::join_all(users).await;
    let state = network.state.lock().unwrap();
    assert_eq!(state.order.len(), 100);
    for numbers in state.order.values() {
        assert!(
            numbers.iter().copied().eq(0..55),
            "in order, none lost: {numbers:?}"
        );
    }
    let last = *state.took.keys().last().unwrap();
    let sum = |seconds: std::ops::Range<u64>| {
        let there = state.took.range(seconds.clone()).map(|(_, count)| *count);
        let all = there.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        (
            f64::from(all.0) / (seconds.end - seconds.start) as f64,
            all.1,
        )
    };
    // Settled: before the queue was full, and once the pace is regained.
    for settled in [30..60, 105..last] {
        let (per_second, refused) = sum(settled.clone());
        assert!(
            per_second >= 0.95 * f64::from(LIMIT),
            "{settled:?}: {per_second}"
        );
        assert_eq!(refused, 0, "{settled:?}");
    }
    let (_, refused) = sum(60..80);
    assert!(
        refused < 100,
        "a full queue is asked now and then, not hammered: {refused}"
    );
}
