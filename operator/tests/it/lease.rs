//! The lease under a paused clock: two candidates before one mocked API server.

use crate::fake::{Fake, Instead};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vumi_operator::engine::lease::{Lease, Times};
use vumi_operator::gate::Gate;
use vumi_operator::metrics::Metrics;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases/vumi-operator";

struct Candidate {
    gate: Arc<Gate>,
    leading: watch::Receiver<bool>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Candidate {
    fn start(server: &Fake, name: &str) -> Self {
        Self::with(server, name, Times::default())
    }

    fn with(server: &Fake, name: &str, times: Times) -> Self {
        let api = server.api();
        let gate = Arc::clone(api.gate());
        let place = ("system".to_owned(), "vumi-operator".to_owned());
        let lease = Lease::new(api, Metrics::new(), times, place, name.to_owned());
        let (tell, leading) = watch::channel(false);
        let stop = CancellationToken::new();
        let task = tokio::spawn(lease.run(stop.clone(), tell));
        Self {
            gate,
            leading,
            stop,
            task,
        }
    }

    /// Waits until it leads, or does not any more. Returns how long that took.
    async fn until(&mut self, leads: bool) -> Duration {
        let began = Instant::now();
        let waited = self.leading.wait_for(|now| *now == leads);
        tokio::time::timeout(Duration::from_secs(120), waited)
            .await
            .unwrap()
            .unwrap();
        began.elapsed()
    }
}

fn holder(server: &Fake) -> String {
    let lease = server.object(PATH).unwrap();
    lease["spec"]["holderIdentity"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_goes_on_leading() {
    let (_, server) = Fake::start();
    let mut a = Candidate::start(&server, "a");
    a.until(true).await;
    let b = Candidate::start(&server, "b");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(a.gate.leads() && !b.gate.leads());
    assert_eq!(holder(&server), "a");
    let lease = server.object(PATH).unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], 0);
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 17);
}

#[tokio::test(start_paused = true)]
async fn who_stops_gives_it_back_at_once() {
    let (_, server) = Fake::start();
    let mut a = Candidate::start(&server, "a");
    a.until(true).await;
    let mut b = Candidate::start(&server, "b");
    tokio::time::sleep(Duration::from_secs(30)).await;
    a.stop.cancel();
    a.task.await.unwrap();
    assert!(!a.gate.leads());
    assert_eq!(holder(&server), "");
    // Its next attempt, at most.
    assert!(b.until(true).await <= Duration::from_millis(500));
    assert_eq!(server.object(PATH).unwrap()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_won_while_told_to_stop_is_given_back() {
    let (_, server) = Fake::start();
    let a = Candidate::start(&server, "a");
    let stop = a.stop.clone();
    // The write is on its way.
    server.instead(move |call| {
        if call.body["spec"]["holderIdentity"] == "a" {
            stop.cancel();
        }
        None
    });
    a.task.await.unwrap();
    let calls = server.calls();
    let won = calls.iter().any(|call| call.starts_with("POST leases"));
    assert!(won, "{calls:?}");
    assert_eq!(holder(&server), "");
    assert!(!*a.leading.borrow(), "it never led");
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_second_is_not_cut_off() {
    let (_, server) = Fake::start();
    let times = Times {
        duration: Duration::from_millis(17_900),
        renew_deadline: Duration::from_millis(17_200),
        ..Times::default()
    };
    let mut a = Candidate::with(&server, "a", times);
    a.until(true).await;
    let lease = server.object(PATH).unwrap();
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 18);
}

#[tokio::test(start_paused = true)]
async fn who_dies_is_replaced_when_its_lease_has_run_out() {
    let (_, server) = Fake::start();
    let mut a = Candidate::start(&server, "a");
    a.until(true).await;
    let mut b = Candidate::start(&server, "b");
    tokio::time::sleep(Duration::from_secs(30)).await;
    a.task.abort();
    let took = b.until(true).await;
    assert!(
        took > Duration::from_secs(14) && took <= Duration::from_secs(19),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_stops_writing_before_another_begins() {
    let (_, server) = Fake::start();
    let mut a = Candidate::start(&server, "a");
    a.until(true).await;
    let mut b = Candidate::start(&server, "b");
    tokio::time::sleep(Duration::from_secs(30)).await;
    // Only its own writes are lost: it reads, as if another write won each time.
    server.instead(|call| {
        let its = call.body["spec"]["holderIdentity"] == "a";
        its.then_some(Instead::Silence)
    });
    let stopped = a.until(false).await;
    assert!(stopped <= Duration::from_secs(12), "{stopped:?}");
    assert!(!a.gate.leads() && !b.gate.leads());
    let began = b.until(true).await;
    assert!(
        began >= Duration::from_secs(2),
        "{began:?} after the other had stopped"
    );
    assert!(!a.gate.leads());
}

#[tokio::test(start_paused = true)]
async fn one_slow_or_refused_attempt_costs_nothing() {
    let (_, server) = Fake::start();
    let mut a = Candidate::start(&server, "a");
    a.until(true).await;
    for round in 0..20 {
        let silent = round % 2 == 0;
        server.instead(move |_| {
            Some(match silent {
                true => Instead::Silence,
                false => Instead::Refusal(500, "etcd has another leader"),
            })
        });
        // Time for one attempt or two.
        tokio::time::sleep(Duration::from_secs(4)).await;
        server.mend();
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(a.gate.leads() && *a.leading.borrow(), "round {round}");
    }
    assert!(
        !a.leading.has_changed().unwrap(),
        "it never stopped leading"
    );
}
