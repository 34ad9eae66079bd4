//! The people and programs of the loss test. What is not answered is sent again: by HTTP with the same id, by telnet
//! as a new line, which is another message.

use super::observer::Ledger;
use crate::harness::http::Client;
use crate::harness::telnet::Telnet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use vumi_core::message::derived_id;

/// Longer than a transport waits for the broker.
const ANSWER: Duration = Duration::from_secs(15);
/// Why a request may have no answer: its holder was killed, before or while the reply was handed over, or the caller was
/// cut off.
const UNANSWERED: [&str; 3] = ["reply.holder_gone", "fate.unknown", "reply.session_closed"];
const PAUSE: Duration = Duration::from_millis(100);
/// Lines of a telnet user under way.
const WINDOW: usize = 10;
/// Messages under way above which bulk senders pause, so that those who wait for each reply do not wait for a flood.
const FLOOD: usize = 2000;

/// Which share of the messages may have been sent by now: a fast machine must not be done before the last fault.
#[derive(Clone)]
pub struct Pace(pub watch::Receiver<f64>);

impl Pace {
    /// Waits until the message `number` of `total` may be sent.
    pub async fn turn(&mut self, number: usize, total: usize) {
        let share = number as f64 / total as f64;
        if self.0.wait_for(|allowed| *allowed >= share).await.is_err() {
            // The test is over.
            std::future::pending::<()>().await;
        }
    }
}

/// Sends the messages of several users over one connection: `(user, how many)`. Each message is repeated until its 200.
pub async fn http_client(
    port: u16,
    mut users: Vec<(usize, usize)>,
    ledger: Arc<Ledger>,
    mut pace: Pace,
) {
    let most = users.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let mut client = Client::new(port);
    let mut number = 0;
    users.retain(|(_, count)| *count > 0);
    while !users.is_empty() {
        pace.turn(number, most).await;
        while ledger.under_way() > FLOOD {
            tokio::time::sleep(PAUSE / 4).await;
        }
        for (user, _) in &users {
            let token = format!("u{user}.{number}");
            let address = format!("u{user}");
            let (status, body) = post(&mut client, &token, &address).await;
            let expected = derived_id(&["inbound", "http", &token]);
            assert!(status == 200 && body.contains(&expected), "{token}: {body}");
            ledger.owe(&token, &address);
        }
        number += 1;
        users.retain(|(_, count)| number < *count);
    }
}

/// Sends one message until it is answered for good, each time with the same id; the status and the body.
async fn post(client: &mut Client, token: &str, address: &str) -> (u16, String) {
    let path = format!("/messages?content={token}&from_addr={address}&to_addr=12345&id={token}");
    loop {
        match client.get(&path, ANSWER).await {
            Ok(answer @ (200 | 502, _)) => return answer,
            // Refused while nobody listens, cut off, 503 while the broker is away or full or the request is being taken
            // over, 504 if the reply took too long.
            Ok((503 | 504, _)) | Err(_) => tokio::time::sleep(PAUSE).await,
            Ok(other) => panic!("{token}: {other:?}"),
        }
    }
}

/// A user whose requests wait for the reply: each 200 is the echo of the message's number. A reply that was lost with the
/// replica that held its request does not come again; then the repeat is told so, and the application is.
pub async fn talk_user(port: u16, user: usize, count: usize, ledger: Arc<Ledger>, mut pace: Pace) {
    let mut client = Client::new(port);
    let address = format!("a{user}");
    for number in 0..count {
        pace.turn(number, count).await;
        let token = format!("{address}.{number}");
        let (status, body) = post(&mut client, &token, &address).await;
        ledger.owe(&token, &address);
        if status == 200 {
            assert_eq!(body, token, "the answer is the echo of the message");
            ledger.heard(&token, "the answer", &address);
        } else {
            let lost = UNANSWERED.iter().any(|code| body.contains(code));
            assert!(lost, "{token}: {body}");
            ledger.unanswered();
        }
    }
}

/// Says `lines` numbered lines and hears each of them again; after a cut, those without an echo once more.
pub async fn telnet_user(
    port: u16,
    user: usize,
    lines: usize,
    ledger: Arc<Ledger>,
    mut pace: Pace,
) {
    let (mut heard, mut connections) = (0, 0);
    while heard < lines {
        connections += 1;
        let Ok(mut telnet) = Telnet::connect(port).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // A user of the platform is an address, that is one connection.
        let connection = format!("t{user}.{connections}");
        let mut waiting = VecDeque::new();
        let mut said = heard;
        loop {
            pace.turn(heard, lines).await;
            while said < lines && waiting.len() < WINDOW {
                let token = format!("{connection}.{said}");
                if telnet.say(&token).await.is_err() {
                    break;
                }
                waiting.push_back(token);
                said += 1;
            }
            let Some(expected) = waiting.pop_front() else {
                break;
            };
            match telnet.hear(ANSWER * 2).await {
                Some(line) if line == expected => {
                    ledger.owe(&expected, &connection);
                    ledger.heard(&expected, "telnet", &connection);
                    heard += 1;
                }
                // "Busy", a goodbye, or the end: what was not echoed is not owed.
                Some(line) => {
                    assert!(!waiting.contains(&line), "{line} overtook {expected}");
                    tokio::time::sleep(PAUSE).await;
                    break;
                }
                None => break,
            }
        }
    }
}
