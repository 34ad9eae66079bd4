//! A message moves a conversation once, whatever is repeated, races or fails.

use super::{Conversation, Line, Page, Talk};
use crate::testing::{Bench, handle, ids, texts};
use async_trait::async_trait;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::UserMessage;
use vumi_core::state::around::Around;
use vumi_core::state::sessions::Session;
use vumi_core::state::{Person, StateStore};
use vumi_core::worker::Worker;

const SCOPE: &str = "counter";

/// Counts all messages in one session for everybody, so that everybody is in everybody's way, and tells who spoke before.
#[derive(Default)]
struct Counter;

#[async_trait]
impl Conversation for Counter {
    async fn turn(
        &self,
        message: &UserMessage,
        _: &Person,
        page: &mut Page<'_>,
    ) -> Result<Vec<Line>, WorkError> {
        let mut all = page.read(SCOPE, "all").await?.unwrap_or_default();
        let count = all.get("count").map_or(0, |n| n.parse().unwrap()) + 1_u32;
        all.insert("count".into(), count.to_string());
        let before = all.insert("last".into(), super::text_of(message));
        page.write(SCOPE, "all", Some(all), None).await?;
        let before = before.map(|before| super::message_of(&before).unwrap());
        let told = before.map(|before| Line::tell(before, format!("then came {count}")));
        let own = Line::reply(count.to_string()).ends(count.is_multiple_of(2));
        Ok([Some(own), told].into_iter().flatten().collect())
    }
}

async fn bench() -> Bench {
    // Any type: only its context and store are used.
    Bench::open::<crate::calculator::Def>(json!({"calculator": {}})).await
}

fn talk(bench: &Bench) -> Arc<dyn Worker> {
    Talk::new(Counter, bench.cx()).unwrap()
}

async fn count(store: &Arc<dyn StateStore>) -> u32 {
    let all = store.load(SCOPE, "all").await.unwrap();
    all.map_or(0, |all: Session| all["count"].parse().unwrap())
}

#[tokio::test]
async fn a_repeat_says_the_same_however_late_and_moves_nothing() {
    let bench = bench().await;
    let worker = talk(&bench);
    let messages: Vec<_> = ["a", "b", "a", "c"]
        .iter()
        .map(|user| bench.message(user, Some("x"), None))
        .collect();
    let mut said = Vec::new();
    for message in &messages {
        said.push(handle(&worker, message).await.unwrap());
    }
    assert_eq!(texts(&messages[0], &said[0]), ["1"]);
    assert_eq!(texts(&messages[1], &said[1]), ["2 (end)", "a! then came 2"]);
    // Another process, which was never there.
    let worker = talk(&bench);
    for (message, first) in messages.iter().zip(&said) {
        let again = handle(&worker, message).await.unwrap();
        assert_eq!(ids(&again), ids(first));
        assert_eq!(texts(message, &again), texts(message, first));
    }
    assert_eq!(count(&bench.store()).await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_handle_the_same_messages_at_once_move_it_once_for_each() {
    const MESSAGES: usize = 60;
    let bench = bench().await;
    let workers = [talk(&bench), talk(&bench)];
    let messages: Vec<_> = (0..MESSAGES)
        .map(|n| bench.message(&format!("user{n}"), Some("x"), None))
        .collect();
    let tasks = messages.iter().flat_map(|message| {
        workers.iter().map(|worker| {
            let (worker, message) = (Arc::clone(worker), message.clone());
            tokio::spawn(async move {
                // Contention is a temporary error, after which the engine tries again.
                loop {
                    match handle(&worker, &message).await {
                        Ok(said) => return (message, said),
                        Err(error) => assert_eq!(error.code, codes::STATE_CONTENDED),
                    }
                }
            })
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut numbers = Vec::new();
    let mut first: Option<(UserMessage, Vec<UserMessage>)> = None;
    for task in tasks {
        let (message, said) = task.await.unwrap();
        match first.take() {
            None => {
                numbers.push(said[0].content().unwrap().parse::<usize>().unwrap());
                first = Some((message, said));
            }
            Some((same, before)) => {
                assert_eq!(same.message_id(), message.message_id());
                assert_eq!(ids(&before), ids(&said));
                assert_eq!(texts(&same, &before), texts(&message, &said));
            }
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=MESSAGES).collect::<Vec<_>>());
}

/// A store whose operations are carried out, and whose answers get lost when it is told so.
struct Lossy {
    inner: Arc<dyn StateStore>,
    loses: Mutex<Option<&'static str>>,
    lost: AtomicBool,
}

#[async_trait]
impl Around for Lossy {
    fn inner(&self) -> &Arc<dyn StateStore> {
        &self.inner
    }

    async fn around<T: Send>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, WorkError>> + Send,
    ) -> Result<T, WorkError> {
        let done = work.await;
        let mut loses = self.loses.lock().unwrap();
        if *loses != Some(operation) {
            return done;
        }
        *loses = None;
        self.lost.store(true, Ordering::Relaxed);
        let text = "the answer was lost";
        Err(WorkError::new(
            ErrorClass::Connect,
            codes::STATE_UNREACHABLE,
            text,
        ))
    }
}

#[tokio::test]
async fn a_lost_answer_of_the_store_is_an_error_and_trying_again_moves_nothing_more() {
    for operation in ["sessions.load", "sessions.change"] {
        let bench = bench().await;
        let store = Arc::new(Lossy {
            inner: bench.store(),
            loses: Mutex::new(Some(operation)),
            lost: AtomicBool::new(false),
        });
        let worker: Arc<dyn Worker> = Arc::new(Talk {
            conversation: Counter,
            cx: bench.cx(),
            store: Arc::clone(&store) as Arc<dyn StateStore>,
            keep: super::kept(&bench.cx()),
            crowded: Default::default(),
        });
        let message = bench.message("a", Some("x"), None);
        let error = handle(&worker, &message).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Connect);
        assert!(store.lost.load(Ordering::Relaxed));
        let said = handle(&worker, &message).await.unwrap();
        assert_eq!(texts(&message, &said), ["1"]);
        assert_eq!(count(&bench.store()).await, 1, "{operation}");
    }
}

#[tokio::test]
async fn what_was_told_to_an_erased_person_is_not_told_again() {
    let bench = bench().await;
    let worker = talk(&bench);
    let (first, second) = (
        bench.message("+27821", Some("x"), None),
        bench.message("+27822", Some("x"), None),
    );
    handle(&worker, &first).await.unwrap();
    let said = handle(&worker, &second).await.unwrap();
    assert_eq!(texts(&second, &said), ["2 (end)", "+27821! then came 2"]);
    let erased = bench.store().erase(&Person::new("27821")).await.unwrap();
    let sessions = erased.iter().find(|erased| erased.what == "sessions");
    assert_eq!(sessions.map(|s| s.count), Some(2), "{erased:?}");
    let said = handle(&worker, &second).await.unwrap();
    assert_eq!(texts(&second, &said), ["2 (end)"]);
}

#[tokio::test]
async fn a_message_without_a_sender_is_bad_input() {
    let bench = bench().await;
    for from in [None, Some(""), Some("  ")] {
        let message = UserMessage::new("ussd", Some("*120#"), from);
        let error = handle(&talk(&bench), &message).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::BadInput);
        assert_eq!(error.code, codes::MESSAGE_INVALID);
    }
    assert_eq!(count(&bench.store()).await, 0);
}
