//! The queues of a worker under test, before and between cases.

use super::{Candidate, address};
use crate::parking::parked_queue;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};

/// Removes the queues of `candidate` with all that is in them, so that a case finds what the worker itself declares.
pub(super) async fn remove(candidate: &Candidate) -> Result<(), String> {
    let failed =
        |error: lapin::Error| format!("queues of the last case cannot be removed: {error}");
    let connection = connect(candidate).await?;
    let channel = connection.create_channel().await.map_err(failed)?;
    for queue in all(candidate) {
        channel
            .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
            .await
            .map_err(failed)?;
    }
    let _ = connection.close(200, "done".into()).await;
    Ok(())
}

/// What is in the way: queues of this name that somebody uses or that hold messages.
pub(super) async fn in_use(candidate: &Candidate) -> Result<Vec<String>, String> {
    let connection = connect(candidate).await?;
    let mut found = Vec::new();
    for queue in all(candidate) {
        // A channel is closed by the answer that there is no such queue.
        let channel = connection
            .create_channel()
            .await
            .map_err(|e| e.to_string())?;
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let look = channel.queue_declare(queue.as_str().into(), passive, FieldTable::default());
        let Ok(queue) = look.await else { continue };
        let (messages, consumers) = (queue.message_count(), queue.consumer_count());
        if messages > 0 || consumers > 0 {
            found.push(format!(
                "{} has {messages} messages and {consumers} consumers",
                queue.name()
            ));
        }
    }
    let _ = connection.close(200, "done".into()).await;
    Ok(found)
}

async fn connect(candidate: &Candidate) -> Result<Connection, String> {
    let uri = address::uri(&candidate.url)?;
    let connected = Connection::connect_uri(uri, ConnectionProperties::default()).await;
    connected.map_err(|error| format!("the broker cannot be reached: {error}"))
}

fn all(candidate: &Candidate) -> Vec<String> {
    let topology = candidate.topology();
    let ports = topology.intake.iter().chain(&topology.replies);
    let consumed: Vec<String> = ports.map(|port| port.queue()).collect();
    let parked = consumed.iter().map(|queue| parked_queue(queue));
    let published = topology.publishes.iter().map(|port| port.queue());
    parked.chain(published).chain(consumed.clone()).collect()
}
