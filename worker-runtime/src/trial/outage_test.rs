//! A provider that is away for six hours, in simulated time: real transports, real sockets, the embedded broker and
//! store; only the clocks are moved, all of them together.

use super::clock::Clock;
use super::outage::{self, AT_ONCE, MEMORY_KIB, MINUTE, OUTAGE, STEP, supervisor};
use super::peers::{Call, FakeServer, Shared, with};
use super::services::StoreOfTest;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vumi_api::{Flow, Port, Resource};
use vumi_core::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use vumi_core::broker::{Access, Broker, QueueSpec, Subscribe};
use vumi_core::conformance::stand_in;
use vumi_core::message::{Event, EventType, UserMessage};
use vumi_core::state::StateStore;
use vumi_core::state::journal::{Filter, Reason};
use vumi_core::state::ledger::RowState;
use vumi_core::supervisor::services::StateSource;
use vumi_testkit::resident;

/// Users of each provider; a tenth of them is written to in each minute.
const USERS: usize = 60;

fn transport(name: &str, port: u16) -> Resource {
    let send = serde_json::json!({
        "url": format!("http://127.0.0.1:{port}/send"),
        "parametersIn": "query",
        "method": "GET",
        "parameters": {"to": "{{ message.to_addr }}", "n": "{{ message.content }}"},
    });
    let spec = serde_json::json!({
        "genericHttp": {"send": send},
        "ordering": {"mode": "perUser"},
    });
    let manifest =
        serde_json::json!({"kind": "Transport", "metadata": {"name": name}, "spec": spec});
    stand_in::resource(&manifest).unwrap()
}

/// What a campaign sends, and what came of it.
struct Campaign {
    clock: Clock,
    broker: Arc<dyn Broker>,
    store: Arc<dyn StateStore>,
    /// Requests that providers took.
    calls: Shared<Call>,
    /// Events: provider, message and type.
    told: Shared<(String, String, EventType)>,
    minutes: usize,
    sent: BTreeMap<&'static str, Vec<(usize, usize)>>,
}

impl Campaign {
    async fn provider(&self, name: &str, port: u16) -> FakeServer {
        let answers = serde_yaml::from_str::<Vec<_>>("[{status: 202}]").unwrap();
        FakeServer::open_at(port, name, &answers, Arc::clone(&self.calls))
            .await
            .unwrap()
    }

    /// Keeps what transport `name` tells.
    async fn listen(&self, name: &'static str) {
        let mut events = self
            .broker
            .subscribe(Subscribe {
                queue: QueueSpec::Data(Port::new(name, Flow::Event).queue()),
                prefetch: 1000,
                access: Access::Shared,
                tag: "test".into(),
            })
            .await;
        let told = Arc::clone(&self.told);
        tokio::spawn(async move {
            while let Some(raw) = events.deliveries.recv().await {
                let event = Event::decode(&raw.body).unwrap();
                let id = event.user_message_id().to_owned();
                with(&told, |all| {
                    all.push((name.to_owned(), id, event.event_type()))
                });
                events.acker.ack(raw.generation, raw.tag, false);
            }
        });
    }

    /// One minute: messages to some users of both providers, then time passes.
    async fn minute(&mut self) {
        let number = self.minutes / 10;
        for user in (self.minutes % 10..USERS).step_by(10) {
            for name in ["dead", "live"] {
                let mut message = UserMessage::new("sms", Some(&format!("{user}")), Some("555"));
                message.set_message_id(&format!("{name} {user}/{number}"));
                message.set_transport_name(name);
                message.set_content(Some(&number.to_string()));
                let port = Port::new(name, Flow::Outbound);
                outage::publish(&*self.broker, &port, message.encode()).await;
                self.sent.entry(name).or_default().push((user, number));
            }
        }
        self.minutes += 1;
        self.clock.advance_by(AT_ONCE, AT_ONCE).await;
        assert_eq!(self.taken("live").len(), self.sent["live"].len(), "at once");
        self.clock.advance_by(MINUTE - AT_ONCE, STEP).await;
    }

    /// What a provider took, in order: user and number.
    fn taken(&self, name: &str) -> Vec<(usize, usize)> {
        let read = |call: &Call| {
            let (_, query) = call.path.split_once('?')?;
            let pairs: BTreeMap<&str, usize> = query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .filter_map(|(key, value)| Some((key, value.parse().ok()?)))
                .collect();
            Some((pairs["to"], pairs["n"]))
        };
        with(&self.calls, |calls| {
            let of = calls.iter().filter(|call| call.server == name);
            of.map(|call| read(call).unwrap()).collect()
        })
    }

    /// Each message came once, everyone's in order, and was told so, and nothing else was told.
    fn judge(&self, name: &str) {
        let by_user = |all: &[(usize, usize)]| {
            let mut users = BTreeMap::<usize, Vec<usize>>::new();
            for (user, number) in all {
                users.entry(*user).or_default().push(*number);
            }
            users
        };
        assert_eq!(
            by_user(&self.taken(name)),
            by_user(&self.sent[name]),
            "{name}"
        );
        with(&self.told, |told| {
            let of: Vec<_> = told.iter().filter(|(of, _, _)| of == name).collect();
            assert!(
                of.iter().all(|(_, _, kind)| *kind == EventType::Ack),
                "{of:?}"
            );
            let ids: BTreeSet<&str> = of.iter().map(|(_, id, _)| id.as_str()).collect();
            assert_eq!(
                (of.len(), ids.len()),
                (self.sent[name].len(), self.sent[name].len())
            );
        });
    }

    /// Rows in the ledger, by account and state.
    async fn rows(&self, account: &str) -> BTreeMap<RowState, u64> {
        let counts = self.store.counts().await.unwrap();
        let of = counts.into_iter().filter(|((of, _), _)| of == account);
        of.map(|((_, state), count)| (state, count)).collect()
    }
}

#[test]
fn a_provider_that_is_away_for_six_hours_leaves_others_unaffected_and_gets_everything_in_order() {
    outage::simulated(away);
}

async fn away(clock: Clock) {
    let folder = tempfile::tempdir().unwrap();
    let stores = StoreOfTest {
        beside: clock.beside(),
        folder: folder.path().to_owned(),
    };
    let embedded = EmbeddedBroker::start(EmbeddedOptions::default()).unwrap();
    clock.with_sockets();
    let mut campaign = Campaign {
        broker: embedded.connect(),
        store: stores.open(&transport("any", 1)).await.unwrap(),
        clock,
        calls: Shared::default(),
        told: Shared::default(),
        minutes: 0,
        sent: BTreeMap::new(),
    };
    let away = campaign.provider("dead", 0).await;
    let live = campaign.provider("live", 0).await;
    let port = |server: &FakeServer| server.origin.rsplit(':').next().unwrap().parse().unwrap();
    let (dead_port, live_port) = (port(&away), port(&live));
    let supervisor = supervisor(embedded, &campaign.store, Arc::default());
    for name in ["dead", "live"] {
        campaign.listen(name).await;
    }
    let resources = vec![transport("dead", dead_port), transport("live", live_port)];
    let applied = campaign
        .clock
        .drive(supervisor.apply(resources), MINUTE)
        .await;
    assert!(applied.unwrap().not_applied.is_empty());
    for _ in 0..5 {
        campaign.minute().await;
    }
    campaign.judge("dead");

    drop(away);
    let (minutes, before) = (OUTAGE.as_secs() / 60, campaign.taken("dead").len());
    let mut memory = 0;
    for minute in 0..minutes {
        campaign.minute().await;
        if minute == 60 {
            memory = resident();
        }
        if minute % 60 == 59 {
            println!("hour {}: {} KiB", minute / 60 + 1, resident());
        }
    }
    let (early, late) = (memory, resident());
    assert!(
        late <= early + MEMORY_KIB,
        "{early} KiB after an hour, {late} KiB after six"
    );
    campaign.judge("live");
    assert_eq!(campaign.taken("dead").len(), before);
    let depth = campaign.store.depth("dead.outbound").await.unwrap();
    let waiting = (campaign.sent["dead"].len() - before) as u64;
    assert_eq!((depth.messages, depth.lanes), (waiting, USERS as u64));
    let heads = campaign
        .store
        .list("dead.outbound", &Filter::default(), 100_000)
        .await
        .unwrap();
    for head in heads.iter().filter(|listed| listed.place == 0) {
        let about = &head.entry.about;
        // Every two and a half to five minutes in the end, and some before.
        assert!((72..170).contains(&about.attempts), "{about:?}");
        assert_eq!((about.reason, about.counted), (Reason::Backoff, 0));
    }
    let rows = campaign.rows("dead").await;
    let expected = [
        (RowState::SentFinal, before as u64),
        (RowState::Held, USERS as u64),
    ];
    assert_eq!(rows, BTreeMap::from(expected), "nothing ended");

    let back = campaign.provider("dead", dead_port).await;
    // Nobody waits longer than the longest back-off.
    for _ in 0..6 {
        campaign.minute().await;
    }
    campaign.clock.advance_by(MINUTE, STEP).await;
    for name in ["dead", "live"] {
        campaign.judge(name);
        let all = campaign.sent[name].len() as u64;
        assert_eq!(
            campaign.rows(name).await,
            BTreeMap::from([(RowState::SentFinal, all)])
        );
        let depth = campaign
            .store
            .depth(&format!("{name}.outbound"))
            .await
            .unwrap();
        assert_eq!(depth.messages, 0);
    }
    println!(
        "{} messages each, {early} KiB after an hour, {late} KiB after six",
        campaign.sent["dead"].len()
    );
    campaign
        .clock
        .drive(supervisor.shutdown(), 2 * MINUTE)
        .await;
    drop((back, live));
}
