//! Live figures: the metrics of a worker's running pods, read twice through the API server.

use super::figures::{Figures, Twice};
use super::metrics::Page;
use crate::cluster::{Cluster, Failed, objects};
use crate::commands::some;
use crate::named::{Named, of, read};
use crate::pods::{self, Pod};
use futures::future::join_all;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;
use tokio::sync::Semaphore;
use vumi_api::shared::shapes::ADMIN_PORT;
use vumi_api::{Kind, OrderingMode, Status};

/// Calls at one time, for all resources together.
const AT_ONCE: usize = 32;
/// How long a pod may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Between the two reads of a pod.
const SPAN: Duration = Duration::from_secs(1);

/// The figures of a worker, and why some are not known.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Live {
    /// The figures.
    #[serde(flatten)]
    pub(super) figures: Figures,
    /// What is not known, why, and what to do.
    pub(super) notes: Vec<String>,
}

impl Live {
    /// Nothing is known.
    fn none(note: String) -> Self {
        Self {
            figures: Figures::default(),
            notes: vec![note],
        }
    }
}

/// What was asked of a pod.
enum Asked {
    /// It answered twice.
    Answered(Box<Twice>),
    /// It is not there any more, and holds nothing.
    Gone,
    /// Whoever asks may not.
    Forbidden,
    /// It did not, and why.
    Silent(String),
}

/// The figures of these resources, in their order.
pub(super) async fn look(cluster: &Cluster, found: &[(Kind, Value)]) -> Vec<Live> {
    let calls = Semaphore::new(AT_ONCE);
    let looks = found.iter().map(|(kind, object)| {
        let namespace = object["metadata"]["namespace"].as_str();
        let place = Cluster {
            client: cluster.client.clone(),
            namespace: namespace.unwrap_or(&cluster.namespace).to_owned(),
        };
        let look = Look {
            cluster: place,
            calls: &calls,
            worker: of(*kind, object),
        };
        async move { look.at(object).await }
    });
    join_all(looks).await
}

/// A look at one worker.
struct Look<'a> {
    /// With the namespace of the worker.
    cluster: Cluster,
    calls: &'a Semaphore,
    worker: Named,
}

impl Look<'_> {
    async fn at(&self, object: &Value) -> Live {
        let resource = match read(self.worker.kind, object) {
            Ok(resource) => resource,
            Err(error) => return Live::none(error.text),
        };
        // The operator sees the queues of those who count nothing.
        let backlog = Status::of(object).backlog;
        let seen = backlog.map_or(String::new(), |class| {
            format!("; {class} messages wait in its queues, as the operator sees them")
        });
        if resource.in_container() {
            return Live::none(format!(
                "a program of its own: whether it has metrics only its author knows{seen}"
            ));
        }
        let running = match self.running().await {
            Ok(running) => running,
            Err(why) => return Live::none(why),
        };
        if running.is_empty() {
            return Live::none(format!("no pod runs, so that nothing is counted{seen}"));
        }
        let asked = join_all(running.iter().map(|pod| self.ask(pod))).await;
        let fenced = resource.ordering_mode() != OrderingMode::None;
        self.told(fenced, &running, asked)
    }

    /// Its pods in which the worker runs, those that are leaving as well: they have messages in hand.
    async fn running(&self) -> Result<Vec<Pod>, String> {
        let _place = self.calls.acquire().await;
        let mut found = pods::of(&self.cluster, &self.worker)
            .await
            .map_err(|error| {
                format!(
                    "its pods cannot be listed: {}; `kubectl vumi doctor` names the rights that you lack",
                    error.text
                )
            })?;
        found.retain(|pod| pod.running);
        Ok(found)
    }

    async fn ask(&self, pod: &Pod) -> Asked {
        let before = match self.page(pod).await {
            Ok(page) => page,
            Err(why) => return why,
        };
        tokio::time::sleep(SPAN).await;
        match self.page(pod).await {
            Ok(now) => Asked::Answered(Box::new(Twice { before, now })),
            Err(why) => why,
        }
    }

    async fn page(&self, pod: &Pod) -> Result<Page, Asked> {
        let pods = objects("v1", "Pod", &self.cluster.namespace);
        let name = &pod.name;
        let path = format!("{pods}/{name}:{ADMIN_PORT}/proxy/metrics");
        let answer = {
            let _place = self.calls.acquire().await;
            self.cluster.text(&path, DEADLINE).await
        };
        let silent = |failed: Failed| match failed.code {
            Some(403) => Asked::Forbidden,
            // The API server's own sentence: what a pod may answer has another one.
            Some(404) if failed.text.contains(&format!("pods {name:?} not found")) => Asked::Gone,
            _ => Asked::Silent(failed.text),
        };
        Page::parse(&answer.map_err(silent)?).map_err(Asked::Silent)
    }

    /// What came of it.
    fn told(&self, fenced: bool, pods: &[Pod], asked: Vec<Asked>) -> Live {
        let (mut answers, mut silent, mut why) = (Vec::new(), Vec::new(), String::new());
        for (pod, asked) in pods.iter().zip(asked) {
            match asked {
                Asked::Answered(twice) => answers.push(*twice),
                Asked::Gone => {}
                Asked::Forbidden => {
                    return Live::none(format!(
                        "you may not get pods/proxy in namespace {}, through which the metrics of pods are read; ask for that right, which the role `edit` has",
                        self.cluster.namespace
                    ));
                }
                Asked::Silent(text) => {
                    silent.push(pod.name.clone());
                    why = text;
                }
            }
        }
        if answers.is_empty() && silent.is_empty() {
            return Live::none("its pods went while they were asked: ask again".into());
        }
        let worker = self.worker.to_string();
        let figures = Figures::of(&worker, fenced, &answers, silent.is_empty());
        let mut notes = Vec::new();
        if !silent.is_empty() {
            notes.push(format!(
                "no metrics of {}: {why}; what takes all pods is left out. `kubectl vumi logs {worker}` may say more; a NetworkPolicy must let the API server reach port {ADMIN_PORT}",
                some(&silent),
            ));
        }
        let mut unknown = |missing: bool, why: &str| {
            if missing {
                notes.push(why.to_owned());
            }
        };
        unknown(
            !answers.is_empty() && figures.queued.is_none(),
            "no pod that answers is connected to the broker, so that what waits there is not known; `kubectl vumi doctor` says more of brokers",
        );
        let complete = silent.is_empty();
        unknown(
            complete && figures.oldest_seconds.is_none(),
            "all pods stand by at one of its queues: how old messages are, whoever reads it knows; ask again if pods are being replaced",
        );
        unknown(
            complete && figures.in_per_second.is_none(),
            "a pod began anew between the two reads: ask again for messages a second",
        );
        Live { figures, notes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::json;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::time::Instant;

    /// What an API server answers to a path, and nothing for ever if there is none.
    type Answers = fn(&str) -> Option<(u16, String)>;

    fn cluster(answers: Answers) -> Cluster {
        let service = tower::service_fn(move |request: Request<Body>| async move {
            let path = request.uri().path().to_owned();
            let Some((code, text)) = answers(&path) else {
                return std::future::pending().await;
            };
            let response = Response::builder().status(StatusCode::from_u16(code).unwrap());
            let response = response.body(Body::from(text.into_bytes())).unwrap();
            Ok::<_, std::io::Error>(response)
        });
        Cluster {
            client: kube::Client::new(service, "n"),
            namespace: "n".into(),
        }
    }

    fn refused(code: u16, message: &str) -> Option<(u16, String)> {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code,
        });
        Some((code, status.to_string()))
    }

    fn pods(names: &[&str]) -> Option<(u16, String)> {
        let pods = names.iter().map(|name| {
            json!({
                "metadata": {"name": name, "uid": name},
                "status": {"phase": "Running", "containerStatuses": [{"name": "worker", "state": {"running": {}}}]},
            })
        });
        let list = json!({"metadata": {}, "items": pods.collect::<Vec<_>>()});
        Some((200, list.to_string()))
    }

    const LIST: &str = "/api/v1/namespaces/n/pods";

    fn metrics(path: &str) -> Option<&str> {
        let rest = path.strip_prefix(LIST)?.strip_prefix('/')?;
        rest.strip_suffix(":9464/proxy/metrics")
    }

    /// A page that is a second older than the one before.
    fn page() -> Option<(u16, String)> {
        static AGE: AtomicU32 = AtomicU32::new(0);
        page_of(AGE.fetch_add(1, Ordering::Relaxed))
    }

    fn page_of(age: u32) -> Option<(u16, String)> {
        let text = format!(
            "vumi_uptime_seconds {age}
vumi_broker_up{{worker=\"transport/sms\"}} 1
vumi_queue_ready{{queue=\"sms.outbound\",worker=\"transport/sms\"}} 3
"
        );
        Some((200, text))
    }

    async fn seen(answers: Answers, spec: Value) -> Live {
        let object = json!({
            "metadata": {"name": "sms", "namespace": "n"},
            "spec": spec, "status": {"observedGeneration": 1, "backlog": "1+"},
        });
        let found = [(Kind::Transport, object)];
        look(&cluster(answers), &found).await.remove(0)
    }

    fn telnet() -> Value {
        json!({"telnet": {"port": 2323}})
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_says_nothing_holds_up_nobody_and_is_named() {
        let began = Instant::now();
        let live = seen(
            |path| match metrics(path) {
                Some("a") => page(),
                Some(_) => None,
                None => pods(&["a", "b"]),
            },
            telnet(),
        )
        .await;
        assert!(began.elapsed() <= DEADLINE + SPAN);
        assert_eq!(live.figures.queued, Some(3));
        assert_eq!(live.figures.in_flight, None);
        let note = &live.notes[0];
        assert!(
            note.contains("no metrics of b: the API server did not answer within 5 s"),
            "{note}"
        );
        assert!(note.contains("`kubectl vumi logs transport/sms`"), "{note}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_gone_holds_nothing() {
        let live = seen(
            |path| match metrics(path) {
                Some("a") => page(),
                Some(_) => refused(404, "pods \"b\" not found"),
                None => pods(&["a", "b"]),
            },
            telnet(),
        )
        .await;
        assert_eq!(live.figures.in_flight, Some(0));
        assert_eq!(live.figures.in_per_second, Some(0.0));
        assert_eq!(live.notes, Vec::<String>::new());
        // What answers so itself is there.
        let live = seen(
            |path| match metrics(path) {
                Some(_) => Some((404, "not found".into())),
                None => pods(&["a"]),
            },
            telnet(),
        )
        .await;
        assert!(live.notes[0].contains("no metrics of a: "), "{live:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_begins_anew_has_no_rate() {
        let live = seen(
            |path| match metrics(path) {
                Some(_) => page_of(0),
                None => pods(&["a"]),
            },
            telnet(),
        )
        .await;
        assert_eq!(
            (live.figures.in_flight, live.figures.in_per_second),
            (Some(0), None)
        );
        assert!(live.notes[0].contains("began anew"), "{live:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_right_is_named() {
        let live = seen(
            |path| match metrics(path) {
                Some(_) => refused(403, "pods \"a:9464\" is forbidden"),
                None => pods(&["a"]),
            },
            telnet(),
        )
        .await;
        assert_eq!(live.figures, Figures::default());
        assert!(live.notes[0].contains("you may not get pods/proxy in namespace n"));
        let live = seen(|_| refused(403, "pods is forbidden"), telnet()).await;
        assert!(live.notes[0].contains("pods is forbidden"), "{live:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_counts_nothing_is_not_asked() {
        let live = seen(|_| pods(&[]), telnet()).await;
        assert_eq!(
            live.notes,
            [
                "no pod runs, so that nothing is counted; 1+ messages wait in its queues, as the operator sees them"
            ]
        );
        let live = seen(|_| None, json!({"custom": {"image": "program"}})).await;
        assert!(live.notes[0].contains("a program of its own"), "{live:?}");
        let live = seen(|_| None, json!({"telnett": {}})).await;
        assert!(live.notes[0].contains("older than the CRDs"), "{live:?}");
    }
}
